"""The commands about tokens."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.options import Command, config_option, json_option, load, refuse

if TYPE_CHECKING:
    from broker.config import Loaded

__all__ = ["checktoken", "gentoken"]


def _plugin_option(command: Command) -> Command:
    text = "The plugin that looks after tokens."
    return click.option("--plugin", default="auth", show_default=True, help=text)(command)


@click.command("gentoken")
@config_option
@click.option("--user", required=True, help="Whom the token stands for (sub).")
@click.option("--scope", "scopes", multiple=True, help="What that one may do, such as api; may be repeated.")
@click.option("--room", "rooms", multiple=True, help="Pattern of rooms, such as 'team-*'; may be repeated.")
@click.option("--session", "sessions", multiple=True, help="Pattern of sessions; may be repeated.")
@click.option("--ttl", default="1h", show_default=True, help="How long it is good.")
@click.option("--claim", "claims", metavar="NAME=VALUE", multiple=True, help="A further claim; may be repeated.")
@_plugin_option
@json_option
@click.pass_context
def gentoken(context: click.Context, /, config: Path | None, plugin: str, *, as_json: bool, **wanted: Any) -> None:
    """Print a token, signed with a key of the configuration.

    It is the first key that can sign.
    """
    from broker.tokens import Wanted, issue  # noqa: PLC0415

    issued = _about_token(context, config, lambda loaded: issue(loaded, plugin, Wanted(**wanted)), as_json=as_json)
    click.echo(json.dumps(issued, indent=2) if as_json else issued["token"])


@click.command("checktoken")
@config_option
@click.argument("token")
@_plugin_option
@json_option
@click.pass_context
def checktoken(context: click.Context, config: Path | None, token: str, plugin: str, *, as_json: bool) -> None:
    """Say what a TOKEN says, or why it would be refused.

    The exit code is 1 if it would. With - the token is read from standard input, and so stays out of the shell's
    history.
    """
    from broker.tokens import LONGEST, check  # noqa: PLC0415

    text = sys.stdin.read(LONGEST).strip() if token == "-" else token  # noqa: S105 - the sign for standard input
    found = _about_token(context, config, lambda loaded: check(loaded, plugin, text), as_json=as_json)
    if as_json:
        click.echo(json.dumps({"ok": True, **found}, indent=2))
        return
    for name, value in found["claims"].items():
        click.echo(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")
    click.echo(f"good until {found['expires_at']}")


def _about_token(
    context: click.Context, config: Path | None, ask: Callable[["Loaded"], dict[str, Any]], *, as_json: bool
) -> dict[str, Any]:
    """Ask about a token; report mistakes and exit with 78, or why there is none and exit with 1."""
    from broker.config import ConfigErrors  # noqa: PLC0415
    from broker.tokens import Refused  # noqa: PLC0415

    loaded = load(context, config, as_json=as_json)
    try:
        return ask(loaded)
    except ConfigErrors as errors:
        refuse(errors, as_json=as_json)
    except Refused as refused:
        if as_json:
            click.echo(json.dumps({"ok": False, "error": str(refused)}, indent=2))
        else:
            click.echo(str(refused), err=True)
        sys.exit(1)
