"""Which broker a command talks to, and the token that it shows there.

A token never stands on the command line, where every process of the machine could read it.
"""

import os
from functools import update_wrapper
from typing import Any, Final

import attrs
import click

from broker.cli.options import Command, load
from broker.cli.output import USAGE, fail
from broker.nearby import TOKEN_VARIABLE, URL_VARIABLE, find
from broker.nearby import Nearby as Target

__all__ = ["Target", "target_options"]

LONGEST: Final = 64 * 1024
"""Characters that are read as a token."""
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a broker that binds all is reached


def target_options(command: Command) -> Command:
    """Give a command `--url` and `--token-file`, and call it with what they mean as `target`, a `Target`.

    The address is the flag's, else that of `BROKER_URL`, of the broker that `broker dev` runs, of `config.yaml`, or
    http://127.0.0.1:3000. The token is that of the flag's file, else of `BROKER_TOKEN`, or of `broker dev`, which is
    shown to that broker alone.
    """

    def resolve(*arguments: Any, url: str | None, token_file: str | None, **rest: Any) -> Any:
        return command(*arguments, target=_target(url, token_file), **rest)

    update_wrapper(resolve, command)
    named = click.option("--url", metavar="URL", help=f"Where the broker is; otherwise {URL_VARIABLE}, or found.")
    text = f"File with the token to show, - for standard input; otherwise {TOKEN_VARIABLE}."
    shown = click.option("--token-file", metavar="FILE", help=text)
    return named(shown(resolve))  # type: ignore[return-value]


def _target(url: str | None, token_file: str | None) -> Target:
    try:
        target = find(url) or _configured()
    except ValueError as e:
        fail(f"{'--url' if url else URL_VARIABLE}: {e}.", USAGE)
    return target if token_file is None else attrs.evolve(target, token=_read(token_file))


def _configured() -> Target:
    listen = load(click.get_current_context(), None).settings.listen
    host = _EVERYWHERE.get(listen.host, listen.host)
    shown = f"[{host}]" if ":" in host else host
    return Target(f"http://{shown}:{listen.port}", os.environ.get(TOKEN_VARIABLE) or None)


def _read(name: str) -> str:
    try:
        with click.open_file(name) as source:
            token = str(source.read(LONGEST)).strip()
    except (OSError, ValueError) as e:
        fail(f"--token-file: {name} cannot be read: {getattr(e, 'strerror', None) or e}.", USAGE)
    if not token or any(char.isspace() for char in token):
        fail(f"--token-file: {name} holds no token: one word is expected.", USAGE)
    return token
