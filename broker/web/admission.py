"""How many may come in: all together, and of one address before they have said what they want (PROTOCOL P7).

A connection is *unknown* from its accept until it has sent a whole request, and again from when it asks for a socket
until the socket's client has said who it is; what serves the socket calls `Guest.known` when that is so. One whose
requests are answered may stay, *idle*, until its place is needed: whoever has been silent longest gives way.
"""

from collections import Counter
from typing import Final, Protocol

import attrs

from broker.errors import BrokerError
from broker.logs import limited
from broker.web.proxies import Proxies, bucket

__all__ = ["SPARE", "Admission", "Guest", "Idle", "full"]

SPARE: Final = 8
"""Connections beyond the limit that may ask for something short, such as whether the broker is alive."""
CROWDED_SECONDS: Final = 1.0
FULL_SECONDS: Final = 5.0


@attrs.define(eq=False)
class Guest:
    """One that was let in, as it is counted.

    Attributes:
        spare: whether it came when all places were taken: it may not stay.
        gone: whether its place is free again.
    """

    _admission: "Admission"
    _bucket: str | None
    spare: bool = False
    gone: bool = False

    def unknown(self, address: str) -> None:
        """Count it among those that have not said who they are, unless it is; raises as `Admission.knock`."""
        if self._bucket is None:
            self._bucket = self._admission.note(address)

    def known(self) -> None:
        """Count it no more among those that have not said what they want; may be called again."""
        self._admission.forget(self._bucket)
        self._bucket = None


class Idle(Protocol):
    """A connection that waits for its next request."""

    guest: Guest

    def give_way(self) -> None:
        """Close."""


class Admission:
    """Counts who is inside.

    Args:
        limit: how many connections there may be.
        per_address: how many unknown ones of one address.
        proxies: whose connections are many clients', so that each request is counted under its client's address.

    Attributes:
        limit: as given; may be changed.
        proxies: as given.
        inside: how many connections there are.
    """

    def __init__(self, limit: int, per_address: int, proxies: Proxies) -> None:
        self.limit = limit
        self.proxies = proxies
        self.inside = 0
        self._per_address = per_address
        self._unknown: Counter[str] = Counter()
        self._idle: dict[Idle, None] = {}

    @property
    def unknown(self) -> int:
        """How many have not said what they want."""
        return self._unknown.total()

    def admit(self, address: str) -> Guest:
        """Let a connection in.

        Raises:
            BrokerError: `unavailable` if there are too many, `rate_limited` if too many of this address are unknown.
        """
        if self.inside >= self.limit + SPARE and not self._idle:
            limited("connections").warning("connections are refused: there are {}, as many as may be", self.inside)
            raise full()
        guest = Guest(self, None) if self.proxies.trust(address) else self.knock(address)
        guest.spare = self.inside >= self.limit and not self._make_room()
        self.inside += 1
        return guest

    def leave(self, guest: Guest) -> None:
        """Let a connection go; may be called again."""
        guest.known()
        self.inside -= not guest.gone
        guest.gone = True

    def rest(self, line: Idle) -> None:
        """Take note that a connection waits for its next request, from now on."""
        self._idle.pop(line, None)
        self._idle[line] = None

    def wake(self, line: Idle) -> None:
        """Take note that a connection does not wait, or is lost."""
        self._idle.pop(line, None)

    def knock(self, address: str) -> Guest:
        """Return a guest of this address that is unknown, and has no place of its own.

        Raises:
            BrokerError: `rate_limited` if too many of the address are unknown.
        """
        return Guest(self, self.note(address))

    def note(self, address: str) -> str:
        """Count one more unknown of this address, and return what to `forget`; raises as `knock`."""
        where = bucket(address)
        if self._unknown[where] >= self._per_address:
            limited("unknown").warning("connections of {} are refused: too many have not said who they are", where)
            text = "Too many connections of your address have not said yet what they want."
            raise BrokerError("rate_limited", text, retry_after=CROWDED_SECONDS)
        self._unknown[where] += 1
        return where

    def forget(self, where: str | None) -> None:
        """Count one less of an address; None for one that is not counted."""
        if where is None:
            return
        self._unknown[where] -= 1
        if not self._unknown[where]:
            del self._unknown[where]

    def _make_room(self) -> bool:
        """Have those who wait longest give way; tell whether there is a place then."""
        while self._idle and self.inside >= self.limit:
            line = next(iter(self._idle))
            self.wake(line)
            self.leave(line.guest)
            line.give_way()
        return self.inside < self.limit


def full() -> BrokerError:
    """Return what one is told that comes when all places are taken."""
    return BrokerError("unavailable", "There are as many connections as there may be.", retry_after=FULL_SECONDS)
