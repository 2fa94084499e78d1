"""Fifty prompts, sent twice each because nobody heard an answer the first time: fifty turns (PROTOCOL P4)."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from signal import SIGKILL
from typing import Any

import pytest

PROMPTS = [f"prompt {i}" for i in range(50)]
SETTINGS = {"agents": {"echo": {"kind": "echo"}}, "limits": {"queued_turns": 50}}

Cut = Callable[[Any], None]


def cut_the_line(_: Any) -> None:
    """Only the client's line is cut; the broker goes on with what it has read."""


def kill_the_broker(broker: Any) -> None:
    """What the broker had read and not written is gone; what was written is there."""
    broker.end(SIGKILL)
    broker.start()


@pytest.mark.parametrize("cut", [cut_the_line, kill_the_broker])
async def test_fifty_prompts_sent_twice_with_a_cut_between_are_fifty_turns(
    cut: Cut, make_broker: Callable[..., Any], dial: Callable[..., Awaitable[Any]]
) -> None:
    broker = make_broker(**SETTINGS)
    broker.start()
    first = await dial(broker.port)
    await first.do("session.create", session_id="s")
    for request in requests():
        await first.send(request)
    await first.event("turn.ended")  # in the midst of it
    first.drop()
    await asyncio.to_thread(cut, broker)

    second = await dial(broker.port)
    answers = [await second.ask("turn.start", payload_of(prompt)) for prompt in PROMPTS]
    assert {answer["type"] for answer in answers} == {"response"}
    assert len({answer["data"]["turn_id"] for answer in answers}) == 50
    assert any(answer["data"]["duplicate"] for answer in answers)

    await second.do("session.attach", session_id="s")
    ended: list[str] = []
    asked: list[str] = []
    while len(ended) < 50:
        record = await second.take(lambda message: message.get("event") in {"user.message", "turn.ended"})
        (asked if record["event"] == "user.message" else ended).append(record["turn_id"])
    assert sorted(asked) == sorted(ended) == sorted(answer["data"]["turn_id"] for answer in answers)
    history = await second.do("session.history", session_id="s", limit=1000)
    assert sum(record["event"] == "turn.ended" for record in history["records"]) == 50


def payload_of(prompt: str) -> dict[str, Any]:
    return {"session_id": "s", "client_msg_id": f"id of {prompt}", "content": prompt}


def requests() -> list[str]:
    return [
        json.dumps({"id": prompt, "type": "request", "action": "turn.start", "payload": payload_of(prompt)})
        for prompt in PROMPTS
    ]
