"""The command that talks to an agent."""

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from broker.cli.options import json_option
from broker.cli.output import FAILED, USAGE, fail
from broker.cli.talk import INTERRUPTED, read_input, sound, talk
from broker.cli.target import Target, target_options

if TYPE_CHECKING:
    from broker.cli.conversation import Conversation

__all__ = ["chat"]

_LONGEST: Final = 1 << 20
"""Characters that are read from standard input as one message."""


@click.command("chat")
@click.argument("text", required=False)
@target_options
@click.option("--agent", metavar="NAME", help="Whom to talk to; otherwise the broker's default.")
@click.option("--session", metavar="ID", help="Go on in this session; what was said last is shown first.")
@click.option(
    "--approvals",
    type=click.Choice(["ask", "allow", "reject"]),
    default="ask",
    show_default=True,
    help="Who answers what the agent asks: you, or yes or no to everything.",
)
@json_option
def chat(*, target: Target, text: str | None, as_json: bool, **wanted: Any) -> None:
    """Talk to an agent; its answer is shown as it comes.

    On a terminal each line is a message; lines that are pasted together are one. Ctrl-C stops the answer, a second
    one leaves; Ctrl-D leaves. With TEXT, or where standard input is no terminal, it is one message: the answer alone
    goes to stdout, and the exit code is 0 if it was completed, 1 if not, 130 if you stopped it. Then --json prints the
    records of the turn, a line each.
    """
    if wanted["agent"] and wanted["session"]:
        fail("A session has its agent: say --agent or --session, not both.", USAGE)
    if text is None and not sys.stdin.isatty():
        text = read_input(_LONGEST)
    if text is not None and not sound(text).strip():
        fail("There is nothing to say: the message is empty.", USAGE)
    if text is None and (as_json or not sys.stdout.isatty()):
        fail("Say what to send, as in: broker chat TEXT. Without it, this needs a terminal.", USAGE)
    raise click.exceptions.Exit(talk(target, _chat(target, text, wanted, as_json=as_json)))


async def _chat(target: Target, text: str | None, wanted: dict[str, Any], *, as_json: bool) -> int:
    from broker.cli.conversation import Conversation  # noqa: PLC0415
    from broker.cli.keyboard import Keyboard  # noqa: PLC0415
    from broker.cli.screen import tell_of_link  # noqa: PLC0415
    from broker.client import connect  # noqa: PLC0415

    async with connect(target.url, token=target.token) as broker:
        name = wanted["session"]
        session = broker.session(name) if name else await broker.create_session(agent=wanted["agent"])
        keyboard = Keyboard(sys.stdin.fileno()) if sys.stdin.isatty() else None
        talking = Conversation(session, keyboard, wanted["approvals"], alone=text is not None, as_json=as_json)
        after_seq = await (talking.resume() if name and text is None else talking.head())
        log = asyncio.ensure_future(talking.follow(after_seq))
        link = asyncio.ensure_future(tell_of_link(broker, talking.screen))
        try:
            return await _until_left(talking, text, log)
        finally:
            talking.screen.finish()
            log.cancel()
            link.cancel()
            await asyncio.gather(log, link, return_exceptions=True)
            if text is None or talking.is_busy:
                goes_on = "The turn goes on. " if talking.is_busy else ""
                click.echo(f"{goes_on}Come back with: broker chat --session {session.id}", err=True)


async def _until_left(talking: "Conversation", text: str | None, log: asyncio.Future[None]) -> int:
    """Talk until it is over or somebody leaves; return the exit code."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, talking.interrupt)
    for how in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(how, talking.leave)
    work: asyncio.Future[Any] = asyncio.ensure_future(talking.talk() if text is None else talking.say(text))
    left = asyncio.ensure_future(talking.left.wait())
    await asyncio.wait([work, left, log], return_when=asyncio.FIRST_COMPLETED)
    for task in (work, left):
        task.cancel()
    await asyncio.wait([work, left])
    if log.done():
        log.result()
    ended = None if work.cancelled() else work.result()
    if text is None:
        return 0
    if talking.is_stopped or ended is None:
        return INTERRUPTED
    return 0 if ended["outcome"] == "completed" else FAILED
