"""From a stream of bytes to lines."""

from collections.abc import Iterator

__all__ = ["Lines"]


class Lines:
    """Cuts a stream of bytes into lines of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begun = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that `data` completes, without their newlines.

        Raises:
            OverflowError: a line is larger than the limit, complete or not.
        """
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._begin(data[start:end])
            line = bytes(self._begun)
            self._begun.clear()
            yield line
            start = end + 1
        self._begin(data[start:])

    def _begin(self, part: bytes) -> None:
        if len(self._begun) + len(part) > self._limit:
            raise OverflowError(f"wrote a line of more than {self._limit} bytes")
        self._begun += part
