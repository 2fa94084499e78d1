"""The faults an echo has on request, so that people and tests can see what becomes of them.

A prompt asks for one with its first word, such as `/silence`. Each fault is a script of a few lines;
`FAULTS` is the table of them. Only an echo whose profile says `faults: true` obeys.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

import attrs
import msgspec

from broker.agents.echo.play import BREATH, FOREVER, Script
from broker.config.units import parse_duration
from broker.messages import (
    AgentLost,
    AgentRecord,
    ApprovalRequested,
    TextDelta,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)

__all__ = ["FAULTS", "Actor", "Fault", "perform"]


MOST: Final = 1_000_000
"""Tokens of the longest flood."""

PACE: Final = 0.05
"""Seconds between two words of an echo that never ends, and between a settle and what strays behind it."""

_ASKED: Final = re.compile(r"/(\S*)\s*")
_AFTER: Final = re.compile(r"after\s+(\d+)\s*", re.ASCII)
_OPTIONS: Final = msgspec.json.encode(
    [
        {"option_id": "allow", "name": "Allow", "kind": "allow_once"},
        {"option_id": "reject", "name": "Reject", "kind": "reject_once"},
    ]
)


class UnclearError(ValueError):
    """A fault was asked for in a way that cannot be understood; says so in a sentence."""


@attrs.frozen
class Actor:
    """Whoever plays a fault.

    Attributes:
        turn_id: the turn it is played in.
        delay: seconds between two chunks.
        cut: cuts text into chunks.
        words: what the prompt says behind the fault's name.
    """

    turn_id: str
    delay: float
    cut: Callable[[str], list[str]]
    words: str = ""

    def says(self, text: str) -> Script:
        """Say `text`, chunk by chunk."""
        yield from self.says_all(self.cut(text))

    def says_all(self, chunks: list[str]) -> Script:
        """Say these chunks."""
        for place, chunk in enumerate(chunks):
            if place and self.delay:
                yield self.delay
            yield TextDelta(self.turn_id, chunk)

    def answers(self, text: str) -> Script:
        """Say `text` and settle."""
        yield from self.says(text)
        yield self.settled()

    def settled(self, stop_reason: str = "end_turn", *, last: bool = True) -> TurnSettled:
        """Return the end of the turn."""
        return TurnSettled(self.turn_id, stop_reason, last=last)

    def says_some(self) -> Script:
        """Say as many chunks as the words ask for: `after 3 one two three four` says three, no number says none."""
        found = _AFTER.match(self.words)
        if found is not None:
            yield from self.says_all(self.cut(self.words[found.end() :])[: int(found[1][:9])])


# -- the faults ------------------------------------------------------------------------------------


def _delay(actor: Actor) -> Script:
    first, _, rest = actor.words.partition(" ")
    try:
        seconds = parse_duration(first)
    except ValueError as e:
        raise UnclearError(f"/delay: {e}.") from None
    for chunk in actor.cut(rest):
        yield seconds
        yield TextDelta(actor.turn_id, chunk)
    yield actor.settled()


def _silence(actor: Actor) -> Script:
    yield from actor.says_some()
    while True:
        yield FOREVER


def _crash(actor: Actor) -> Script:
    yield from actor.says_some()
    yield AgentLost("the echo was told to crash", actor.turn_id)


def _double(actor: Actor) -> Script:
    yield from actor.answers(actor.words)
    yield actor.settled()


def _garbage(actor: Actor) -> Script:
    yield AgentRecord(actor.turn_id, "vendor.garbage", b'{"noise":[1,null,{}]}')
    yield AgentRecord(actor.turn_id, "no.such.kind", b"{}")
    yield AgentRecord(None, "tool.updated", b'{"tool_id":"none"}')
    yield from _strangers("no-such-turn")
    yield from actor.answers(actor.words)
    yield TextDelta(actor.turn_id, "late text")
    yield AgentRecord(actor.turn_id, "tool.updated", b'{"tool_id":"late"}')


def _strangers(turn_id: str) -> Script:
    yield TextDelta(turn_id, "text of nobody's turn")
    yield ApprovalRequested(turn_id, "stray", "May nobody do nothing?", b'[{"name":"an option without an id"}]')
    yield TurnSettled(turn_id, "end_turn")
    yield TurnFailed(turn_id, "internal", "nobody's turn failed")


def _flood(actor: Actor) -> Script:
    if not re.fullmatch(r"\s*[0-9]{1,7}\s*", actor.words, re.ASCII) or int(actor.words) > MOST:
        raise UnclearError(f"/flood: expected a number of tokens, at most {MOST}.")
    for number in range(1, int(actor.words) + 1):
        yield TextDelta(actor.turn_id, f"{number} ")
        if number % BREATH == 0:
            yield 0.0
    yield actor.settled()


def _stubborn(actor: Actor) -> Script:
    chunks = actor.cut(f"{actor.words.strip() or 'no'} ")
    while True:
        for chunk in chunks:
            yield TextDelta(actor.turn_id, chunk)
            yield max(actor.delay, PACE)


def _ask(actor: Actor) -> Script:
    yield ApprovalRequested(actor.turn_id, "ask", f'May I say "{actor.words[:200].strip()}"?', _OPTIONS)
    option = yield FOREVER
    if option is None:
        yield actor.settled("cancelled")
    else:
        yield from actor.answers(actor.words if option == "allow" else "I may not.")


def _fail(actor: Actor) -> Script:
    sentence = actor.words.strip() or "The echo was told to fail."
    yield TurnFailed(actor.turn_id, "agent_unavailable", sentence[:500])


def _stray(actor: Actor) -> Script:
    yield from actor.says(actor.words)
    yield actor.settled(last=False)
    yield PACE
    yield TextDelta(actor.turn_id, " and a stray word")


def _help(actor: Actor) -> Script:
    yield from actor.answers("".join(_lines()))


def _lines() -> Iterator[str]:
    yield "The echo says back whatever it is asked, except for:\n"
    for name, fault in FAULTS.items():
        yield f"/{' '.join(filter(None, (name, fault.form)))} - {fault.does}\n"


@attrs.frozen
class Fault:
    """One row of the table.

    Attributes:
        script: what happens.
        form: what may stand behind the name.
        does: what happens, in words.
        takes: whether the echo says that it has taken the turn.
        heeds: whether it obeys a cancel.
    """

    script: Callable[[Actor], Script]
    form: str
    does: str
    takes: bool = True
    heeds: bool = True


FAULTS: Final = {
    "help": Fault(_help, "", "lists these"),
    "delay": Fault(_delay, "2s words", "waits that long before each word"),
    "ask": Fault(_ask, "words", "asks a person first, and says them if allowed"),
    "fail": Fault(_fail, "sentence", "ends the turn with an error"),
    "refuse": Fault(_fail, "sentence", "does not take the turn, and says why", takes=False),
    "silence": Fault(_silence, "[after 3 words]", "says nothing more, for ever"),
    "ignore": Fault(_silence, "", "does not even take the turn", takes=False),
    "crash": Fault(_crash, "[after 3 words]", "is gone, as an agent that died"),
    "double": Fault(_double, "words", "settles twice"),
    "stray": Fault(_stray, "words", "says one thing more after it has settled"),
    "garbage": Fault(_garbage, "words", "mixes in records of odd kinds, others' turns and late text"),
    "flood": Fault(_flood, "100000", "says that many numbers as fast as it can"),
    "stubborn": Fault(_stubborn, "words", "says them over and over, cancelled or not", heeds=False),
    "deaf": Fault(_silence, "[after 3 words]", "says nothing more, cancelled or not", heeds=False),
}
"""By the prompt's first word, without the slash."""


def perform(actor: Actor, text: str) -> tuple[Script, bool]:
    """Return the script that a prompt which begins with `/` asks for, and whether it heeds a cancel."""
    asked = _ASKED.match(text)
    name = asked[1] if asked else ""
    actor = attrs.evolve(actor, words=text[asked.end() :] if asked else "")
    fault = FAULTS.get(name)
    if fault is None:
        return actor.answers(f"There is no fault /{name[:40]}. Ask for /help."), True
    return _played(fault, actor), fault.heeds


def _played(fault: Fault, actor: Actor) -> Script:
    """Play the fault; one that was asked for in an unclear way is answered with what was not understood."""
    if fault.takes:
        yield TurnTaken(actor.turn_id)
    try:
        yield from fault.script(actor)
    except UnclearError as e:
        yield from actor.answers(str(e))
