"""How commands speak: data on stdout, everything else on stderr, and an exit code that scripts can go by."""

import json
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import click

__all__ = [
    "CONFIGURATION",
    "FAILED",
    "NOT_ALLOWED",
    "UNREACHABLE",
    "USAGE",
    "coloured",
    "exit_code",
    "fail",
    "one_line",
    "printable",
    "show_json",
    "show_line",
]

FAILED: Final = 1
"""It was tried, and did not work."""
USAGE: Final = 2
"""The command line was not understood; what click exits with."""
UNREACHABLE: Final = 69
"""There is no broker at the address, or it went away (EX_UNAVAILABLE)."""
NOT_ALLOWED: Final = 77
"""The broker is there, and refuses who asks (EX_NOPERM)."""
CONFIGURATION: Final = 78
"""The configuration cannot be used (EX_CONFIG)."""

_CONTROLS: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal would obey, or what turns text around: whoever writes a message could hide one with it."""
_UNESCAPED: Final = re.compile(r"[\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What of that JSON may hold as it is; and halves of characters, which cannot be written."""
_NOBODY: Final = frozenset({"unauthenticated", "token_expired", "forbidden"})


def coloured(environ: Mapping[str, str] = os.environ) -> bool | None:
    """Tell whether to colour: False where `NO_COLOR` or a dumb terminal forbids it, else None, as the stream allows.

    It is what the group gives its context, so that `click.echo` and `click.secho` leave colours out by themselves.
    """
    return False if environ.get("NO_COLOR") or environ.get("TERM") == "dumb" else None


def fail(message: str, code: int = FAILED, hint: str | None = None) -> NoReturn:
    """Say on stderr what happened and what to do, and exit.

    Args:
        message: what happened, as a sentence; what a broker or an agent said may be part of it.
        code: what to exit with.
        hint: what to do about it, as another.
    """
    click.secho(printable(message), fg="red", err=True)
    if hint:
        click.echo(printable(hint), err=True)
    raise click.exceptions.Exit(code)


def exit_code(error_code: str) -> int:
    """Return what to exit with when the broker refuses with a code of PROTOCOL 2b."""
    if error_code in _NOBODY:
        return NOT_ALLOWED
    return UNREACHABLE if error_code == "unavailable" else FAILED


def show_json(data: Any) -> None:
    """Print one JSON document, for programs and for people."""
    click.echo(_json(data, indent=2))


def show_line(data: Any) -> None:
    """Print one line of JSON at once: a part of a stream of them."""
    click.echo(_json(data, separators=(",", ":")))


def _json(data: Any, **layout: Any) -> str:
    """Return JSON that a terminal shows as it is, in characters that standard output has."""
    has_all = (sys.stdout.encoding or "").lower().startswith("utf")
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(data, ensure_ascii=not has_all, **layout))


def printable(text: str) -> str:
    """Return text without what a terminal would obey; lines and tabs stay."""
    return _CONTROLS.sub("", text)


def one_line(text: str) -> str:
    """Return printable text on one line, so that nobody's text can pass for the lines around it."""
    return " ".join(printable(text).split())
