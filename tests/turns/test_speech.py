"""Deltas: the first at once, the next ones merged, never past 40 ms, 4 KiB or another record (PROTOCOL 3a)."""

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.messages import TextDelta, TextReplaced
from broker.turns.speech import MERGE_BYTES, MERGE_SECONDS, MESSAGE_BYTES, MESSAGES_LIMIT, Speech


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


# -- what is taken back ----------------------------------------------------------------------------------


def say(speech: Speech, *said: tuple[str, str]) -> None:
    """Add text, each after the agent's id of its message."""
    for message_id, text in said:
        speech.add(TextDelta("t", text, message_id=message_id), 0.0)


def test_a_message_that_is_taken_back_is_replaced_under_the_id_that_viewers_know(speech: Speech, tray: Any) -> None:
    say(speech, ("m", "It is "), ("m", "four."))
    speech.replace(TextReplaced("t", "It is", message_id="m"), "t", 0.0)
    say(speech, ("m", " five."))
    speech.complete()
    assert tray.kinds() == ["message.delta", "message.delta", "message.replaced", "message.delta", "message.completed"]
    assert {(data["message_id"], data["role"]) for _, data, _ in tray.records} == {
        (tray.records[0][1]["message_id"], "assistant")
    }
    (replaced,) = tray.data("message.replaced")
    assert (replaced["content"], replaced["thought"]) == ("It is", False)
    assert tray.data("message.completed")[0]["content"] == "It is five."


def test_a_message_is_completed_as_it_was_replaced(speech: Speech, tray: Any) -> None:
    say(speech, ("m", "No."))
    speech.replace(TextReplaced("t", "", message_id="m"), "t", 0.0)
    speech.complete()
    assert tray.data("message.completed")[0]["content"] == ""


def test_a_completed_message_is_replaced_and_completed_again_only_if_it_goes_on(speech: Speech, tray: Any) -> None:
    say(speech, ("a", "one"), ("b", "two"))
    first = tray.data("message.completed")[0]["message_id"]
    speech.replace(TextReplaced("t", "eins", message_id="a"), "t", 0.0)
    assert tray.records[-2][0] == "message.completed"  # of the one that was being written
    assert tray.records[-1][1] == {"message_id": first, "role": "assistant", "thought": False, "content": "eins"}
    speech.complete()
    assert tray.kinds()[-1] == "message.replaced"
    speech.replace(TextReplaced("t", "uno", message_id="a"), "t", 0.0)
    say(speech, ("a", ", due"))
    speech.complete()
    assert tray.data("message.completed")[-1] == {"message_id": first, "role": "assistant", "content": "uno, due"}


def test_a_message_in_parts_is_replaced_as_one(speech: Speech, tray: Any) -> None:
    say(speech, ("a", "one "), ("b", "between"), ("a", "two"))
    first, _, third = [data["message_id"] for data in tray.data("message.delta")]
    speech.replace(TextReplaced("t", "three", message_id="a"), "t", 0.0)
    assert [(data["message_id"], data["content"]) for data in tray.data("message.replaced")] == [
        (third, ""),
        (first, "three"),
    ]
    speech.replace(TextReplaced("t", "four", message_id="a"), "t", 0.0)
    assert len(tray.data("message.replaced")) == 3  # what is empty is not emptied again


def test_a_thought_and_the_answer_are_replaced_apart_and_a_thought_is_never_completed(
    speech: Speech, tray: Any
) -> None:
    speech.add(TextDelta("t", "hm", True, "m"), 0.0)
    say(speech, ("m", "yes"))
    speech.replace(TextReplaced("t", "well", True, "m"), "t", 0.0)
    speech.complete()
    (replaced,) = tray.data("message.replaced")
    assert replaced == {
        "message_id": tray.data("thought.delta")[0]["message_id"],
        "role": "assistant",
        "thought": True,
        "content": "well",
    }
    assert [data["content"] for data in tray.data("message.completed")] == ["yes"]


def test_what_replaces_an_unknown_message_begins_one(speech: Speech, tray: Any) -> None:
    speech.replace(TextReplaced("t", "", message_id="m"), "t", 0.0)
    assert tray.records == []
    speech.replace(TextReplaced("t", "new", message_id="m"), "t", 0.0)
    speech.complete()
    assert [kind for kind, _, _ in tray.records] == ["message.delta", "message.completed"]


def test_messages_of_a_turn_that_has_ended_are_not_replaced(speech: Speech, tray: Any) -> None:
    say(speech, ("m", "old"))
    speech.end()
    speech.replace(TextReplaced("t2", "new", message_id="m"), "t2", 0.0)
    speech.end()
    assert tray.kinds("t2") == ["message.delta", "message.completed"]
    assert len({data["message_id"] for _, data, _ in tray.records}) == 2


def test_only_so_many_messages_can_still_be_replaced(speech: Speech, tray: Any) -> None:
    say(speech, *((str(number), "x") for number in range(MESSAGES_LIMIT + 1)))
    for number in (0, MESSAGES_LIMIT):
        speech.replace(TextReplaced("t", "y", message_id=str(number)), "t", 0.0)
    # The first is said as a new one, which makes room; the last is replaced.
    assert [data["content"] for data in tray.data("message.replaced")] == ["y"]
    assert texts(tray)[-1] == "y"


ACTIONS = st.tuples(
    st.sampled_from(["say", "say", "replace"]), st.sampled_from(["a", "b", "c"]), st.booleans(), st.text(max_size=9)
)


@given(st.lists(ACTIONS, max_size=30))
def test_what_the_log_shows_of_each_message_is_what_the_agent_says_it_is(
    make_tray: Any, actions: list[tuple[str, str, bool, str]]
) -> None:
    tray = make_tray()
    speech = Speech(tray)
    said: dict[tuple[str, bool], str] = {}
    owner: dict[str, tuple[str, bool]] = {}
    for action, message_id, thought, text in actions:
        key, before = (message_id, thought), len(owner)
        if action == "replace":
            speech.replace(TextReplaced("t", text, thought, message_id), "t", 0.0)
            said[key] = text
        elif text:
            speech.add(TextDelta("t", text, thought, message_id), 0.0)
            said[key] = said.get(key, "") + text
        for _, data, _ in tray.records:
            owner.setdefault(data["message_id"], key)  # the first of a message never waits
        assert len(owner) <= before + 1
    speech.end()
    shown: dict[str, str] = dict.fromkeys(owner, "")
    for kind, data, _ in tray.records:
        old = shown[data["message_id"]]
        shown[data["message_id"]] = old + data["text"] if kind.endswith(".delta") else data["content"]
        assert kind != "message.completed" or data["content"] == old
    whole = {key: "".join(text for of, text in shown.items() if owner[of] == key) for key in said}
    assert whole == said
    kept = {
        data["message_id"]: data["content"] for data in tray.data("message.completed") + tray.data("message.replaced")
    }
    assert {of for of, (_, thought) in owner.items() if not thought} <= kept.keys()
