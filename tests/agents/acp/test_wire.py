"""What both versions of ACP share: the greeting, prompts and errors."""

import json
from typing import Any

import msgspec
import pytest

from broker.agents.acp.jsonrpc import RpcError
from broker.agents.acp.wire import Implementation, Known, blocks_of, hello, known_of, refusal_of
from broker.errors import BrokerError


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


@pytest.mark.parametrize("raw", [b"", b"null", b"{}", b"[]", b'{"protocolVersion":"x"}'])
def test_a_greeting_of_no_known_shape_is_refused(raw: bytes):
    with pytest.raises(BrokerError, match="cannot be read") as refused:
        known_of(msgspec.Raw(raw), 2)
    assert refused.value.code == "agent_unavailable"


def test_the_offer_of_version_1_is_what_it_always_was():
    assert set(hello(1)) == {"protocolVersion", "clientCapabilities", "clientInfo"}


def test_the_offer_of_version_2_can_be_read_by_agents_of_either():
    offer = hello(2)
    assert offer["protocolVersion"] == 2
    assert offer["info"] == offer["clientInfo"]
    assert offer["info"]["name"] == "actor-broker"
    assert offer | {"protocolVersion": 1} == hello(1) | {"info": offer["info"], "capabilities": {}}


@pytest.mark.parametrize(
    ("answer", "offered", "known"),
    [
        ({"protocolVersion": 1}, 2, Known()),
        (
            {"protocolVersion": 2, "info": {"name": "n", "version": "2"}, "authMethods": [{"name": "Key"}]},
            2,
            Known(Implementation("n", "2"), 2, ("Key",), resumes=True, closes=True),
        ),
        ({"protocolVersion": 2, "agentInfo": {"name": "parrot"}}, 2, Known(Implementation("parrot"))),
        (
            {"protocolVersion": 1, "agentCapabilities": {"loadSession": True, "sessionCapabilities": {"resume": {}}}},
            1,
            Known(resumes=True, loads=True),
        ),
        ({"protocolVersion": 1, "agentCapabilities": {"sessionCapabilities": {"close": {}}}}, 2, Known(closes=True)),
        ({"protocolVersion": 1, "agentCapabilities": {"loadSession": "maybe"}}, 2, Known()),
    ],
)
def test_the_agents_answer_decides_which_version_is_spoken(answer: dict[str, Any], offered: int, known: Known):
    """Agents of the Python SDK repeat any version they are offered: only `info` makes an answer one of version 2."""
    assert known_of(msgspec.Raw(json.dumps(answer).encode()), offered) == known


@pytest.mark.parametrize(("spoken", "offered"), [(3, 2), (0, 2), (2, 1)])
def test_another_version_of_the_protocol_is_refused_in_words(spoken: int, offered: int):
    answer = msgspec.Raw(b'{"protocolVersion":%d,"info":{"name":"n"}}' % spoken)
    with pytest.raises(BrokerError, match=f"speaks version {spoken} of ACP, the broker offered {offered}"):
        known_of(answer, offered)


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
