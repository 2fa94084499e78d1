"""From profiles to what their sessions share; one profile's kind that breaks costs no other."""

import asyncio
from typing import Any

import pytest

from broker.actors import agents as module
from broker.actors.agents import Agents
from broker.actors.supervisor import Supervisor
from broker.config.profiles import (
    AcpProfile,
    AgentProfile,
    AnthropicProfile,
    Deadlines,
    EchoProfile,
    WebSocketProfile,
    WorkerProfile,
)
from broker.config.secret import Secret
from broker.testing import FakeAgent, ManualClock
from broker.traces import Traces


def make(profiles: dict[str, AgentProfile], *, handing: bool = False, **kinds: FakeAgent) -> Agents:
    clock = ManualClock()
    return Agents(
        profiles,
        {name: kinds.get(name) or FakeAgent() for name in profiles},
        queue_limit=5,
        supervisor=Supervisor(clock),
        clock=clock,
        traces=Traces(clock.now),
        handing=handing,
    )


PROFILES: dict[str, AgentProfile] = {
    "echo": EchoProfile(approvals="allow", deadlines=Deadlines(idle=7)),
    "acp": AcpProfile(command=("run",), approvals="reject"),
    "websocket": WebSocketProfile(url="ws://127.0.0.1:1"),
    "worker": WorkerProfile(),
    "anthropic": AnthropicProfile(model="m", api_key=Secret("hush")),
}


async def test_each_profile_s_turns_are_bound_by_what_it_says() -> None:
    agents = make(PROFILES, worker=FakeAgent(capacity=0))
    rules = {name: options.rules for name, options in agents.options.items()}
    assert {name: rule.agent for name, rule in rules.items()} == {name: name for name in PROFILES}
    assert {rule.queue_limit for rule in rules.values()} == {5}
    assert rules["echo"].deadlines == Deadlines(idle=7)
    assert [rules[name].approvals for name in ("echo", "acp", "anthropic")] == ["allow", "reject", "ask"]
    assert [name for name, rule in rules.items() if rule.limited] == ["worker"]


async def test_agents_are_told_what_was_said_or_asked_what_they_remember_by_their_kind() -> None:
    options = make(PROFILES).options
    assert [name for name in PROFILES if options[name].history] == ["websocket", "worker", "anthropic"]
    assert [name for name in PROFILES if options[name].memory] == ["acp"]


async def test_what_was_said_is_kept_for_others_where_turns_may_be_handed_to_one_that_is_told() -> None:
    only = {name: PROFILES[name] for name in ("echo", "acp")}
    for profiles, handing, kept in ((PROFILES, True, list(PROFILES)), (only, True, []), (PROFILES, False, [])):
        options = make(profiles, handing=handing).options
        assert [name for name in profiles if options[name].kept] == kept
        told = ["websocket", "worker", "anthropic"] if profiles is PROFILES else []
        assert [name for name in profiles if options[name].transcript] == (kept or told)


async def test_all_kinds_begin_and_end_although_one_of_them_breaks() -> None:
    class Broken(FakeAgent):
        async def start(self) -> None:
            raise OSError("no network")

        async def close(self) -> None:
            raise OSError("no network")

    kinds: dict[str, Any] = {"echo": Broken(), "worker": FakeAgent()}
    agents = make({name: PROFILES[name] for name in kinds}, **kinds)
    await agents.start()
    assert kinds["worker"].started
    await agents.close()
    assert kinds["worker"].closed


async def test_a_kind_that_does_not_end_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.01)
    gate = asyncio.Event()

    class Hanging(FakeAgent):
        async def close(self) -> None:
            await gate.wait()

    kinds: dict[str, Any] = {"echo": Hanging(), "worker": FakeAgent()}
    agents = make({name: PROFILES[name] for name in kinds}, **kinds)
    await agents.close()
    assert kinds["worker"].closed
    gate.set()
