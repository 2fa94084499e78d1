"""What commands that talk to a broker share: one event loop, what is read, errors and figures in words."""

import asyncio
import logging
import sys
from collections.abc import Coroutine
from typing import Any, Final, NoReturn, TypeVar

import click

from broker.cli.output import NOT_ALLOWED, UNREACHABLE, USAGE, exit_code, fail
from broker.cli.target import Target

__all__ = [
    "INTERRUPTED",
    "age_in_words",
    "in_words",
    "no_broker",
    "not_let_in",
    "read_input",
    "size_in_words",
    "sound",
    "talk",
]

T = TypeVar("T")

INTERRUPTED: Final = 130
"""Ended by Ctrl-C before it was done; as shells say it."""

_NO_TEXT: Final = "That is no text in UTF-8; nothing was sent."
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_REFUSED: Final = {401: "unauthenticated", 403: "forbidden", 4500: "unauthenticated", 4503: "forbidden"}
_WHERE: Final = "Start a broker there, or say where it is: --url, or BROKER_URL."
_TOKEN_HINT: Final = "Show a token: BROKER_TOKEN, or --token-file; broker gentoken makes one."  # noqa: S105 - advice


def talk(target: Target, work: Coroutine[Any, Any, T], scopes: str = "", *, leaves: bool = False) -> T:
    """Run `work`, which talks to the broker; say what is wrong and exit if it cannot be done.

    Args:
        target: the broker, named when it cannot be reached.
        work: what is to be done.
        scopes: what the work needs, in words, for who may not do it.
        leaves: whether Ctrl-C is how one leaves, and no failure.
    """
    from broker.client.errors import BrokerError, Disconnected, Refused  # noqa: PLC0415 - imports aiohttp

    logging.getLogger("broker.client").disabled = True  # the command says itself what a person is to know
    try:
        return asyncio.run(work)
    except Refused as e:
        not_let_in(target, e.code, str(e))
    except Disconnected as e:
        fail(e.message, UNREACHABLE, _WHERE)
    except BrokerError as e:
        code = exit_code(e.code)
        needs = f"That needs {scopes}. {_TOKEN_HINT}" if scopes and code == NOT_ALLOWED else e.hint
        fail(f"{e.message} ({e.code})", code, needs)
    except BrokenPipeError:
        raise  # who read what is printed has had enough
    except OSError as e:
        no_broker(target, e)
    except KeyboardInterrupt:
        if leaves:
            raise click.exceptions.Exit(0) from None
        fail("Stopped.", INTERRUPTED)


def no_broker(target: Target, error: Exception) -> NoReturn:
    """Say that nobody listens at the address, and why, and exit."""
    from broker.client.errors import reason_of  # noqa: PLC0415

    fail(f"There is no broker at {target.url}: {reason_of(error)}.", UNREACHABLE, _WHERE)


def not_let_in(target: Target, code: int, reason: str) -> NoReturn:
    """Say that the broker will not have this program, by a close code or an HTTP status, and exit."""
    named = _REFUSED.get(code)
    status = UNREACHABLE if named is None else exit_code(named)
    fail(f"{target.url} does not let us in: {reason}", status, None if named is None else _TOKEN_HINT)


# -- what is said ------------------------------------------------------------------------------------


def read_input(longest: int) -> str:
    """Return what comes through standard input, or say that it is more than `longest` characters, and exit."""
    try:
        text = sys.stdin.read(longest + 1)
    except KeyboardInterrupt:
        fail("Stopped.", INTERRUPTED)
    except UnicodeDecodeError:
        fail(_NO_TEXT, USAGE)
    if len(text) > longest:
        fail(f"Standard input holds more than {longest} characters; nothing was sent.", USAGE)
    return text


def sound(text: str) -> str:
    """Return text that can be sent; say that it is none in UTF-8, and exit, if it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        fail(_NO_TEXT, USAGE)
    return text


# -- figures -----------------------------------------------------------------------------------------


def in_words(seconds: float | None) -> str:
    """Return a time in the unit that fits it, with three digits, such as `1.24 ms`; a dash for None."""
    if seconds is None:
        return "-"
    if seconds >= 60:  # noqa: PLR2004 - a minute
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.{2 if seconds < 0.01 else 1 if seconds < 0.1 else 0}f} ms"  # noqa: PLR2004 - three digits


def age_in_words(seconds: float) -> str:
    """Return how long ago something was, in the largest unit that fits, such as `3 min`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def size_in_words(size: float | None) -> str:
    """Return a number of bytes in the unit that fits it; a dash for None."""
    if size is None:
        return "-"
    for unit in _UNITS[:-1]:
        if size < 1024:  # noqa: PLR2004 - what the units are of
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"  # noqa: PLR2004
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"
