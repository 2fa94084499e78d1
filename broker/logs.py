"""Logs: readable lines in a terminal, JSON lines otherwise, one stream, no secrets and no payloads.

The text of a message is never a template for data: write `logger.info("closed: {}", reason)`, and bind ids
with `logger.bind(conn=..., session=..., turn=..., request=...)`. Levels are those of `log.level`.
"""

import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Final, Literal, cast

import msgspec
from loguru import logger

if TYPE_CHECKING:
    from loguru import Logger, Message, Record

__all__ = [
    "IDS",
    "InterceptHandler",
    "Limiter",
    "component",
    "configure",
    "details",
    "escape",
    "limited",
    "written_at",
]

IDS: Final = ("conn", "session", "turn", "request")
"""Ids that a line carries where they are bound."""

_UNSAFE: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NAMES: Final = {"\n": "\\n", "\r": "\\r", "\x1b": "\\e"}
_COLOURS: Final = {"TRACE": "2", "DEBUG": "36", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
_encoder: Final = msgspec.json.Encoder()


def configure(
    level: str = "info",
    form: Literal["auto", "text", "json"] = "auto",
    stream: IO[str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send all logs, those of the standard library too, to one stream. May be called again.

    Args:
        level: the least severe level that is written, such as `info`.
        form: `auto` is text in a terminal and JSON lines otherwise.
        stream: stderr if left out.
        environ: where NO_COLOR and FORCE_COLOR are looked up.
    """
    out = stream if stream is not None else sys.stderr
    name = level.upper()
    terminal = out.isatty()
    as_text = form == "text" or (form == "auto" and terminal)
    write = _text_sink(out, colour=_coloured(environ, terminal=terminal)) if as_text else _json_sink(out)
    logger.remove()
    # The sinks read the record; what loguru would format costs more than they do.
    logger.add(write, level=name, format=_unformatted, colorize=False, diagnose=False)
    _intercept(name)


def escape(text: str) -> str:
    """Return `text` on one line and without characters that steer a terminal or reorder what is read."""
    return _UNSAFE.sub(lambda found: _NAMES.get(found[0]) or f"\\u{ord(found[0]):04x}", text)


# -- sinks ---------------------------------------------------------------------------------------


def _coloured(environ: Mapping[str, str], *, terminal: bool) -> bool:
    """Decide by https://no-color.org and https://force-color.org; loguru 0.7.3 knows neither."""
    if environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or (terminal and environ.get("TERM") != "dumb")


def component(record: "Record") -> str:
    """Return which part of the program a line is of."""
    return str(record["extra"].get("logger") or record["name"] or "")


def _text_sink(out: IO[str], *, colour: bool) -> "Callable[[Message], None]":
    def write(message: "Message") -> None:
        record = message.record
        level = record["level"].name
        shown = f"\x1b[{_COLOURS.get(level, '0')}m{level:<8}\x1b[0m" if colour else f"{level:<8}"
        extra = record["extra"]
        ids = "".join(f" {name}={escape(str(extra[name]))}" for name in IDS if extra.get(name) is not None)
        when = record["time"].isoformat(timespec="milliseconds")[11:23]
        name = component(record).removeprefix("broker.")
        lines = [f"{when} {shown} {name}{ids}: {escape(record['message'])}{_repeats(record)}"]
        lines += [f"    {line}" for line in _trace(record)]
        out.write("\n".join(lines) + "\n")
        out.flush()

    return write


def _json_sink(out: IO[str]) -> "Callable[[Message], None]":
    def write(message: "Message") -> None:
        record = message.record
        entry: dict[str, Any] = {
            "time": written_at(record["time"]),
            "level": record["level"].name.lower(),
            "logger": component(record),
            "message": escape(record["message"]),
            **details(record),
        }
        out.write(_encoder.encode(entry).decode() + "\n")
        out.flush()

    return write


def details(record: "Record") -> dict[str, Any]:
    """Return what a line says beside its message: the ids that are bound, how many were left out, the traceback."""
    extra = record["extra"]
    found: dict[str, Any] = {name: escape(str(extra[name])) for name in IDS if extra.get(name) is not None}
    if left_out := extra.get("left_out"):
        found["left_out"] = left_out
    if trace := _trace(record):
        found["exception"] = "\n".join(trace)
    return found


def _unformatted(_: "Record") -> str:
    return ""


def written_at(when: datetime) -> str:
    """Return a line's time as JSON lines have it."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _repeats(record: "Record") -> str:
    left_out = record["extra"].get("left_out")
    return f" ({left_out} more like this left out)" if left_out else ""


def _trace(record: "Record") -> list[str]:
    """Return the lines of the traceback, without the values of local variables."""
    exception = record["exception"]
    if exception is None or exception.type is None:
        return []
    parts = traceback.format_exception(exception.type, exception.value, exception.traceback)
    return [escape(line) for line in "".join(parts).split("\n") if line]


# -- the standard library's logs -----------------------------------------------------------------


class InterceptHandler(logging.Handler):
    """Hands what aiohttp, asyncio and pykka log to loguru, under their own names and levels."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on."""
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):
            text = str(record.msg)
        logger.opt(exception=record.exc_info).bind(logger=record.name).log(level, "{}", text)


def _intercept(level: str) -> None:
    """Make the standard library's root logger ours, once, and let it drop what is below the level early."""
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, InterceptHandler)]
    root.addHandler(InterceptHandler())
    root.setLevel({"TRACE": 5}.get(level, level))
    # What an actor's thread raises to its asker, pykka tells with a traceback too; it is the asker's to log.
    logging.getLogger("pykka").setLevel(logging.NOTSET if level in {"TRACE", "DEBUG"} else logging.WARNING)
    logging.captureWarnings(capture=True)


# -- repeated causes -----------------------------------------------------------------------------


class Limiter:
    """Lets so many lines per cause and interval through, so that a fault that repeats cannot fill a disk.

    Args:
        clock: monotonic seconds.
        causes: how many causes are remembered; the oldest is forgotten first.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, causes: int = 1024) -> None:
        self._clock = clock
        self._causes = causes
        self._seen: dict[object, tuple[float, int]] = {}  # when the interval ends, and lines in it

    def left_out(self, key: object, seconds: float = 1.0, lines: int = 1) -> int | None:
        """Return how many lines of this cause the last interval left out, once; None to leave this one out."""
        now = self._clock()
        until, count = self._seen.get(key, (now, 0))
        if now < until:
            self._seen[key] = (until, count + 1)
            return 0 if count < lines else None
        self._seen.pop(key, None)
        if len(self._seen) >= self._causes:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = (now + seconds, 1)
        return max(0, count - lines)


_limiter: Final = Limiter()


def limited(key: object, seconds: float = 1.0, lines: int = 1) -> "Logger":
    """Return a logger for a line that may repeat: heard at most so many times in `seconds` per cause.

    The next line that is heard says how many were left out: `limited("accept").warning("cannot accept: {}", error)`.
    What is left out reaches no sink at all, one of a program that the broker is embedded in neither.
    """
    count = _limiter.left_out(key, seconds, lines)
    return cast("Logger", _SILENCE) if count is None else logger.bind(left_out=count)


class _Silence:
    """A logger that says nothing."""

    def opt(self, **_: object) -> "_Silence":
        """Return itself, whatever it is to say, and with what."""
        return self

    bind = opt

    def warning(self, *_: object, **__: object) -> None:
        """Say nothing."""

    debug = info = error = warning


_SILENCE: Final = _Silence()
