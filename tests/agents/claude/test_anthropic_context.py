"""What the Messages API is told of a session."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.agents.claude.context import context_of
from broker.errors import BrokerError
from broker.messages import Prompt

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


def context(content: Any, *before: tuple[str, Any]) -> list[dict[str, Any]]:
    messages = msgspec.json.encode([{"role": role, "content": said} for role, said in before])
    return context_of(Prompt("s1", "t1", msgspec.json.encode(content), messages=messages))


def brief(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(m["role"], "|".join(block.get("text", block["type"]) for block in m["content"])) for m in messages]


def test_the_prompt_comes_after_what_was_said_before():
    said = context("three", ("user", "one"), ("assistant", "two"))
    assert brief(said) == [("user", "one"), ("assistant", "two"), ("user", "three")]


def test_neighbours_of_one_role_become_one_message():
    said = context("d", ("user", "a"), ("user", "b"), ("assistant", "x"), ("assistant", "y"), ("user", "c"))
    assert brief(said) == [("user", "a|b"), ("assistant", "x|y"), ("user", "c|d")]


def test_messages_that_say_nothing_are_left_out_and_their_neighbours_joined():
    said = context("d", ("user", "a"), ("assistant", " \n"), ("user", []), ("user", [{"type": "text", "text": ""}]))
    assert brief(said) == [("user", "a|d")]


def test_the_users_message_is_the_first():
    assert brief(context("b", ("assistant", "Welcome!"), ("user", "a"))) == [("user", "a|b")]


def test_other_roles_are_left_out():
    assert brief(context("b", ("system", "Obey."), ("tool", "7"), ("user", "a"))) == [("user", "a|b")]


def test_text_and_images_are_passed_and_other_blocks_named():
    blocks = [{"type": "text", "text": "see "}, IMAGE, {"type": "audio", "data": "…"}, {"no": "type"}]
    (message,) = context(blocks)
    assert message["content"] == [
        {"type": "text", "text": "see "},
        IMAGE,
        {"type": "text", "text": "[audio]"},
        {"type": "text", "text": "[None]"},
    ]


def test_an_image_in_the_agent_client_protocols_form_is_put_into_the_apis():
    (message,) = context([{"type": "image", "mimeType": "image/png", "data": "iVBORw0KGgo="}])
    assert message["content"] == [IMAGE]


def test_fields_that_the_api_does_not_know_do_not_reach_it():
    (message,) = context([{**IMAGE, "annotations": {}}, {"type": "text", "text": "a", "annotations": {}}])
    assert message["content"] == [IMAGE, {"type": "text", "text": "a"}]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image"},
        {"type": "image", "source": "here"},
        {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/secret"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/svg+xml", "data": "PHN2Zy8+"}},
        {"type": "image", "source": {"type": "base64", "media_type": ["image/png"], "data": "iVBORw0KGgo="}},
        {"type": "image", "mimeType": "image/png", "data": ""},
    ],
)
def test_an_image_that_the_api_would_not_take_is_named(block: dict[str, Any]):
    assert brief(context([block])) == [("user", "[image]")]


def test_an_image_of_the_assistants_is_named():
    assert brief(context("b", ("user", "a"), ("assistant", [IMAGE])))[1] == ("assistant", "[image]")


@pytest.mark.parametrize("content", ["", " \n\t", [], [{"type": "text", "text": " "}], [{"type": "text"}]])
def test_a_prompt_that_says_nothing_is_refused_rather_than_the_last_answer_continued(content: Any):
    with pytest.raises(BrokerError, match="says nothing") as refused:
        context(content, ("user", "a"), ("assistant", "b"))
    assert refused.value.code == "invalid_message"


@pytest.mark.parametrize("content", [b"7", b"{", b'"\xff"', b'["text"]', b"null"])
def test_a_prompt_of_no_known_shape_is_refused(content: bytes):
    with pytest.raises(BrokerError) as refused:
        context_of(Prompt("s1", "t1", content))
    assert refused.value.code == "invalid_message"


SAID = st.tuples(
    st.sampled_from(["user", "assistant", "system"]),
    st.text(max_size=3) | st.lists(st.sampled_from([IMAGE, {"type": "text", "text": "t"}, {"type": "x"}]), max_size=2),
)


@given(st.lists(SAID, max_size=8))
def test_whatever_was_said_the_roles_alternate_from_the_user_to_the_user(before: list[tuple[str, Any]]):
    messages = context("now", *before)
    assert [m["role"] for m in messages] == [("user", "assistant")[place % 2] for place in range(len(messages))]
    assert messages[-1]["content"][-1] == {"type": "text", "text": "now"}
    for message in messages:
        assert message["content"]
        for block in message["content"]:
            assert block["type"] == "image" or block["text"].strip()
