"""What `Idempotency-Key` stands for: the first answer to a request, given again to those that repeat it.

After draft-ietf-httpapi-idempotency-key-header. A key belongs to who sent it, to the token that was shown and what that
allows, and to the method and path it was sent with: nobody is given an answer that was another's. Only what is final is
remembered: what may go better another time is done again.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

import attrs

from broker.clock import Clock
from broker.errors import BrokerError
from broker.messages import Principal
from broker.web.problems import with_status

__all__ = ["KEEP_SECONDS", "Replays", "Reply", "check_key", "name_of"]

KEEP_SECONDS: Final = 600.0
"""How long an answer is remembered, unless there are too many."""
MOST: Final = 10_000
MEMORY: Final = 16 << 20
"""Bytes that all answers may take; the oldest go first."""
LONGEST_KEY: Final = 255
_ENTRY: Final = 600
"""Bytes that an entry takes beside its answer, about."""


@attrs.frozen
class Reply:
    """An answer, as it can be given again.

    Attributes:
        status: of HTTP.
        body: JSON.
        headers: those that belong to it.
        final: whether the same request would have the same answer again.
    """

    status: int
    body: bytes
    headers: Mapping[str, str]
    final: bool


@attrs.define(eq=False)
class _Entry:
    digest: bytes
    until: float
    reply: Reply | None = None
    size: int = 0


class Replays:
    """Answers by the keys they were asked for with, bounded in number and in bytes.

    Args:
        clock: time.
        most: how many answers.
        memory: how many bytes of them.
    """

    def __init__(self, clock: Clock, most: int = MOST, memory: int = MEMORY) -> None:
        self._clock = clock
        self._most = most
        self._memory = memory
        self._size = 0
        self._entries: dict[tuple[str, ...], _Entry] = {}  # oldest first

    async def once(self, key: tuple[str, ...], body: bytes, work: Callable[[], Awaitable[Reply]]) -> tuple[Reply, bool]:
        """Do some work, unless it was done under this key before.

        Args:
            key: who asks, for what, and the key.
            body: what is asked for.
            work: does it.

        Returns:
            The answer, and whether it is one from before.

        Raises:
            BrokerError: `conflict` (422): the key was used with another body; `busy`: the first request with that
                key is under way; `overloaded`: as many as may be are.
        """
        digest = hashlib.sha256(body).digest()
        self._forget_old()
        known = self._entries.get(key)
        if known is not None:
            return self._again(known, digest), True
        entry = self._entries[key] = _Entry(digest, self._clock.monotonic() + KEEP_SECONDS)
        try:
            self._make_room()
            reply = await work()
        except BaseException:
            self._drop(key, entry)
            raise
        if reply.final:
            self._keep(key, entry, reply)
        else:
            self._drop(key, entry)
        return reply, False

    def _again(self, known: _Entry, digest: bytes) -> Reply:
        if known.digest != digest:
            refusal = BrokerError("conflict", "That Idempotency-Key was used before with another body.")
            raise with_status(refusal, HTTPStatus.UNPROCESSABLE_ENTITY)
        if known.reply is None:
            raise BrokerError("busy", "The first request with that Idempotency-Key is under way.", retry_after=1.0)
        return known.reply

    def _keep(self, key: tuple[str, ...], entry: _Entry, reply: Reply) -> None:
        if self._entries.get(key) is not entry:
            return  # it took longer than answers are remembered
        entry.reply, entry.size = reply, _ENTRY + len(reply.body) + sum(map(len, key))
        self._size += entry.size
        self._make_room()

    def _forget_old(self) -> None:
        now = self._clock.monotonic()
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.until > now:
                return
            self._drop(key, entry)

    def _make_room(self) -> None:
        while len(self._entries) > self._most or self._size > self._memory:
            oldest = next(((key, entry) for key, entry in self._entries.items() if entry.reply is not None), None)
            if oldest is None:
                raise BrokerError("overloaded", retry_after=1.0)
            self._drop(*oldest)

    def _drop(self, key: tuple[str, ...], entry: _Entry) -> None:
        if self._entries.get(key) is entry:
            del self._entries[key]
            self._size -= entry.size


def name_of(by: Principal) -> str:
    """Return what an answer may depend on of who asks, as a digest: user, credential, scopes, claims."""
    said = (by.user, by.credential, sorted(by.scopes), by.claims)
    return hashlib.sha256(repr(said).encode(errors="surrogatepass")).hexdigest()


def check_key(text: str | None) -> str | None:
    """Return an Idempotency-Key without the quotes that the draft puts around it.

    Raises:
        BrokerError: `invalid_message`: it is none.
    """
    if text is None:
        return None
    key = text[1:-1] if len(text) > len('""') and text[0] == text[-1] == '"' else text
    if not key or len(key) > LONGEST_KEY or not (key.isascii() and key.isprintable()):
        message = f"A key has 1 to {LONGEST_KEY} printable ASCII characters."
        raise BrokerError("invalid_message", message, field="Idempotency-Key")
    return key
