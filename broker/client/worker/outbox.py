"""The numbered frames of one turn: those to be sent, and those that may be asked for again."""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

__all__ = ["BYTES", "FRAMES", "Outbox"]

FRAMES: Final = 1000
"""Frames kept of one turn."""
BYTES: Final = 4 << 20
"""Bytes kept of one turn; one frame may lie across this line."""


class Outbox:
    """Numbers frames 1, 2, 3 ... and keeps the newest of them.

    To make room the oldest goes, if it was sent; one that was not is never let go.

    Attributes:
        head: the number of the newest frame; 0 for none.
        sent: the number of the newest frame that went out over the link of now.
    """

    __slots__ = ("_bytes", "_kept", "_most", "_most_bytes", "_unsent", "head", "sent")

    def __init__(self, frames: int = FRAMES, size: int = BYTES) -> None:
        self.head = 0
        self.sent = 0
        self._kept: deque[bytes] = deque()
        self._bytes = 0
        self._unsent = 0  # bytes of those that were not sent
        self._most = frames
        self._most_bytes = size

    @property
    def floor(self) -> int:
        """The number of the oldest frame that is kept; `head + 1` for none."""
        return self.head + 1 - len(self._kept)

    @property
    def full(self) -> bool:
        """Whether there is no room for another frame, even if all that were sent go."""
        return self.head - self.sent >= self._most or self._unsent >= self._most_bytes

    def add(self, frame: bytes) -> None:
        """Take the frame with the number `head + 1`, also if there is no room for it."""
        while self.floor <= self.sent and (len(self._kept) >= self._most or self._bytes >= self._most_bytes):
            self._bytes -= len(self._kept.popleft())
        self._kept.append(frame)
        self._bytes += len(frame)
        self._unsent += len(frame)
        self.head += 1

    def take(self) -> Iterator[bytes]:
        """Yield the frames that were not sent yet; each counts as sent when it is asked for."""
        while self.sent < self.head:
            self.sent += 1
            frame = self._kept[self.sent - self.floor]
            self._unsent -= len(frame)
            yield frame

    def rewind(self, seq: int = 0) -> None:
        """Go back to behind frame `seq`, or as far as what is kept allows: what follows is to be sent again."""
        self.sent = min(max(seq, self.floor - 1), self.head)
        self._unsent = sum(map(len, islice(self._kept, self.sent + 1 - self.floor, None)))
