"""What is said of projects with the agents of a pool (seed 002; PROTOCOL section 4).

An agents-server is told what happens in projects, is brought what their users say, answers that, and publishes events
of its own. Where several agents of one profile are linked, each has its share of the projects: always the same one of
them hears of a project, so that nothing is done twice. It moves to another only when agents come or go.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from loguru import logger

from broker.agents.bounds import RECORD_LIMIT
from broker.agents.port import AgentSaid, Answered, News, Say, UserFeedback
from broker.agents.remote.frames import FRAME_LIMIT, Envelope, decoded, feedback_written, update_written
from broker.errors import ERRORS, BrokerError
from broker.projects import EVENTS, FEEDBACK_RESPONSE, MAX_GUID, STATUS, Statuses
from broker.protocol.edge import check_depth

if TYPE_CHECKING:
    from broker.agents.remote.member import Member
    from broker.agents.remote.pool import Pool

__all__ = ["OPEN", "REPORTS", "SAID", "Projects"]

SAID: Final = EVENTS | {FEEDBACK_RESPONSE}
"""The kinds of frames that agents may say of projects."""
REPORTS: Final = 32
"""Events of one agent that may be on their way to logs before nothing more is read from it."""
OPEN: Final = 1000
"""Feedback that may wait for the answers of one profile's agents."""
OVER: Final = 10_000
"""Feedback that is remembered to have waited, so that a late answer is known as one."""
_HEAD: Final = 4096
"""Bytes of a frame that are not its data, at most."""
_WIDTH: Final = 500
"""Characters of an agent's own words about an error."""
_LONGEST: Final = 1024
"""Bytes of a frame's id that is looked at."""
_GUID: Final = msgspec.json.Decoder(Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_GUID)])
_ANY: Final = msgspec.json.Decoder(Any)
_LOST: Final = "The agent's link broke before it answered."


class _Names(msgspec.Struct):
    """Where an answer may say which feedback it answers."""

    feedback_id: Any = None
    id: Any = None


class _Refusal(msgspec.Struct):
    """An error of an agent's, about something that it was sent."""

    refers_to: Annotated[str, msgspec.Meta(max_length=128)]
    code: str = "agent_unavailable"
    message: str = ""


_NAMES: Final = msgspec.json.Decoder(_Names)
_REFUSAL: Final = msgspec.json.Decoder(_Refusal)


class Projects:
    """A pool's part in projects; a `broker.agents.port.ProjectLink` once it is opened.

    Args:
        pool: the agents.
    """

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._say: Say | None = None
        self._arrived: Callable[[], None] = lambda: None
        self._open: dict[tuple[str, str], tuple[Member, Answered]] = {}
        self._over: dict[tuple[str, str], None] = {}  # the last that were open, the oldest first
        self._missed: dict[Member, Statuses[News]] = {}  # those that are still to be told

    def open(self, say: Say, arrived: Callable[[], None]) -> "Projects":
        """Take part in projects from now on."""
        self._say, self._arrived = say, arrived
        return self

    # -- what agents are told ------------------------------------------------------------------------

    def tell(self, news: News) -> None:
        """Tell the project's agent what happened; of what it does not read, only statuses are kept for it."""
        member = self._agent_of(news.project)
        if member is None or len(news.data) > FRAME_LIMIT - _HEAD:
            return
        if not member.outlet.full:
            self.has_room(member)
        if not member.outlet.full:
            member.outlet.send(update_written(news))
            return
        if member not in self._missed:
            logger.warning("an agent does not read what it is told of projects, and misses some of it")
        missed = self._missed.setdefault(member, Statuses())
        if news.event == STATUS:
            missed.put(news)

    def ask(self, feedback: UserFeedback, answered: Answered) -> None:
        """Bring the project's agent what somebody says."""
        member = self._agent_of(feedback.project)
        if member is None:
            answered(BrokerError("agent_unavailable", "No agent is there to hear it.", retry_after=1.0))
        elif len(feedback.data) > FRAME_LIMIT - _HEAD:
            answered(BrokerError("too_large", f"Agents take at most {FRAME_LIMIT} bytes."))
        elif member.outlet.full or len(self._open) >= OPEN:
            answered(BrokerError("overloaded", "The agent has more to read than it can.", retry_after=1.0))
        else:
            self._over.pop((feedback.project, feedback.feedback_id), None)
            self._open[feedback.project, feedback.feedback_id] = (member, answered)
            member.outlet.send(feedback_written(feedback))

    def forget(self, project: str, feedback_id: str) -> None:
        """Wait for this answer no longer."""
        self._close((project, feedback_id))

    def _agent_of(self, project: str) -> "Member | None":
        """Return the agent that has this project, by rendezvous hashing: who comes takes over some of all others'."""
        members = self._pool.members
        if len(members) > 1:
            staying = [member for member in members if not member.draining]
            return max(staying or members, key=lambda member: _weight(member.name, project))
        return members[0] if members else None

    # -- what becomes of agents ----------------------------------------------------------------------

    def moved(self) -> None:
        """An agent has come, goes or is about to: who has some of its projects may not know how they stand."""
        if self._pool.members:
            self._arrived()

    def has_room(self, member: "Member") -> None:
        """An agent that had too much to read can be told the statuses that it missed, as many as it takes now."""
        missed = self._missed.pop(member, None)
        if missed is None:
            return
        while not member.outlet.full and (news := missed.pop(next(iter(missed), ""))):
            member.outlet.send(update_written(news))
        if missed:
            self._missed[member] = missed

    def left(self, member: "Member") -> None:
        """An agent is gone: what it was asked it will not answer, and its projects are others' now."""
        self._missed.pop(member, None)
        for key, (asked, answered) in list(self._open.items()):
            if asked is member:
                self._close(key)
                answered(BrokerError("agent_unavailable", _LOST, retry_after=1.0))
        self.moved()

    # -- what agents say -----------------------------------------------------------------------------

    def take(self, member: "Member", frame: Envelope) -> None:
        """Take a frame about a project.

        Raises:
            BrokerError: it cannot be read, or is larger than an event may be.
        """
        if self._say is None:  # no offence, since the agent cannot know that: it is told, and may go on
            member.refuse(BrokerError("forbidden", "Agents of this profile serve no projects."), frame.id)
            return
        project: str = decoded(_GUID, frame.project, "$.projectGuid")
        if not project.isprintable():
            raise BrokerError("invalid_message", "A guid consists of printable characters.", field="$.projectGuid")
        data = _kept(frame.data)
        if frame.type == FEEDBACK_RESPONSE:
            self._answer(member, project, frame.id, data)
        else:
            self._publish(member, AgentSaid(project, frame.type, data), frame.id, self._say)

    def _publish(self, member: "Member", said: AgentSaid, frame_id: msgspec.Raw, say: Say) -> None:
        member.reports += 1
        if member.reports >= REPORTS:
            member.hold(self)

        def taken(error: BrokerError | None) -> None:
            member.reports -= 1
            member.release(self)
            if error is not None:
                member.refuse(error, frame_id)

        say(said, taken)

    def _answer(self, member: "Member", project: str, frame_id: msgspec.Raw, data: bytes) -> None:
        """Hand on an answer, which says by its own id what it answers, or somewhere in its data.

        One that names what is over is late, and answers nothing else that it names beside that.
        """
        for name in _names_in(data, frame_id):
            if (answered := self._take_open(member, project, name)) is not None:
                answered(data)
                return
            if (project, name) in self._over:
                break
        # No offence either: it may just be late.
        member.refuse(BrokerError("not_found", "No such feedback waits for this agent's answer."), frame_id)

    def refused(self, member: "Member", frame: Envelope) -> None:
        """Take an agent's error: one about feedback goes to whoever asked, and no other is anybody's affair."""
        try:
            refusal: _Refusal = decoded(_REFUSAL, frame.data)
            project: str = decoded(_GUID, frame.project)
        except BrokerError:
            return
        answered = self._take_open(member, project, refusal.refers_to)
        if answered is not None:
            code = refusal.code if refusal.code in ERRORS else "agent_unavailable"
            answered(BrokerError(code, refusal.message[:_WIDTH] or "The agent refused it."))

    def _take_open(self, member: "Member", project: str, name: str) -> Answered | None:
        """Return whom to tell the answer to feedback that this agent was asked, which is open no longer."""
        asked, answered = self._open.get((project, name), (None, None))
        if asked is not member:
            return None
        self._close((project, name))
        return answered

    def _close(self, key: tuple[str, str]) -> None:
        if self._open.pop(key, None) is None:
            return
        self._over[key] = None
        if len(self._over) > OVER:
            del self._over[next(iter(self._over))]


def _weight(agent: str, project: str) -> bytes:
    """Return by how much an agent is the one for a project."""
    return blake2b(f"{agent}\0{project}".encode(), digest_size=8).digest()


def _kept(raw: msgspec.Raw) -> bytes:
    """Return an event's data as they came, read once: whoever reads the log must be able to, too.

    Raises:
        BrokerError: they cannot be read, or are larger than a record.
    """
    data = bytes(raw)
    if len(data) > RECORD_LIMIT:
        raise BrokerError("too_large", f"An event has at most {RECORD_LIMIT} bytes.", field="$.data")
    check_depth(data)
    decoded(_ANY, data)
    return data


def _names_in(data: bytes, frame_id: msgspec.Raw) -> list[str]:
    """Return the names under which an answer may mean the feedback that it answers, the surest first.

    That is the frame's own id: an agent may quote in its data what a user wrote, and so other people's ids.
    """
    own = decoded(_ANY, frame_id, "$.id") if len(bytes(frame_id)) <= _LONGEST else None
    try:
        named = _NAMES.decode(data)
    except msgspec.ValidationError:
        named = _Names()
    return [name for name in (own, named.feedback_id, named.id) if isinstance(name, str)]
