"""The command that tells where a reply went."""

from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import click

from broker.cli.options import json_option
from broker.cli.output import FAILED, fail, one_line, show_json
from broker.cli.talk import in_words, talk
from broker.cli.target import Target, target_options

__all__ = ["trace"]

_BAD: Final = frozenset({"refused", "failed", "lost", "stalled", "cut", "unanswered"})
"""Steps with which something went wrong."""


@click.command("trace")
@click.argument("some_id", metavar="ID")
@target_options
@json_option
def trace(some_id: str, *, target: Target, as_json: bool) -> None:
    """Tell where a reply went, step by step.

    Each step has its time; the last line says where it stopped, and why.

    ID is the id of a turn, the client_msg_id of a message, the trace id of an internal error, or a session, of which
    the newest turn is told of. The exit code is 1 if nothing is known of it.
    """
    found = talk(target, _ask(target, some_id), "the scope api")
    if found is None:
        fail(f"Nothing is known of {one_line(some_id)}.", FAILED, "Traces are in memory: the newest 5,000 turns.")
    if as_json:
        show_json(found)
        return
    for line in _lines(found):
        click.echo(line)


async def _ask(target: Target, some_id: str) -> dict[str, Any] | None:
    from broker.client.api import Api  # noqa: PLC0415
    from broker.client.errors import NotFound  # noqa: PLC0415

    async with Api(target.url, token=target.token) as api:
        try:
            found: dict[str, Any] = await api.get(f"trace/{quote(some_id, safe='')}")
        except NotFound:
            return None
    return found


def _lines(found: dict[str, Any]) -> list[str]:
    names = [("turn", "turn_id"), ("session", "session_id"), ("message", "client_msg_id")]
    lines = [f"{title:<8} {one_line(str(found[key]))}" for title, key in names if found.get(key)]
    lines.append("")
    before: datetime | None = None
    for step in found["steps"]:
        at = datetime.fromisoformat(step["at"])
        delta = f"+{_span(round((at - before).total_seconds() * 1000))}" if before else ""
        lines.append(_line(step, at, delta))
        before = at
    if left_out := found.get("left_out"):
        lines.append(f"({left_out} steps in the middle were too many to keep)")
    return [*lines, "", _verdict(found)]


def _line(step: dict[str, Any], at: datetime, delta: str) -> str:
    what = step["what"]
    styled = click.style(
        f"{what:<22}" if step.get("reason") else what,
        fg="red" if what in _BAD else "green" if what == "ended" else None,
    )
    reason = f"  {one_line(step['reason'])}" if step.get("reason") else ""
    when = f"{at.astimezone():%H:%M:%S}.{at.microsecond // 1000:03}"
    return f"{when} {delta:>12}  {one_line(step['where']):<10} {styled}{reason}".rstrip()


def _span(milliseconds: int) -> str:
    return f"{milliseconds} ms" if milliseconds < 1000 else in_words(milliseconds / 1000)  # noqa: PLR2004 - a second


def _verdict(found: dict[str, Any]) -> str:
    stopped = found.get("stopped")
    if stopped is None:
        return "Nothing was noted."
    over = "It is over" if found["ended"] else "It is not over; the last that was done"
    reason = f": {one_line(stopped['reason'])}" if stopped.get("reason") else "."
    return f"{over}: {stopped['what']}, by the {stopped['where']}{reason}"
