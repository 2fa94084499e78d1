"""What a worker says in a turn, frame by frame, to a broker over a real socket."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker.client import Option, Turn, TurnFailed

Linked = Any
END = ("turn_end", "turn_error")


def texts(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["data"]["text"] for frame in frames if frame["type"] == "delta"]


async def test_what_answer_yields_is_the_answer_and_its_frames_are_counted(linked: Linked) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        for word in turn.text.split():
            yield word.upper()

    visit = await linked(answer)
    frames = await visit.answer("one two")
    assert [frame["type"] for frame in frames] == ["turn_accepted", "delta", "delta", "turn_end"]
    assert [frame["data"]["seq"] for frame in frames] == [1, 2, 3, 4]
    assert {frame["data"]["turn_id"] for frame in frames} == {"t1"}
    assert frames[1]["data"] | {"seq": 0} == {"turn_id": "t1", "seq": 0, "text": "ONE", "kind": "message"}
    assert frames[3]["data"]["stop_reason"] == "end_turn"
    assert len({frame["id"] for frame in frames}) == 4
    assert all(frame["timestamp"].endswith("Z") for frame in frames)


async def test_a_coroutine_says_all_by_itself(linked: Linked) -> None:
    async def answer(turn: Turn) -> None:
        await turn.think("hm")
        await turn.tool("r1", "Read notes.txt", "in_progress")
        await turn.tool("r1", "Read notes.txt", "completed", {"lines": 3})
        await turn.usage(input_tokens=1, output_tokens=2)
        await turn.debug(model="m", prompt="p")
        await turn.set({"mood": "good", "old": None})
        assert turn.variables == {"mood": "good"}
        await turn.say("done")
        turn.stop_reason = "max_tokens"

    visit = await linked(answer)
    frames = await visit.answer(variables={"old": 1})
    bare = [
        (frame["type"], {k: v for k, v in frame["data"].items() if k not in {"turn_id", "seq"}}) for frame in frames
    ]
    tool = {"tool_id": "r1", "title": "Read notes.txt"}
    assert bare == [
        ("turn_accepted", {}),
        ("delta", {"text": "hm", "kind": "thought"}),
        ("tool", {**tool, "status": "in_progress"}),
        ("tool", {**tool, "status": "completed", "content": {"lines": 3}}),
        ("usage", {"input_tokens": 1, "output_tokens": 2}),
        ("debug", {"model": "m", "prompt": "p"}),
        ("variables", {"session_id": "s1", "set": {"mood": "good", "old": None}}),
        ("delta", {"text": "done", "kind": "message"}),
        ("turn_end", {"stop_reason": "max_tokens"}),
    ]
    assert [frame["data"]["seq"] for frame in frames] == list(range(1, 10))


async def test_a_turn_knows_what_the_broker_told(linked: Linked) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        known = [turn.turn_id, turn.session_id, turn.text, turn.messages, turn.variables, turn.workspace_dir]
        yield json.dumps([*known, len(turn.content), repr(turn)])

    visit = await linked(answer)
    blocks = [{"type": "text", "text": "a"}, {"type": "image", "data": ""}, {"type": "text", "text": "b"}]
    said = [{"role": "user", "content": "before"}]
    frames = await visit.answer(blocks, messages=said, variables={"x": 1}, workspace_dir="/w")
    known = json.loads("".join(texts(frames)))
    assert known == ["t1", "s1", "a\nb", said, {"x": 1}, "/w", 3, "<Turn t1 of session s1>"]


async def test_an_odd_turn_is_still_a_turn(linked: Linked) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        yield json.dumps([turn.text, turn.messages, turn.variables, turn.workspace_dir])

    visit = await linked(answer)
    frames = await visit.answer({"a": 1}, messages="none", variables=[1], workspace_dir=7)
    assert json.loads("".join(texts(frames))) == ["", [], {}, None]


async def test_a_question_waits_for_its_own_answer(linked: Linked) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        first = asyncio.ensure_future(turn.ask("Delete it?", [Option("y", "Yes", "allow_once"), Option("n", "No")]))
        second = asyncio.ensure_future(turn.ask("Colour?", ["red", "blue"]))
        yield f"{await second} {await first}"

    visit = await linked(answer)
    await visit.start()
    _, first, second = [await visit.frame() for _ in range(3)]
    assert first["data"]["title"] == "Delete it?"
    options = [{"option_id": "y", "name": "Yes", "kind": "allow_once"}, {"option_id": "n", "name": "No"}]
    assert first["data"]["options"] == options
    assert second["data"]["options"] == [{"option_id": "red", "name": "red"}, {"option_id": "blue", "name": "blue"}]
    for question, option_id in ((second, "blue"), (first, "n"), (first, "y")):
        approval_id = question["data"]["approval_id"]
        await visit.send("approval_answer", turn_id="t1", approval_id=approval_id, option_id=option_id)
    assert texts(await visit.until(*END)) == ["blue n"]


async def test_a_question_that_nobody_answers_is_none(linked: Linked) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        yield str(await turn.ask("Well?", ["yes"]))

    visit = await linked(answer)
    await visit.start()
    approval_id = (await visit.until("approval_request"))[-1]["data"]["approval_id"]
    await visit.send("approval_answer", turn_id="other", approval_id=approval_id, option_id="yes")
    await visit.send("approval_answer", turn_id="t1", approval_id="other", option_id="yes")
    await visit.send("approval_answer", turn_id="t1", approval_id=approval_id, option_id=None)
    assert texts(await visit.until(*END)) == ["None"]


async def test_a_long_text_leaves_in_several_frames(linked: Linked) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        yield ""
        yield "é" * 100_000

    visit = await linked(answer)
    said = texts(await visit.answer())
    assert "".join(said) == "é" * 100_000
    assert max(map(len, said)) == 32 * 1024


class Mute(Exception):  # noqa: N818 - it says nothing
    def __str__(self) -> str:
        raise ValueError("not even its name")


BAD = [
    (ValueError("no such file"), {"code": "agent_unavailable", "message": "ValueError: no such file"}),
    (KeyError(), {"code": "agent_unavailable", "message": "KeyError"}),
    (RuntimeError("x" * 5000), {"code": "agent_unavailable", "message": "RuntimeError: " + "x" * 500}),
    (
        OSError(2, "gone", "\udcff"),
        {"code": "agent_unavailable", "message": "FileNotFoundError: [Errno 2] gone: '\\udcff'"},
    ),
    (ValueError("\udcff"), {"code": "agent_unavailable", "message": "ValueError: ?"}),
    (Mute(), {"code": "agent_unavailable", "message": "Mute"}),
    (TurnFailed("too_large", "Too long."), {"code": "too_large", "message": "Too long.", "retryable": False}),
    (TurnFailed("busy", "Wait.", retryable=True), {"code": "busy", "message": "Wait.", "retryable": True}),
    (
        asyncio.CancelledError(),
        {"code": "agent_unavailable", "message": "The answer cancelled itself."},
    ),
]


@pytest.mark.parametrize(("error", "told"), BAD, ids=lambda value: type(value).__name__)
async def test_an_exception_ends_the_turn_as_failed(linked: Linked, error: Exception, told: dict[str, Any]) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        yield "so far"
        raise error

    visit = await linked(answer)
    for turn_id in ("t1", "t2"):  # and the worker goes on
        frames = await visit.answer(turn_id=turn_id)
        assert texts(frames) == ["so far"]
        assert frames[-1] | {"data": {}} == {**frames[-1], "type": "turn_error", "data": {}}
        assert frames[-1]["data"] == {**told, "turn_id": turn_id, "seq": 3}


async def test_an_exception_is_logged_with_its_trace(linked: Linked, caplog: pytest.LogCaptureFixture) -> None:
    async def answer(turn: Turn) -> None:
        raise ValueError("no such file")

    await (await linked(answer)).answer()
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.name == "broker.client"
    assert record.exc_info is not None


async def test_words_of_ones_own_are_not_logged_as_a_fault(linked: Linked, caplog: pytest.LogCaptureFixture) -> None:
    async def answer(turn: Turn) -> None:
        raise TurnFailed("too_large", "Too long.")

    await (await linked(answer)).answer()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


WRONG = [
    (lambda turn: returned("the answer"), "TypeError: what answer returns is why it is over, not text"),
    (lambda turn: "the answer", "TypeError: object str can't be used in 'await' expression"),
    (lambda turn: yielded(5), "TypeError: an answer is made of text, not of int"),
    (lambda turn: yielded("\ud800"), "UnicodeEncodeError: "),
    (lambda turn: turn.ask("Well?", []), "ValueError: a question without options"),
    (lambda turn: turn.set({"a": object()}), "TypeError: "),
    (lambda turn: turn.tool("1", "Read", "completed", "x" * (16 << 20)), "ValueError: tool has 16777"),
    (lambda turn: turn.tool("1", "Read", "completed", nested(70)), "ValueError: tool: The message is nested deeper"),
]


async def returned(value: Any) -> Any:
    return value


async def yielded(value: Any) -> AsyncIterator[Any]:
    yield value


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(("answer", "told"), WRONG)
async def test_a_mistake_in_a_worker_is_told_and_no_bad_frame_leaves(linked: Linked, answer: Any, told: str) -> None:
    frames = await (await linked(answer)).answer()
    assert [frame["type"] for frame in frames] == ["turn_accepted", "turn_error"]
    assert frames[-1]["data"]["seq"] == 2
    assert frames[-1]["data"]["message"].startswith(told)


async def test_not_a_number_leaves_as_null(linked: Linked) -> None:
    async def answer(turn: Turn) -> None:
        await turn.usage(cost=math.nan)

    frames = await (await linked(answer)).answer()
    assert frames[1]["data"]["cost"] is None


async def test_a_stop_reason_may_be_returned(linked: Linked) -> None:
    async def answer(turn: Turn) -> Any:
        return "refusal"

    assert (await (await linked(answer)).answer())[-1]["data"]["stop_reason"] == "refusal"


async def test_a_cancel_is_raised_where_the_answer_waits_and_what_it_says_then_is_shown(linked: Linked) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        yield "begun"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await turn.say("bye")
            raise

    visit = await linked(answer)
    await visit.start()
    await visit.until("delta")
    await visit.send("turn_cancel", turn_id="t1")
    frames = await visit.until(*END)
    assert [(frame["type"], frame["data"].get("text")) for frame in frames] == [("delta", "bye"), ("turn_end", None)]
    assert frames[-1]["data"]["stop_reason"] == "cancelled"


async def test_a_cancel_counts_whatever_the_answer_makes_of_it(linked: Linked) -> None:
    """It may have caught the cancel and returned, or failed in its cleaning up."""

    async def answer(turn: Turn) -> None:
        await turn.say("begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if turn.text == "fail":
                raise ValueError("cleaning up") from None

    visit = await linked(answer)
    for text in ("return", "fail"):
        await visit.start(text, turn_id=text)
        await visit.until("delta")
        await visit.send("turn_cancel", turn_id=text)
        (end,) = await visit.until(*END)
        assert (end["type"], end["data"]["stop_reason"]) == ("turn_end", "cancelled")


async def test_a_cancel_that_comes_with_the_turn_ends_it_before_it_begins(linked: Linked) -> None:
    began = False

    async def answer(turn: Turn) -> None:
        nonlocal began
        began = True

    visit = await linked(answer)
    start = json.dumps({"type": "turn_start", "data": {"turn_id": "t1", "session_id": "s1"}})
    cancel = json.dumps({"type": "turn_cancel", "data": {"turn_id": "t1"}})
    for text in (start, cancel):  # in one write, so that both are read in one go
        visit.socket.protocol.send_text(text.encode())
    visit.socket.transport.write(b"".join(visit.socket.protocol.data_to_send()))
    frames = await visit.until(*END)
    assert [frame["type"] for frame in frames] == ["turn_accepted", "turn_end"]
    assert frames[-1]["data"]["stop_reason"] == "cancelled"
    assert not began


async def test_a_turn_that_has_ended_says_nothing_more(linked: Linked) -> None:
    kept: list[Turn] = []

    async def answer(turn: Turn) -> None:
        kept.append(turn)

    await (await linked(answer)).answer()
    with pytest.raises(RuntimeError, match="turn t1 has ended"):
        await kept[0].say("late")
    with pytest.raises(RuntimeError, match="turn t1 has ended"):
        await kept[0].ask("Late?", ["yes"])


async def test_a_question_left_open_by_a_turn_that_ends_is_cancelled(linked: Linked) -> None:
    asked: list[asyncio.Future[Any]] = []

    async def answer(turn: Turn) -> None:
        asked.append(asyncio.ensure_future(turn.ask("Well?", ["yes"])))
        await asyncio.sleep(0)

    await (await linked(answer)).answer()
    with pytest.raises(asyncio.CancelledError):
        await asked[0]
