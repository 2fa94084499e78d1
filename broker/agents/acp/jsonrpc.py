"""JSON-RPC 2.0, one message per line, without a loop: ids, answers and refusals."""

import json
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

__all__ = ["METHOD_NOT_FOUND", "MISREAD", "Answer", "Answered", "Misread", "Peer", "RpcError"]

METHOD_NOT_FOUND: Final = -32601
INTERNAL_ERROR: Final = -32603

MISREAD: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding bytes that a peer sent may raise: not JSON, not the shape, not UTF-8, too deep."""


class Misread(Exception):  # noqa: N818 - a line that was misread, not an error of ours
    """A line of the other side's that makes no sense."""


class RpcError(msgspec.Struct, frozen=True):
    """The other side's error answer."""

    code: int
    message: str = ""
    data: msgspec.Raw = msgspec.Raw()


class _Frame(msgspec.Struct, frozen=True):
    id: msgspec.Raw = msgspec.Raw()
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


Answer = msgspec.Raw | RpcError
Answered = Callable[[Answer], None]

_FRAME = msgspec.json.Decoder(_Frame)
_ID = msgspec.json.Decoder(int | float | str)
_ERROR = msgspec.json.Decoder(RpcError)
_NOTHING: Final = (b"", b"null")
_ANSWER: Final = re.compile(
    rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*("?[\d.]{1,24}"?)\s*,\s*"(?:result|error)"'
)
"""How nearly every answer begins."""
_RESCUE_BYTES: Final = 64 * 1024
"""Bytes of the longest line that makes no sense and is searched all the same."""


class Peer:
    """One end of a JSON-RPC connection; everything happens inside `feed`, in the order of the wire.

    Args:
        write: takes one line, with its newline.
        on_request: takes a request's key, method and params; answered by `answer` or `refuse` with that
            key, the id's own JSON text. Ids of the two directions are told apart.
        on_notification: takes a notification's method and params.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        on_request: Callable[[str, str, msgspec.Raw], None],
        on_notification: Callable[[str, msgspec.Raw], None],
    ) -> None:
        self._write = write
        self._on_request = on_request
        self._on_notification = on_notification
        self._last_id = 0
        self._waiting: dict[int, Answered] = {}

    def call(self, method: str, params: Any, answered: Answered) -> int:
        """Send a request, and return its id; `answered` is called with what comes back, at most once."""
        self._last_id = number = self._last_id + 1
        self._waiting[number] = answered
        self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number

    def waive(self, number: int) -> None:
        """Forget who waits for an answer; it may come all the same."""
        if number in self._waiting:
            self._waiting[number] = _unheard

    def notify(self, method: str, params: Any) -> None:
        """Send a notification."""
        self._send({"jsonrpc": "2.0", "method": method, "params": params})

    def answer(self, key: str, result: Any) -> None:
        """Answer the request `key`."""
        self._send({"jsonrpc": "2.0", "id": msgspec.Raw(key.encode()), "result": result})

    def refuse(self, key: str, code: int, message: str) -> None:
        """Answer the request `key` with an error."""
        self._send({"jsonrpc": "2.0", "id": msgspec.Raw(key.encode()), "error": {"code": code, "message": message}})

    def _send(self, frame: dict[str, Any]) -> None:
        self._write(msgspec.json.encode(frame) + b"\n")

    def feed(self, line: bytes) -> None:
        """Take one line of the other side's.

        Raises:
            Misread: it is no JSON-RPC message, or answers a question that nobody asked.
        """
        try:
            frame = _FRAME.decode(line)
            if bytes(frame.id) not in _NOTHING:
                _ID.decode(frame.id)
        except MISREAD as e:
            answered = self._waiting.pop(_answer_in(line) or 0, None)
            if answered is None:
                raise Misread("not a JSON-RPC message") from e
            answered(RpcError(INTERNAL_ERROR, "an answer that cannot be read"))
            return
        if frame.method is None or (not frame.method and (bytes(frame.result) or bytes(frame.error))):
            self._settle(frame)
        elif bytes(frame.id) in _NOTHING:
            self._on_notification(frame.method, frame.params)
        else:
            self._on_request(bytes(frame.id).decode(), frame.method, frame.params)

    def _settle(self, frame: _Frame) -> None:
        answered = self._waiting.pop(_number(frame.id) or 0, None)
        if answered is None:
            raise Misread("an answer to no question")
        if bytes(frame.error) in _NOTHING:
            answered(frame.result)
            return
        try:
            error = _ERROR.decode(frame.error)
        except MISREAD:
            # However it is spelled, it is an answer: whoever waits must hear of it.
            error = RpcError(INTERNAL_ERROR, "an error that cannot be read")
        answered(error)


def _unheard(_: Answer) -> None:
    """Take an answer that nobody waits for."""


def _number(raw: bytes | msgspec.Raw) -> int | None:
    """Return the number of ours that an answer's id means; agents are known to write `"3"` or `3.0` for 3."""
    try:
        number = float(_ID.decode(raw))
        return int(number) if number.is_integer() else None
    except (*MISREAD, OverflowError):
        return None


def _answer_in(line: bytes) -> int | None:
    """Return the id of an answer that is no proper JSON, as far as it can be told."""
    found = _ANSWER.match(line)
    if found is not None:
        return _number(found[1])
    if len(line) > _RESCUE_BYTES:
        return None
    try:
        # The standard library's reader takes what others refuse: `NaN`, and half a surrogate pair.
        frame = json.loads(line.decode(errors="replace"))
    except MISREAD:
        return None
    if not isinstance(frame, dict) or frame.get("method") or not frame.keys() & {"result", "error"}:
        return None
    number = frame.get("id")
    return _number(json.dumps(number).encode()) if isinstance(number, int | float | str) else None
