"""The command that shows how a broker fares, live."""

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from broker.cli.options import json_option
from broker.cli.output import show_json, show_line
from broker.cli.talk import talk
from broker.cli.target import Target, target_options

if TYPE_CHECKING:
    from rich.console import Console

    from broker.cli.board import Seen
    from broker.client.api import Api

__all__ = ["top"]

_ROWS: Final = 50
"""Sessions and connections that are asked for: more than a screen has lines."""
_PATIENCE: Final = 5.0
"""Seconds until somebody who looks is told that no answer comes."""
_LEAVE: Final = (b"q", b"Q", b"\x03", b"\x04")
"""Keys that leave: q, Ctrl-C and Ctrl-D."""


@click.command("top")
@target_options
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    metavar="SECONDS",
    default=2.0,
    show_default=True,
    help="Between two looks.",
)
@click.option("--once", is_flag=True, help="Show it once and exit; as it is where nobody looks.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Of --json: a line for each look, so many of them.")
@json_option
def top(*, target: Target, interval: float, once: bool, count: int | None, as_json: bool) -> None:
    """Show how a broker fares, live.

    There are figures with the last five minutes, agents, sessions and connections. q leaves.
    Who may not list connections (scope admin) sees how many there are. With --json it is one document, with --count a
    line every --interval.
    """
    live = not (once or as_json) and sys.stdout.isatty()
    talk(target, _show(target, interval, count, live=live, as_json=as_json), "the scope api")


async def _show(target: Target, interval: float, count: int | None, *, live: bool, as_json: bool) -> None:
    from broker.client.api import Api  # noqa: PLC0415

    async with Api(target.url, token=target.token) as api:
        seen = await _look(api, target.url)
        if live:
            await _watch(api, seen, interval)
        elif not as_json:
            _print(seen)
        elif count is None:
            show_json(seen.as_data())
        else:
            show_line(seen.as_data())
            for _ in range(count - 1):
                await asyncio.sleep(interval)
                show_line((await _look(api, target.url)).as_data())


async def _look(api: "Api", url: str) -> "Seen":
    from broker.cli.board import Seen  # noqa: PLC0415

    answers: list[dict[str, Any]] = await asyncio.gather(
        api.get("overview"), api.get("agents"), api.get("sessions", limit=_ROWS), api.get("connections", limit=_ROWS)
    )
    overview, agents, sessions, connections = answers
    return Seen(url, overview, agents["agents"], sessions["sessions"], connections.get("connections", []))


def _print(seen: "Seen") -> None:
    from rich.console import Console  # noqa: PLC0415

    from broker.cli.board import board  # noqa: PLC0415

    console = Console(highlight=False)
    console.print(board(seen, console.width))


# -- on a terminal -----------------------------------------------------------------------------------


async def _watch(api: "Api", seen: "Seen", interval: float) -> None:
    """Show it until somebody leaves; when the broker is away for a while, say so and go on."""
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    console = Console(highlight=False)
    screen = _Screen()
    coming = asyncio.ensure_future(_next(api, seen, interval))
    try:
        with screen.attended(), Live(console=console, screen=True, auto_refresh=False) as shown:
            while not screen.left:
                shown.update(_drawn(console, seen), refresh=True)
                if not await screen.disturbed(coming):
                    seen = coming.result()
                    coming = asyncio.ensure_future(_next(api, seen, interval))
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


async def _next(api: "Api", seen: "Seen", interval: float) -> "Seen":
    """Return the next look; if there is none in time, the last one with a word of that."""
    from broker.client.errors import BrokerError  # noqa: PLC0415

    await asyncio.sleep(interval)
    try:
        async with asyncio.timeout(max(interval, _PATIENCE)):
            return await _look(api, seen.url)
    except TimeoutError:
        return attrs.evolve(seen, trouble="no answer, trying again")
    except (BrokerError, OSError) as e:
        return attrs.evolve(seen, trouble=f"no answer, trying again: {e}")


def _drawn(console: "Console", seen: "Seen") -> Any:
    from broker.cli.board import board  # noqa: PLC0415

    return board(seen, console.width, console.height)


class _Screen:
    """The terminal while it is ours: its keys and its size."""

    def __init__(self) -> None:
        self.left = False
        self._disturbed = asyncio.Event()

    @contextmanager
    def attended(self) -> Iterator[None]:
        """Take keys one by one, and give the terminal back as it was."""
        loop = asyncio.get_running_loop()
        for how in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(how, self._leave)
        loop.add_signal_handler(signal.SIGWINCH, self._disturbed.set)
        keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        before = None if keys is None else termios.tcgetattr(keys)
        try:
            if keys is not None:
                tty.setcbreak(keys)
                loop.add_reader(keys, self._press, keys)
            yield
        finally:
            if keys is not None and before is not None:
                loop.remove_reader(keys)
                termios.tcsetattr(keys, termios.TCSADRAIN, before)

    async def disturbed(self, coming: "asyncio.Future[Any]") -> bool:
        """Wait for what is coming; return whether a key or another size came first, so that it is to be drawn again."""
        waiting = asyncio.ensure_future(self._disturbed.wait())
        try:
            await asyncio.wait([coming, waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        self._disturbed.clear()
        return not coming.done()

    def _press(self, keys: int) -> None:
        said = os.read(keys, 64)
        if not said or any(key in said for key in _LEAVE):
            self._leave()

    def _leave(self) -> None:
        self.left = True
        self._disturbed.set()
