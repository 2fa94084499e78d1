"""How an ACP agent's answers are read."""

import json
from collections.abc import Callable

import msgspec
import pytest

from broker.agents.jsonrpc import Answer, RpcError
from broker.agents.wire import blocks_of, initialized_of, refusal_of, session_of, settled_of
from broker.errors import BrokerError
from broker.messages import TurnSettled


@pytest.mark.parametrize(
    ("content", "blocks"),
    [
        (b'"hi"', [{"type": "text", "text": "hi"}]),
        (b' "two\\nlines"\n', [{"type": "text", "text": "two\nlines"}]),
        (b'[\r\n {"type": "text",\n "text": "a"} ]', [{"type": "text", "text": "a"}]),
    ],
)
def test_a_prompt_becomes_blocks_on_one_line(content: bytes, blocks: list[dict[str, str]]):
    raw = bytes(blocks_of(content))
    assert json.loads(raw) == blocks
    assert b"\n" not in raw
    assert b"\r" not in raw


def test_a_settle_carries_its_reason_and_usage():
    settled = settled_of(msgspec.Raw(b'{"stopReason":"refusal","usage":{"inputTokens":3}}'), "t1")
    assert settled == TurnSettled("t1", "refusal", b'{"input_tokens":3}')


@pytest.mark.parametrize("usage", [b"", b',"usage":null', b',"usage":7'])
def test_a_settle_without_usage_has_none(usage: bytes):
    assert settled_of(msgspec.Raw(b'{"stopReason":"end_turn"%s}' % usage), "t1") == TurnSettled("t1", "end_turn")


@pytest.mark.parametrize("read", [initialized_of, session_of, lambda answer: settled_of(answer, "t1")])
@pytest.mark.parametrize("raw", [b"", b"null", b"{}", b"[]", b'{"stopReason":7,"sessionId":7}'])
def test_an_answer_of_no_known_shape_is_refused(read: Callable[[Answer], object], raw: bytes):
    with pytest.raises(BrokerError, match="cannot be read") as refused:
        read(msgspec.Raw(raw))
    assert refused.value.code == "agent_unavailable"


def test_another_version_of_the_protocol_is_refused_in_words():
    with pytest.raises(BrokerError, match="speaks version 2 of ACP, the broker 1"):
        initialized_of(msgspec.Raw(b'{"protocolVersion":2}'))


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RpcError(-32603, "Internal error"), "agent_unavailable", "Internal error"),
        (RpcError(-32603, "Bad", msgspec.Raw(b'{"details":"no disk"}')), "agent_unavailable", "Bad: no disk"),
        (RpcError(-32603, "Bad", msgspec.Raw(b"7")), "agent_unavailable", "Bad"),
        (RpcError(-32602, "No images"), "invalid_message", "No images"),
        (RpcError(-1), "agent_unavailable", "The agent answered with error -1."),
        (RpcError(-1, "x" * 9000), "agent_unavailable", "x" * 500),
    ],
)
def test_an_agents_error_is_said_in_its_own_words(error: RpcError, code: str, message: str):
    refusal = refusal_of(error)
    assert (refusal.code, refusal.message) == (code, message)


def test_a_missing_login_says_what_to_do():
    message = refusal_of(RpcError(-32000, "Authentication required"), ("API key", "Browser")).message
    assert message == "The agent wants a login: log it in with its own command first (it offers: API key, Browser)."
