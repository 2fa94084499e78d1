"""What an agent of `agents.v1.json` says of a turn, as our events: pure, bytes in and events out.

The mapping is that of PROTOCOL section 4. What is inside a tool's content, a question's options or a report
of a kind we do not know stays byte for byte as the agent wrote it.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Annotated, Any, Final, Literal

import attrs
import msgspec

from broker.agents.bounds import RECORD_LIMIT, TEXT_LIMIT, vendor_record
from broker.agents.remote.frames import Id, Seq, decoded
from broker.agents.remote.job import Job
from broker.errors import ERRORS, BrokerError
from broker.messages import (
    AgentEvent,
    AgentRecord,
    ApprovalRequested,
    TextDelta,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)
from broker.protocol.edge import check_depth

__all__ = ["ANYTHING", "NAMED", "REPORTS", "Report", "Said", "Variables", "declined", "variables_of", "vendor_of"]

_TITLE: Final = 500
_SMALL: Final = 1024
_FEW: Final = 20
_NAME: Final = 64
_RAW_NULL: Final = b"null"
_OPTION_IDS: Final = ("option_id", "optionId", "id")
_OPTION_NAMES: Final = ("name", "title", "label")

Fields = dict[str, msgspec.Raw]


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What all frames about a turn have in common."""

    turn_id: Id
    seq: Seq | None = None


class _Delta(Said, frozen=True):
    text: str
    kind: Literal["message", "thought"] = "message"
    message_id: Id | None = None


class _Tool(Said, frozen=True):
    tool_id: Id


class _Asked(Said, frozen=True):
    approval_id: Id
    options: msgspec.Raw
    title: str = "The agent asks"
    tool: msgspec.Raw = msgspec.Raw(_RAW_NULL)


class _End(Said, frozen=True):
    stop_reason: Annotated[str, msgspec.Meta(max_length=200)] = "end_turn"
    usage: msgspec.Raw = msgspec.Raw(_RAW_NULL)


class _Error(Said, frozen=True):
    code: str = "agent_unavailable"
    message: str = ""
    retryable: bool = False


class Variables(msgspec.Struct, frozen=True):
    """Variables that the agent sets; the turn need not be named."""

    session_id: Id
    set: msgspec.Raw
    turn_id: Id | None = None
    seq: Seq | None = None


class Anything(msgspec.Struct, frozen=True):
    """A frame of a kind that we do not know, which may belong to a turn."""

    turn_id: Id | None = None
    seq: Seq | None = None


class _Named(msgspec.Struct, frozen=True):
    """A frame of which no more is read than which turn it is about."""

    turn_id: Id


@attrs.frozen
class Report:
    """One kind of frame.

    Attributes:
        decoder: makes a `Said` of its data.
        events: what it says; takes the turn it is about, what was decoded, and the data as it came.
        output: whether it has to be numbered for the turn to go on over another link.
        unread: what it says by its kind alone, of the turn with this id; only where the agent is done with
            the turn then, which has to end even if nothing else of the frame can be read.
    """

    decoder: msgspec.json.Decoder[Any]
    events: Callable[[Job, Any, msgspec.Raw], Iterator[AgentEvent]]
    output: bool = True
    unread: Callable[[str], AgentEvent] | None = None

    @property
    def last(self) -> bool:
        """Whether the agent is done with the turn then."""
        return self.unread is not None


ANYTHING: Final = msgspec.json.Decoder(Anything)
NAMED: Final = msgspec.json.Decoder(_Named)
_FIELDS: Final = msgspec.json.Decoder(Fields)
_VALUE: Final = msgspec.json.Decoder(Any)
_OPTIONS: Final = msgspec.json.Decoder(Annotated[list[Fields], msgspec.Meta(min_length=1)])
_COLONS: Final = 10_000
"""Of a report too large for a record with more of them only known fields are read: it may have a million others."""
_TOLD: Final = (
    *("tool_id", "title", "status", "kind", "content", "locations"),
    *("input_tokens", "output_tokens", "total_tokens", "cost"),
)
_LARGE: Final = msgspec.json.Decoder(
    msgspec.defstruct("_Large", [(name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in _TOLD])
)
_encode: Final = msgspec.json.Encoder().encode


def _taken(job: Job, _: Said, __: msgspec.Raw) -> Iterator[AgentEvent]:
    yield TurnTaken(job.turn_id)


def _delta(job: Job, delta: _Delta, _: msgspec.Raw) -> Iterator[AgentEvent]:
    text, thought = delta.text, delta.kind == "thought"
    if not text:
        yield TurnTaken(job.turn_id)  # it says nothing, but that it is at work
    elif len(text) <= TEXT_LIMIT:
        yield TextDelta(job.turn_id, text, thought, delta.message_id)
    else:
        for start in range(0, len(text), TEXT_LIMIT):
            yield TextDelta(job.turn_id, text[start : start + TEXT_LIMIT], thought, delta.message_id)


def _tool(job: Job, tool: _Tool, raw: msgspec.Raw) -> Iterator[AgentEvent]:
    data = _kept(raw)
    yield AgentRecord(job.turn_id, "tool.started" if job.meets(tool.tool_id) else "tool.updated", data)


def _usage(job: Job, _: Said, raw: msgspec.Raw) -> Iterator[AgentEvent]:
    job.usage = _kept(raw)
    yield AgentRecord(job.turn_id, "usage.updated", job.usage)


def _debug(job: Job, _: Said, raw: msgspec.Raw) -> Iterator[AgentEvent]:
    yield AgentRecord(job.turn_id, "debug", _kept(raw))


def _asked(job: Job, asked: _Asked, _: msgspec.Raw) -> Iterator[AgentEvent]:
    said: list[Fields] = decoded(_OPTIONS, _within(asked.options, "options"), "$.data.options")
    options = _readable(_within(_encode([_option(option) for option in said]), "options"))
    tool = None if bytes(asked.tool) == _RAW_NULL else _kept(asked.tool)
    yield ApprovalRequested(job.turn_id, asked.approval_id, asked.title[:_TITLE], options, tool)


def _option(fields: Fields) -> Fields:
    """Return an option under our names, whichever of the usual ones the agent chose."""
    option_id = next((fields[name] for name in _OPTION_IDS if name in fields), None)
    if option_id is None or not isinstance(decoded(_VALUE, option_id), str):
        raise BrokerError("invalid_message", "An option needs an option_id.", field="$.data.options")
    name = next((fields[name] for name in _OPTION_NAMES if name in fields), option_id)
    rest = {key: value for key, value in fields.items() if key not in _OPTION_IDS + _OPTION_NAMES}
    return {"option_id": option_id, "name": name, **rest}


def _ended(job: Job, end: _End, _: msgspec.Raw) -> Iterator[AgentEvent]:
    usage = job.usage if bytes(end.usage) == _RAW_NULL else _kept(end.usage)
    yield TurnSettled(job.turn_id, end.stop_reason, usage, last=True)


def _failed(job: Job, error: _Error, _: msgspec.Raw) -> Iterator[AgentEvent]:
    message = error.message[:_TITLE] or "The agent failed."
    if error.code in ERRORS:
        yield TurnFailed(job.turn_id, error.code, message, error.retryable)
    else:
        yield TurnFailed(job.turn_id, "agent_unavailable", f"{message} ({error.code[:_NAME]})", error.retryable)


def _ended_somehow(turn_id: str) -> AgentEvent:
    return TurnSettled(turn_id, "unknown", last=True)


def _failed_somehow(turn_id: str) -> AgentEvent:
    return TurnFailed(turn_id, "agent_unavailable", "The agent's last word cannot be read.")


def declined(job: Job, said: Said) -> bool:
    """Tell whether an agent says that it cannot have a turn, of which nothing has been heard or is under way yet."""
    untouched = job.prompt is not None and not job.over and not job.cancelled
    return untouched and isinstance(said, _Error) and said.code == "unavailable"


REPORTS: Final = {
    "turn_accepted": Report(msgspec.json.Decoder(Said), _taken, output=False),
    "delta": Report(msgspec.json.Decoder(_Delta), _delta),
    "tool": Report(msgspec.json.Decoder(_Tool), _tool),
    "approval_request": Report(msgspec.json.Decoder(_Asked), _asked),
    "usage": Report(msgspec.json.Decoder(Said), _usage),
    "debug": Report(msgspec.json.Decoder(Said), _debug),
    "turn_end": Report(msgspec.json.Decoder(_End), _ended, unread=_ended_somehow),
    "turn_error": Report(msgspec.json.Decoder(_Error), _failed, unread=_failed_somehow),
}
"""The kinds of frames that are about one turn."""
_VARIABLES: Final = msgspec.json.Decoder(Variables)


def variables_of(raw: msgspec.Raw) -> tuple[Variables, bytes]:
    """Return the variables that an agent sets, also as a JSON object.

    Raises:
        BrokerError: they cannot be read, or are too large.
    """
    variables: Variables = decoded(_VARIABLES, raw)
    fields: Fields = decoded(_FIELDS, _within(variables.set, "set"), "$.data.set")
    return variables, _readable(_encode(fields))


def vendor_of(kind: str, raw: msgspec.Raw, turn_id: str) -> AgentRecord:
    """Keep a frame of a kind that we do not know word for word.

    Raises:
        BrokerError: it cannot be read.
    """
    try:
        return vendor_record(kind, raw, turn_id)
    except (msgspec.MsgspecError, ValueError, RecursionError) as e:
        raise BrokerError("invalid_message", f"The frame cannot be kept: {e}.", field="$.data") from None


def _within(data: bytes | msgspec.Raw, field: str) -> bytes:
    """Refuse what no record may hold, before any of it becomes objects, which take many times its bytes."""
    text = bytes(data)
    if len(text) > RECORD_LIMIT:
        raise BrokerError("too_large", "This is more than a record may hold.", field=f"$.data.{field}")
    return text


def _kept(raw: msgspec.Raw) -> bytes:
    """Return a report without the fields that say what it belongs to, and without the large ones of a large one."""
    text = bytes(raw)
    if len(text) > RECORD_LIMIT and text.count(b":") > _COLONS:
        large = decoded(_LARGE, raw)
        fields = {name: value for name in _TOLD if (value := getattr(large, name)) is not msgspec.UNSET}
        return _readable(_bounded(fields))
    fields = decoded(_FIELDS, raw)
    return _readable(_bounded({name: value for name, value in fields.items() if name not in {"turn_id", "seq"}}))


def _readable(data: bytes) -> bytes:
    """Read what is only carried along, once it is cut to size: whoever reads the log must be able to."""
    check_depth(data)
    decoded(_VALUE, data)
    return data


def _bounded(fields: Fields) -> bytes:
    """Encode `fields`; where they are more than a record may hold, the small ones, and the names of the others."""
    if sum(len(name) + len(bytes(value)) for name, value in fields.items()) <= RECORD_LIMIT:
        data = _encode(fields)
        if len(data) <= RECORD_LIMIT:
            return data
    small = ((name, value) for name, value in fields.items() if len(name) + len(bytes(value)) <= _SMALL)
    kept = dict(islice(small, _FEW))
    gone = [name[:_NAME] for name in islice((name for name in fields if name not in kept), _FEW)]
    return _encode({**kept, "truncated": gone})
