"""One agent that is linked to the broker by a WebSocket: what it has in hand, and what is said with it.

It knows nothing of sockets: frames come in by `feed`, and go out by an outlet, which never blocks.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
from loguru import logger

from broker.agents.remote.frames import Envelope, Hello, decoded, read, written
from broker.agents.remote.job import Job
from broker.agents.remote.outlet import Outlet
from broker.agents.remote.projects import SAID
from broker.agents.remote.reports import ANYTHING, NAMED, REPORTS, Report, declined, variables_of, vendor_of
from broker.agents.remote.tally import Tally
from broker.agents.remote.waits import Waits
from broker.clock import Clock
from broker.errors import BrokerError, CloseCode
from broker.ids import new_id
from broker.messages import AgentEvent, VariablesSet

if TYPE_CHECKING:
    from broker.agents.remote.pool import Pool

__all__ = ["ERRORS_PER_MINUTE", "LET_GO", "Member"]

LET_GO: Final = 30.0
"""Seconds for which a turn nobody waits for keeps its place at an agent; less than a turn may take to start."""

ERRORS_PER_MINUTE: Final = 60
"""Frames that make no sense, after which an agent is not listened to any more."""


class Member:
    """One agent of a pool.

    Args:
        pool: what it belongs to.
        hello: how it introduced itself.
        outlet: the way to it.
        origin: where it comes from; only an agent from there may take up what one from there began.
        clock: time.

    Attributes:
        name: what tells it from others, the same after a reconnect if it said which process it is.
        draining: whether it takes no more turns, since it is about to leave.
        jobs: the turns it has in hand, by their ids, also those that nobody waits for any more.
        unsettled: those of them that nobody waits for; they take their places until the agent lets go of them.
        reports: how much of what it said in projects is still on its way to their logs.
    """

    def __init__(self, pool: "Pool", hello: Hello, outlet: Outlet, *, origin: str, clock: Clock) -> None:
        self.capacity = hello.capacity
        self.origin = origin
        self.identity = None if hello.instance is None else (origin, hello.instance)
        self.name = new_id() if self.identity is None else " ".join(self.identity)
        self.outlet = outlet
        self.draining = False
        self.jobs: dict[str, Job] = {}
        self.unsettled = Waits(LET_GO, clock, partial(pool.let_go, self))
        self.given = 0
        self.reports = 0
        self._pool = pool
        self._clock = clock
        self._held: set[object] = set()
        self._errors = Tally(clock)
        self._log = logger.bind(agent=hello.agent)

    @property
    def places(self) -> int:
        """How many turns it takes at the same time; fewer while it holds some that nobody waits for."""
        most = len(self.jobs) if self.draining else self.capacity
        return max(0, most - len(self.unsettled))

    def may_have(self, session_id: str) -> bool:
        """Whether it may be given a turn of this session: not before it has let go of an earlier one.

        Nor while it has not read those it was given last: many at once are more than may wait for it.
        """
        room = not self.draining and len(self.jobs) < self.capacity and not self.outlet.full
        return room and all(job.session_id != session_id for job in self.unsettled)

    # -- what it is told ---------------------------------------------------------------------------

    def say(self, kind: str, **data: Any) -> None:
        """Send it a frame."""
        self.outlet.send(written(kind, data, self._clock.now()))

    def give(self, job: Job) -> None:
        """Give it a turn."""
        prompt = job.prompt
        if prompt is None:
            return
        data = {
            "turn_id": job.turn_id,
            "session_id": job.session_id,
            "content": msgspec.Raw(prompt.content),
            "messages": msgspec.Raw(prompt.messages),
            "variables": msgspec.Raw(prompt.variables),
            "workspace_dir": prompt.workspace_dir,
        }
        frame = written("turn_start", data, self._clock.now())
        self.take(job)
        self.outlet.send(frame)

    def take(self, job: Job) -> None:
        """Have it hold a turn, which it knows of or is about to."""
        self.given += 1
        self.jobs[job.turn_id] = job
        job.holder, job.origin, job.identity = self, self.origin, self.identity
        if job.over:
            self.unsettled.put(job)
        elif job.paused:
            self.hold(job)

    def drop(self, job: Job) -> None:
        """It has no more to do with this turn."""
        if self.jobs.get(job.turn_id) is job:
            del self.jobs[job.turn_id]
        self.unsettled.remove(job)
        self.release(job)

    def hold(self, behind: object) -> None:
        """Read nothing from it, since a turn's session or its projects are behind; all its other turns wait as well."""
        if not self._held:
            self.outlet.pause()
        self._held.add(behind)

    def release(self, behind: object) -> None:
        """Read again, if nothing else of it is behind."""
        if behind in self._held:
            self._held.discard(behind)
            if not self._held:
                self.outlet.resume()

    def refuse(self, error: BrokerError, frame_id: msgspec.Raw | None = None) -> None:
        """Tell it that something of it was refused, by the id of the frame where there is one."""
        data: dict[str, Any] = {"code": error.code, "message": error.message}
        if error.field is not None:
            data["field"] = error.field
        if frame_id is not None and bytes(frame_id) != b"null":
            data["refers_to"] = frame_id
        self.outlet.errors[error.code] += 1
        self.say("error", **data)

    # -- what it says ------------------------------------------------------------------------------

    def feed(self, text: bytes) -> None:
        """Take one frame; whatever is wrong with it is told to this agent alone."""
        frame = None
        try:
            frame = read(text)
            self._take(frame)
        except BrokerError as e:
            self._offended(e, None if frame is None else frame.id)

    def _take(self, frame: Envelope) -> None:
        kind = frame.type
        report = REPORTS.get(kind)
        if report is not None:
            self._reported(report, frame.data)
        elif kind == "variables":
            self._set(frame.data)
        elif kind == "ping":
            self.say("pong")
        elif kind == "drain":
            self._drain()
        elif kind == "hello":
            raise BrokerError("invalid_message", "There was a hello already.", field="$.type")
        elif kind in SAID:
            self._pool.projects.take(self, frame)
        elif kind == "error":
            self._pool.projects.refused(self, frame)  # never answered with an error
        elif kind == "pong":
            pass  # a sign of life, as every frame is
        else:
            self._keep(kind, frame.data)

    def _drain(self) -> None:
        if not self.draining:
            self.draining = True
            self._pool.moved()
            self._pool.projects.moved()

    def _reported(self, report: Report, raw: msgspec.Raw) -> None:
        try:
            self._told(report, raw)
        except BrokerError:
            if report.unread is not None:
                self._done(report.unread, raw)
            raise

    def _done(self, unread: Callable[[str], AgentEvent], raw: msgspec.Raw) -> None:
        """End a turn of which the agent has said its last word, though nobody can read it."""
        with suppress(BrokerError):
            job = self.jobs.get(decoded(NAMED, raw).turn_id)
            if job is not None:
                if not job.over:
                    job.emit(unread(job.turn_id))
                self._pool.settled(self, job)

    def _told(self, report: Report, raw: msgspec.Raw) -> None:
        said = decoded(report.decoder, raw)
        job = self._job(said.turn_id)
        if report.last and self.draining and declined(job, said):
            self._pool.pass_on(self, job)
            return
        # The end of a turn that has not ended is news whatever its number; of one that has, it says once more
        # that the agent is done with it.
        if job.counts(said.seq, output=report.output) or (report.last and not job.over):
            emit = job.emit
            for event in report.events(job, said, raw):
                emit(event)
        if report.last:
            self._pool.settled(self, job)

    def _set(self, raw: msgspec.Raw) -> None:
        variables, data = variables_of(raw)
        of_session = (job for job in self.jobs.values() if job.session_id == variables.session_id)
        meant = (job for job in of_session if variables.turn_id in {None, job.turn_id})
        job = min(meant, key=lambda job: job.over, default=None)  # rather one that somebody waits for
        if job is None:
            raise BrokerError("forbidden", "This agent runs no turn of that session.", field="$.data.session_id")
        if job.counts(variables.seq) and not job.over:
            job.emit(VariablesSet(job.turn_id, data))

    def _keep(self, kind: str, raw: msgspec.Raw) -> None:
        """Keep what we have no word for, if it is about a turn."""
        said = decoded(ANYTHING, raw)
        if said.turn_id is None:
            self._log.debug("passed over a frame of unknown kind {}", kind)
            return
        job = self._job(said.turn_id)
        if job.counts(said.seq):
            job.emit(vendor_of(kind, raw, job.turn_id))

    def _job(self, turn_id: str) -> Job:
        """Return a turn that this agent has, or had not long ago: an agent never touches another's."""
        job = self.jobs.get(turn_id)
        if job is None:
            job = self._pool.ledger.find(turn_id)
        if job is None or job.holder is not self:
            raise BrokerError("forbidden", "This agent was not given that turn.", field="$.data.turn_id")
        return job

    def _offended(self, error: BrokerError, frame_id: msgspec.Raw | None) -> None:
        errors = self._errors.add()
        if errors > ERRORS_PER_MINUTE:
            self.outlet.close(CloseCode.POLICY_VIOLATION, "too many frames that make no sense")
        else:
            self._log.log("WARNING" if errors == 1 else "DEBUG", "refused a frame: {}", error.message)
            self.refuse(error, frame_id)
