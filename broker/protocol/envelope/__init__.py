"""`envelope.v1.json`: envelopes between people and an agent, each text of which gets a reply or an error, in time.

The design is seed 003 (PROTOCOL section 6). A text to `ai` starts a turn under the text's own id, so it may be sent
again at any time and is not done twice (P4); what the agent says comes as texts that name it in `replyTo`. Each text
comes to one end, which is marked `final`: that its turn has ended well, or why there is no reply. Commands go to
`system`, and what goes to `user` is sent to other users as it is.

A text is held first, so that its time runs from there, and then offered to a handler that may be registered for texts.
Only where there is none is its session opened, if it is not, and its turn started, after those of the texts before it.
"""

from collections.abc import Callable, Mapping

from broker.protocol.envelope.answers import Asked
from broker.protocol.envelope.dialect import EnvelopeDialect
from broker.protocol.envelope.voice import Voice
from broker.protocol.outgoing import Outgoing, Request

__all__ = ["EnvelopeFormat"]


class EnvelopeFormat:
    """The format, as one shared object: what it can do without knowing the connection.

    Args:
        message_timeout: seconds within which a text has a reply or an error.
        now: returns milliseconds since the epoch.
    """

    name = "envelope.v1.json"

    def __init__(self, message_timeout: float, now: Callable[[], int]) -> None:
        self._timeout = message_timeout
        self._voice = Voice(now)

    def decode(self, text: bytes) -> Request:
        """Read one message, as the first of a connection; raises as `EnvelopeDialect.decode`."""
        return self.dialect({}).decode(text)

    def salvage_id(self, text: bytes) -> Asked | None:
        """Return the id of a message that was refused, if one can be read."""
        return self.dialect({}).salvage_id(text)

    def encode(self, value: Outgoing) -> bytes:
        """Return the value as one text message, as the first thing that a connection is told."""
        return next((said for said in self.dialect({}).tell(value) if isinstance(said, bytes)), b"")

    def dialect(self, query: Mapping[str, str]) -> EnvelopeDialect:
        """Return the end of a new connection."""
        return EnvelopeDialect(self._timeout, self._voice)
