"""What both versions of the Agent Client Protocol share: the greeting, errors, prompts and answers."""

from collections.abc import Sequence
from typing import Any, Final

import attrs
import msgspec

from broker import __version__
from broker.agents.acp.jsonrpc import MISREAD, Answer, RpcError
from broker.errors import BrokerError

__all__ = [
    "AUTH_REQUIRED",
    "CANCELLED",
    "INVALID_PARAMS",
    "REQUEST_CANCELLED",
    "Implementation",
    "Known",
    "answer_of",
    "blocks_of",
    "hello",
    "known_of",
    "refusal_of",
    "selected",
]

AUTH_REQUIRED: Final = -32000
INVALID_PARAMS: Final = -32602
REQUEST_CANCELLED: Final = -32800

CANCELLED: Final = {"outcome": {"outcome": "cancelled"}}
"""The answer to a permission request that nobody will answer any more."""

_OURSELVES: Final = {"name": "actor-broker", "version": __version__}
_MESSAGE_WIDTH: Final = 500
_NEWEST: Final = 2
_LOGINS_BYTES: Final = 64 * 1024
_NOTHING: Final = (b"", b"null")


class Implementation(msgspec.Struct, frozen=True):
    """What a program says of itself."""

    name: str | None = None
    version: str | None = None


@attrs.frozen
class Known:
    """What is known of an agent process once it has answered `initialize`.

    Attributes:
        agent: what it says of itself.
        protocol: the version of the protocol it speaks.
        logins: the ways to log in that it names.
        resumes: whether it says it can take up a session without replaying it.
        loads: whether it says it can take up a session and replay it.
        closes: whether it says it can close a session.
    """

    agent: Implementation = attrs.Factory(Implementation)
    protocol: int = 1
    logins: tuple[str, ...] = ()
    resumes: bool = False
    loads: bool = False
    closes: bool = False


class _Details(msgspec.Struct, frozen=True):
    details: str = ""


class _Can(msgspec.Struct, frozen=True):
    resume: msgspec.Raw = msgspec.Raw()
    close: msgspec.Raw = msgspec.Raw()


class _Capabilities(msgspec.Struct, frozen=True, rename="camel"):
    load_session: bool = False
    session_capabilities: _Can | None = None


class _Initialized(msgspec.Struct, frozen=True, rename="camel"):
    protocol_version: int
    agent_info: Implementation | None = None
    agent_capabilities: msgspec.Raw = msgspec.Raw()
    info: Implementation | None = None
    auth_methods: msgspec.Raw = msgspec.Raw()


_INITIALIZED = msgspec.json.Decoder(_Initialized)
_CAPABILITIES = msgspec.json.Decoder(_Capabilities)
_LOGINS = msgspec.json.Decoder(list[Implementation] | None)
_DETAILS = msgspec.json.Decoder(_Details)


def hello(protocol: int) -> dict[str, Any]:
    """Return the params of `initialize` that offer this version; the broker lends no file system and no terminal.

    The offer of version 2 carries the fields of version 1 beside its own, so that an agent that speaks only
    that reads what it expects.
    """
    lent = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
    params = {"protocolVersion": protocol, "clientCapabilities": lent, "clientInfo": _OURSELVES}
    return params if protocol < _NEWEST else params | {"capabilities": {}, "info": _OURSELVES}


def known_of(answer: Answer, offered: int) -> Known:
    """Read the answer to an `initialize` that offered this version.

    Agents made with the Python SDK often repeat whatever version they are offered. An answer is of version 2
    only with the `info` that version 2 demands and version 1 does not have.

    Raises:
        BrokerError: `agent_unavailable`: it is an error, cannot be read, or speaks another version.
    """
    said: _Initialized = answer_of(_INITIALIZED, answer, "initialize")
    logins = _logins_of(said.auth_methods)
    if said.protocol_version == _NEWEST == offered and said.info is not None:
        return Known(said.info, _NEWEST, logins, resumes=True, closes=True)
    if said.protocol_version not in {1, offered}:
        spoken = f"The agent speaks version {said.protocol_version} of ACP, the broker offered {offered}."
        raise BrokerError("agent_unavailable", spoken)
    can = _capabilities_of(said.agent_capabilities)
    session = can.session_capabilities or _Can()
    return Known(
        said.agent_info or Implementation(),
        1,
        logins,
        resumes=bytes(session.resume) not in _NOTHING,
        loads=can.load_session,
        closes=bytes(session.close) not in _NOTHING,
    )


def _capabilities_of(raw: msgspec.Raw) -> _Capabilities:
    """Read what a version 1 agent says it can do; what cannot be read it cannot do."""
    try:
        return _CAPABILITIES.decode(raw)
    except MISREAD:
        return _Capabilities()


def _logins_of(raw: msgspec.Raw) -> tuple[str, ...]:
    """Read which ways to log in an agent names; they only make an error's text better."""
    if len(bytes(raw)) > _LOGINS_BYTES:
        return ()
    try:
        return tuple(method.name for method in _LOGINS.decode(raw) or () if method.name)
    except MISREAD:
        return ()


def answer_of(decoder: msgspec.json.Decoder[Any], answer: Answer, to: str, logins: Sequence[str] = ()) -> Any:
    """Read an answer; `to` says in words what it answers.

    Raises:
        BrokerError: it is an error, said in our terms (`refusal_of`), or cannot be read.
    """
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
