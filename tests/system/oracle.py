"""The judge of unruly turns: whether each ended as it may, saying what it may, in time (PROTOCOL section 3, P5).

Pure: a turn's records in, complaints out; `history.complaints` calls it for each turn.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import attrs

GRACE = 1.0
"""Seconds by which a deadline may be missed."""
FORCED = 10.0
"""Seconds after a cancel in which an agent has to settle."""
SIGNS = {"message.delta", "thought.delta", "tool.started", "tool.updated", "usage.updated"}

ENDS: dict[str, set[str]] = {
    "fine": {"completed"},
    "garbage": {"completed"},
    "double": {"completed"},
    "drop": {"completed"},
    "die": {"lost"},
    "vanish": {"lost"},
    "hang": {"timed_out"},
    "mute": {"timed_out"},
    "deaf": {"cancelled"},
    "stubborn": {"cancelled"},
}
"""How a turn ends if nothing but its own fault happens to it."""
BY_OTHERS = {"lost", "timed_out", "failed"}
"""How it may end if others go wrong: those that share its agent, or the broker."""


@attrs.frozen
class Limits:
    """The deadlines that the broker was given, in seconds."""

    start: float
    idle: float
    queue: float


@attrs.frozen
class Oracle:
    """Judges turns.

    Attributes:
        limits: the deadlines.
        alone: agents that serve one session each, so that no other session's turn goes wrong there.
        gone: (from, to) in seconds since the epoch: when there was no broker.
    """

    limits: Limits
    alone: frozenset[str]
    gone: list[tuple[float, float]] = attrs.Factory(list)

    def judge(self, records: list[Any]) -> Iterator[str]:
        """Complain of a turn that has ended."""
        asked = next((record["data"]["content"] for record in records if record["event"] == "user.message"), "")
        fault, count, key = asked.split()
        yield from self._outcome(records, fault)
        yield from _said(records, fault, [f"{key}.{i} " for i in range(int(count))])
        yield from self._late(records)

    def _outcome(self, records: list[Any], fault: str) -> Iterator[str]:
        outcome = records[-1]["data"]["outcome"]
        agent = next((record["data"]["agent"] for record in records if record["event"] == "turn.started"), None)
        begin, end = _at(records[0]), _at(records[-1])
        allowed = set(ENDS[fault])
        if agent not in self.alone:
            allowed |= BY_OTHERS
        elif self._away(begin, end):
            allowed.add("lost")
        if outcome not in allowed:
            yield f"{fault} at {agent} ended {outcome}: {records[-1]['data']}"

    def _late(self, records: list[Any]) -> Iterator[str]:
        ended, bound, since = _at(records[-1]), *self._bound(records)
        over = ended - bound - self._away(since, ended)
        if over > GRACE:
            yield f"ended {over:.3f} s after its deadline: {[(r['event'], r['at']) for r in records[-6:]]}"

    def _bound(self, records: list[Any]) -> tuple[float, float]:
        """Return until when the turn has to end, and since when that is so."""
        times = {record["event"]: _at(record) for record in records}
        if "turn.cancelling" in times:
            return times["turn.cancelling"] + FORCED, times["turn.cancelling"]
        if "turn.started" not in times:
            return times["user.message"] + self.limits.queue, times["user.message"]
        signs = [_at(record) for record in records if record["event"] in SIGNS]
        if signs:
            return signs[-1] + self.limits.idle, signs[-1]
        return times["turn.started"] + self.limits.start + self.limits.idle, times["turn.started"]

    def _away(self, begin: float, end: float) -> float:
        """How long there was no broker between two times."""
        return sum(max(0.0, min(end, until) - max(begin, since)) for since, until in self.gone)


def _said(records: list[Any], fault: str, words: list[str]) -> Iterator[str]:
    outcome = records[-1]["data"]["outcome"]
    said = "".join(record["data"]["text"] for record in records if record["event"] == "message.delta")
    whole = "".join(words)
    if fault == "double":
        said = said.removesuffix("as I said")
    if fault == "stubborn":
        said = said.replace("no ", "")
    if outcome == "completed" and said != whole:
        yield f"completed with {said!r} for {whole!r}"
    if not whole.startswith(said):
        yield f"said {said!r}, which is no beginning of {whole!r}"


def _at(record: Any) -> float:
    return datetime.fromisoformat(record["at"]).timestamp()
