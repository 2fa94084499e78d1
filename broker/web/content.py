"""What somebody says with an operation, over the socket and over HTTP alike: what the content gates are asked about."""

from collections.abc import Awaitable, Callable, Iterator
from functools import cache, partial
from typing import Any, Final, get_type_hints

import attrs
import msgspec

from broker.hooks import Content
from broker.messages import Principal
from broker.protocol.edge import UNREADABLE, invalid, unreadable
from broker.web.services import to_json

__all__ = ["SAYS", "Said"]

Ask = Callable[[Content], Awaitable[bytes] | bytes]
"""Asks the content gates; `broker.extensions.dispatch.Hooks.run_filters`."""
Part = tuple[str, bytes]
"""An attribute of a payload, empty for all of it, and what it says, as JSON."""

_NOTHING: Final = frozenset({b"null", b'""', b"{}"})
"""What says nothing, where it may be left out."""


@attrs.frozen
class Said:
    """Where in a payload it stands what somebody says; the gates are asked about each part by itself.

    Attributes:
        attribute: the payload's attribute, a `msgspec.Raw`; empty if the payload is it, None if there is only what
            stands beside it.
        beside: attributes that may be left out, Raw or plain values; nobody is asked about one that says nothing.
    """

    attribute: str | None = ""
    beside: tuple[str, ...] = ()

    def passed(
        self, ask: Ask, by: Principal, operation: str, resource: str | None, payload: Any
    ) -> Awaitable[Any] | Any:
        """Return the payload with what the gates let be said.

        Args:
            ask: asks the gates.
            by: who says it.
            operation: how.
            resource: to which session, room or project.
            payload: what it is said with; it is not changed.

        Returns:
            The payload, the same if nothing was changed; where a gate has to be waited for, what must be awaited to
            have it.

        Raises:
            BrokerError: a gate refuses, or what it says instead does not fit (`invalid_message`); here or where the
                result is awaited.
        """
        content = partial(Content, by, operation, resource)
        parts = tuple(self._parts(payload))
        for index, (attribute, data) in enumerate(parts):
            answer = ask(content(data, attribute))
            if not isinstance(answer, bytes):
                return _rest(ask, content, answer, parts[index:], payload)
            payload = _instead(payload, attribute, data, answer)
        return payload

    def _parts(self, payload: Any) -> Iterator[Part]:
        if self.attribute is not None:
            yield self.attribute, bytes(getattr(payload, self.attribute) if self.attribute else payload)
        for attribute in self.beside:
            value = getattr(payload, attribute)
            data = bytes(value) if isinstance(value, msgspec.Raw) else to_json(value)
            if data not in _NOTHING:
                yield attribute, data


async def _rest(
    ask: Ask, content: Callable[..., Content], answer: Awaitable[bytes], parts: tuple[Part, ...], payload: Any
) -> Any:
    """Wait for what is said of the first of these parts, and ask about the others."""
    (attribute, data), *others = parts
    payload = _instead(payload, attribute, data, await answer)
    for attribute, data in others:
        said = ask(content(data, attribute))
        payload = _instead(payload, attribute, data, said if isinstance(said, bytes) else await said)
    return payload


def _instead(payload: Any, attribute: str, old: bytes, new: bytes) -> Any:
    """Return the payload with something else in one of its parts; as it is if that is the same."""
    if new is old:
        return payload
    if not attribute:
        return type(payload)(new)
    kind: Any = type(payload)
    try:
        value = _decoder(kind, attribute).decode(new)
    except msgspec.ValidationError as e:
        raise invalid(e, f"$.payload.{attribute}") from None
    except UNREADABLE as e:
        raise unreadable(e, "message") from None
    return attrs.evolve(payload, **{attribute: value})


@cache
def _decoder(payload: Any, attribute: str) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(get_type_hints(payload, include_extras=True)[attribute])


_SESSION: Final = Said(None, ("title", "variables"))

SAYS: Final = {
    "broadcast": Said(),
    "send": Said("data"),
    "session.create": _SESSION,
    "session.open": _SESSION,
    "session.update": _SESSION,
    "turn.start": Said("content", ("metadata",)),
    "turn.edit": Said("content"),
    "room.publish": Said("data"),
    "project.feedback": Said("data"),
}
"""By operation. Names are not among it, such as those of rooms, events and options: others go by them."""
