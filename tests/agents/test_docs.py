"""docs/agents.md and the agents' protocol in docs/protocol.md: configurations load, tables name all there is."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import acp.schema
import attrs
import pytest

from broker.agents.echo.faults import FAULTS
from broker.agents.kinds import kind_for
from broker.agents.port import Opening
from broker.agents.remote.frames import hello_of, read
from broker.agents.remote.pool import Pool
from broker.agents.remote.projects import SAID
from broker.agents.remote.reports import REPORTS
from broker.config.load import load
from broker.config.profiles import AgentProfile
from broker.messages import AgentEvent, Prompt, TurnSettled
from broker.testing import ManualClock

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "agents.md").read_text()
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
KEYS = {"ANTHROPIC_API_KEY": "a", "GEMINI_API_KEY": "g", "AGENTS_TOKEN": "t"}


def blocks(language: str, containing: str = "", page: str = PAGE) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    return [block for block in found if containing in block]


def rows_below(heading: str) -> set[str]:
    """Return the first cells of the table that follows a heading of docs/protocol.md."""
    part = re.split(r"^#", PROTOCOL.partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`.+?) \|", part, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_configuration_on_the_page_loads(text: str, tmp_path: Path):
    file = tmp_path / "config.yaml"
    agents = re.findall(r"^  ([\w-]+):$", text, re.MULTILINE)
    file.write_text(f"{text}\ndefault_agent: {agents[0]}\n")
    profiles = load(file, KEYS, {}).settings.agents
    assert set(agents) <= set(profiles)
    assert all(kind_for(profiles[name]) for name in agents)


def test_the_page_shows_a_profile_of_every_kind():
    kinds = {attrs.fields(profile).kind.default for profile in get_args(AgentProfile)}
    assert {kind for text in blocks("yaml") for kind in re.findall(r"^    kind: (\w+)$", text, re.MULTILINE)} == kinds
    assert [kind for kind in kinds if f"\n## {kind}\n" not in PAGE] == []


def test_the_pydantic_example_is_the_one_that_is_tested():
    (example,) = blocks("python", "TestModel")
    script = (Path(__file__).parent / "acp" / "scripts" / "pydantic_agent.py").read_text()
    tested = script.partition("\n\n")[2].replace('\n\nif __name__ == "__main__":\n    run_acp', "\nrun_acp")
    assert example.split() == tested.split()


def test_the_worker_is_the_example_that_is_tested():
    assert blocks("python", "Worker") == [(ROOT / "examples" / "worker.py").read_text()]


def test_every_fault_of_the_echo_has_its_row():
    assert set(re.findall(r"^\| `/(\w+)", PAGE, re.MULTILINE)) == FAULTS.keys()


def test_every_update_the_sdk_knows_is_in_the_table_or_falls_under_any_other():
    known = {
        kind
        for name in dir(acp.schema)
        if (field := getattr(getattr(acp.schema, name), "model_fields", {}).get("session_update")) is not None
        for kind in getattr(field.annotation, "__args__", ())
    }
    assert "agent_message_chunk" in known
    unstable = {"notice", "compaction_update", "compaction_summary_chunk"}
    missing = {kind for kind in known if f"`{kind}`" not in PAGE}
    assert missing <= unstable


def test_every_frame_of_an_agent_has_its_row():
    said = rows_below("#### What an agent says")
    assert said == {*REPORTS, *SAID, "hello", "variables", "ping", "pong", "drain", "error"}


@attrs.define(eq=False)
class Ear:
    """The way to an agent that only listens."""

    heartbeat: float = 30.0
    full: bool = False
    on_room: Callable[[], None] = attrs.field(default=lambda: None)
    errors: Counter[str] = attrs.Factory(Counter)
    heard: list[dict[str, Any]] = attrs.Factory(list)

    def send(self, frame: bytes) -> None:
        self.heard.append(json.loads(frame))

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self, code: int, reason: str) -> None: ...


def test_the_exchange_on_the_page_is_what_is_said():
    """Each line of the agent's is understood, and the broker's are what it answers, but for ids and times."""
    first, second = blocks("text", "> {", PROTOCOL)
    pool = Pool(reattach=30.0, clock=ManualClock())
    events: list[AgentEvent] = []
    line = pool.open(Opening("s1"), events.append)
    told = rows_below("#### What the broker says")
    for block in (first, second):
        ear, member, expected = Ear(), None, []
        for direction, text in (entry.split(" ", 1) for entry in block.splitlines()):
            frame = json.loads(text)
            if direction == "<":
                expected.append({name: frame[name] for name in ("type", "data")})
                assert frame["type"] in told
                assert {"id", "timestamp"} <= frame.keys()
                if frame["type"] == "turn_start":
                    line.start_turn(Prompt("s1", "t1", b'"good morning"', b'{"tone":"loud"}'))
                elif frame["type"] == "approval_answer" and block is first:
                    line.answer_approval("t1", "q1", "yes")
            elif member is None:
                member = pool.join(hello_of(read(text.encode())), ear)
            else:
                member.feed(text.encode())
        assert [{name: frame[name] for name in ("type", "data")} for frame in ear.heard] == expected
        assert member is not None
        pool.leave(member, "the connection to the agent broke")
    assert [event for event in events if isinstance(event, TurnSettled)] == [TurnSettled("t1", "end_turn")]
