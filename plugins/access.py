"""Asks a service of yours who may enter which project, room or session, and remembers its answers for a while.

docs/access.md is its manual. Whatever is not a plain yes refuses: a no, and an answer that comes late, not at all, from
somewhere else or in another form. Many who ask the same wait for one answer, and nobody can have more than `EACH`
questions under way, so that one who asks for a thousand rooms does not stand in the way of the others.
"""

import asyncio
import base64
import fnmatch
import hashlib
import hmac
import logging
import re
from asyncio import Task
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Annotated, Any, Final
from urllib.parse import urlsplit
from uuid import uuid4
from weakref import WeakValueDictionary

import attrs
import msgspec
from aiohttp import (
    ClientError,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    ServerDisconnectedError,
    TCPConnector,
    web,
)
from msgspec import Meta

from broker.errors import BrokerError
from broker.hooks import Broker, Count, Duration, Permission, Plugin, Positive, Route, Secret

log = logging.getLogger(__name__)

ROOMS: Final = frozenset({"room", "project"})
SESSIONS: Final = frozenset({"session", "turn", "approval"})
"""First words of operations, by what they are about."""
LEAVING: Final = frozenset({"room.leave", "session.detach"})
"""What is never asked about: nobody is kept against their will."""

EACH: Final = 8
"""Questions about one user that may be under way; more wait."""
LARGEST: Final = 4096
"""Bytes of an answer."""
LONGEST_REASON: Final = 200
"""Characters of a reason that a client is told."""
SHORTEST_SECRET: Final = 24
"""Bytes of a secret that nobody guesses; the specification of Standard Webhooks has the same."""
STALE_PAUSE: Final = 5.0
"""Seconds for which an old answer is taken without asking, once asking has failed."""
LOG_PAUSE: Final = 10.0
"""Seconds between two lines of the log about questions that failed."""

_NO_ANSWER: Final = (ClientError, OSError, TimeoutError, ValueError, msgspec.MsgspecError, RecursionError)

Text = Annotated[str, Meta(min_length=1, max_length=256)]
Patterns = tuple[Text, ...]


@attrs.frozen(kw_only=True)
class Cache:
    """How long answers are good.

    Attributes:
        allow: A yes.
        deny: A no.
        stale: How long a yes that is over still counts while the service cannot be asked; 0: not at all.
        entries: Answers that are remembered; those used longest ago go first.
    """

    allow: Duration = 60.0
    deny: Duration = 10.0
    stale: Duration = 0.0
    entries: Count = 10_000


@attrs.frozen(kw_only=True)
class AccessSettings:
    """What stands under `access:`.

    Attributes:
        url: What is asked, by POST: https, or http on this machine.
        secret: Signs the questions, at least 24 bytes; null: they are not signed.
        rooms: Rooms that are asked about, by pattern; a project is the room `project:<guid>`.
        sessions: Sessions that are asked about, by pattern.
        operations: Operations that are asked about, by pattern, of those on these rooms and sessions.
        claims: Claims of who asks that the service is told.
        exempt: Scopes whose bearers are not asked about.
        timeout: Time for an answer, the wait for its turn included.
        concurrent: Questions that may be under way.
        cache: How long answers are good.
        insecure: Allows http to other machines, where others may read the questions and forge the answers.
    """

    url: Text
    secret: Secret | None = None
    rooms: Patterns = ("*",)
    sessions: Patterns = ()
    operations: Patterns = ("*",)
    claims: Patterns = ()
    exempt: Patterns = ()
    timeout: Annotated[Duration, Positive, Meta(le=9)] = 2.0
    concurrent: Annotated[int, Meta(ge=1, le=1000)] = 32
    cache: Cache = Cache()
    insecure: bool = False

    def __attrs_post_init__(self) -> None:
        _check_url(self.url, insecure=self.insecure)
        if self.secret is not None and len(self.secret.reveal().encode()) < SHORTEST_SECRET:
            raise ValueError(f"secret has fewer than {SHORTEST_SECRET} bytes; make one: openssl rand -hex 32")


def _check_url(text: str, *, insecure: bool) -> None:
    try:
        url = urlsplit(text)
        whole = url.scheme in {"http", "https"} and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        whole = False
    if not whole:
        raise ValueError("expected a url such as https://backend.example.org/access")
    if "@" in url.netloc:
        raise ValueError("the url is shown and logged; sign the questions with `secret` instead of a password in it")
    if url.scheme == "http" and not insecure and not _is_here(url.hostname or ""):
        raise ValueError("url must begin with https://, or others on the way could say yes; or set insecure: true")


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Verdict(msgspec.Struct, frozen=True):
    """What the service answers."""

    allow: bool
    reason: str = ""


class Whom(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/access/forget`: whose answers, about what; all where left out."""

    user: Text | None = None
    resource: Text | None = None


@attrs.define(eq=False)
class Known:
    """An answer that is remembered.

    Attributes:
        user: about whom.
        resource: about what.
        verdict: the answer.
        until: when it is over, in monotonic seconds; moved on a little while it is stale.
        stale_until: when it is over for good.
    """

    user: str | None
    resource: str | None
    verdict: Verdict
    until: float
    stale_until: float


class Access(Plugin):
    """Lets somebody into a room or session if a service of yours says so."""

    version = "1.0"
    Settings = AccessSettings
    settings: AccessSettings

    def __init__(self, settings: AccessSettings, broker: Broker) -> None:
        super().__init__(settings, broker)
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._asking: dict[bytes, Task[Verdict | None]] = {}
        self._queues: WeakValueDictionary[str | None, asyncio.Semaphore] = WeakValueDictionary()
        self._quiet_until = 0.0
        self._session: ClientSession
        self._take(settings)

    def _take(self, settings: AccessSettings) -> None:
        self.settings = settings
        self._rooms, self._sessions, self._operations = (
            _any_of(patterns) for patterns in (settings.rooms, settings.sessions, settings.operations)
        )
        self._exempt = frozenset(settings.exempt)
        self._forget(lambda _: True)

    async def start(self) -> None:
        """Get ready to ask; nothing is asked yet."""
        self._session = ClientSession(
            connector=TCPConnector(limit=self.settings.concurrent),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None),
            auto_decompress=False,
        )

    async def stop(self) -> None:
        """Ask nothing more."""
        await self._session.close()

    def reload(self, settings: AccessSettings) -> bool:
        """Take over all but `concurrent`; what was answered before is forgotten."""
        if settings.concurrent != self.settings.concurrent:
            return False
        self._take(settings)
        return True

    # -- the gate -----------------------------------------------------------------------------------

    def on_permission(self, check: Permission) -> Awaitable[None] | None:
        """Let pass what the service allows, at once where its answer is known."""
        if not self._concerns(check):
            return None
        question = self._question(check)
        key = hashlib.blake2b(question, digest_size=16).digest()
        known = self._known.get(key)
        if known is None or self.broker.monotonic() >= known.until:
            return self._learn(key, question, check)
        self._known.move_to_end(key)
        _heed(known.verdict)
        return None

    def _concerns(self, check: Permission) -> bool:
        operation, name = check.operation, check.resource or ""
        domain = operation.partition(".")[0]
        about = (domain in ROOMS and self._rooms(name)) or (domain in SESSIONS and self._sessions(name))
        asked = about and operation not in LEAVING and self._operations(operation)
        return bool(asked) and self._exempt.isdisjoint(check.principal.scopes)

    def _question(self, check: Permission) -> bytes:
        who = check.principal
        asked: dict[str, Any] = {"user": who.user, "operation": check.operation, "resource": check.resource}
        if self.settings.claims:
            asked["claims"] = {name: who.claims[name] for name in self.settings.claims if name in who.claims}
        return msgspec.json.encode(asked)

    async def _learn(self, key: bytes, question: bytes, check: Permission) -> None:
        """Wait for an answer, together with whoever waits for it already."""
        task = self._asking.get(key)
        if task is None:
            task = self.broker.spawn(self._ask(key, question, check), name="ask who may enter")
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        # Who asks may leave; the answer is for the others, too.
        verdict = await asyncio.shield(task)
        if verdict is None:
            text = "Whether you may do that cannot be found out at the moment."
            raise BrokerError("unavailable", text, retry_after=1.0)
        _heed(verdict)

    def _asked(self, key: bytes, task: Task[Verdict | None]) -> None:
        if self._asking.get(key) is task:
            del self._asking[key]

    async def _ask(self, key: bytes, question: bytes, check: Permission) -> Verdict | None:
        """Return the service's answer, or an old one where it gives none and that is good enough; None for neither."""
        user = check.principal.user
        queue = self._queues.get(user) or asyncio.Semaphore(EACH)
        self._queues[user] = queue
        try:
            async with asyncio.timeout(self.settings.timeout), queue:
                verdict = await self._post(question)
        except _NO_ANSWER as e:
            self._complain(e)
            return self._stale(key)
        if self._asking.get(key) is asyncio.current_task():  # else it was forgotten while it was on its way
            self._remember(key, check, verdict)
        return verdict

    async def _post(self, question: bytes) -> Verdict:
        try:
            return await self._post_once(question)
        except ServerDisconnectedError:  # a line kept from before, which the service has closed by now
            return await self._post_once(question)

    async def _post_once(self, question: bytes) -> Verdict:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **self._signature(question)}
        url = self.settings.url
        async with self._session.post(url, data=question, headers=headers, allow_redirects=False) as answer:
            if answer.status != web.HTTPOk.status_code:
                raise ValueError(f"the answer has the status {answer.status}")
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > LARGEST:
                    raise ValueError(f"the answer is larger than {LARGEST} bytes")
        return msgspec.json.decode(body, type=Verdict)

    def _signature(self, question: bytes) -> Mapping[str, str]:
        """Return the headers of a signed question, as Standard Webhooks 1.0 has them."""
        if self.settings.secret is None:
            return {}
        name, now = uuid4().hex, str(self.broker.now() // 1000)
        signed = b"%b.%b.%b" % (name.encode(), now.encode(), question)
        digest = hmac.digest(self.settings.secret.reveal().encode(), signed, "sha256")
        signature = f"v1,{base64.b64encode(digest).decode()}"
        return {"webhook-id": name, "webhook-timestamp": now, "webhook-signature": signature}

    def _complain(self, error: Exception) -> None:
        now = self.broker.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_PAUSE
            where = urlsplit(self.settings.url)._replace(query="", fragment="").geturl()
            log.error("%s does not say who may enter: %s", where, str(error) or type(error).__name__)

    # -- what is known ------------------------------------------------------------------------------

    def _remember(self, key: bytes, check: Permission, verdict: Verdict) -> None:
        cache = self.settings.cache
        until = self.broker.monotonic() + (cache.allow if verdict.allow else cache.deny)
        stale_until = until + (cache.stale if verdict.allow else 0.0)
        self._known[key] = Known(check.principal.user, check.resource, verdict, until, stale_until)
        self._known.move_to_end(key)
        while len(self._known) > cache.entries:
            self._known.popitem(last=False)

    def _stale(self, key: bytes) -> Verdict | None:
        known, now = self._known.get(key), self.broker.monotonic()
        if known is None or now >= known.stale_until:
            return None
        known.until = min(now + STALE_PAUSE, known.stale_until)
        return known.verdict

    def routes(self) -> Sequence[Route]:
        """Serve forgetting to administrators' backends."""
        return (Route("POST", "/api/v1/access/forget", self.forget, scope="admin"),)

    async def forget(self, request: web.Request) -> web.Response:
        """Forget answers, so that the service is asked again."""
        try:
            whom = msgspec.json.decode(await request.read() or b"{}", type=Whom)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            hint = 'Say {"user": NAME}, {"resource": NAME}, both of them, or {} for everything.'
            raise BrokerError("invalid_message", hint=hint) from None
        number = self._forget(
            lambda known: whom.user in {None, known.user} and whom.resource in {None, known.resource},
        )
        return web.json_response({"forgotten": number})

    def _forget(self, meant: Callable[[Known], bool]) -> int:
        # Answers that are on their way may be from before what made somebody ask for this.
        self._asking.clear()
        gone = [key for key, known in self._known.items() if meant(known)]
        for key in gone:
            del self._known[key]
        return len(gone)


def _heed(verdict: Verdict) -> None:
    if not verdict.allow:
        said = "".join(char for char in verdict.reason[:LONGEST_REASON] if char.isprintable()).strip()
        raise BrokerError("forbidden", said or None)


def _any_of(patterns: Sequence[str]) -> Callable[[str], object]:
    """Return what tells whether a name fits one of the patterns: `*` is any run of characters, `?` any one."""
    fits = [re.compile(fnmatch.translate(pattern.replace("[", "[[]"))).match for pattern in patterns]
    return lambda name: any(fit(name) for fit in fits)
