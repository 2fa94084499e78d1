"""The command that sends one thing: to a session's agent, a room, users, connections or everybody; or any request."""

from typing import TYPE_CHECKING, Any, Final

import click

from broker.cli.options import json_option
from broker.cli.output import FAILED, USAGE, fail, show_json, show_line
from broker.cli.talk import read_input, sound, talk
from broker.cli.target import Target, target_options

if TYPE_CHECKING:
    from broker.client import Connection, SentTurn

__all__ = ["send"]

_LONGEST: Final = 16 * 1024 * 1024
"""Characters that are read from standard input."""


@click.command("send")
@click.argument("data", required=False)
@target_options
@click.option("--session", metavar="ID", help="Start a turn in this session: DATA is its text.")
@click.option("--room", metavar="NAME", help="Publish to this room.")
@click.option("--user", "users", metavar="NAME", multiple=True, help="Send to this user; may be repeated.")
@click.option("--connection", "connections", metavar="ID", multiple=True, help="Send to this one; may be repeated.")
@click.option("--broadcast", is_flag=True, help="Send to every connection.")
@click.option("--action", metavar="NAME", help="Make any request; DATA is its payload.")
@click.option("--event", metavar="NAME", default="message", show_default=True, help="Of --room: what it is called.")
@click.option("--wait", is_flag=True, help="Of --session: print the answer as it comes, and wait for its end.")
@click.option("--id", "message_id", metavar="ID", help="Of --session: sent twice under one id, it is one turn.")
@click.option("--text", "as_text", is_flag=True, help="DATA is text, even if it could be JSON.")
@json_option
def send(*, target: Target, data: str | None, as_text: bool, as_json: bool, **wanted: Any) -> None:
    """Send something to a session, a room, people or everybody.

    DATA is sent once, and what became of it is printed. With - it is read from standard input.

    \b
    broker send --session ID --wait "Hello!"
    broker send --room order-4711 --event shipped '{"carrier": "bike"}'
    broker send --user ann '{"unread": 3}'
    broker send --broadcast "We are back at noon."
    broker send --action session.list '{"limit": 5}'

    DATA that can be read as JSON is sent as JSON, other DATA as text. What is sent to a session is always text. With
    --wait the exit code is 1 for a turn that did not complete.
    """  # noqa: D301 - click's mark for lines that stay as they are
    _check(wanted)
    said = read_input(_LONGEST) if data == "-" else data
    sound(said or "")
    if wanted["session"] is not None:
        if not said:
            fail("There is nothing to say: DATA is missing.", USAGE)
        talk(target, _turn(target, said, wanted, as_json=as_json))
        return
    value = said if as_text else _value(said)
    action, payload = _request(value, wanted)
    answer = talk(target, _ask(target, action, payload))
    if as_json or wanted["action"]:
        show_json(answer)
    else:
        click.echo(_delivered(answer))


def _check(wanted: dict[str, Any]) -> None:
    """See that exactly one way is named, and that nothing is said about another one."""
    ways = [bool(wanted[name]) for name in ("session", "room", "broadcast", "action")]
    ways.append(bool(wanted["users"] or wanted["connections"]))
    if sum(ways) != 1:
        fail("Say to whom: one of --session, --room, --user or --connection, --broadcast, --action.", USAGE)
    if (wanted["wait"] or wanted["message_id"]) and not wanted["session"]:
        fail("--wait and --id are for --session.", USAGE)
    source = click.get_current_context().get_parameter_source("event")
    if source is click.core.ParameterSource.COMMANDLINE and not wanted["room"]:
        fail("--event is for --room.", USAGE)


def _value(said: str | None) -> Any:
    """Return what DATA means: JSON if it can be read so, else text; None for none."""
    if said is None:
        return None
    import msgspec  # noqa: PLC0415 - takes what the broker takes as JSON, and no NaN or half a character

    try:
        return msgspec.json.decode(said)
    except (msgspec.DecodeError, RecursionError):
        return said


def _request(value: Any, wanted: dict[str, Any]) -> tuple[str, Any]:
    if wanted["action"]:
        return wanted["action"], {} if value is None else value
    if wanted["room"]:
        return "room.publish", {"room": wanted["room"], "event": wanted["event"], "data": value}
    if wanted["broadcast"]:
        return "broadcast", value
    to = {"users": list(wanted["users"]), "connections": list(wanted["connections"])}
    return "send", {"to": to, "data": value}


def _delivered(answer: Any) -> str:
    count = answer["delivered"]
    number = f", as number {answer['seq']}" if "seq" in answer else ""
    return f"Delivered to {count} connection{'s' * (count != 1)}{number}."


async def _ask(target: Target, action: str, payload: Any) -> Any:
    from broker.client import connect  # noqa: PLC0415

    async with connect(target.url, token=target.token) as broker:
        return await broker.request(action, payload)


async def _turn(target: Target, text: str, wanted: dict[str, Any], *, as_json: bool) -> None:
    """Start a turn; with `--wait` print its answer as it comes, and exit with 1 if it was not completed."""
    from broker.client import connect  # noqa: PLC0415

    async with connect(target.url, token=target.token) as broker:
        session = broker.session(wanted["session"])
        turn = await session.send(text, client_msg_id=wanted["message_id"])
        if wanted["wait"]:
            outcome = await _shown(broker, turn, as_json=as_json)
            if outcome != "completed":
                raise click.exceptions.Exit(FAILED)
        elif as_json:
            show_json({"turn_id": turn.id, "seq": turn.seq, "status": turn.status, "duplicate": turn.duplicate})
        else:
            click.echo(f"Accepted as turn {turn.id}, number {turn.seq}: {turn.status}.")


async def _shown(broker: "Connection", turn: "SentTurn", *, as_json: bool) -> str:
    """Show a turn's records until its end, and return its outcome."""
    from broker.cli.screen import Screen, tell_of_link  # noqa: PLC0415
    from broker.tasks import spawn  # noqa: PLC0415

    screen = Screen(lambda _: True, alone=True)
    link = spawn(tell_of_link(broker, screen), name="link")
    try:
        async for record in turn:
            if as_json:
                show_line({"event": record.event, "seq": record.seq, "turn_id": record.turn_id, "data": record.data})
            elif isinstance(record.data, dict):
                screen.show(record.event, record.data)
    finally:
        link.cancel()
        screen.finish()
    return (await turn).outcome
