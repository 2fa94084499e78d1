"""Clients that put a broker under load, come back whenever it dies, and write down what they were told."""

import asyncio
import itertools
import json
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

GONE = (OSError, WebSocketException, TimeoutError)
ANSWER_SECONDS = 20.0
OPEN = 4
"""Turns of its own that a worker lets be open."""
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "comes", "back", "for", "more"]


DROPS = 0.01
"""How likely a planner loses its line before each thing it does."""

__all__ = ["Planner", "Worker"]


class Refused(Exception):  # noqa: N818 - what happened to the request
    """The broker answered with an error that says not to try again."""


class Later(Exception):  # noqa: N818 - what it was told
    """The broker answered that nothing was accepted, and to try again."""


class Client:
    """One client, over as many connections as it takes, that looks at sessions and starts turns in them.

    Args:
        evidence: where it writes down what it did and was told.
        acked: makes what it writes down.
        port: where the broker is.
        sessions: those it watches.
    """

    def __init__(self, evidence: Any, acked: Any, port: int, sessions: list[str]) -> None:
        self.evidence = evidence
        self.progress = 0
        self.connected = 0
        self._acked = acked
        self._port = port
        self._sessions = sessions
        self._ids = itertools.count(1)
        self._unanswered: dict[str, dict[str, Any]] = {}  # turns by client_msg_id, to be sent again as they are
        self._ended: set[str] = set()
        self._open: dict[str, str] = {}  # accepted turns whose end was not seen: turn_id -> log
        self._epochs: dict[str, str] = {}
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._grown = asyncio.Event()
        self._socket: ClientConnection
        for session in sessions:
            evidence.views[f"session:{session}"] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then until every turn it sent is accepted; come back after each death."""
        while not self._done(stop):
            try:
                async with connect(
                    f"ws://127.0.0.1:{self._port}/ws", compression=None, ping_interval=None, close_timeout=1
                ) as self._socket:
                    self.connected += 1
                    await self._beside_reading(lambda: self._work(stop))
            except (*GONE, Later):
                await asyncio.sleep(0.02)  # as a polite client backs off

    def _done(self, stop: asyncio.Event) -> bool:
        return stop.is_set() and not self._unanswered

    async def _work(self, stop: asyncio.Event) -> None:
        raise NotImplementedError

    async def see_all(self, heads: dict[str, int]) -> None:
        """Come back once more and stay until it has been shown everything up to these numbers."""

        async def until_shown() -> None:
            while any(self._last(log) < head for log, head in heads.items()):
                await self._more()

        async with (
            asyncio.timeout(ANSWER_SECONDS),
            connect(f"ws://127.0.0.1:{self._port}/ws", compression=None) as self._socket,
        ):
            await self._beside_reading(self._resume, until_shown)

    # -- one connection --------------------------------------------------------------------------------

    async def _beside_reading(self, *steps: Callable[[], Awaitable[None]]) -> None:
        reading = asyncio.ensure_future(self._read())
        try:
            for step in steps:
                await step()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            self._fail_waiting()

    async def _read(self) -> None:
        try:
            async for text in self._socket:
                self._hear(str(text))
        finally:
            self._fail_waiting()
            self._grown.set()

    async def _more(self) -> None:
        """Return when a record has come; raise when none will, because the connection is gone."""
        self._grown.clear()
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._grown.wait()
        if self._socket.close_code is not None:
            raise ConnectionResetError

    def _fail_waiting(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionResetError())
                future.exception()  # whoever waits for it still gets it
        self._waiting.clear()

    def _hear(self, text: str) -> None:
        message = json.loads(text)
        if "id" in message:
            future = self._waiting.pop(message["id"], None)
            if future is not None and not future.done():
                future.set_result(message)
        elif "seq" in message:
            log = f"room:{message['room']}" if "room" in message else f"session:{message['session_id']}"
            self.evidence.views[log].append((message["seq"], text))
            self._grown.set()
            if message["event"] == "turn.ended":
                self._ended.add(message["turn_id"])
                self._open.pop(message["turn_id"], None)
        elif message.get("event") == "session.reset":
            self.evidence.resets.append(f"session:{message['session_id']}")

    async def _ask(self, action: str, **payload: Any) -> Any:
        request_id = str(next(self._ids))
        future = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": request_id, "type": "request", "action": action, "payload": payload}))
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await future
        if answer["type"] == "error":
            raise (Later if answer["data"]["retryable"] else Refused)(answer["data"])
        return answer["data"]

    async def _resume(self) -> None:
        for session_id in self._sessions:
            await self._attach("session.attach", f"session:{session_id}", session_id=session_id)

    async def _attach(self, action: str, log: str, **payload: Any) -> None:
        where = {"epoch": self._epochs[log]} if log in self._epochs else {}
        data = await self._ask(action, after_seq=self._last(log), **where, **payload)
        self._epochs[log] = data["epoch"]
        if not data["recovered"]:
            self.evidence.resets.append(log)

    def _last(self, log: str) -> int:
        view = self.evidence.views[log]
        return view[-1][0] if view else 0

    # -- turns -----------------------------------------------------------------------------------------

    async def _send_turn(self, key: str) -> None:
        payload = self._unanswered[key]
        log = f"session:{payload['session_id']}"
        self.evidence.sent[log, key] += 1
        try:
            data = await self._ask("turn.start", **payload)
        except Later as e:
            if e.args[0]["code"] == "queue_full":
                return  # it stays unanswered and is sent again with the next connection, or in the end
            raise
        del self._unanswered[key]
        if data["turn_id"] not in self._ended:
            self._open[data["turn_id"]] = log
        self._note(log, data["seq"], "turn", key, payload["content"], data["turn_id"])

    def _note(self, log: str, seq: int, kind: str, key: str, content: Any, turn_id: str | None = None) -> None:
        self.evidence.acked.append(self._acked(log, seq, kind, key, content, turn_id))


class Worker(Client):
    """A client that takes turns, publishes into a room and sets variables, as its dice fall.

    Args:
        room: the room it is a member of.
        seed: of what it does.
    """

    def __init__(self, evidence: Any, acked: Any, port: int, sessions: list[str], room: str, seed: int) -> None:
        super().__init__(evidence, acked, port, sessions)
        self._room = room
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)
        evidence.views[f"room:{room}"] = []

    async def _resume(self) -> None:
        await super()._resume()
        await self._attach("room.join", f"room:{self._room}", room=self._room)

    async def _work(self, stop: asyncio.Event) -> None:
        await self._resume()
        for key in list(self._unanswered):
            await self._send_turn(key)
        while not stop.is_set():
            act = self._random.choice((self._turn, self._turn, self._publish, self._publish, self._update))
            await act()
            self.progress += 1
        for key in list(self._unanswered):
            await self._send_turn(key)

    async def _turn(self) -> None:
        while len(self._open) >= OPEN:
            await self._more()
        key = self._key()
        content = " ".join(self._random.choices(WORDS, k=self._random.randint(1, 8))) + f" {key}"
        session_id = self._random.choice(self._sessions)
        self._unanswered[key] = {"session_id": session_id, "client_msg_id": key, "content": content}
        await self._send_turn(key)

    async def _publish(self) -> None:
        key, log = self._key(), f"room:{self._room}"
        data = {"key": key, "fill": "x" * self._random.randint(0, 2000)}
        self.evidence.sent[log, key] += 1
        answer = await self._ask("room.publish", room=self._room, data=data)
        self._note(log, answer["seq"], "publish", key, data)

    async def _update(self) -> None:
        key, session_id = self._key(), self._random.choice(self._sessions)
        log = f"session:{session_id}"
        self.evidence.sent[log, key] += 1
        answer = await self._ask("session.update", session_id=session_id, variables={"key": key})
        self._note(log, answer["head"], "update", key, {"key": key})

    def _key(self) -> str:
        return f"{self.evidence.who}-{next(self._numbers)}"


class Planner(Client):
    """A client that starts the turns it was given, cancels those that ask for it, and loses its line at times.

    Args:
        plans: (session id, key, content) of each turn, in its order.
        to_cancel: tells by a turn's content whether it is to be cancelled once it has said something.
        seed: of when it loses its line.
    """

    def __init__(
        self,
        evidence: Any,
        acked: Any,
        port: int,
        sessions: list[str],
        plans: list[tuple[str, str, str]],
        to_cancel: Callable[[str], bool],
        seed: int,
    ) -> None:
        super().__init__(evidence, acked, port, sessions)
        self._plans = deque(plans)
        self._to_cancel = to_cancel
        self._random = random.Random(seed)
        self._talking: set[str] = set()

    def _done(self, stop: asyncio.Event) -> bool:
        return not (self._plans or self._unanswered or self._open)

    def _hear(self, text: str) -> None:
        super()._hear(text)
        message = json.loads(text)
        if message.get("event") == "message.delta":
            self._talking.add(message["turn_id"])

    async def _work(self, stop: asyncio.Event) -> None:
        await self._resume()
        for key in list(self._unanswered):
            await self._send_turn(key)
        asked: set[str] = set()
        while not self._done(stop):
            await self._cancel(asked)
            if self._random.random() < DROPS:
                self._socket.transport.abort()
                raise ConnectionResetError
            if self._plans and len(self._open) + len(self._unanswered) < OPEN:
                session_id, key, content = self._plans.popleft()
                self._unanswered[key] = {"session_id": session_id, "client_msg_id": key, "content": content}
                await self._send_turn(key)
                self.progress += 1
            elif self._unanswered:
                for key in list(self._unanswered):
                    await self._send_turn(key)
            else:
                await self._more()

    async def _cancel(self, asked: set[str]) -> None:
        """Cancel what is to be cancelled and has begun to talk; again on each connection, in case it was not heard."""
        wanted = {acked.turn_id: acked for acked in self.evidence.acked if acked.turn_id in self._open}
        for turn_id in (self._talking & wanted.keys()) - asked:
            if self._to_cancel(wanted[turn_id].content):
                asked.add(turn_id)
                session_id = wanted[turn_id].log.removeprefix("session:")
                await self._ask("turn.cancel", session_id=session_id, turn_id=turn_id)
