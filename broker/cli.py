"""The command `broker` (PROTOCOL section 7). Only click is imported here, so that `--version` is instant."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from broker import __version__

if TYPE_CHECKING:
    from broker.config import ConfigErrors, Loaded

__all__ = ["cli", "main"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_FLAGS: Final = {
    "host": "listen.host",
    "port": "listen.port",
    "store": "store.url",
    "log_level": "log.level",
    "log_format": "log.format",
}
"""What each flag of the group sets."""


def _config_option(command: _Command) -> _Command:
    text = "Configuration file; otherwise BROKER_CONFIG, ./config.yaml, or the defaults."
    return click.option("-c", "--config", metavar="FILE", type=click.Path(path_type=Path), help=text)(command)


def _json_option(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _plugin_option(command: _Command) -> _Command:
    text = "The plugin that looks after tokens."
    return click.option("--plugin", default="auth", show_default=True, help=text)(command)


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 stopped as asked, 1 crash, 2 usage, 69 port or store unavailable, 78 configuration.",
)
@_config_option
@click.option("--host", metavar="HOST", help="Address to bind (listen.host).")
@click.option("--port", metavar="PORT", help="TCP port (listen.port).")
@click.option("--store", metavar="URL", help="Where the logs are kept (store.url).")
@click.option("--log-level", metavar="LEVEL", help="Least severe level that is written (log.level).")
@click.option("--log-format", metavar="FORMAT", help="auto, text or json (log.format).")
@click.version_option(__version__, prog_name="actor-broker", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, /, config: Path | None, **flags: str | None) -> None:
    """Run the broker between people's browsers and AI agents, or one of the commands below."""
    overrides = {
        _FLAGS[name]: (f"--{name.replace('_', '-')}", value) for name, value in flags.items() if value is not None
    }
    context.obj = (config, overrides)
    if context.invoked_subcommand is not None:
        return
    loaded = _load(context, None)
    from broker.process import run  # noqa: PLC0415 - aiohttp alone takes 190 ms

    context.exit(run(loaded, partial(_read, context, None)))


@cli.command("check-config")
@_config_option
@click.option("--print", "show", is_flag=True, help="Print every setting with its origin; secrets hidden.")
@_json_option
@click.pass_context
def check_config(context: click.Context, config: Path | None, *, show: bool, as_json: bool) -> None:
    """Check the configuration, the plugins' settings too, and start nothing."""
    from broker.config import ConfigErrors  # noqa: PLC0415
    from broker.config.show import as_data, as_yaml, leaves  # noqa: PLC0415
    from broker.extensions.loader import load as load_plugins  # noqa: PLC0415

    loaded = _load(context, config, as_json=as_json)
    if problems := load_plugins(loaded.settings, loaded.file).problems:
        _refuse(ConfigErrors(problems), as_json=as_json)
    name = str(loaded.file) if loaded.file else None
    if as_json:
        report: dict[str, Any] = {"ok": True, "file": name, "problems": []}
        if show:
            report["settings"] = as_data(loaded)
            report["origins"] = {".".join(leaf.names): leaf.origin for leaf in leaves(loaded)}
        click.echo(json.dumps(report, indent=2))
    elif show:
        click.echo("\n".join(as_yaml(loaded)))
    else:
        click.echo(f"{name or 'defaults'}: ok")


@cli.command("config-schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration file."""
    from broker.config.schema import json_schema  # noqa: PLC0415

    click.echo(json.dumps(json_schema(), indent=2))


@cli.command("plugins")
@_config_option
@_json_option
@click.argument("name", required=False)
@click.pass_context
def plugins(context: click.Context, config: Path | None, name: str | None, *, as_json: bool) -> None:
    """List the plugins that were found and what became of each, or say all about the one of this NAME."""
    loaded = _load(context, config, as_json=as_json)
    from broker.extensions.listing import detail, table  # noqa: PLC0415
    from broker.extensions.loader import describe  # noqa: PLC0415

    rows = [row for row in describe(loaded) if name in {None, row["name"]}]
    if name is not None and not rows:
        raise click.BadParameter(f"there is no plugin {name}; see: broker plugins", param_hint="NAME")
    if as_json:
        click.echo(json.dumps(rows if name is None else rows[0], indent=2))
    else:
        click.echo(table(rows, shutil.get_terminal_size((100, 24)).columns) if name is None else detail(rows[0]))


@cli.command("gentoken")
@_config_option
@click.option("--user", required=True, help="Whom the token stands for (sub).")
@click.option("--scope", "scopes", multiple=True, help="What that one may do, such as api; may be repeated.")
@click.option("--room", "rooms", multiple=True, help="Pattern of rooms, such as 'team-*'; may be repeated.")
@click.option("--session", "sessions", multiple=True, help="Pattern of sessions; may be repeated.")
@click.option("--ttl", default="1h", show_default=True, help="How long it is good.")
@click.option("--claim", "claims", metavar="NAME=VALUE", multiple=True, help="A further claim; may be repeated.")
@_plugin_option
@_json_option
@click.pass_context
def gentoken(context: click.Context, /, config: Path | None, plugin: str, *, as_json: bool, **wanted: Any) -> None:
    """Print a token, signed with the first key of the configuration that can sign."""
    from broker.tokens import Wanted, issue  # noqa: PLC0415

    issued = _about_token(context, config, lambda loaded: issue(loaded, plugin, Wanted(**wanted)), as_json=as_json)
    click.echo(json.dumps(issued, indent=2) if as_json else issued["token"])


@cli.command("checktoken")
@_config_option
@click.argument("token")
@_plugin_option
@_json_option
@click.pass_context
def checktoken(context: click.Context, config: Path | None, token: str, plugin: str, *, as_json: bool) -> None:
    """Say what a TOKEN says, or why it would not be let in (exit code 1).

    With - the token is read from standard input, and so stays out of the shell's history.
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


def main() -> None:
    """Run the command line; the entry point of `broker` and `python -m broker`."""
    cli(prog_name="broker")


# -- loading -------------------------------------------------------------------------------------


def _load(context: click.Context, config: Path | None, *, as_json: bool = False) -> "Loaded":
    """Load the configuration that the flags name, or report every mistake and exit with 78."""
    from broker.config import ConfigErrors  # noqa: PLC0415

    try:
        return _read(context, config)
    except ConfigErrors as errors:
        _refuse(errors, as_json=as_json)


def _about_token(
    context: click.Context, config: Path | None, ask: Callable[["Loaded"], dict[str, Any]], *, as_json: bool
) -> dict[str, Any]:
    """Ask about a token; report mistakes and exit with 78, or why there is none and exit with 1."""
    from broker.config import ConfigErrors  # noqa: PLC0415
    from broker.tokens import Refused  # noqa: PLC0415

    loaded = _load(context, config, as_json=as_json)
    try:
        return ask(loaded)
    except ConfigErrors as errors:
        _refuse(errors, as_json=as_json)
    except Refused as refused:
        if as_json:
            click.echo(json.dumps({"ok": False, "error": str(refused)}, indent=2))
        else:
            click.echo(str(refused), err=True)
        sys.exit(1)


def _read(context: click.Context, config: Path | None) -> "Loaded":
    """Read the configuration that the flags name; raises `ConfigErrors`."""
    from broker.config import load  # noqa: PLC0415

    of_group, overrides = context.obj
    return load(config or of_group or _default_file(), os.environ, overrides)


def _default_file() -> Path | None:
    if named := os.environ.get("BROKER_CONFIG"):
        return Path(named)
    beside = Path("config.yaml")
    return beside if beside.exists() else None


def _refuse(errors: "ConfigErrors", *, as_json: bool) -> NoReturn:
    from broker.config import EX_CONFIG  # noqa: PLC0415

    if as_json:
        problems = [
            {
                "file": problem.place.source,
                "line": problem.place.line,
                "column": problem.place.column,
                "path": problem.path,
                "message": problem.message,
            }
            for problem in errors.problems
        ]
        click.echo(json.dumps({"ok": False, "problems": problems}, indent=2))
    else:
        count = len(errors.problems)
        click.echo(errors.render(), err=True)
        click.echo(f"{count} mistake{'s' * (count != 1)} in the configuration; nothing was started.", err=True)
    sys.exit(EX_CONFIG)
