"""docs/agents.md: its configurations load, and its table names every update there is."""

import re
from pathlib import Path

import acp.schema
import pytest

from broker.agents.kinds import kind_for
from broker.config.load import load

PAGE = (Path(__file__).parents[2] / "docs" / "agents.md").read_text()
KEYS = {"ANTHROPIC_API_KEY": "a", "GEMINI_API_KEY": "g"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_configuration_on_the_page_loads(text: str, tmp_path: Path):
    file = tmp_path / "config.yaml"
    agents = re.findall(r"^  ([\w-]+):$", text, re.MULTILINE)
    file.write_text(f"{text}\ndefault_agent: {agents[0]}\n")
    profiles = load(file, KEYS, {}).settings.agents
    assert set(agents) <= set(profiles)
    assert all(kind_for(profiles[name]) for name in agents)


def test_the_page_shows_both_kinds_and_the_four_kinds_of_agents():
    assert len(blocks("yaml")) == 6


def test_the_pydantic_example_is_the_one_that_is_tested():
    (example,) = blocks("python")
    script = (Path(__file__).parent / "acp" / "scripts" / "pydantic_agent.py").read_text()
    tested = script.partition("\n\n")[2].replace('\n\nif __name__ == "__main__":\n    run_acp', "\nrun_acp")
    assert example.split() == tested.split()


def test_every_update_the_sdk_knows_is_in_the_table_or_falls_under_any_other():
    known = {
        kind
        for name in dir(acp.schema)
        if (field := getattr(getattr(acp.schema, name), "model_fields", {}).get("session_update")) is not None
        for kind in getattr(field.annotation, "__args__", ())
    }
    assert "agent_message_chunk" in known
    unstable = {"plan_update", "plan_removed", "notice", "compaction_update", "compaction_summary_chunk"}
    missing = {kind for kind in known if f"`{kind}`" not in PAGE}
    assert missing <= unstable
