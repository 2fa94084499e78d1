"""What commands share: their options, and the configuration that they name."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from broker.config import ConfigErrors, Loaded

__all__ = ["config_option", "json_option", "load", "read", "refuse"]

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    """Let a command be told which configuration it is about."""
    text = "Configuration file; otherwise BROKER_CONFIG, ./config.yaml, or the defaults."
    return click.option("-c", "--config", metavar="FILE", type=click.Path(path_type=Path), help=text)(command)


def json_option(command: Command) -> Command:
    """Let a command print JSON, for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


# -- loading -------------------------------------------------------------------------------------


def load(context: click.Context, config: Path | None, *, as_json: bool = False) -> "Loaded":
    """Load the configuration that the flags name, or report every mistake and exit with 78."""
    from broker.config import ConfigErrors  # noqa: PLC0415

    try:
        return read(context, config)
    except ConfigErrors as errors:
        refuse(errors, as_json=as_json)


def read(context: click.Context, config: Path | None) -> "Loaded":
    """Read the configuration that the flags name; raises `ConfigErrors`."""
    from broker.config import load  # noqa: PLC0415

    of_group, overrides = context.obj
    return load(config or of_group or _default_file(), os.environ, overrides)


def _default_file() -> Path | None:
    if named := os.environ.get("BROKER_CONFIG"):
        return Path(named)
    beside = Path("config.yaml")
    return beside if beside.exists() else None


def refuse(errors: "ConfigErrors", *, as_json: bool) -> NoReturn:
    """Report every mistake of a configuration, and exit with 78."""
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
