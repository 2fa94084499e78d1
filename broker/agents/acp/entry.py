"""The way into a session of an ACP agent: taking it up again where that works, else a new one.

What an agent says it can do it may refuse all the same, so every error leads to the next way.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

import attrs
import msgspec
from loguru import logger

from broker.agents.acp.jsonrpc import MISREAD, Answer, Answered, RpcError
from broker.agents.acp.updates import STATES, fields_of, named, read_update
from broker.agents.acp.wire import Known, answer_of
from broker.agents.bounds import Fields, kept
from broker.errors import BrokerError

__all__ = ["Context", "Entered", "Entry"]

Context = Literal["restored", "fresh", "unknown"]
"""Whether the agent remembers what was said before."""

KEPT_LIMIT: Final = 64
"""Updates about the agent itself that are kept until the session is open; the newest count."""
KEPT_BYTES: Final = 1024 * 1024
"""Their bytes."""

_MEMORIES: Final = frozenset(
    {"user_message_chunk", "agent_message_chunk", "agent_thought_chunk", "tool_call", "tool_call_update", "plan"}
)
"""What a replay consists of."""
_WORDS: Final[tuple[str, ...]] = ("modes", "config_options", "available_commands")


class _Opened(msgspec.Struct, frozen=True, rename="camel"):
    session_id: str


_OPENED = msgspec.json.Decoder(_Opened)


@attrs.frozen
class Entered:
    """A session that is open.

    Attributes:
        session_id: the agent's own id of it.
        context: whether the agent remembers what was said before.
        fields: what it told on the way: `modes`, `config_options`, `available_commands`.
        kept: updates about the agent that came meanwhile.
    """

    session_id: str
    context: Context
    fields: Fields
    kept: tuple[msgspec.Raw, ...] = ()


class Entry:
    """One attempt to get into a session.

    Args:
        known: what the agent says it can do.
        cwd: the directory the agent is to work in, absolute.
        memory: what it called the session before; None asks for a new one.
        call: sends a request.
        entered: told at the end, or
        refused: told why there is no session.
    """

    def __init__(
        self,
        known: Known,
        cwd: str,
        memory: str | None,
        *,
        call: Callable[[str, Any, Answered], object],
        entered: Callable[[Entered], None],
        refused: Callable[[BrokerError], None],
    ) -> None:
        self._known = known
        self._params: Final = {"cwd": cwd, "mcpServers": []}
        self._memory = memory
        self._call = call
        self._entered = entered
        self._refused = refused
        self._ways = [way for way, can in (("resume", known.resumes), ("load", known.loads)) if can and memory]
        self._replayed = self._hinted = False
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0

    def begin(self) -> None:
        """Ask the agent, in the best way that is left."""
        self._replayed = self._hinted = False
        if self._ways:
            way = self._ways.pop(0)
            params = self._params | {"sessionId": self._memory}
            self._call(f"session/{way}", params, partial(self._taken_up, way))
        else:
            self._call("session/new", self._params, self._opened)

    def look(self, update: msgspec.Raw) -> None:
        """Look at an update that comes on the way: a replay is in our log already.

        Raises:
            ValueError, msgspec.MsgspecError, RecursionError: it cannot be read (`jsonrpc.MISREAD`).
        """
        kind = read_update(update).session_update
        self._replayed |= kind in _MEMORIES
        self._hinted = True
        if kind in STATES:
            self._keep(bytes(update))

    def _keep(self, update: bytes) -> None:
        """Keep an update until the session is open, rather than older ones."""
        if len(update) > KEPT_BYTES:
            logger.debug("passed over {} bytes of the agent's, for a session that is not open", len(update))
            return
        self._kept.append(update)
        self._kept_bytes += len(update)
        while len(self._kept) > KEPT_LIMIT or self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft())

    def _taken_up(self, way: str, answer: Answer) -> None:
        if isinstance(answer, RpcError):
            logger.debug("the agent refused session/{}: {} {}", way, answer.code, answer.message[:200])
            self.begin()
            return
        if way == "resume" or self._replayed:
            context: Context = "restored"
        else:
            context = "unknown" if self._hinted else "fresh"
        self._end(str(self._memory), context, answer)

    def _opened(self, answer: Answer) -> None:
        try:
            opened: _Opened = answer_of(_OPENED, answer, "session/new", self._known.logins)
        except BrokerError as e:
            self._refused(e)
            return
        self._end(opened.session_id, "fresh", answer)

    def _end(self, session_id: str, context: Context, answer: Answer) -> None:
        self._entered(Entered(session_id, context, _fields(answer), tuple(map(msgspec.Raw, self._kept))))


def _fields(answer: Answer) -> Fields:
    """Return what an answer tells of the session, its modes under our names; what cannot be read it does not tell."""
    try:
        told = {} if isinstance(answer, RpcError) else named(answer)
        fields = kept({name: told[name] for name in _WORDS if name in told and bytes(told[name]) != b"null"})
    except MISREAD:
        return {}
    try:
        if "modes" in fields:
            fields["modes"] = msgspec.Raw(msgspec.json.encode(fields_of(fields["modes"])))
    except MISREAD:
        del fields["modes"]
    return fields
