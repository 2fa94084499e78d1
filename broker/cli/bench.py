"""The command that puts a broker under load, and says how it bore it."""

import asyncio
import contextlib
import ipaddress
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from broker.cli.options import json_option
from broker.cli.output import FAILED, USAGE, exit_code, fail, one_line, show_json
from broker.cli.talk import INTERRUPTED, in_words, no_broker, not_let_in
from broker.cli.target import Target, target_options

if TYPE_CHECKING:
    from broker.cli.benchmark.run import Plan, Progress, Run

__all__ = ["bench"]

_SPARE: Final = 64
"""Descriptors that a run needs beside its connections."""
_SENTENCE: Final = "The quick brown fox jumps over the lazy dog. "
_COUNTS: Final = ("lost", "reordered", "doubled", "reconnects")
_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHUT: Final = {"http": "it answers with HTTP {}.", "closed": "it closes the connection with {}."}
"""How a broker lets nobody in: what its code begins with, before a number, and what that means."""


class _Read(click.ParamType[float]):
    """A parameter that one of the configuration's own functions reads."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number that was written."""
        from broker.config import units  # noqa: PLC0415

        try:
            number: float = getattr(units, f"parse_{self.name}")(value)
        except ValueError as e:
            self.fail(f"{e}.", param, ctx)
        if number <= 0:
            self.fail("it has to be more than 0.", param, ctx)
        return number


@click.command("bench")
@target_options
@click.option("--mode", type=click.Choice(["echo", "turns", "rooms"]), default="echo", show_default=True)
@click.option(
    "--connections", type=click.IntRange(1, 100_000), metavar="N", default=50, show_default=True, help="How many."
)
@click.option("--rate", type=_Read("rate"), default="10/s", show_default=True, help="Messages of each connection.")
@click.option("--for", "seconds", type=_Read("duration"), default="10s", show_default=True, help="How long.")
@click.option("--size", type=_Read("size"), default="64", show_default=True, help="Bytes of text in a message.")
@click.option("--agent", metavar="NAME", help="The agent of the turns; otherwise the broker's default.")
@click.option(
    "--room-size", type=click.IntRange(1, 1000), metavar="N", default=10, show_default=True, help="Members of a room."
)
@click.option("--patience", type=_Read("duration"), default="10s", show_default=True, help="Wait for what is missing.")
@click.option("--this-broker-is-mine", "mine", is_flag=True, help="Needed for a broker on another machine.")
@json_option
def bench(*, target: Target, seconds: float, size: float, mine: bool, as_json: bool, **wanted: Any) -> None:
    """Put a broker under load, and tell how it bore it.

    That is: how long things took, errors, and what was lost, doubled or out of order.

    \b
    echo   Messages are sent back. Each is sent when it is due, whether those
           before it were answered or not.
    turns  Each connection has a session and starts turns in it, one at a time;
           what is counted are the records of its log.
    rooms  Connections share rooms; each publishes, one event at a time, and
           all count what they hear.

    Times count from when a message was due by --rate, not from when it could be sent: a broker that holds up the
    sender does not look faster for it. Where they go one at a time, what is due while one is under way is left out, and
    told as such: it is in no time.

    The exit code is 1 if anything was lost, doubled or out of order. Ctrl-C ends it early, with its report; a second
    one does not wait for what is missing. Sessions made are deleted; events stay in their rooms for as long as the
    broker keeps them.
    """  # noqa: D301 - click's mark for lines that stay as they are
    if not mine and not _is_near(target.url):
        fail(f"{target.url} is not on this machine; nothing was sent.", USAGE, "If it is yours: --this-broker-is-mine")
    from broker.cli.benchmark.run import Plan  # noqa: PLC0415

    text = (_SENTENCE * (int(size) // len(_SENTENCE) + 1))[: int(size)]
    plan = Plan(target, seconds=seconds, text=text, **wanted)
    _make_room(plan.connections)
    with _bar() as tell:
        report = _measure(plan, tell)
    if as_json:
        show_json(report)
    else:
        click.echo("\n".join(_lines(report)))
    if not report["answered"] or any(report[name] for name in ("lost", "reordered", "doubled")):
        raise click.exceptions.Exit(FAILED)


def _is_near(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _make_room(connections: int) -> None:
    """Let this process have that many sockets, or say that it may not."""
    import resource  # noqa: PLC0415

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            fail(f"This process may open {hard} files: too few for {connections} connections.", USAGE, "See: ulimit -n")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# -- the run -----------------------------------------------------------------------------------------


def _measure(plan: "Plan", progress: "Progress") -> dict[str, Any]:
    from broker.cli.benchmark.run import NoneConnectedError, Run  # noqa: PLC0415

    try:
        with asyncio.Runner(loop_factory=_fastest_loop()) as runner:
            return runner.run(_until_stopped(Run(plan, progress)))
    except NoneConnectedError as e:
        code = getattr(e.why, "code", None)
        if code is None:
            no_broker(plan.target, e.why)
        how, _, number = code.partition("_")
        if how in _SHUT:
            not_let_in(plan.target, int(number), _SHUT[how].format(number))
        fail(f"{plan.target.url} refuses the first connection: {code}.", exit_code(code))
    except (KeyboardInterrupt, asyncio.CancelledError):
        fail("Stopped in the middle; what it has made may be left at the broker.", INTERRUPTED)


async def _until_stopped(run: "Run") -> dict[str, Any]:
    """End the run early when told to, and report what there is; a third time is no time for anything."""
    loop = asyncio.get_running_loop()
    work = loop.create_task(run.run(), name="bench")

    def stop() -> None:
        if not run.stop():
            work.cancel()

    for how in _STOPS:
        loop.add_signal_handler(how, stop)
    try:
        return await work
    finally:
        for how in _STOPS:
            loop.remove_signal_handler(how)


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    return uvloop.new_event_loop


@contextlib.contextmanager
def _bar() -> "Iterator[Progress]":
    """Show how far it is, on stderr, if somebody looks."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None  # noqa: ARG005 - nobody looks
        return
    from rich import progress  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    columns = (
        progress.TextColumn("{task.description:<20}"),
        progress.BarColumn(),
        progress.TextColumn("{task.percentage:>3.0f} %"),
    )
    console = Console(stderr=True)
    with progress.Progress(*columns, progress.TimeElapsedColumn(), console=console, transient=True) as shown:
        task = shown.add_task("connecting", total=1)
        yield lambda what, done, total: shown.update(task, description=what, completed=done, total=total or 1)


# -- the report --------------------------------------------------------------------------------------


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{report['mode']} at {report['url']}: {report['connected']} connections, each {report['rate']:g}/s "
        f"for {report['seconds']:.1f} s"
    )
    yield ""
    if report["latency"]:
        yield click.style(f"{'':<14}{'count':>10}{'p50':>11}{'p95':>11}{'p99':>11}{'max':>11}", bold=True)
        for what, spread in report["latency"].items():
            times = "".join(f"{in_words(spread[name]):>11}" for name in ("p50", "p95", "p99", "max"))
            yield f"{what:<14}{spread['count']:>10}{times}"
        yield ""
    yield from _counts(report)


def _counts(report: dict[str, Any]) -> Iterator[str]:
    from broker.cli.benchmark.parts import TITLE  # noqa: PLC0415

    yield f"{'sent':<14}{report['sent']:>10}   of {report['due']} due; {report['sent_per_second']:g}/s"
    if report["left_out"]:
        yield f"{'left out':<14}{report['left_out']:>10}   due while the one before was under way"
    yield f"{'answered':<14}{report['answered']:>10}"
    for name in _COUNTS:
        line = f"{name:<14}{report[name]:>10}"
        yield click.style(line, fg="red") if report[name] and name != "reconnects" else line
    for name in ("errors", "outcomes"):
        if name in report:
            said = ", ".join(f"{one_line(code)} {count}" for code, count in sorted(report[name].items()))
            yield f"{name:<14}{sum(report[name].values()):>10}   {said}".rstrip()
    if report["left_behind"]:
        yield click.style(f"{'left behind':<14}{report['left_behind']:>10}   sessions named “{TITLE}”", fg="red")
    busy = report["client_cpu"]
    yield f"{'this program':<14}{busy:>10.0%}   of a core"
    if busy > 0.8:  # noqa: PLR2004 - above it, what is measured is ourselves
        yield click.style("This program had no time to spare: the broker may be faster than the figures.", fg="yellow")
