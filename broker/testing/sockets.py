"""A socket whose peer reads as much as a test lets it."""

import asyncio
import struct
import zlib
from collections.abc import Callable
from typing import Any

import attrs
import msgspec

from broker.testing.patience import PATIENCE

__all__ = ["FakeTransport", "Frame"]


@attrs.frozen
class Frame:
    """One WebSocket frame: its opcode (RFC 6455 section 5.2) and its payload, decompressed."""

    opcode: int
    payload: bytes


class FakeTransport(asyncio.Transport):
    """The server's end of a socket whose peer reads as much as a test lets it.

    Attributes:
        frames: what the peer has read, frame by frame.
        writes: how often something was written.
        aborted: whether the line was cut.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.writes = 0
        self.aborted = False
        self._closing = False
        self._stalled = False
        self._outbox = bytearray()  # written, and not yet taken off by the peer
        self._half = bytearray()  # taken off, and not yet a whole frame
        self._wakes: set[asyncio.Future[None]] = set()

    # -- what a connection asks of it -----------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take some bytes; those of a closed socket are lost, as with asyncio's own."""
        if self._closing:
            return
        self.writes += 1
        self._outbox += data
        if not self._stalled:
            self.read()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the peer has not taken off."""
        return len(self._outbox)

    def is_closing(self) -> bool:
        """Tell whether the socket is closed."""
        return self._closing

    def close(self) -> None:
        """Close the socket."""
        self._closing = True
        self._wake()

    def abort(self) -> None:
        """Cut the line: what the peer has not taken off is lost."""
        self.aborted = True
        self._outbox.clear()
        self.close()

    # -- what a test does with the peer ---------------------------------------------------------------

    def stall(self) -> None:
        """Let the peer read nothing more."""
        self._stalled = True

    def resume(self) -> None:
        """Let the peer read again, all there is and all that comes."""
        self._stalled = False
        self.read()

    def read(self, size: int | None = None) -> None:
        """Let the peer read `size` bytes more, or all that wait."""
        taken = self._outbox[:size]
        del self._outbox[:size]
        self._half += taken
        while (frame := _take_frame(self._half)) is not None:
            self.frames.append(frame)
        self._wake()

    @property
    def messages(self) -> list[Any]:
        """The text messages that the peer has read, decoded from JSON."""
        return [msgspec.json.decode(frame.payload) for frame in self.frames if frame.opcode == 1]

    @property
    def close_code(self) -> int | None:
        """The code of the close frame that the peer has read, if any."""
        codes = [int(struct.unpack("!H", frame.payload[:2])[0]) for frame in self.frames if frame.opcode == 8]  # noqa: PLR2004
        return codes[0] if codes else None

    async def until(self, found: Callable[["FakeTransport"], Any]) -> Any:
        """Wait until `found(transport)` is true, and return what it returned.

        Raises:
            TimeoutError: it did not become so.
        """
        async with asyncio.timeout(PATIENCE):
            while not (result := found(self)):
                wake = asyncio.get_running_loop().create_future()
                self._wakes.add(wake)
                await wake
        return result

    async def message(self, **wanted: Any) -> Any:
        """Wait for the first message that has these keys and values, and return it."""
        return await self.until(
            lambda _: next((m for m in self.messages if all(m.get(k) == v for k, v in wanted.items())), None)
        )

    def _wake(self) -> None:
        wakes, self._wakes = self._wakes, set()
        for wake in wakes:
            if not wake.done():
                wake.set_result(None)


def _take_frame(data: bytearray) -> Frame | None:
    """Take a whole, unmasked frame off the front, if there is one (RFC 6455 section 5.2)."""
    if len(data) < 2:  # noqa: PLR2004 - the shortest header
        return None
    start, size = 2, data[1]
    for mark, width, form in ((126, 2, "!H"), (127, 8, "!Q")):
        if data[1] == mark:
            start = 2 + width
            if len(data) < start:
                return None
            size = int(struct.unpack_from(form, data, 2)[0])
    if len(data) < start + size:
        return None
    first, payload = data[0], bytes(data[start : start + size])
    del data[: start + size]
    if first & 0x40:  # compressed (RFC 7692 section 7.2.2)
        payload = zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")
    return Frame(first & 0x0F, payload)
