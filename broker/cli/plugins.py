"""The command about plugins."""

import json
import shutil
from pathlib import Path

import click

from broker.cli.options import config_option, json_option, load

__all__ = ["plugins"]


@click.command("plugins")
@config_option
@json_option
@click.argument("name", required=False)
@click.pass_context
def plugins(context: click.Context, config: Path | None, name: str | None, *, as_json: bool) -> None:
    """List the plugins that were found, or say all about one.

    NAME is the one, of which the settings and the hooks are shown too.
    """
    loaded = load(context, config, as_json=as_json)
    from broker.extensions.listing import detail, table  # noqa: PLC0415
    from broker.extensions.loader import describe  # noqa: PLC0415

    rows = [row for row in describe(loaded) if name in {None, row["name"]}]
    if name is not None and not rows:
        raise click.BadParameter(f"there is no plugin {name}; see: broker plugins", param_hint="NAME")
    if as_json:
        click.echo(json.dumps(rows if name is None else rows[0], indent=2))
    else:
        click.echo(table(rows, shutil.get_terminal_size((100, 24)).columns) if name is None else detail(rows[0]))
