"""The life of a session: anything that people, agents, bridges, time and crashes do to its turns, in any order."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.config.profiles import Deadlines
from broker.errors import BrokerError
from broker.messages import (
    AgentEvent,
    AgentLost,
    AgentReady,
    AgentRecord,
    ApprovalRequested,
    LinkStalled,
    Record,
    SlotAnswer,
    TextDelta,
    TextReplaced,
    TurnFailed,
    TurnSettled,
    TurnTaken,
    VariablesSet,
)
from broker.turns import TurnMachine, TurnRules
from broker.turns.leftovers import KINDS, OUTPUT, USAGE, leftovers_of
from broker.turns.turn import Turn

QUEUE = 3
DEADLINES = Deadlines(start=5, stalled=3, idle=8, approval=30, queue=40, settle=0.25)
NEVER = Deadlines(start=0, stalled=0, idle=0, approval=0, queue=0, settle=0)
RULES: list[dict[str, Any]] = [
    {},
    {"limited": True},
    {"limited": True, "deadlines": Deadlines(start=4, stalled=0, idle=8, approval=30, queue=15, settle=0.25)},
    {"approvals": "allow"},
    {"deadlines": Deadlines(start=5, stalled=3, idle=8, approval=6, queue=40, settle=0.25, turn=20)},
    {"deadlines": Deadlines(start=5, stalled=9, idle=8, approval=30, queue=0, settle=0, turn=12)},
    {"limited": True, "deadlines": NEVER},
]
OPTIONS = [
    b'[{"option_id":"yes","kind":"allow_once"},{"option_id":"no","kind":"reject_once"}]',
    b'[{"option_id":"yes","kind":"reject_once"}]',
    b'["garbage"]',
    b"garbage",
]
NOTHING = [AgentRecord(None, "agent.state", b"{}"), VariablesSet(None, b"{}"), AgentReady(None, b"{}")]
REPORTS = ["tool.started", "usage.updated", "debug", "vendor.x", "agent.state", "turn.ended", "message.completed"]
clock = SimpleNamespace(seconds=0.0, wall=0)
"""The wall clock inside of ids, so that a restart knows how long a turn has waited."""
clock.time_ns = lambda: clock.wall * 1_000_000


def act(name: str, *arguments: Any) -> Any:
    """Return the strategy of one action: a method's name and what it is given, each drawn from a list."""
    return st.tuples(st.just(name), *(st.sampled_from(list(choices)) for choices in arguments))


USERS, WHICH = ("ann", "ann", "bob", None), ("running", "queued", "queued", "ended", "unknown")
START = act(
    "start", ("queue", "queue", "queue", "reject", "interrupt"), USERS, (None, None, "ended", "running", "unknown")
)
CRASH = act("misfortune", ("crash", "crash", "full", "halt", "close"))
WAIT = act("wait", (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 11.0))
WAIT_LONG = act("wait_for_the_next")
SLOT = act(
    "slot", ("asked", "asked", "asked before", "queued", "running"), ("granted", "granted", "waiting", "unserved")
)
PEOPLE = [
    START,
    act("start_again", WHICH),
    act("cancel", WHICH, USERS),
    act("edit", WHICH, USERS),
    act("drop", WHICH, USERS),
]


def agents(*which: str) -> list[Any]:
    """Return what agents may say of these turns."""
    return [
        act("say", which, (True, False), (None, "1"), ("word ", "word ", "")),
        act("say", which, (True, False), (None, "1"), ("word ",)),
        act("take_back", which, (True, False), (None, "1"), ("other ", "")),
        act("report", which, REPORTS),
        act("report", which, REPORTS),
        act("speak_of_itself", NOTHING),
        act("ask", which, [OPTIONS[0], *OPTIONS]),
        act("ask", which, [OPTIONS[0], *OPTIONS]),
        act("take", which),
        act("drop_link", which),
        act("settle", which, (True, False)),
        act("go_wrong", which, ("fail", "die", "die of it")),
    ]


@st.composite
def one_of(draw: st.DrawFn, actions: list[Any]) -> Any:
    """Draw one of some actions; unlike Hypothesis's own, what stands there twice is twice as likely."""
    return draw(draw(st.sampled_from(actions)))


STRAY = one_of(agents("ended", "queued", "unknown"))
IDLE = one_of([START] * 12 + [*PEOPLE, CRASH, SLOT, STRAY, WAIT])
WAITING = one_of([act("slot", ("asked",), ("granted",))] * 3 + [SLOT] * 4 + [*PEOPLE, CRASH, STRAY, WAIT, WAIT_LONG])
LATE_DEATH = act("go_wrong", ("ended", "unknown"), ("die of it",))
BUSY = one_of([*agents("running") * 2, *PEOPLE, LATE_DEATH, CRASH, SLOT, STRAY, *[WAIT] * 4, *[WAIT_LONG] * 3])
ASKED = one_of(
    [act("answer", ("yes", "yes", "no", "maybe"), (True, False))] * 12
    + [*agents("running"), *PEOPLE, CRASH, WAIT, WAIT_LONG]
)


def attempt(what: Callable[[], Any]) -> Any:
    """Return what came of it, or the code with which it was refused."""
    try:
        return what()
    except BrokerError as e:
        return e.code


class Life(RuleBasedStateMachine):
    """One session's life.

    Attributes:
        machine_class: the machine that is driven.
        judge_class: who judges it, `judge.Judge`.
    """

    machine_class: type[TurnMachine] = TurnMachine
    judge_class: Any

    def __init__(self) -> None:
        super().__init__()
        self.judge = self.judge_class()
        self.number = 0
        self.sent: dict[str, tuple[str, str | None]] = {}
        self.rules: Any = None

    @initialize(rules=st.sampled_from(RULES))
    def begin(self, rules: dict[str, Any]) -> None:
        self.rules = TurnRules(**{"agent": "fake", "queue_limit": QUEUE, "deadlines": DEADLINES, **rules})
        self.set_clock(0.0)
        self.machine = self.make()

    @rule(data=st.data())
    def anything(self, data: Any) -> None:
        judge = self.judge
        likely = (WAITING if judge.queue else IDLE) if judge.running is None else ASKED if judge.questions else BUSY
        name, *arguments = data.draw(likely)
        getattr(self, name)(*arguments)

    def make(self) -> TurnMachine:
        return self.machine_class("s", self.judge, self.rules, workspace_dir=None)

    def set_clock(self, now: float) -> None:
        self.judge.now = now
        clock.wall = self.judge.wall()

    @property
    def now(self) -> float:
        now: float = self.judge.now
        return now

    def pick(self, which: str) -> str:
        """Return a turn of which something is said."""
        judge = self.judge
        found = {"running": [judge.running], "queued": judge.queue[-1:], "ended": list(judge.ended)[-1:]}
        return next((turn for turn in found.get(which, ()) if turn), "unknown")

    # -- what people do -----------------------------------------------------------------------------

    def start(self, if_busy: Any, user: str | None, retry: str | None) -> None:
        self.number += 1
        judge, key, before = self.judge, f"m{self.number}", len(self.judge.records)
        retry_of = None if retry is None else self.pick(retry)
        how = {"user": user, "if_busy": if_busy, "now": self.now, "retry_of": retry_of}
        busy = judge.running is not None or bool(judge.queue)
        refused = (if_busy == "reject" and busy and "busy") or (len(judge.queue) >= QUEUE and "queue_full") or None
        if refused is None and retry_of is not None and retry_of not in judge.ended:
            refused = "not_found" if retry_of == "unknown" else "conflict"
        accepted = attempt(lambda: self.machine.accept(client_msg_id=key, content=b'"hi"', **how))
        if isinstance(accepted, str):
            assert (accepted, len(judge.records)) == (refused, before)
            return
        assert (refused, accepted.duplicate) == (None, False)
        assert judge.records[accepted.seq - 1].kind == "user.message"
        self.sent[accepted.turn_id] = (key, user)

    def start_again(self, which: str) -> None:
        turn_id, before = self.pick(which), len(self.judge.records)
        if turn_id in self.sent:
            key, user = self.sent[turn_id]
            how: dict[str, Any] = {"user": user, "client_msg_id": key, "if_busy": "reject", "now": self.now}
            again = self.machine.accept(content=b'"hi"', **how)
            assert (again.turn_id, again.duplicate) == (turn_id, True)
            assert (again.status == "ended") == (turn_id in self.judge.ended)
            assert attempt(lambda: self.machine.accept(content=b'"ho"', **how)) == "conflict"
            assert len(self.judge.records) == before

    def cancel(self, which: str, by: str | None) -> None:
        turn_id = self.pick(which)
        turn = attempt(lambda: self.machine.cancel(turn_id, by=by, now=self.now))
        assert (turn == "not_found") if turn_id == "unknown" else turn.state in {"cancelling", "ended"}

    def edit(self, which: str, user: str | None) -> None:
        self.change(lambda turn_id: self.machine.edit(turn_id, b'"changed"', user=user, now=self.now), which, user)

    def drop(self, which: str, user: str | None) -> None:
        self.change(lambda turn_id: self.machine.drop(turn_id, user=user, now=self.now), which, user)

    def change(self, operation: Callable[[str], Turn], which: str, user: str | None) -> None:
        turn_id, before = self.pick(which), len(self.judge.records)
        may = turn_id in self.judge.queue and self.sent[turn_id][1] == user
        refused = isinstance(attempt(lambda: operation(turn_id)), str)
        assert refused != may
        assert (len(self.judge.records) == before) == refused

    def answer(self, option: str, last: bool) -> None:
        approval_id = list(self.judge.questions)[-1 if last else 0]
        answer = partial(self.machine.answer, approval_id, by="ann", now=self.now)
        assert attempt(lambda: answer(option)) == (None if approval_id in self.judge.resolved else "invalid_message")
        if option == "yes":
            assert attempt(lambda: answer("yes")) == "already_resolved"

    # -- what agents and bridges do -------------------------------------------------------------------

    def say(self, which: str, thought: bool, message_id: str | None, text: str) -> None:
        self.hear(TextDelta(self.pick(which), text, thought, message_id))

    def take_back(self, which: str, thought: bool, message_id: str | None, text: str) -> None:
        self.hear(TextReplaced(self.pick(which), text, thought, message_id))

    def report(self, which: str, kind: str) -> None:
        self.hear(AgentRecord(self.pick(which), kind, b"{}"))

    def speak_of_itself(self, event: AgentEvent) -> None:
        self.hear(event)

    def ask(self, which: str, options: bytes) -> None:
        self.number += 1
        self.hear(ApprovalRequested(self.pick(which), f"k{self.number}", "?", options))

    def take(self, which: str) -> None:
        self.hear(TurnTaken(self.pick(which)))

    def drop_link(self, which: str) -> None:
        self.hear(LinkStalled(self.pick(which), "it dropped"))

    def settle(self, which: str, last: bool) -> None:
        self.hear(TurnSettled(self.pick(which), "end_turn", last=last))

    def go_wrong(self, which: str, how: str) -> None:
        turn_id = self.pick(which)
        lost = AgentLost("it died", None if how == "die" else turn_id)
        self.hear(TurnFailed(turn_id, "internal", "no") if how == "fail" else lost)

    def hear(self, event: AgentEvent) -> None:
        judge = self.judge
        running, settled, ended = judge.running, judge.settled is not None, dict(judge.ended)
        turn_id = running if isinstance(event, AgentLost) and event.turn_id is None else event.turn_id
        if turn_id in {None, running} and not isinstance(event, AgentLost | LinkStalled):
            judge.hear()
            about_agent = isinstance(event, AgentReady) or getattr(event, "kind", "") == "agent.state"
            if judge.state == "dispatching" and turn_id is not None and not about_agent:
                judge.enter("running")
        self.machine.agent(event, now=self.now)
        if running is None or turn_id != running:
            assert judge.ended == ended, "a frame of another turn ended one"
        elif isinstance(event, AgentLost) or (isinstance(event, TurnFailed) and not settled):
            assert running in judge.ended, "gone, and goes on"
        elif settled:
            assert judge.ended == ended
        elif isinstance(event, TurnSettled) and running not in judge.ended:
            assert not event.last
            judge.settled = judge.now

    def slot(self, which: str, state: Any) -> None:
        judge = self.judge
        turn_id = (judge.asked or "unknown") if which in {"asked", "asked before"} else self.pick(which)
        number = judge.ask - (which == "asked before")
        wanted, running = judge.wants_slot(turn_id) and number == judge.ask, judge.running
        assert self.machine.slot(SlotAnswer(turn_id, state, number), now=self.now) == (wanted or turn_id == running)
        if wanted:
            assert (judge.running == turn_id) == (state == "granted")
            judge.unserved = None if state != "unserved" else judge.now if judge.unserved is None else judge.unserved

    # -- what time and misfortune do ------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        self.move_to(self.now + seconds)

    def wait_for_the_next(self) -> None:
        self.move_to(self.machine.next_deadline() or self.now)

    def move_to(self, moment: float) -> None:
        """Let time go by, with a timer that is set as the session sets it."""
        while (due := self.machine.next_deadline()) is not None and due <= moment:
            self.set_clock(max(due, self.now))
            self.machine.tick(self.now)
            left = self.machine.next_deadline()
            assert left is None or left > self.now, f"{due} was due and is not done"
            self.judge.check_time(self.rules.deadlines)
        self.set_clock(moment)

    def misfortune(self, what: str) -> None:
        """Close the session, fill its log, or end the broker, in order or not."""
        machine, judge = self.machine, self.judge
        match what:
            case "close":
                machine.close(None, now=self.now)
                assert judge.queue == []
            case "full":
                machine.overflow(now=self.now)
                assert (judge.running, judge.queue) == (None, [])
            case "halt":
                machine.halt("the broker stops", now=self.now)
                assert (judge.running, machine.next_deadline()) == (None, None)
                self.start("queue", "ann", None)
                self.restart()
            case _:
                self.restart()

    def restart(self) -> None:
        """Begin anew with what was written; that is all there is. A log that was full may be longer now."""
        judge = self.judge
        rows = [judge.rows[turn_id] for turn_id in judge.accepted]
        told = [*self.newest(OUTPUT, 1), *self.newest(USAGE, 1), *self.newest(KINDS, 500)]
        judge.asked, judge.ask, self.machine = None, 0, self.make()
        self.machine.recover(rows, leftovers_of(told), now=self.now)

    def newest(self, kinds: tuple[str, ...], limit: int) -> list[Record]:
        return [record for record in self.judge.records if record.kind in kinds][-limit:]

    # -- what is always so ----------------------------------------------------------------------------

    @invariant()
    def views_agree_with_the_records(self) -> None:
        judge, view = self.judge, self.machine.view()
        turn = view["turn"] or {"turn_id": None, "state": "none"}
        assert turn["turn_id"] == judge.running
        assert turn["state"] == judge.state
        assert ("cancelling" in turn) == (judge.state == "cancelling")
        assert [queued["turn_id"] for queued in view["queue"]] == judge.queue
        assert [approval["approval_id"] for approval in view["approvals"]] == list(judge.questions)
        assert self.machine.busy == (set(judge.accepted) != set(judge.ended))
        assert len(judge.queue) <= QUEUE

    @invariant()
    def everything_is_in_time(self) -> None:
        self.judge.check_time(self.rules.deadlines)

    @invariant()
    def somebody_will_wake_it(self) -> None:
        judge = self.judge
        if judge.running is None and judge.queue:
            assert (self.rules.limited, judge.asked) == (True, judge.queue[0])
        timed = self.rules.deadlines != NEVER or judge.state == "cancelling"
        if timed and (judge.running is not None or (judge.queue and self.rules.deadlines.queue)):
            assert self.machine.next_deadline() is not None

    def teardown(self) -> None:
        """However it went: with time, every turn ends; where nothing is timed, with a person's word."""
        for _ in range(100):
            if self.rules is None or not self.machine.busy:
                break
            if self.judge.running is None and self.judge.queue:
                self.slot("asked", "granted")
            if self.machine.next_deadline() is None:
                self.cancel("running", "ann")
            self.wait_for_the_next()
        assert set(self.judge.ended) == set(self.judge.accepted)
