"""The command `broker` (PROTOCOL section 7). Only click is imported here, so that `--version` is instant.

Each command stands in a module of its own beside this one, which is imported when it is asked for.
"""

import sys
from functools import partial
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Final

import click
from click.exceptions import NoSuchCommand

from broker import __version__
from broker.cli.options import config_option, load, read
from broker.cli.output import coloured

__all__ = ["COMMANDS", "SECTIONS", "cli", "main"]

COMMANDS: Final = {
    "dev": "dev:dev",
    "init": "init:init",
    "check-config": "config:check_config",
    "config-schema": "config:config_schema",
    "plugins": "plugins:plugins",
    "gentoken": "tokens:gentoken",
    "checktoken": "tokens:checktoken",
    "doctor": "doctor:doctor",
    "completion": "completion:completion",
    "chat": "chat:chat",
    "send": "send:send",
    "bench": "bench:bench",
    "top": "top:top",
    "tail": "tail:tail",
    "trace": "trace:trace",
}
"""Where each command is: its module here, and its name there."""

SECTIONS: Final = {
    "Run a broker": ("dev", "init", "check-config", "config-schema", "doctor"),
    "Talk to one": ("chat", "send", "bench"),
    "Look at one": ("top", "tail", "trace"),
    "Tokens, plugins, shell": ("gentoken", "checktoken", "plugins", "completion"),
}
"""How help lists the commands."""

_FLAGS: Final = {
    "host": "listen.host",
    "port": "listen.port",
    "store": "store.url",
    "log_level": "log.level",
    "log_format": "log.format",
}
"""What each flag of the group sets."""


class _Commands(click.Group):
    """Finds a command where the table says it is."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return [name for names in SECTIONS.values() for name in names if name in COMMANDS]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what they are for."""
        width = max(map(len, COMMANDS))
        room = formatter.width - width - 4
        for title, names in SECTIONS.items():
            found = ((name, self.get_command(ctx, name)) for name in names)
            rows = [(f"{name:<{width}}", command.get_short_help_str(room)) for name, command in found if command]
            with formatter.section(title):
                formatter.write_dl(rows)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"broker.cli.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant; one that is misspelt is told which it may have been."""
        if args[0] not in COMMANDS and not ctx.resilient_parsing and not args[0].startswith("-"):
            raise NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, or stopped as asked; 1 failed; 2 usage; 69 no broker, or no port or store for one; "
    "77 not allowed; 78 configuration.",
)
@config_option
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
    context.color = coloured()
    if context.invoked_subcommand is not None:
        return
    loaded = load(context, None)
    from broker.process import run  # noqa: PLC0415 - aiohttp alone takes 190 ms

    context.exit(run(loaded, partial(read, context, None)))


def main() -> None:
    """Run the command line; the entry point of `broker` and `python -m broker`."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # what the terminal has no character for is no failure
    cli(prog_name="broker")
