"""The command `dev`: a broker to try things with, made of nothing, that shows who started it how to get in."""

import os
import signal
import sys
import webbrowser
from collections.abc import Iterator, Mapping
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from broker import __version__
from broker.cli.options import json_option, refuse
from broker.cli.output import show_line
from broker.nearby import Nearby, forget, note

if TYPE_CHECKING:
    from broker.app import App
    from broker.config import Loaded

__all__ = ["dev"]

HOST: Final = "127.0.0.1"
PORT: Final = 3000
TRIES: Final = 20
"""Ports that are looked at, if the usual one is taken."""
USER: Final = "dev"
"""Whom the links and the terminal are signed in as."""
SCOPES: Final = ("admin", "api", "debug")
PROGRAMS: Final = (*SCOPES, "agent")
"""What this user's own programs may do: workers that dial in are among them."""
LIFETIME: Final = "30d"
"""How long the token of those is good; the broker of an afternoon does not last as long."""


@click.command("dev")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port; otherwise 3000, or the next one that is free.")
@click.option("--agent", "agents", metavar="NAME", multiple=True, help="Let workers serve this agent; may be repeated.")
@click.option("--plugin", "plugins", metavar="NAME", multiple=True, help="Load this one of ./plugins; may be repeated.")
@click.option("--open", "open_page", is_flag=True, help="Open the chat page in the browser.")
@json_option
@click.pass_context
def dev(context: click.Context, /, *, open_page: bool, as_json: bool, **wanted: Any) -> None:
    """Run a broker to try things: nothing is needed, nothing kept.

    It listens on this machine only, has a demo agent and an echo, and prints links that sign in once. The commands of
    this program find it by themselves.
    """
    from broker.process import run  # noqa: PLC0415 - aiohttp alone takes 190 ms

    loaded, token = _prepared(context, wanted)
    greeter = Greeter(token, wanted["port"] is None, open_page=open_page, as_json=as_json)
    try:
        code = run(loaded, partial(_end, loaded), greeter.announce)
    finally:
        forget(os.getpid())
    context.exit(code)


def _end(loaded: "Loaded") -> "Loaded":
    """Stop at SIGHUP: there is no file to be read again, and who started it has closed the terminal."""
    os.kill(os.getpid(), signal.SIGTERM)
    return loaded


# -- settings -------------------------------------------------------------------------------------------


def _prepared(context: click.Context, wanted: Mapping[str, Any]) -> "tuple[Loaded, str]":
    """Return the settings of such a broker, and a token that it takes; exit with 78 if any of them is wrong."""
    from broker.config import ConfigErrors, take  # noqa: PLC0415
    from broker.tokens import Wanted, issue  # noqa: PLC0415

    file, overrides = context.obj
    if file is not None:
        raise click.UsageError("dev reads no file; leave --config out, or run the broker with it: broker --config FILE")
    if "listen.host" in overrides:
        raise click.UsageError("dev listens on this machine only; leave --host out")
    given = _settings(**wanted)
    for path, (flag, value) in overrides.items():
        _put(given, path, flag, value)
    try:
        loaded = take(given)
        return loaded, issue(loaded, "auth", Wanted(user=USER, scopes=PROGRAMS, ttl=LIFETIME))["token"]
    except ConfigErrors as errors:
        refuse(errors, as_json=False)


def _settings(port: int | None, agents: tuple[str, ...], plugins: tuple[str, ...]) -> dict[str, Any]:
    import secrets  # noqa: PLC0415 - 10 ms, for this command alone

    return {
        "listen": {"host": HOST, "port": _free() if port is None else port},
        "store": {"url": "memory:"},
        "agents": {
            "demo": {"kind": "demo"},
            "echo": {"kind": "echo", "delay": "40ms", "faults": True},
            **{name: {"kind": "worker"} for name in agents},
        },
        "default_agent": "demo",
        "plugins_dir": "plugins" if plugins else None,  # or what lies about there would take the built-in ones' place
        "plugins": {
            "auth": {
                "mode": "jwt",
                "keys": [{"algorithm": "HS256", "secret": secrets.token_hex(32)}],
                "max_lifetime": LIFETIME,
            },
            "metrics": {},
            "alerts": {},
            **{name: {} for name in plugins},
        },
        "log": {"level": "warning"},
        "shutdown": {"grace": "1s"},
    }


def _put(given: dict[str, Any], path: str, flag: str, value: str) -> None:
    """Write a flag's text into the settings, so that it is read, and complained about, as ever."""
    from broker.config.tree import Located, Place, Text  # noqa: PLC0415

    block, _, name = path.partition(".")
    place = Place(flag)
    given.setdefault(block, {})[name] = Located(Text(value), place, place, path)


def _free() -> int:
    """Return the usual port, else the next one that can be had; the usual one again if none can."""
    from broker.web.listener import bind  # noqa: PLC0415

    for port in range(PORT, PORT + TRIES):
        try:
            bind(HOST, port).close()
        except OSError:
            continue
        return port
    return PORT


# -- what it says ---------------------------------------------------------------------------------------


@attrs.frozen
class Links:
    """Addresses that sign in once."""

    chat: str
    console: str


@attrs.define
class Greeter:
    """Tells whoever started the broker how to get in.

    Attributes:
        token: for the user's own programs.
        usual: whether nobody asked for a port, so that another than the usual one is worth a word.
        open_page: whether the browser is to open.
        as_json: whether a program reads what is said.
    """

    token: str = attrs.field(repr=False)
    usual: bool
    open_page: bool
    as_json: bool

    def announce(self, app: "App") -> None:
        """Write down where the broker is, and say so."""
        url = f"http://{HOST}:{app.port}"
        links = self._links(app, url)
        state = self._noted(url)
        if self.as_json:
            show_line({**attrs.asdict(links), "url": url, "pid": os.getpid(), "version": __version__, "state": state})
        else:
            for line in self._lines(app, url, links):
                click.echo(line)
            self._make_more(app, url)
        sys.stdout.flush()
        if self.open_page:
            Thread(target=webbrowser.open, args=(links.chat,), daemon=True).start()  # some wait for its end

    def _noted(self, url: str) -> str | None:
        """Write down where the broker is; return the file, None if that cannot be done."""
        try:
            return str(note(Nearby(url, self.token), os.getpid()))
        except OSError as e:
            text = f"Commands cannot find this broker by themselves: {e.filename} cannot be written: {e.strerror}."
            click.echo(text, err=True)
            return None

    def _links(self, app: "App", url: str) -> Links:
        """Make links that are good once, for a while."""
        from broker.messages import Principal  # noqa: PLC0415
        from broker.tickets import MADE_BY  # noqa: PLC0415

        claims = {MADE_BY: {"by": USER, "at": app.clock.now()}}
        who = Principal(user=USER, scopes=frozenset(SCOPES), claims=claims)
        chat, console = (app.services.passes.invite(who).text for _ in range(2))
        return Links(f"{url}/chat#ticket={chat}", f"{url}/#ticket={console}")

    def _lines(self, app: "App", url: str, links: Links) -> Iterator[str]:
        import asyncio  # noqa: PLC0415 - of the process that runs by now

        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        taken = f" ({PORT} is taken)" if self.usual and app.port != PORT else ""
        ready = click.style(f"actor-broker {__version__} is ready", bold=True)
        yield f"{ready}: {url}{taken}, pid {os.getpid()}, {loop}"
        yield from _shown(links)
        yield f"  {click.style('Terminal', fg='cyan')}  broker chat"
        more = "; Enter makes new ones" if sys.stdin.isatty() else ""
        yield f"A link signs in once within 15 minutes{more}. Ctrl-C stops."

    def _make_more(self, app: "App", url: str) -> None:
        """Print further links whenever somebody presses Enter: one is used up, or a second browser wants in."""
        import asyncio  # noqa: PLC0415

        if not sys.stdin.isatty():
            return
        loop, terminal = asyncio.get_running_loop(), sys.stdin.fileno()
        loop.add_reader(terminal, partial(self._heard, loop, terminal, app, url))

    def _heard(self, loop: Any, terminal: int, app: "App", url: str) -> None:
        if not _pressed(terminal):
            loop.remove_reader(terminal)
            return
        for line in _shown(self._links(app, url)):
            click.echo(line)


def _pressed(terminal: int) -> bool:
    """Read what was typed; return whether it is worth listening on: not in the background, nor to a closed terminal."""
    try:
        # In the background, to read would be to be stopped.
        return os.tcgetpgrp(terminal) == os.getpgrp() and bool(os.read(terminal, 4096))
    except OSError:
        return False


def _shown(links: Links) -> Iterator[str]:
    yield f"  {click.style('Chat', fg='cyan')}      {links.chat}"
    yield f"  {click.style('Console', fg='cyan')}   {links.console}"
