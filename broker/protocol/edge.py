"""What no message may contain, whatever its format: checked once, before anything else sees it (PROTOCOL section 2).

And what a sender is told of JSON that cannot be read, over the socket, over HTTP and by agents alike.
"""

from collections.abc import Callable
from itertools import accumulate
from operator import add
from typing import Final, TypeVar

import msgspec

from broker.errors import BrokerError

__all__ = ["MAX_DEPTH", "UNREADABLE", "check_depth", "fitting", "invalid", "is_utf8", "read", "unreadable"]

T = TypeVar("T")

MAX_DEPTH: Final = 64
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises where the JSON is none, or does not fit."""
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_NEITHER: Final = bytes(set(_NOT_BRACKETS) - set(b'"'))
_BITS: Final = bytes.maketrans(b"[{]}", b"1100")


def _walk(byte: int) -> list[int]:
    """Return the levels that eight brackets lead to, one after the other; a bit that is set opens."""
    return list(accumulate(1 if byte >> bit & 1 else -1 for bit in reversed(range(8))))


# Signed numbers as bytes, by which eight brackets are looked up at once: Python's own loops take an eighth of the time.
_RISE: Final = bytes(_walk(byte)[-1] & 0xFF for byte in range(256))
_PEAK: Final = bytes(max(_walk(byte)) & 0xFF for byte in range(256))


def is_utf8(data: bytes) -> bool:
    """Tell whether `data` is UTF-8; a client's text frame must be."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def check_depth(data: bytes) -> None:
    """Refuse JSON that is nested deeper than `MAX_DEPTH`.

    Counting brackets settles nearly every message; only one with more of them than the limit is looked at more
    closely, and that is done by what is compiled: a message holds up everybody for as long as this takes.

    Args:
        data: JSON; of what is none, nothing sensible is said.

    Raises:
        BrokerError: `invalid_message`.
    """
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    if _depth(_brackets(data)) > MAX_DEPTH:
        raise BrokerError("invalid_message", f"The message is nested deeper than {MAX_DEPTH} levels.")


def _brackets(data: bytes) -> bytes:
    """Return the brackets that stand in no string."""
    if b'"' not in data:
        return data.translate(None, _NOT_BRACKETS)
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes side by side end a string and begin another, or the other way round: without them the rest
    # is inside or outside as before, and there is less to be split.
    parts = data.translate(None, _NEITHER).replace(b'""', b"").split(b'"')
    return b"".join(parts[::2])


def _depth(brackets: bytes) -> int:
    """Return how deep it goes."""
    odd = -len(brackets) % 8
    packed = int(brackets.translate(_BITS) or b"0", 2) << odd  # what is filled up with closes, and goes no deeper
    eights = packed.to_bytes((len(brackets) + odd) // 8, "big")
    rises = memoryview(eights.translate(_RISE)).cast("b")
    peaks = memoryview(eights.translate(_PEAK)).cast("b")
    return max(map(add, accumulate(rises, initial=0), peaks), default=0)


def read(decode: Callable[[bytes], T], text: bytes) -> T:
    """Read a message.

    Raises:
        BrokerError: `invalid_json`, or `invalid_message` with the field that is wrong.
    """
    try:
        message = decode(text)
    except UNREADABLE as e:
        raise unreadable(e, "message") from None
    check_depth(text)
    return message


def fitting(decode: Callable[[bytes], T], data: bytes, root: str) -> T:
    """Read a part of a message that was read.

    Raises:
        BrokerError: `invalid_message` with the field below `root` that is wrong.
    """
    try:
        return decode(data)
    except msgspec.ValidationError as e:
        raise invalid(e, root) from None


def invalid(error: msgspec.ValidationError, root: str = "$") -> BrokerError:
    """Turn msgspec's refusal into ours: the sentence, and the JSON path it names, below `root`."""
    sentence, _, path = str(error).partition(" - at `")
    field = root + path.rstrip("`").removeprefix("$")
    return BrokerError("invalid_message", f"{sentence}.", field=field)


def unreadable(error: Exception, what: str) -> BrokerError:
    """Turn one of `UNREADABLE` into a refusal of `what` was to be read, such as a message."""
    match error:
        case msgspec.ValidationError():
            return invalid(error)
        case RecursionError():
            return BrokerError("invalid_message", f"The {what} is nested too deeply.")
    return BrokerError("invalid_json", f"The {what} is not JSON: {error}.")
