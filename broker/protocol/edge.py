"""What no message may contain, whatever its format: checked once, before anything else sees it (PROTOCOL section 2)."""

import re
from itertools import accumulate
from typing import Final

from broker.errors import BrokerError

__all__ = ["MAX_DEPTH", "check_depth", "is_utf8"]

MAX_DEPTH: Final = 64
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


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

    Counting brackets settles nearly every message in C; only one with more of them than the limit
    is looked at more closely, without its strings.

    Raises:
        BrokerError: `invalid_message`.
    """
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    brackets = _STRING.sub(b"", data).translate(None, _NOT_BRACKETS)
    for depth in accumulate(map(_STEP.__getitem__, brackets)):
        if depth > MAX_DEPTH:
            raise BrokerError("invalid_message", f"The message is nested deeper than {MAX_DEPTH} levels.")
