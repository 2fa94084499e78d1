"""What somebody says with an operation, over the socket and over HTTP alike: what the content gates are asked about."""

from typing import Any, Final

import attrs
import msgspec

__all__ = ["SAYS", "Said"]


@attrs.frozen
class Said:
    """Where in a payload it stands what somebody says.

    Attributes:
        attribute: the payload's attribute, a `msgspec.Raw`; None if the payload is it, as bytes.
    """

    attribute: str | None = None

    def of(self, payload: Any) -> bytes:
        """Return it, as JSON."""
        return bytes(payload if self.attribute is None else getattr(payload, self.attribute))

    def instead(self, payload: Any, data: bytes) -> Any:
        """Return the payload with something else said."""
        if self.attribute is None:
            return type(payload)(data)
        return attrs.evolve(payload, **{self.attribute: msgspec.Raw(data)})


SAYS: Final = {
    "broadcast": Said(),
    "send": Said("data"),
    "turn.start": Said("content"),
    "turn.edit": Said("content"),
    "room.publish": Said("data"),
    "project.feedback": Said("data"),
}
"""By operation."""
