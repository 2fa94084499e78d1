"""What a refusal means to formats that open sessions for their clients and follow them (PROTOCOL section 2b)."""

from typing import Final

from broker.errors import BrokerError

__all__ = ["NO_LONGER", "TRIES", "is_gone", "pause"]

NO_LONGER: Final = BrokerError("forbidden", "This session is not shown to you any more.")
"""What is told of one whose following has ended, whether it was taken away or the right to see it."""
TRIES: Final = 3
"""How often a session is asked for again that cannot be opened for a moment, such as one that is leaving memory."""


def is_gone(error: BrokerError) -> bool:
    """Tell whether something was refused because there is no such session, or none that the client may see."""
    return error.code == "not_found" and error.field == "$.payload.session_id"


def pause(error: BrokerError, tries: int) -> float | None:
    """Return the seconds after which a session is to be asked for again; None if the refusal is the answer.

    Args:
        error: why it was refused.
        tries: how often it was asked for again before.
    """
    return error.retry_after if error.code == "unavailable" and tries < TRIES else None
