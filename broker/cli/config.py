"""The commands about the configuration file."""

import json
from pathlib import Path
from typing import Any

import click

from broker.cli.options import config_option, json_option, load, refuse

__all__ = ["check_config", "config_schema"]


@click.command("check-config")
@config_option
@click.option("--print", "show", is_flag=True, help="Print every setting with its origin; secrets hidden.")
@json_option
@click.pass_context
def check_config(context: click.Context, config: Path | None, *, show: bool, as_json: bool) -> None:
    """Check the configuration and the plugins' settings."""
    from broker.config import ConfigErrors  # noqa: PLC0415
    from broker.config.show import as_data, as_yaml, origins, secrets_of  # noqa: PLC0415
    from broker.extensions.loader import load as load_plugins  # noqa: PLC0415

    loaded = load(context, config, as_json=as_json)
    plugins = load_plugins(loaded.settings, loaded.file)
    if plugins.problems:
        refuse(ConfigErrors(plugins.problems), as_json=as_json)
    secrets = secrets_of(record.settings for record in plugins.records)
    name = str(loaded.file) if loaded.file else None
    if as_json:
        report: dict[str, Any] = {"ok": True, "file": name, "problems": []}
        if show:
            report["settings"] = as_data(loaded, secrets)
            report["origins"] = origins(loaded)
        click.echo(json.dumps(report, indent=2))
    elif show:
        click.echo("\n".join(as_yaml(loaded, secrets)))
    else:
        click.echo(f"{name or 'defaults'}: ok")


@click.command("config-schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration file."""
    from broker.config.schema import json_schema  # noqa: PLC0415

    click.echo(json.dumps(json_schema(), indent=2))
