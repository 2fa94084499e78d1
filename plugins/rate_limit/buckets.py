"""Token buckets, and where they are kept: exact, small, and only so many."""

from collections import OrderedDict
from collections.abc import Hashable
from math import inf
from typing import Final, Generic, TypeVar

import attrs

__all__ = ["SLACK", "Bucket", "Charges", "Limit", "Purse", "Purses", "pay", "wait_of"]

SLACK: Final = 1e-6
"""Seconds by which rounding may be out when many small costs are added up."""

KEPT: Final = 30.0
"""Seconds for which full ones are kept all the same, so that who sends now and then is not looked up anew each time."""

SWEPT: Final = 2
"""Purses that are looked at, whether they may be forgotten, for each that is new."""


@attrs.frozen
class Limit:
    """One limit.

    Attributes:
        name: what its buckets are called.
        metric: what it is counted as.
        message: seconds of the rate that a message takes, or a frame, a handshake, a request.
        byte: seconds of the rate that each byte of it takes.
        sentence: what a person is told who comes up against it.
    """

    name: str
    metric: str
    message: float
    byte: float
    sentence: str


class Bucket:
    """A token bucket: it holds some seconds of a rate, the burst, and fills at that rate.

    Attributes:
        full_at: when it will be full again if nothing more is taken out, which is all there is to know of it.
    """

    __slots__ = ("full_at",)

    def __init__(self) -> None:
        self.full_at = -inf


Charges = tuple[tuple[Bucket, Limit], ...]


def pay(charges: Charges, size: int, burst: float, now: float) -> Limit | None:
    """Take a message out of all these buckets, or out of none if one has not enough; return that one's limit.

    A full bucket goes into debt for what it could never hold.

    Args:
        charges: each bucket with the limit it keeps.
        size: bytes of the message.
        burst: how many seconds it takes to fill an empty bucket.
        now: the time.
    """
    for bucket, limit in charges:
        cost = limit.message + size * limit.byte
        full_at = bucket.full_at
        if full_at <= now:
            bucket.full_at = now + cost
        elif full_at + cost - now - burst <= SLACK:
            bucket.full_at = full_at + cost
        else:
            _give_back(charges, size, bucket)
            return limit
    return None


def wait_of(charges: Charges, size: int, burst: float, now: float) -> float:
    """Return the seconds until `pay` will do; 0 if it would now."""
    return max(_wait(bucket.full_at - now, limit.message + size * limit.byte, burst) for bucket, limit in charges)


def _wait(until_full: float, cost: float, burst: float) -> float:
    wait = min(until_full + cost - burst, until_full)
    return wait if wait > SLACK else 0.0


def _give_back(charges: Charges, size: int, until: Bucket) -> None:
    for bucket, limit in charges:
        if bucket is until:
            return
        bucket.full_at -= limit.message + size * limit.byte


class Purse:
    """The buckets of one connection, user or address by name, made when they are first needed.

    Attributes:
        gone: whether it was forgotten, so that there may be another one by now.
    """

    __slots__ = ("_buckets", "gone")

    def __init__(self) -> None:
        self.gone = False
        self._buckets: dict[str, Bucket] = {}

    def bucket(self, name: str) -> Bucket:
        """Return the bucket of this name."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket()
        return bucket

    def is_full(self, since: float) -> bool:
        """Tell whether all have been full since then: a full bucket is the same as none."""
        return all(bucket.full_at <= since for bucket in self._buckets.values())


Key = TypeVar("Key", bound=Hashable)
Kept = TypeVar("Kept", bound=Purse)


class Purses(Generic[Key, Kept]):
    """The purses that have something to remember.

    Args:
        most: how many there may be; then the one that was looked at longest ago goes, full or not.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._purses: OrderedDict[Key, Kept] = OrderedDict()
        self.get = self._purses.get

    def __len__(self) -> int:
        return len(self._purses)

    def add(self, key: Key, purse: Kept, now: float) -> Kept:
        """Remember a new purse, and return it."""
        self._sweep(now)
        if len(self._purses) >= self._most:
            self.forget(next(iter(self._purses)))
        self._purses[key] = purse
        return purse

    def forget(self, key: Key) -> None:
        """Forget a purse, if it is there."""
        purse = self._purses.pop(key, None)
        if purse is not None:
            purse.gone = True

    def _sweep(self, now: float) -> None:
        # Two looked at for each one added: the full ones are found before the table has doubled.
        for _ in range(min(SWEPT, len(self._purses))):
            key, purse = next(iter(self._purses.items()))
            if purse.is_full(now - KEPT):
                self.forget(key)
            else:
                self._purses.move_to_end(key)
