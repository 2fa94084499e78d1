"""Where keys come from: those of the settings, and those that an issuer publishes (JWKS, RFC 7517).

Each issuer has its own keys, found by algorithm and `kid`; none is ever tried on a token of another issuer. Which
issuer it is, `iss` says, and it chooses among those of the settings: no address is ever made of a token.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout
from loguru import logger

from .keys import KeyRefused, Verifying, read_published
from .settings import Key, Published

__all__ = ["Configured", "Entry", "Fetched", "Issuer", "Spawn"]

LARGEST: Final = 256 * 1024
"""Bytes of a set of keys."""
MOST: Final = 100
"""Keys of one set."""
TRIED: Final = 4
"""Keys of one set without a name that are tried on a token of their algorithm."""
FIRST_PAUSE: Final = 1.0
"""Seconds after the first failure; doubled with each, up to `cooldown`."""

Spawn = Callable[..., Any]
"""Runs a coroutine in the background, under the keyword `name`; what it returns can be cancelled."""


Entry = Key | Published
"""What stands in the settings about a key, and what tokens that it signed may say."""


class Issuer(Protocol):
    """One issuer's keys."""

    async def find(self, algorithm: str, kid: str | None) -> Sequence[tuple[Verifying, Entry]]:
        """Return the keys to try on a token, each with what stands in the settings about it."""

    def entries(self) -> Iterable[Entry]:
        """Return all that stands in the settings about its keys."""

    def is_ambiguous(self, algorithm: str, kid: str | None) -> bool:
        """Tell whether a token has to name its key and does not: there are several of this algorithm."""


class Configured:
    """Keys that stand in the settings."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = keys

    async def find(self, algorithm: str, kid: str | None) -> Sequence[tuple[Verifying, Entry]]:
        """Return the keys of this algorithm and name; keys without a name fit every one."""
        fitting = (key for key in self._keys if key.algorithm == algorithm)
        return [(key.verifying, key) for key in fitting if kid is None or key.kid is None or key.kid == kid]

    def entries(self) -> Iterable[Entry]:
        """Return the keys."""
        return self._keys

    def is_ambiguous(self, algorithm: str, kid: str | None) -> bool:
        """Return False: all that fit are tried."""
        return False


class Fetched:
    """Keys that an issuer publishes, fetched in the background and when a token names one that is not known yet.

    While fetching fails, the keys that were there last are good for `stale`; once it works again, those that were
    withdrawn are not. Nobody waits for more than one fetch, and all who wait share it.

    Args:
        settings: where they are.
        monotonic: seconds that never run backwards.
    """

    def __init__(self, settings: Published, monotonic: Callable[[], float]) -> None:
        self.settings = settings
        self._monotonic = monotonic
        self._keys: dict[tuple[str | None, str], list[Verifying]] = {}
        self._good_until: float | None = None
        self._tried_at: float | None = None
        self._fetching: asyncio.Future[bool] | None = None
        self._keeper: Any = None
        self._spawn: Spawn = _spawn

    @property
    def fetched(self) -> bool:
        """Whether there are keys, and not too old ones."""
        return self._good_until is not None and self._monotonic() < self._good_until

    def start(self, spawn: Spawn) -> None:
        """Fetch now, and again every `refresh`, until `stop`."""
        self._spawn = spawn
        self._keeper = spawn(self._keep(), name=f"keys of {self.settings.issuer}")

    def stop(self) -> None:
        """Fetch no more."""
        if self._keeper is not None:
            self._keeper.cancel()

    async def find(self, algorithm: str, kid: str | None) -> Sequence[tuple[Verifying, Entry]]:
        """Return the keys that fit, if any; fetched now where none is known and that was not tried just now."""
        found = self._look_up(algorithm, kid)
        if not found and self._may_try():
            await self.fetch()
            found = self._look_up(algorithm, kid)
        return [(key, self.settings) for key in found]

    def entries(self) -> Iterable[Entry]:
        """Return the one entry: that an issuer changes its keys ends nobody who was let in with an older one."""
        return [self.settings]

    def is_ambiguous(self, algorithm: str, kid: str | None) -> bool:
        """Tell whether the token names no key, and those there are have names."""
        return kid is None and self.fetched and len(self._named(algorithm)) > 1

    def _look_up(self, algorithm: str, kid: str | None) -> list[Verifying]:
        if not self.fetched:
            return []
        found = self._keys.get((kid, algorithm), [])
        if found or kid is not None:
            return found
        named = self._named(algorithm)
        return named if len(named) == 1 else []  # of several with names, the token has to say which

    def _named(self, algorithm: str) -> list[Verifying]:
        return [keys[0] for (kid, other), keys in self._keys.items() if kid is not None and other == algorithm]

    def _may_try(self) -> bool:
        tried = self._tried_at
        running = self._fetching is not None and not self._fetching.done()
        return running or tried is None or self._monotonic() - tried >= self.settings.cooldown

    async def fetch(self) -> bool:
        """Fetch the keys, together with whoever waits for that already; return whether it worked."""
        if self._fetching is None or self._fetching.done():
            self._tried_at = self._monotonic()
            self._fetching = self._spawn(self._fetch(), name=f"fetch the keys of {self.settings.issuer}")
        return await asyncio.shield(self._fetching)

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            if await self.fetch():
                pause = FIRST_PAUSE
                await asyncio.sleep(self.settings.refresh)
            else:
                await asyncio.sleep(pause)
                pause = min(2 * pause, max(self.settings.cooldown, FIRST_PAUSE))

    async def _fetch(self) -> bool:
        try:
            keys = read_set(await download(self.settings.url, self.settings.timeout))
        except (ClientError, OSError, ValueError) as e:
            state = "those that were there last stay good for now" if self.fetched else "its tokens are refused"
            reason = str(e) or type(e).__name__
            logger.warning("the keys of {} cannot be fetched: {}; {}", self.settings.issuer, reason, state)
            return False
        self._keys, self._good_until = keys, self._monotonic() + self.settings.stale
        logger.debug("{} keys of {} fetched", len(keys), self.settings.issuer)
        return True


def _spawn(work: Coroutine[Any, Any, Any], *, name: str) -> Any:
    return asyncio.get_running_loop().create_task(work, name=name)


async def download(url: str, seconds: float) -> bytes:
    """Return what is at an address, if it is there itself, at once and not too large.

    Raises:
        ValueError: it is not.
        OSError, ClientError: it cannot be reached.
    """
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    try:
        async with (
            asyncio.timeout(seconds),
            ClientSession(auto_decompress=False, timeout=ClientTimeout(total=None)) as session,
            session.get(url, allow_redirects=False, headers=headers) as answer,
        ):
            if answer.status != 200:  # noqa: PLR2004 - anything else, a redirect too, is not what was configured
                raise ValueError(f"the answer is {answer.status}")
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > LARGEST:
                    raise ValueError(f"it is larger than {LARGEST} bytes")
            return bytes(body)
    except TimeoutError:
        raise ValueError(f"no answer within {seconds:g} s") from None


def read_set(body: bytes) -> dict[tuple[str | None, str], list[Verifying]]:
    """Return the usable keys of a set by kid and algorithm; what is of another use or kind is passed over.

    Of keys with a name the first of that name counts, of those without one all, but no more than are tried.

    Raises:
        ValueError: it is no set of keys, or there is none in it that can be used.
    """
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError("the answer is not JSON") from None
    jwks = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(jwks, list) or len(jwks) > MOST:
        raise ValueError(f"the answer is no set of at most {MOST} keys")
    keys: dict[tuple[str | None, str], list[Verifying]] = {}
    for jwk in jwks:
        try:
            key = read_published(jwk)
        except KeyRefused as e:
            logger.debug("a published key is passed over: {}", e)
        else:
            same = keys.setdefault((key.kid, key.algorithm), [])
            if len(same) < (TRIED if key.kid is None else 1):
                same.append(key)
    if not keys:
        raise ValueError("there is no key in it that tokens could be signed with")
    return keys
