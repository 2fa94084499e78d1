"""The frames of `agents.v1.json`, the protocol of agents that are linked by a WebSocket (PROTOCOL section 4).

A frame is `{"type", "id", "projectGuid"?, "data", "timestamp"}`, either way. What is only carried stays
bytes. Unknown fields are passed over, since agents learn new ones faster than brokers.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from broker.agents.bounds import RECORD_LIMIT
from broker.agents.port import News, UserFeedback
from broker.clock import rfc3339
from broker.errors import BrokerError
from broker.ids import new_id
from broker.projects import STATUS
from broker.protocol.edge import check_depth, invalid

__all__ = [
    "FRAME_LIMIT",
    "SUBPROTOCOL",
    "Envelope",
    "Hello",
    "Id",
    "Running",
    "Seq",
    "decoded",
    "feedback_written",
    "hello_of",
    "read",
    "update_written",
    "written",
]

SUBPROTOCOL: Final = "agents.v1.json"
FRAME_LIMIT: Final = 16 << 20
"""Bytes of the longest frame that is taken."""
_NAME: Final = msgspec.Meta(max_length=200)

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Seq = Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
"""The number of a frame within its turn: 1, 2, 3 ..."""


class Envelope(msgspec.Struct, frozen=True, rename={"project": "projectGuid"}):
    """What all frames have in common; `id` and `project` are JSON, of whatever kind the sender chose."""

    type: Annotated[str, _NAME]
    data: msgspec.Raw = msgspec.Raw(b"{}")
    id: msgspec.Raw = msgspec.Raw(b"null")
    project: msgspec.Raw = msgspec.Raw(b"null")


class Running(msgspec.Struct, frozen=True):
    """A turn that an agent still runs when it comes back; `seq` is the number of the last frame it made."""

    turn_id: Id
    seq: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)] | None = None


class Hello(msgspec.Struct, frozen=True):
    """The first frame of an agent.

    Attributes:
        agent: the profile it serves.
        version: its own version, for people.
        capacity: turns that it takes at the same time.
        instance: tells this process of the agent from all others, and is the same after a reconnect.
        turns: what it still runs, having been connected before.
    """

    agent: Annotated[str, _NAME]
    version: Annotated[str, _NAME] = ""
    capacity: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    instance: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    turns: Annotated[tuple[Running, ...], msgspec.Meta(max_length=10_000)] = ()


_ENVELOPE: Final = msgspec.json.Decoder(Envelope)
_HELLO: Final = msgspec.json.Decoder(Hello)
_encode: Final = msgspec.json.Encoder().encode


def read(text: bytes) -> Envelope:
    """Read one frame; `text` is UTF-8.

    How deep a frame is nested that is larger than a record is not looked at here, since counting its
    brackets takes long; whoever keeps some of it looks at that.

    Raises:
        BrokerError: `invalid_json` or `invalid_message`: it is none, or nested too deep.
    """
    if len(text) <= RECORD_LIMIT:
        check_depth(text)
    envelope: Envelope = decoded(_ENVELOPE, text, "$")
    return envelope


def hello_of(envelope: Envelope) -> Hello:
    """Return an agent's hello.

    Raises:
        BrokerError: `invalid_message`: it is something else, or cannot be read.
    """
    if envelope.type != "hello":
        raise BrokerError("invalid_message", "The first frame must be a hello.", field="$.type")
    hello: Hello = decoded(_HELLO, envelope.data)
    return hello


def decoded(decoder: msgspec.json.Decoder[Any], data: bytes | msgspec.Raw, root: str = "$.data") -> Any:
    """Return what `decoder` makes of some JSON, which stands at `root` of its frame.

    Raises:
        BrokerError: `invalid_message`, or `invalid_json` if it is none.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as e:
        raise invalid(e, root) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as e:
        raise BrokerError("invalid_json", f"The frame is not JSON: {e}.") from None


def written(kind: str, data: Mapping[str, Any], at: int) -> bytes:
    """Return a frame of ours; `at` is its time in milliseconds since the epoch."""
    return _encode({"type": kind, "id": new_id(), "data": data, "timestamp": rfc3339(at)})


def update_written(news: News) -> bytes:
    """Return the frame that tells an agent of an event of a project; its id is the one that members see."""
    return _encode(
        {
            "type": "project_status_sync" if news.event == STATUS else "project_update",
            "id": new_id() if news.seq is None else f"{news.project}:{news.seq}",
            "projectGuid": news.project,
            "data": {
                "event": news.event,
                **({} if news.seq is None else {"seq": news.seq}),
                "from": msgspec.Raw(news.sender),
                "data": msgspec.Raw(news.data),
            },
            "timestamp": rfc3339(news.at),
        }
    )


def feedback_written(feedback: UserFeedback) -> bytes:
    """Return the frame that brings an agent feedback; whose it is stands beside the data, which are as they came."""
    return _encode(
        {
            "type": "user_feedback",
            "id": feedback.feedback_id,
            "projectGuid": feedback.project,
            "from": msgspec.Raw(feedback.sender),
            "data": msgspec.Raw(feedback.data),
            "timestamp": rfc3339(feedback.at),
        }
    )
