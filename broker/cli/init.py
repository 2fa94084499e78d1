"""The command `init`: writes what one begins with, a configuration, an agent or a plugin, and overwrites nothing."""

import json
import os
import re
from collections.abc import Mapping
from importlib.resources import files
from keyword import iskeyword
from pathlib import Path
from string import Template
from typing import Final

import click

from broker.cli.output import FAILED, USAGE, fail

__all__ = ["init"]

SECRET: Final = 0o600
PLAIN: Final = 0o644
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,47}")


class _Init(click.Group):
    """A group in which a configuration is what is written if nothing else is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put in the command that was left out."""
        named = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        if not named and not ctx.resilient_parsing:  # which a shell asks for, that may want the others
            args = ["config", *args]
        return super().parse_args(ctx, args)


@click.group("init", cls=_Init, subcommand_metavar="[DIR] | agent [NAME] | plugin NAME")
def init() -> None:
    """Write a configuration, an agent or a plugin to begin with.

    Nothing that is there is overwritten.
    """


@init.command("config")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path, file_okay=False))
def config(folder: Path) -> None:
    """Write config.yaml, its schema, and a fresh key for tokens."""
    import secrets  # noqa: PLC0415

    from broker.config.sample import KEY_FILE, SCHEMA_FILE, sample  # noqa: PLC0415
    from broker.config.schema import json_schema  # noqa: PLC0415

    _write(
        {
            folder / KEY_FILE: (f"{secrets.token_hex(32)}\n", SECRET),
            folder / SCHEMA_FILE: (f"{json.dumps(json_schema(), indent=2)}\n", PLAIN),
            folder / "config.yaml": (sample(), PLAIN),
        }
    )
    _next(
        {
            **({} if folder == Path() else {f"cd {folder}": "relative paths in the file begin there"}),
            "broker check-config": "look whether all is well",
            "broker": "start it",
            "broker gentoken --user me --scope api --scope admin": "a token to sign in with, for an hour",
            "broker init agent shout": "write an agent",
        }
    )
    click.echo(f"Keep {folder / KEY_FILE} to yourself: who has it can sign in as anybody.")


@init.command("agent")
@click.argument("name", default="shout")
def agent(name: str) -> None:
    """Write an agent as one short file: a worker that dials in."""
    module, title = _names(name)
    file = Path(f"{module}.py")
    _write({file: (_filled("worker.py.txt", {"name": name, "class": title, "file": file.name}), PLAIN)})
    _next(
        {
            f"broker dev --agent {name}": "a broker that lets it in, in another terminal",
            f"python {file}": "start it; as often as you like",
            f"broker chat --agent {name}": "talk to it",
        }
    )
    click.echo(f"With a config.yaml it stands under agents: {name}: {{kind: worker}}")


@init.command("plugin")
@click.argument("name")
def plugin(name: str) -> None:
    """Write a plugin into ./plugins."""
    module, title = _names(name)
    file = Path("plugins") / f"{module}.py"
    _write({file: (_filled("plugin.py.txt", {"name": module, "class": title, "action": f"{module}.shout"}), PLAIN)})
    _next(
        {
            f"broker dev --plugin {module}": "try it",
            f"""broker send --action {module}.shout '{{"text": "hi"}}'""": "ask it, from another terminal",
        }
    )
    click.echo(f"With a config.yaml it stands under plugins: {module}: {{}}")


# -- writing --------------------------------------------------------------------------------------------


def _names(name: str) -> tuple[str, str]:
    """Return the names of the module and of the class that something is written as."""
    module = name.replace("-", "_").lower()
    if not NAME.fullmatch(name) or iskeyword(module):
        fail(f"{name!r} is no name: letters, digits, _ and - are, such as shout or my-agent.", USAGE)
    return module, "".join(part.capitalize() for part in module.split("_"))


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = files("broker.cli").joinpath("templates", template).read_text(encoding="utf-8")
    return Template(text).substitute(words)


def _write(wanted: Mapping[Path, tuple[str, int]]) -> None:
    """Write all of these files, or none: exit with 1 if one is there already, or cannot be written."""
    there = [str(file) for file in wanted if os.path.lexists(file)]
    if there:
        verb = "is" if len(there) == 1 else "are"
        fail(
            f"{', '.join(there)} {verb} there already; nothing was written.",
            FAILED,
            "Move it away, or use another folder.",
        )
    written: list[Path] = []
    try:
        for file, (text, mode) in wanted.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            written.append(file)
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
    except OSError as e:
        for file in written:
            file.unlink(missing_ok=True)
        fail(f"{e.filename or 'a file'} cannot be written: {e.strerror or e}. Nothing was written.")
    for file in wanted:
        click.echo(f"{click.style('wrote', fg='green')} {file}")


def _next(steps: Mapping[str, str]) -> None:
    """Say what to do now."""
    width = max(map(len, steps))
    click.echo("Next:")
    for command, meaning in steps.items():
        click.echo(f"  {command:<{width}}  {meaning}")
