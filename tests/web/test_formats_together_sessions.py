"""Clients of different formats in one session see the same things in the same order."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import attrs
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from broker.app import App

PATIENCE = 20.0
SESSION = "shared"
ENDED = "turn.ended"
LAST = "session.closed"
UNTOLD = {"message.delta", "thought.delta", "session.opened"}
"""What is not told in some formats, or only to those who ask for it; `chat.v1.json` tells otherwise of the opening."""

Start = Callable[..., Awaitable[App]]
Message = dict[str, Any]


@attrs.frozen
class Seen:
    """A record of the session, whatever the format it was told in; `words` only of what somebody says."""

    seq: int
    at: str
    what: str
    words: Any = None


class Viewer:
    """One who is in the session; native, unless it is one of those below."""

    protocol = "broker.v1.json"
    path = "/ws"

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[Seen] = []

    async def send(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def hear(self, until: Callable[[Message], bool]) -> Message:
        """Listen until this comes, and return it; what it sees of the session on the way is kept."""
        async with asyncio.timeout(PATIENCE):
            while True:
                message: Message = json.loads(await self.socket.recv())
                seen = self.see(message)
                if seen is not None and seen.what not in UNTOLD:
                    self.seen.append(seen)
                if until(message):
                    return message

    async def sees(self, what: str = LAST, count: int = 1) -> list[Seen]:
        """Return all that it has seen of the session, once it has seen so many records of this kind."""
        while [seen.what for seen in self.seen].count(what) < count:
            await self.hear(lambda message: self.see(message) is not None)
        return self.seen

    def see(self, message: Message) -> Seen | None:
        """Return what a message tells of the session; None if it is about something else."""
        if "seq" not in message:
            return None
        said = message["event"] in {"user.message", "message.completed"}
        words = message["data"]["content"] if said else None
        return Seen(message["seq"], message["at"], message["event"], words)

    async def enter(self) -> None:
        """Attach, from the beginning of the session."""
        request = {"session_id": SESSION, "after_seq": 0}
        await self.send(id="enter", type="request", action="session.open", payload=request)
        await self.hear(lambda message: message.get("event") == "session.caught_up")

    async def say(self, words: str) -> None:
        request = {"session_id": SESSION, "client_msg_id": words, "content": words}
        await self.send(id=words, type="request", action="turn.start", payload=request)


class EnvelopeViewer(Viewer):
    """One that speaks `envelope.v1.json`."""

    protocol = "envelope.v1.json"

    def see(self, message: Message) -> Seen | None:
        if "seq" not in message["metadata"]:
            return None
        if message["type"] == "text":
            what = "user.message" if message["from"] == "user" else "message.completed"
            words = message["content"]["text"]
        else:
            what, words = message["content"]["event"], None
        return Seen(message["metadata"]["seq"], message["timestamp"], what, words)

    async def enter(self) -> None:
        await self.send(type="init", sessionId=SESSION)
        await self.hear(lambda message: message["content"].get("event") == "session.caught_up")

    async def say(self, words: str) -> None:
        await self.send(type="text", id=words, sessionId=SESSION, content={"text": words})


class ChatViewer(Viewer):
    """One that speaks `chat.v1.json`."""

    protocol = "chat.v1.json"
    path = f"/ws?sessionId={SESSION}"

    def see(self, message: Message) -> Seen | None:
        metadata, content = message["metadata"], message["content"]
        if message["role"] != "system":
            what, words = ("user.message" if message["role"] == "user" else "message.completed"), content
        elif metadata["kind"] == "variables" and not message["messageId"].endswith(":variables"):
            what, words = "variables.changed", None
        elif metadata["kind"] == "state" and content["event"] not in {"session.open", "session.caught_up"}:
            what, words = content["event"], None
        else:
            return None
        return Seen(metadata["seq"], message["timestamp"], what, words)

    async def enter(self) -> None:
        await self.hear(lambda message: message["messageId"].endswith(":session.caught_up"))

    async def say(self, words: str) -> None:
        await self.send(role="user", messageId=words, sessionId=SESSION, content=words)


FORMATS = (Viewer, EnvelopeViewer, ChatViewer)


@pytest.fixture
async def app(start: Start) -> App:
    return await start(agents={"echo": {"kind": "echo", "faults": True}})


Enter = Callable[[type[Viewer]], Awaitable[Any]]


@pytest.fixture
async def enter(app: App) -> AsyncIterator[Enter]:
    """Enter the session in a format."""
    sockets: list[ClientConnection] = []

    async def open_viewer(kind: type[Viewer]) -> Viewer:
        url = f"ws://127.0.0.1:{app.port}{kind.path}"
        sockets.append(await connect(url, subprotocols=[Subprotocol(kind.protocol)], max_queue=None))
        viewer = kind(sockets[-1])
        await viewer.enter()
        return viewer

    yield open_viewer
    await asyncio.gather(*(socket.close() for socket in sockets))


async def close(viewer: Viewer) -> None:
    await viewer.send(id="close", type="request", action="session.close", payload={"session_id": SESSION})


async def test_what_everybody_says_is_seen_by_all_in_the_same_order_live_and_later(enter: Enter) -> None:
    watching = [await enter(kind) for kind in FORMATS]
    talking = [await enter(kind) for kind in FORMATS]
    texts = [f"{talker.protocol} says it" for talker in talking]
    await asyncio.gather(*(talker.say(words) for talker, words in zip(talking, texts, strict=True)))
    await talking[0].say("/garbage and words")
    await watching[0].sees(ENDED, len(texts) + 1)
    await close(talking[0])
    native, *others = [await viewer.sees() for viewer in watching]
    assert {seen.words for seen in native if seen.what == "user.message"} == {*texts, "/garbage and words"}
    assert {"activity", "vendor.garbage", "turn.ended"} < {seen.what for seen in native}
    for other in others:
        assert other == native
    later = [(await enter(kind)).seen for kind in FORMATS]
    assert later[0] == later[1] == native
    assert [seen for seen in later[2] if seen.words] == [seen for seen in native if seen.words]


async def test_who_says_something_in_an_envelope_is_shown_all_but_that(enter: Enter) -> None:
    watching, talking = await enter(Viewer), await enter(EnvelopeViewer)
    await talking.say("hello")
    await watching.sees(ENDED)
    await close(watching)
    seen = await watching.sees()
    assert await talking.sees() == [each for each in seen if each.what != "user.message"]


async def test_a_question_that_one_is_asked_another_answers_in_its_own_format(enter: Enter) -> None:
    native, envelope = await enter(Viewer), await enter(EnvelopeViewer)
    request = {"session_id": SESSION, "client_msg_id": "q", "content": "/ask allowed"}
    await native.send(id="q", type="request", action="turn.start", payload=request)
    asked = await envelope.hear(lambda message: message["content"].get("event") == "approval.requested")
    option = {"approvalId": asked["content"]["data"]["approval_id"], "optionId": "allow"}
    await envelope.send(type="system", sessionId=SESSION, content={"action": "approve", **option})
    resolved = await native.hear(lambda message: message.get("event") == "approval.resolved")
    assert resolved["data"]["option_id"] == "allow"
    assert [seen.words for seen in await native.sees(ENDED) if seen.words] == ["/ask allowed", "allowed"]
    assert await envelope.sees(ENDED) == native.seen
