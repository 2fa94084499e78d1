"""The command `doctor`: looks at everything that a broker stands on, and says what to do."""

from pathlib import Path
from typing import Final

import click

from broker.cli.options import config_option, json_option, read
from broker.cli.output import FAILED, show_json

__all__ = ["doctor"]

_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command("doctor")
@config_option
@json_option
@click.pass_context
def doctor(context: click.Context, config: Path | None, *, as_json: bool) -> None:
    """Look whether all is well: versions, limits, store, port.

    Nothing is started or changed. The exit code is 1 if something has to be put right before a broker can run.
    """
    import attrs  # noqa: PLC0415

    from broker.cli.checks import Finding, findings  # noqa: PLC0415
    from broker.config import ConfigErrors, Loaded  # noqa: PLC0415

    loaded: Loaded | ConfigErrors
    try:
        loaded = read(context, config)
    except ConfigErrors as errors:
        loaded = errors
    found: list[Finding] = []
    for finding in findings(loaded):
        found.append(finding)
        if not as_json:
            _show(finding.name, finding.state, finding.text, finding.advice)
    failed = any(finding.state == "fail" for finding in found)
    if as_json:
        show_json({"ok": not failed, "checks": [attrs.asdict(finding) for finding in found]})
    context.exit(FAILED if failed else 0)


def _show(name: str, state: str, text: str, advice: str) -> None:
    click.echo(f"{click.style(f'{state:<4}', fg=_COLOURS[state])}  {name:<13}  {text}")
    if advice:
        click.echo(f"{'':21}{advice}")
