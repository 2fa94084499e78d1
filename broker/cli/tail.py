"""The command that shows what goes through a broker, as it goes."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from broker.cli.options import json_option
from broker.cli.output import USAGE, fail, one_line, show_line
from broker.cli.talk import size_in_words, talk
from broker.cli.target import Target, target_options

if TYPE_CHECKING:
    from broker.client import Connection

__all__ = ["tail"]

_COLOURS: Final = {"message": "cyan", "record": "green", "event": "magenta", "connection": "yellow", "ended": "red"}
_KINDS: Final = ("message", "record", "event", "connection")
_KNOWN: Final = frozenset({"session_id", "room", "turn_id", "message_id", "role", "client_msg_id"})
_WIDE: Final = 100
"""Columns of a terminal from which on there is room for more of names and ids."""
_NARROWEST: Final = 16
"""Columns for what was said, however narrow the terminal is."""


@click.command("tail")
@click.argument("pattern", default="*")
@target_options
@click.option("--what", metavar="KINDS", help=f"Which of {', '.join(_KINDS)}, with commas; otherwise all.")
@click.option("--session", metavar="ID", help="The records of this session; this needs no scope.")
@click.option("--room", metavar="NAME", help="The events of this room; this needs no scope.")
@click.option("--after", type=click.IntRange(0), metavar="SEQ", help="Of --session and --room: begin behind this one.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Stop after so many.")
@json_option
def tail(*, target: Target, pattern: str, count: int | None, as_json: bool, **wanted: Any) -> None:
    """Show what goes through a broker, as it goes.

    A line is a message, a record of a session, an event of a room, or a connection that comes or goes.

    PATTERN is about names (turn.start, message.delta), sessions and rooms; * and ? stand for anything. Quote it. To see
    everybody's needs the scope admin. Ctrl-C leaves; when the broker is away it is waited for.
    """
    kinds = wanted["what"].split(",") if wanted["what"] else list(_KINDS)
    if unknown := [kind for kind in kinds if kind not in _KINDS]:
        fail(f"--what: there is no {unknown[0]}; there are {', '.join(_KINDS)}.", USAGE)
    single = wanted["session"] or wanted["room"]
    if wanted["session"] and wanted["room"]:
        fail("Say --session or --room, not both.", USAGE)
    if wanted["after"] is not None and not single:
        fail("--after is for --session and --room: what went through before is in their logs alone.", USAGE)
    if single and (pattern != "*" or wanted["what"]):
        fail("PATTERN and --what are for everybody's; --session and --room show all of theirs.", USAGE)
    show = show_line if as_json else _Lines().show
    scopes = "" if single else "the scope admin"
    talk(target, _tail(target, {**wanted, "pattern": pattern, "kinds": kinds}, count, show), scopes, leaves=True)


async def _tail(target: Target, wanted: dict[str, Any], count: int | None, show: Callable[[Any], None]) -> None:
    from broker.client import connect  # noqa: PLC0415
    from broker.tasks import spawn  # noqa: PLC0415

    opened = asyncio.Event()
    async with connect(target.url, token=target.token) as broker:
        link = spawn(_tell(broker, opened), name="link")
        try:
            async for item in _items(broker, wanted, opened):
                show(item)
                count = None if count is None else count - 1
                if count == 0:
                    return
        finally:
            link.cancel()


def _items(broker: "Connection", wanted: dict[str, Any], opened: asyncio.Event) -> AsyncIterator[dict[str, Any]]:
    if wanted["session"]:
        return _records(broker, wanted["session"], wanted["after"])
    if wanted["room"]:
        return _events(broker, wanted["room"], wanted["after"])
    return _tapped(broker, {"pattern": wanted["pattern"], "what": wanted["kinds"]}, opened)


async def _tell(broker: "Connection", opened: asyncio.Event) -> None:
    """Say when the broker is away and when it is back; `opened` is set for each new link."""
    away = False
    async for state in broker.states():
        if state.name == "waiting" and not away:
            away = True
            _remark("The broker is away; waiting for it to come back.")
        elif state.name == "open" and away:
            away = False
            opened.set()
            _remark("The broker is back.")


# -- what is shown -----------------------------------------------------------------------------------


async def _records(broker: "Connection", session_id: str, after: int | None) -> AsyncIterator[dict[str, Any]]:
    from broker.client import LogReset  # noqa: PLC0415

    records = broker.session(session_id).records(after_seq=-1 if after is None else after)
    while True:
        try:
            async for record in records:
                yield {
                    "at": record.at,
                    "what": "record",
                    "name": record.event,
                    "session_id": session_id,
                    **({} if record.turn_id is None else {"turn_id": record.turn_id}),
                    "seq": record.seq,
                    "data": record.data,
                }
        except LogReset as e:
            _remark(f"{e.message.removesuffix('.')}; going on with number {e.floor}.")
        else:
            return


async def _events(broker: "Connection", room: str, after: int | None) -> AsyncIterator[dict[str, Any]]:
    from broker.client import LogReset  # noqa: PLC0415

    joined = await broker.join(room, after_seq=after)
    while True:
        try:
            async for event in joined:
                sender = event.sender if isinstance(event.sender, dict) else {}
                yield {
                    "at": event.at,
                    "what": "event",
                    "name": event.event,
                    "room": room,
                    **{name: sender[name] for name in ("connection_id", "user") if sender.get(name)},
                    **({} if event.seq is None else {"seq": event.seq}),
                    "data": event.data,
                }
        except LogReset as e:
            _remark(e.message)
        else:
            return


async def _tapped(
    broker: "Connection", payload: dict[str, Any], opened: asyncio.Event
) -> AsyncIterator[dict[str, Any]]:
    """Show what a tap shows; a tap ends with its link, so that each link needs a new one."""
    from broker.client import BrokerError  # noqa: PLC0415
    from broker.tasks import spawn  # noqa: PLC0415

    notes = broker.notifications()
    await broker.request("tap", payload)

    async def again() -> None:
        while True:
            await opened.wait()
            opened.clear()
            try:
                await broker.request("tap", payload)
            except (BrokerError, OSError) as e:
                notes.end(e)
                return

    tapping = spawn(again(), name="tap")
    missed = 0
    try:
        async for note in notes:
            if note.event != "tap":
                continue
            if lost := note.data.get("missed", 0) + notes.missed - missed:
                missed = notes.missed
                _remark(f"{lost} were left out here: there were too many to show.")
            yield note.data
            if note.data["what"] == "ended":
                raise BrokerError("forbidden", "This takes the scope admin, which the token has no more.")
    finally:
        tapping.cancel()


def _remark(text: str) -> None:
    click.secho(text, fg="yellow", err=True)


# -- lines -------------------------------------------------------------------------------------------


class _Lines:
    """Writes each thing as a line: when, what kind, its name, of what, its number or size, who, and what was said."""

    def show(self, item: dict[str, Any]) -> None:
        """Write one, as far as it fits."""
        from rich.cells import cell_len  # noqa: PLC0415

        width = shutil.get_terminal_size((200, 24)).columns
        at = datetime.fromisoformat(item["at"]).astimezone()
        when = f"{at:%H:%M:%S}.{at.microsecond // 1000:03} "
        kind = f"{item['what']:<10} "
        rest = _columns(item, wide=width >= _WIDE)
        said = f"{item['user']}: " if item.get("user") else ""
        if "data" in item:
            said += json.dumps(_news(item["data"]), ensure_ascii=False, separators=(",", ":"))
        shown = _cut(said, max(width - cell_len(when + kind + rest), _NARROWEST))
        click.echo(f"{when}{click.style(kind, fg=_COLOURS.get(item['what']))}{rest}{shown}".rstrip())


def _columns(item: dict[str, Any], *, wide: bool) -> str:
    name, where = (20, 13) if wide else (17, 9)
    about = item.get("session_id") or item.get("room") or item.get("connection_id") or ""
    number = f"#{item['seq']}" if "seq" in item else size_in_words(item.get("size")) if "size" in item else ""
    return f"{_fit(item['name'], name)} {_fit(_short(about, where), where)} {number:>8} "


def _news(data: Any) -> Any:
    """Return of what was said what the other columns do not say already, or only ids would."""
    return {key: value for key, value in data.items() if key not in _KNOWN} if isinstance(data, dict) else data


def _cut(text: str, most: int) -> str:
    """Return as much of what somebody said as fits into so many columns, of which a character may take two."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415

    shown = one_line(text[: 8 * most])
    return shown if cell_len(shown) <= most else f"{set_cell_size(shown, most - 1)}…"


def _fit(text: str, columns: int) -> str:
    from rich.cells import set_cell_size  # noqa: PLC0415

    return set_cell_size(_cut(text, columns), columns)


def _short(some_id: str, most: int) -> str:
    """Return an id so that it can be told from others: of a long one its end, where ids differ."""
    return some_id if len(some_id) <= most else f"…{some_id[1 - most :]}"
