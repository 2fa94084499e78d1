"""The agents of one profile that are linked by WebSockets: who gets which turn, and what becomes of it then.

A link that drops takes no turn with it at once: its turns wait `reattach` seconds for the agent to come back and
name them in its hello (PROTOCOL section 4). What the broker gave up meanwhile, and the agent names, it is asked to
cancel. An agent at the other end of a socket cannot be killed: a turn whose line was cut keeps its place at the
agent until the agent lets go of it, or `LET_GO` seconds have passed.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from loguru import logger

from broker.agents.port import Emit, Opening, ProjectLink, Say
from broker.agents.remote.frames import Hello, Running
from broker.agents.remote.job import Job, deaf
from broker.agents.remote.ledger import Ledger
from broker.agents.remote.line import Line
from broker.agents.remote.member import LET_GO, Member
from broker.agents.remote.outlet import Outlet
from broker.agents.remote.projects import Projects
from broker.agents.remote.waits import Waits
from broker.clock import Clock
from broker.errors import CLOSE_REASONS, BrokerError, CloseCode
from broker.messages import AgentLost, LinkStalled, TurnFailed, TurnSettled, TurnTaken

__all__ = ["MEMBERS", "Pool"]

MEMBERS: Final = 1000
"""Agents of one profile that may be linked at the same time."""


class Pool:
    """The agents of one profile.

    Args:
        reattach: seconds for which the turns of a broken link wait for it to come back; 0 for not at all.
        clock: time.

    Attributes:
        on_capacity: called after `capacity` has changed.
        members: the agents that are linked.
        ledger: the turns that are known.
        projects: what is said of projects.
        closed: whether no agent is taken any more.
        restarts: links that have ended without a good-bye.
    """

    def __init__(self, *, reattach: float, clock: Clock) -> None:
        self.on_capacity: Callable[[], None] = lambda: None
        self.members: list[Member] = []
        self.ledger = Ledger()
        self.projects = Projects(self)
        self.closed = False
        self.restarts = 0
        self.clock = clock
        self._reattach = reattach
        self._waiting: dict[str, Job] = {}
        self._stalled = Waits(reattach, clock, self._gave_up)
        self._capacity = 0

    @property
    def capacity(self) -> int | None:
        """Return how many turns may be under way at the same time; 0 if no agent is there.

        A turn that waits for its agent to come back has a place of its own, which is none at another agent;
        one that was cut and that its agent has not let go of takes a place away.
        """
        if not self.members:
            return 0
        return sum(member.places for member in self.members) + len(self._stalled)

    def open(self, opening: Opening, emit: Emit) -> Line:
        """Return a line for this session; which agent gets a turn of it is decided turn by turn."""
        return Line(self, opening, emit)

    def open_projects(self, say: Say, arrived: Callable[[], None]) -> ProjectLink:
        """Return the way to the agent of all projects; of several linked agents each has its share of them."""
        return self.projects.open(say, arrived)

    # -- what sessions want ------------------------------------------------------------------------

    def place(self, job: Job) -> None:
        """Give a turn to the agent with the most room for it, or have it wait for one."""
        self.ledger.add(job)
        member = self._choose(job.session_id)
        if member is None:
            self._waiting[job.turn_id] = job
        else:
            self._give(member, job)

    def _give(self, member: Member, job: Job) -> None:
        try:
            member.give(job)
        except Exception as e:  # noqa: BLE001 - places come free while another session is being served
            logger.opt(exception=e).error("turn {} could not be given to an agent", job.turn_id)
            self.ledger.strike(job)
            job.emit(TurnFailed(job.turn_id, "internal", "The turn could not be written to the agent."))

    def _choose(self, session_id: str) -> Member | None:
        able = [member for member in self.members if member.may_have(session_id)]
        return min(able, key=lambda member: (len(member.jobs) / member.capacity, member.given), default=None)

    def cancel(self, job: Job) -> None:
        """Have a turn stopped; one that no agent has got is over at once."""
        if job.over or job.cancelled:
            return
        job.cancelled = True
        if self._waiting.pop(job.turn_id, None) is not None:
            self.ledger.strike(job)
            job.emit(TurnSettled(job.turn_id, "cancelled"))
        elif job not in self._stalled and job.holder is not None:
            job.holder.say("turn_cancel", turn_id=job.turn_id)

    def answer(self, job: Job, key: str, option_id: str | None) -> None:
        """Bring the answer to a question; it is brought again with each link over which the turn goes on."""
        if job.over:
            return
        job.answered(key, option_id)
        if job not in self._stalled and job.holder is not None:
            job.holder.say("approval_answer", turn_id=job.turn_id, approval_id=key, option_id=option_id)

    def hold(self, job: Job, *, paused: bool) -> None:
        """Stop reading from the agent that has this turn, or go on."""
        job.paused = paused
        if job.holder is None or not job.held or job.over:
            return
        if paused:
            job.holder.hold(job)
        else:
            job.holder.release(job)

    def cut(self, job: Job) -> None:
        """Let nobody hear of a turn any more; its agent is asked to stop, and keeps its place until it has."""
        job.emit = deaf
        if job.over:
            return
        self._waiting.pop(job.turn_id, None)
        self._stalled.remove(job)
        holder = job.holder
        if holder is not None and job.held:
            job.over = True
            if not job.cancelled:
                holder.say("turn_cancel", turn_id=job.turn_id)
            holder.release(job)
            holder.unsettled.put(job)
        else:
            self.ledger.strike(job)
        self.moved()

    def let_go(self, member: Member, job: Job) -> None:
        """An agent that was asked to stop a turn has not done so for `LET_GO` seconds: its place is given away."""
        logger.warning("an agent has not let go of turn {} for {:g} s; its place is given away", job.turn_id, LET_GO)
        self.settled(member, job)

    # -- what agents do ----------------------------------------------------------------------------

    def join(self, hello: Hello, outlet: Outlet, *, origin: str = "") -> Member:
        """Take an agent in: it goes on with the turns that it names, and gets others.

        Raises:
            BrokerError: `overloaded` or `unavailable`: no more agents are taken.
        """
        if self.closed:
            raise BrokerError("unavailable", "The broker is stopping.")
        if len(self.members) >= MEMBERS:
            raise BrokerError("overloaded", f"There are {MEMBERS} agents of this profile already.")
        member = Member(self, hello, outlet, origin=origin, clock=self.clock)
        outlet.on_room = partial(self._has_room, member)
        self._replace(member)
        self.members.append(member)
        member.say("welcome", agent=hello.agent, heartbeat=outlet.heartbeat)
        taken = [self._take_up(member, running) for running in hello.turns]
        if not all(taken):
            member.refuse(BrokerError("forbidden", "Another agent has some of the turns.", field="$.data.turns"))
        for job in self._stalled:
            if member.identity is not None and job.identity == member.identity:
                self._lose(job, "the agent came back without this turn")
        self.moved()
        self.projects.moved()
        return member

    def _replace(self, newcomer: Member) -> None:
        """Cut the old link of an agent that is back before we saw it leave."""
        for member in list(self.members):
            if newcomer.identity is not None and member.identity == newcomer.identity:
                member.outlet.close(CloseCode.REPLACED, "the same agent has connected again")
                self.leave(member, "the agent has connected again")

    def _take_up(self, member: Member, running: Running) -> bool:
        """Go on with a turn that an agent says it still runs; what nobody waits for any more it is to stop.

        Returns:
            Whether it may have it.
        """
        turn_id = running.turn_id
        job = self.ledger.find(turn_id)
        if job is not None and not job.over:
            mine = job in self._stalled and job.origin == member.origin
            if mine:
                self._resume(member, job)
            return mine
        if (job is not None and job.held) or turn_id in member.jobs:
            return False
        if job is None or job.origin != member.origin:
            job = Job("", turn_id, deaf, over=True)  # of an earlier run of the broker, or made up
        member.take(job)
        member.say("turn_cancel", turn_id=turn_id)
        return True

    def _resume(self, member: Member, job: Job) -> None:
        self._stalled.remove(job)
        member.take(job)
        member.say("turn_resume", turn_id=job.turn_id, seq=job.seq)
        if job.cancelled:
            member.say("turn_cancel", turn_id=job.turn_id)
        for key, option_id in job.answers.items():
            member.say("approval_answer", turn_id=job.turn_id, approval_id=key, option_id=option_id)
        job.emit(TurnTaken(job.turn_id))

    def settled(self, member: Member, job: Job) -> None:
        """An agent is done with a turn."""
        if member.jobs.get(job.turn_id) is not job:
            return  # it had been already
        member.drop(job)
        self.ledger.file(job)
        self.moved()

    def pass_on(self, member: Member, job: Job) -> None:
        """Give a turn to another agent: it came to one that was about to leave, and has not begun it."""
        member.drop(job)
        job.holder = None
        self.place(job)
        self.moved()

    def leave(self, member: Member, reason: str, *, clean: bool = False) -> None:
        """The link of an agent has ended, for good if `clean`; its turns wait for it or are lost. Idempotent."""
        if member not in self.members:
            return
        self.members.remove(member)
        self.restarts += not clean
        self.projects.left(member)
        for job in list(member.jobs.values()):
            member.drop(job)
            if job.over:
                self.ledger.file(job)
            elif clean or not self._reattach or not job.can_resume:
                self._lose(job, reason)
            else:
                self._stall(job, reason)
        self.moved()

    def _stall(self, job: Job, reason: str) -> None:
        job.trouble = reason
        self._stalled.put(job)
        job.emit(LinkStalled(job.turn_id, reason))

    def _gave_up(self, job: Job) -> None:
        self._lose(job, f"{job.trouble}, and did not come back within {self._reattach:g} s")
        self.moved()

    def _lose(self, job: Job, reason: str) -> None:
        self._stalled.remove(job)
        self.ledger.file(job)
        job.emit(AgentLost(reason, job.turn_id))

    # -- inside ------------------------------------------------------------------------------------

    def moved(self) -> None:
        """Give out the places that have come free, and tell whoever counts them."""
        for job in list(self._waiting.values()):
            if member := self._choose(job.session_id):
                del self._waiting[job.turn_id]
                self._give(member, job)
        capacity = self.capacity or 0
        if capacity != self._capacity:
            self._capacity = capacity
            self.on_capacity()

    def _has_room(self, member: Member) -> None:
        """An agent that had much to read has read it."""
        self.moved()
        self.projects.has_room(member)

    # -- the end -----------------------------------------------------------------------------------

    def hang_up(self, code: CloseCode) -> None:
        """Close all links, and take no more; the turns of those there were are lost."""
        self.closed = True
        reason = "the broker stopped while the turn was running"
        for member in list(self.members):
            member.outlet.close(code, CLOSE_REASONS[code])
            self.leave(member, reason, clean=True)
        for job in [*self._stalled, *self._waiting.values()]:
            self._lose(job, reason)
        self._waiting.clear()
        self.moved()
