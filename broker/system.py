"""The actors of one broker: made with what each kind of them shares, and ended together."""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from loguru import logger

from broker.actors.agents import CLOSE_SECONDS as GONE_SECONDS
from broker.actors.agents import Agents
from broker.actors.futures import ReplyTo
from broker.actors.lifecycle import Gone, StopSession
from broker.actors.options import ProjectOptions, RoomOptions, SessionOptions
from broker.actors.project import make_room
from broker.actors.project_bridge import start_project_bridge
from broker.actors.project_mail import EndFeedback
from broker.actors.ref import LoopRef
from broker.actors.registry import Registry, RegistryOptions
from broker.actors.requests import Live, ToRoom, Wake
from broker.actors.session import Session
from broker.actors.store import Expire, StoreHandle
from broker.actors.supervisor import Supervisor
from broker.agents.acp.orphans import reap
from broker.agents.kinds import kind_for
from broker.agents.port import AgentKind, ProjectKind
from broker.clock import Clock, Deadline
from broker.config import Settings
from broker.extensions.dispatch import Hooks
from broker.extensions.dispatching import decide
from broker.hooks import TurnEnded
from broker.messages import Record, SessionRow
from broker.stats import Profile, Stats
from broker.store.port import StoreError
from broker.traces import Traces

__all__ = ["ActorSystem", "mark_of"]

EXPIRE_SECONDS: Final = 600.0
"""How often what is past keeping is looked for."""
END_SECONDS: Final = 5.0
"""How long the end of a turn may take to become durable when the broker stops."""


class ActorSystem:
    """A broker's actors.

    Args:
        settings: the configuration.
        clock: time.
        stats: the counters.
        traces: where each reply went.
        store: where logs are kept.
        hooks: the plugins.

    Attributes:
        supervisor: starts actors anew that fail.
        kinds: what serves each agent profile, by its name.
        registry: knows who is connected, and where sessions and rooms live.
    """

    def __init__(
        self, settings: Settings, clock: Clock, stats: Stats, traces: Traces, store: StoreHandle, hooks: Hooks
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._stats = stats
        self._store = store
        self._hooks = hooks
        self._mark = mark_of(settings.store.url)
        self.supervisor = Supervisor(clock, stats.actor_failures)
        self.kinds: dict[str, AgentKind] = {
            name: kind_for(profile, self._mark, stats.errors) for name, profile in settings.agents.items()
        }
        stats.profiles.update({name: Profile() for name in settings.agents})
        self._agents = Agents(
            settings.agents,
            self.kinds,
            queue_limit=settings.limits.queued_turns,
            supervisor=self.supervisor,
            clock=clock,
            traces=traces,
            handing=bool(hooks.dispatch),
        )
        self._sessions, self._rooms = self._shared(traces)
        self.registry: LoopRef[Registry] = self.supervisor.start(self._make_registry)

    def _shared(self, traces: Traces) -> tuple[SessionOptions, RoomOptions]:
        shared: dict[str, Any] = {
            "store": self._store,
            "clock": self._clock,
            "stats": self._stats,
            "mailbox": self._settings.limits.mailbox,
            "registry": self._tell_registry,
            "on_committed": self._committed,
        }
        quota = self._settings.sessions.quota
        agents, ended, hooks = self._agents.options, self._turn_ended, self._hooks
        asked = partial(decide, hooks, frozenset(agents)) if hooks.dispatch else None
        sessions = SessionOptions(
            agents=agents, quota=quota, traces=traces, on_turn_ended=ended, on_dispatch=asked, **shared
        )
        return sessions, RoomOptions(history=self._settings.rooms.history, projects=self._serving(), **shared)

    def _serving(self) -> ProjectOptions | None:
        """Return who serves projects, the bridge there started; None if nobody does."""
        name, seconds = self._settings.projects.agent, self._settings.projects.feedback
        kind: object = None if name is None else self.kinds[name]
        if name is None or not isinstance(kind, ProjectKind):
            return None
        bridge = start_project_bridge(self.supervisor, name, kind, self._ask_registry)
        return ProjectOptions(agent=name, bridge=bridge, feedback=seconds)

    def _make_registry(self) -> Registry:
        return Registry(
            RegistryOptions(
                supervisor=self.supervisor,
                clock=self._clock,
                stats=self._stats,
                session=self._make_session,
                room=lambda name: make_room(name, self._rooms),
                idle_after=self._settings.sessions.idle_after,
            )
        )

    def _make_session(self, session_id: str, row: SessionRow | None, chosen: bool) -> Session:
        return Session(session_id, self._sessions, row, chosen=chosen)

    # -- from start to stop --------------------------------------------------------------------------

    async def start(self) -> None:
        """Get the agents ready, and go on where an earlier run on this store ended.

        What its agents are still at is ended: the turns they had are lost, or go on anew.
        """
        if self._mark is not None and (ended := await asyncio.to_thread(reap, self._mark)):
            logger.warning("ended {} processes of agents that an earlier run had left behind", ended)
        await self._agents.start()
        for session_id in await self._store.read("unfinished_sessions"):
            self.registry.tell(Wake(session_id), urgent=True)

    async def end_feedback(self, deadline: Deadline) -> None:
        """Refuse the feedback about projects that waits for an answer, and what comes from now on."""
        if self._rooms.projects is not None:
            ending = self._rooms.projects.bridge.ask(EndFeedback(), timeout=deadline.share(END_SECONDS))
            await asyncio.gather(ending, return_exceptions=True)  # if not now, it is refused when the rooms stop

    async def end_turns(self, deadline: Deadline) -> None:
        """End the turns that still run, durably."""
        places: dict[str, LoopRef[Session]] = await self.registry.ask(Live())
        sessions = [ref for log, ref in places.items() if log.startswith("session:") and ref.is_alive()]
        seconds = deadline.share(END_SECONDS)
        await asyncio.gather(*(ref.ask(StopSession(), timeout=seconds) for ref in sessions), return_exceptions=True)

    async def stop(self, deadline: Deadline) -> None:
        """End what still runs; then the agents, then everybody else."""
        await self.end_turns(deadline)
        await self._agents.close(deadline.share(GONE_SECONDS))
        await self.supervisor.stop(deadline.part())

    async def expire(self) -> None:
        """Drop what is past keeping, again and again, until this is cancelled."""
        sessions, rooms = self._settings.sessions.keep, self._settings.rooms
        while True:
            now = self._clock.now()
            message = Expire(
                sessions_before=now - round(sessions * 1000) if sessions else 0,
                rooms_before=now - round(rooms.keep * 1000) if rooms.keep else 0,
                room_history=rooms.history,
                live=frozenset(await self.registry.ask(Live())),
            )
            try:
                gone = await self._store.expire(message)
            except StoreError as e:
                logger.error("what is past keeping could not be dropped: {}", e)
            else:
                if gone:
                    logger.info("dropped {} logs that were past keeping", len(gone))
            await asyncio.sleep(EXPIRE_SECONDS)

    def is_live(self, session_id: str) -> bool:
        """Tell whether a session is in memory."""
        return self.registry.actor is not None and self.registry.actor.holds(f"session:{session_id}")

    # -- what actors tell ----------------------------------------------------------------------------

    def _tell_registry(self, message: Gone) -> None:
        if self.registry.is_alive():
            self.registry.tell(message, urgent=True)

    def _ask_registry(self, message: ToRoom, reply_to: ReplyTo) -> None:
        self.registry.request(message, reply_to)

    def _committed(self, log: str, records: Sequence[Record]) -> None:
        if self._hooks.committed:
            self._hooks.observe(self._hooks.committed, log, records)

    def _turn_ended(
        self, session_id: str, turn_id: str, agent: str, outcome: str, seconds: float, dispatched: bool
    ) -> None:
        self._stats.turns_ended[outcome] += 1
        self._stats.turn_seconds.observe(seconds)
        if outcome not in {"completed", "cancelled"}:
            logger.bind(session=session_id, turn=turn_id).warning("turn of agent {} ended {}", agent, outcome)
        if self._hooks.turn_ended:
            ended = TurnEnded(session_id, turn_id, agent, outcome, seconds, dispatched)
            self._hooks.observe(self._hooks.turn_ended, ended)


def mark_of(url: str) -> str | None:
    """Return what the processes of a broker's agents carry in their environment: as unique as its store is."""
    path = url.removeprefix("sqlite:///")
    if path == url:
        return None  # a store in memory, which no later run can have in common with this one
    return hashlib.blake2b(os.fsencode(Path(path).resolve()), digest_size=16).hexdigest()
