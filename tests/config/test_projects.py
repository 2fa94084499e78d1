"""Who may serve projects, as the configuration says it."""

from pathlib import Path

import pytest

from broker.config import ConfigErrors, load


def test_projects_are_served_by_nobody_unless_somebody_is_named() -> None:
    projects = load(None, {}, {}).settings.projects
    assert (projects.agent, projects.feedback) == (None, 30.0)


@pytest.mark.parametrize("kind", ["kind: echo", "kind: worker", "kind: websocket, url: 'ws://127.0.0.1:1/'"])
def test_an_agent_that_is_there_may_serve_them(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"agents: {{echo: {{kind: echo}}, planner: {{{kind}}}}}\nprojects: {{agent: planner}}\n")
    assert load(file, {}, {}).settings.projects.agent == "planner"


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        ("plannr", "there is no agent 'plannr'; known are: echo, planner; did you mean 'planner'?"),
        ("planner", "an agent of kind acp takes no part in projects; websocket, worker and echo do"),
    ],
)
def test_who_is_not_there_or_cannot_is_a_mistake(tmp_path: Path, agent: str, message: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "agents: {echo: {kind: echo}, planner: {kind: acp, command: [planner]}}\n"
        f"projects:\n  agent: {agent}\n  feedback: 0s\n"
    )
    with pytest.raises(ConfigErrors) as refused:
        load(file, {}, {})
    text = str(refused.value)
    assert "projects.feedback" in text or "feedback: 0s" in text
    file.write_text(file.read_text().replace("0s", "1s"))
    with pytest.raises(ConfigErrors) as refused:
        load(file, {}, {})
    assert message in str(refused.value)
