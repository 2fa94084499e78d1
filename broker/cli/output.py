"""How commands speak: data on stdout, everything else on stderr, and an exit code that scripts can go by."""

import json
import os
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

_NOBODY: Final = frozenset({"unauthenticated", "token_expired", "forbidden"})


def coloured(environ: Mapping[str, str] = os.environ) -> bool | None:
    """Tell whether to colour: False where `NO_COLOR` or a dumb terminal forbids it, else None, as the stream allows.

    It is what the group gives its context, so that `click.echo` and `click.secho` leave colours out by themselves.
    """
    return False if environ.get("NO_COLOR") or environ.get("TERM") == "dumb" else None


def fail(message: str, code: int = FAILED, hint: str | None = None) -> NoReturn:
    """Say on stderr what happened and what to do, and exit.

    Args:
        message: what happened, as a sentence.
        code: what to exit with.
        hint: what to do about it, as another.
    """
    click.secho(message, fg="red", err=True)
    if hint:
        click.echo(hint, err=True)
    raise click.exceptions.Exit(code)


def exit_code(error_code: str) -> int:
    """Return what to exit with when the broker refuses with a code of PROTOCOL 2b."""
    if error_code in _NOBODY:
        return NOT_ALLOWED
    return UNREACHABLE if error_code == "unavailable" else FAILED


def show_json(data: Any) -> None:
    """Print one JSON document, for programs and for people."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def show_line(data: Any) -> None:
    """Print one line of JSON at once: a part of a stream of them."""
    click.echo(json.dumps(data, ensure_ascii=False, separators=(",", ":")))
