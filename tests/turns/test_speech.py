"""Deltas: the first at once, the next ones merged, never past 40 ms, 4 KiB or another record (PROTOCOL 3a)."""

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.messages import TextDelta
from broker.turns.speech import MERGE_BYTES, MERGE_SECONDS, MESSAGE_BYTES, Speech


@pytest.fixture
def speech(tray: Any) -> Speech:
    return Speech(tray)


def texts(tray: Any, kind: str = "message.delta") -> list[str]:
    return [data["text"] for data in tray.data(kind)]


def test_the_first_delta_does_not_wait_and_the_next_ones_wait_for_each_other(speech: Speech, tray: Any) -> None:
    speech.add(TextDelta("t", "a"), 0.0)
    assert (texts(tray), speech.flush_at) == (["a"], inf)
    speech.add(TextDelta("t", "b"), 1.0)
    speech.add(TextDelta("t", "c"), 1.02)
    assert (texts(tray), speech.flush_at) == (["a"], 1.0 + MERGE_SECONDS)
    speech.flush()
    assert (texts(tray), speech.flush_at) == (["a", "bc"], inf)
    speech.flush()
    assert texts(tray) == ["a", "bc"]


@pytest.mark.parametrize(("text", "count"), [("x" * 1024, 4), ("é" * 1024, 2), ("x" * (MERGE_BYTES * 2), 1)])
def test_so_many_bytes_do_not_wait(speech: Speech, tray: Any, text: str, count: int) -> None:
    speech.add(TextDelta("t", "first"), 0.0)
    for number in range(count):
        assert len(tray.records) == 1, number
        speech.add(TextDelta("t", text), 0.0)
    assert texts(tray) == ["first", text * count]


def test_a_thought_and_the_answer_are_two_messages_and_only_the_answer_is_kept_whole(speech: Speech, tray: Any) -> None:
    speech.add(TextDelta("t", "hm", thought=True), 0.0)
    speech.add(TextDelta("t", "...", thought=True), 0.0)
    speech.add(TextDelta("t", "yes"), 0.0)
    speech.complete()
    speech.complete()
    assert tray.kinds() == ["thought.delta", "thought.delta", "message.delta", "message.completed"]
    ids = {data["message_id"] for _, data, _ in tray.records}
    assert len(ids) == 2
    assert tray.data("message.completed")[0]["content"] == "yes"


def test_another_id_of_the_agent_begins_another_message(speech: Speech, tray: Any) -> None:
    for text, message_id in (("a", "1"), ("b", "1"), ("c", "2")):
        speech.add(TextDelta("t", text, message_id=message_id), 0.0)
    speech.complete()
    assert [data["content"] for data in tray.data("message.completed")] == ["ab", "c"]


def test_whatever_else_is_written_the_text_that_waits_goes_first(speech: Speech, tray: Any) -> None:
    speech.add(TextDelta("t", "a"), 0.0)
    speech.add(TextDelta("t", "b"), 0.0)
    assert speech.write("tool.started", b"{}", "t") == 3
    assert tray.kinds() == ["message.delta", "message.delta", "tool.started"]
    assert speech.flush_at == inf


def test_a_message_is_completed_before_it_grows_without_bound(speech: Speech, tray: Any) -> None:
    for _ in range(MESSAGE_BYTES // MERGE_BYTES + 1):
        speech.add(TextDelta("t", "x" * MERGE_BYTES), 0.0)
    speech.complete()
    first, second = tray.data("message.completed")
    assert (len(first["content"]), len(second["content"])) == (MESSAGE_BYTES, MERGE_BYTES)
    assert first["message_id"] != second["message_id"]


@given(st.lists(st.tuples(st.text(min_size=1), st.booleans(), st.sampled_from([None, "1", "2"]), st.booleans())))
def test_what_was_said_is_what_is_kept_in_order_however_it_is_merged(
    make_tray: Any, said: list[tuple[str, bool, str | None, bool]]
) -> None:
    tray = make_tray()
    speech = Speech(tray)
    for text, thought, message_id, flushed in said:
        speech.add(TextDelta("t", text, thought, message_id), 0.0)
        if flushed:
            speech.flush()
    speech.complete()
    for thought, kind in ((False, "message.delta"), (True, "thought.delta")):
        assert "".join(texts(tray, kind)) == "".join(text for text, is_thought, *_ in said if is_thought is thought)
    whole = "".join(data["content"] for data in tray.data("message.completed"))
    assert whole == "".join(texts(tray))
    assert speech.flush_at == inf
