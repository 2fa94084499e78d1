"""The shapes of the Agent Client Protocol, version 1, and how its answers are read."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from broker import __version__
from broker.agents.jsonrpc import MISREAD, Answer, RpcError
from broker.agents.updates import fields_of
from broker.errors import BrokerError
from broker.messages import TurnSettled

__all__ = [
    "AUTH_REQUIRED",
    "CANCELLED",
    "HELLO",
    "INVALID_PARAMS",
    "PROTOCOL_VERSION",
    "REQUEST_CANCELLED",
    "Implementation",
    "Initialized",
    "blocks_of",
    "initialized_of",
    "refusal_of",
    "selected",
    "session_of",
    "settled_of",
    "update_of",
]

PROTOCOL_VERSION: Final = 1
AUTH_REQUIRED: Final = -32000
INVALID_PARAMS: Final = -32602
REQUEST_CANCELLED: Final = -32800

HELLO: Final = {
    "protocolVersion": PROTOCOL_VERSION,
    "clientCapabilities": {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False},
    "clientInfo": {"name": "actor-broker", "version": __version__},
}
"""The params of `initialize`: the broker lends no file system and no terminal."""

CANCELLED: Final = {"outcome": {"outcome": "cancelled"}}
"""The answer to a permission request that nobody will answer any more."""

_MESSAGE_WIDTH: Final = 500


class Implementation(msgspec.Struct, frozen=True):
    """What a program says of itself."""

    name: str | None = None
    version: str | None = None


class Initialized(msgspec.Struct, frozen=True, rename="camel"):
    """An agent's answer to `initialize`, as far as the broker looks at it."""

    protocol_version: int
    agent_info: Implementation | None = None
    auth_methods: list[Implementation] | None = None


class _Opened(msgspec.Struct, frozen=True, rename="camel"):
    session_id: str


class _Settled(msgspec.Struct, frozen=True, rename="camel"):
    stop_reason: str
    usage: msgspec.Raw = msgspec.Raw()


class _Notified(msgspec.Struct, frozen=True):
    update: msgspec.Raw


class _Details(msgspec.Struct, frozen=True):
    details: str = ""


_INITIALIZED = msgspec.json.Decoder(Initialized)
_OPENED = msgspec.json.Decoder(_Opened)
_SETTLED = msgspec.json.Decoder(_Settled)
_NOTIFIED = msgspec.json.Decoder(_Notified)
_DETAILS = msgspec.json.Decoder(_Details)


def initialized_of(answer: Answer) -> Initialized:
    """Read the answer to `initialize`.

    Raises:
        BrokerError: `agent_unavailable`: it is an error, cannot be read, or speaks another version.
    """
    initialized: Initialized = _read(_INITIALIZED, answer, "initialize")
    if initialized.protocol_version != PROTOCOL_VERSION:
        spoken = f"The agent speaks version {initialized.protocol_version} of ACP, the broker {PROTOCOL_VERSION}."
        raise BrokerError("agent_unavailable", spoken)
    return initialized


def session_of(answer: Answer, logins: Sequence[str] = ()) -> str:
    """Read the answer to `session/new`: the agent's own session id.

    Raises:
        BrokerError: `agent_unavailable`: it is an error or cannot be read.
    """
    opened: _Opened = _read(_OPENED, answer, "session/new", logins)
    return opened.session_id


def settled_of(answer: Answer, turn_id: str, logins: Sequence[str] = ()) -> TurnSettled:
    """Read the answer to `session/prompt`.

    Raises:
        BrokerError: `agent_unavailable` or `invalid_message`: it is an error or cannot be read.
    """
    settled: _Settled = _read(_SETTLED, answer, "the prompt", logins)
    try:
        usage = msgspec.json.encode(fields_of(settled.usage))
    except MISREAD:
        usage = None
    return TurnSettled(turn_id, settled.stop_reason, usage)


def _read(decoder: msgspec.json.Decoder[Any], answer: Answer, to: str, logins: Sequence[str] = ()) -> Any:
    if isinstance(answer, RpcError):
        raise refusal_of(answer, logins)
    try:
        return decoder.decode(answer)
    except MISREAD as e:
        raise BrokerError("agent_unavailable", f"The agent's answer to {to} cannot be read.") from e


def refusal_of(error: RpcError, logins: Sequence[str] = ()) -> BrokerError:
    """Say an agent's error in our terms; `logins` are the ways to log in that it named."""
    if error.code == AUTH_REQUIRED:
        ways = f" (it offers: {', '.join(logins)})" if logins else ""
        message = f"The agent wants a login: log it in with its own command first{ways}."
    else:
        message = error.message or f"The agent answered with error {error.code}."
        details = _details_of(error)
        if details and details not in message:
            message = f"{message}: {details}"
    code = "invalid_message" if error.code == INVALID_PARAMS else "agent_unavailable"
    return BrokerError(code, message[:_MESSAGE_WIDTH])


def _details_of(error: RpcError) -> str:
    try:
        return _DETAILS.decode(error.data).details
    except MISREAD:
        return ""


def update_of(params: msgspec.Raw) -> msgspec.Raw:
    """Return the `update` in the params of a `session/update`.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: there is none (`jsonrpc.MISREAD`).
    """
    return _NOTIFIED.decode(params).update


def blocks_of(content: bytes) -> msgspec.Raw:
    """Return a prompt's content, a JSON string or blocks, as ACP's array of blocks, on one line."""
    # JSON strings hold no bare line ends, so those found here stand between tokens.
    blocks = content.strip().replace(b"\n", b" ").replace(b"\r", b" ")
    if blocks.startswith(b"["):
        return msgspec.Raw(blocks)
    return msgspec.Raw(b'[{"type":"text","text":' + blocks + b"}]")


def selected(option_id: str | None) -> dict[str, Any]:
    """Return the answer to a permission request; None says it was cancelled."""
    return CANCELLED if option_id is None else {"outcome": {"outcome": "selected", "optionId": option_id}}
