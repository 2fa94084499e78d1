"""What the store knows of a session, read when it comes back: after sleep, after a crash, after a failure."""

from collections.abc import Collection, Mapping
from typing import Final

import attrs
import msgspec

from broker.actors.options import AgentOptions
from broker.actors.store import StorePort
from broker.actors.transcript import KINDS as SPOKEN
from broker.actors.transcript import MESSAGES, SIZE
from broker.messages import LogRow, Record, SessionRow, TurnRow
from broker.turns.leftovers import KINDS, OUTPUT, USAGE, Leftovers, leftovers_of

__all__ = ["StoredSession", "read_session"]

LEFTOVERS: Final = 1000
"""Records that are read at a time of the kinds that tell how turns were left."""
STATES: Final = 50
"""Newest states of the agent among which what it calls the session is looked for."""
PAGE: Final = 64
"""Records of a transcript that are read at a time: what was said may be long."""
PAGE_BYTES: Final = 1 << 20
"""Bytes of data that are read at a time."""
MARGIN: Final = 100
"""Prompts and answers read beyond those that a transcript holds, for turns that waited long before they started."""


class _Ready(msgspec.Struct):
    agent_session_id: str | None = None


_read_state: Final = msgspec.json.Decoder(_Ready).decode


@attrs.define(kw_only=True)
class StoredSession:
    """A session as an earlier incarnation left it.

    Attributes:
        row: the session.
        log: its log.
        turns: all its turns, in the order of their acceptance.
        leftovers: what the log says of those that have not ended.
        memory: what the agent called the session, if its kind has such a thing.
        said: the records that a transcript is made of, if the agent is told one.
    """

    row: SessionRow
    log: LogRow
    turns: list[TurnRow]
    leftovers: Leftovers = attrs.Factory(Leftovers)
    memory: str | None = None
    said: list[Record] = attrs.Factory(list)

    @property
    def unfinished(self) -> bool:
        """Whether a turn has not ended."""
        return any(turn.outcome is None for turn in self.turns)


async def read_session(store: StorePort, session_id: str, agents: Mapping[str, AgentOptions]) -> StoredSession | None:
    """Return what the store knows of a session, None if there is none.

    Raises:
        BrokerError: `unavailable`, if the store cannot be read.
    """
    name = f"session:{session_id}"
    row: SessionRow | None = await store.read("session", session_id)
    log: LogRow | None = await store.read("log", name)
    if row is None or log is None:
        return None
    past, agent = _Past(store, name, log.head), agents.get(row.agent)
    stored = StoredSession(row=row, log=log, turns=await store.read("turns", session_id))
    if stored.unfinished:
        stored.leftovers = await past.leftovers({turn.turn_id: turn.seq for turn in stored.turns if not turn.outcome})
    if agent is not None and agent.memory:
        stored.memory = await past.memory()
    if agent is not None and agent.transcript:
        stored.said = await past.said()
    return stored


class _Past:
    """Reads a log from its end."""

    def __init__(self, store: StorePort, name: str, head: int) -> None:
        self._store = store
        self._name = name
        self._end = head + 1

    async def newest(self, kinds: Collection[str], limit: int, below: int | None = None) -> list[Record]:
        """Return the newest records of these kinds, oldest first: `limit` of them, or all there are."""
        found: list[Record] = []
        while len(found) < limit:
            page = await self._page(kinds, limit - len(found), found[0].seq if found else below or self._end)
            if not page:
                break
            found = page + found
        return found

    async def _page(self, kinds: Collection[str], limit: int, below: int) -> list[Record]:
        page: list[Record] = await self._store.read(
            "records_before", self._name, below, limit=limit, max_bytes=PAGE_BYTES, kinds=kinds
        )
        return page

    async def leftovers(self, unfinished: Mapping[str, int]) -> Leftovers:
        """Return what the log says of turns that have not ended, given with the numbers of their first records."""
        told = [*await self.newest(OUTPUT, 1), *await self.newest(USAGE, 1)]
        return leftovers_of(told + await self._told_of(unfinished))

    async def _told_of(self, unfinished: Mapping[str, int]) -> list[Record]:
        """Return the newest records of `KINDS`, and those of the unfinished turns however far back they are.

        A turn may wait, or ask and be answered, so often that the newest ones do not reach back to its beginning;
        further back what other turns left is of no use to anybody.
        """
        page = told = await self.newest(KINDS, LEFTOVERS)
        while len(page) == LEFTOVERS and page[0].seq > min(unfinished.values()):
            page = await self.newest(KINDS, LEFTOVERS, page[0].seq)
            told = [record for record in page if record.turn_id in unfinished] + told
        return told

    async def memory(self) -> str | None:
        """Return what the agent called the session when it last opened it."""
        for record in reversed(await self.newest(["agent.state"], STATES)):
            try:
                memory = _read_state(record.data).agent_session_id
            except msgspec.MsgspecError:
                continue
            if memory is not None:
                return memory
        return None

    async def said(self) -> list[Record]:
        """Return the newest records of a transcript: more than it holds, if there are so many."""
        said: list[Record] = []
        below, messages, size = self._end, 0, 0
        while messages < MESSAGES + MARGIN and size < 2 * SIZE:
            page = await self._page(SPOKEN, PAGE, below)
            if not page:
                break
            said = page + said
            below = page[0].seq
            messages += sum(record.kind in {"turn.started", "message.completed"} for record in page)
            size += sum(len(record.data) for record in page)
        return said
