"""From what is shown to who shows it: a token of one of the issuers, or an API key."""

import hashlib
import hmac
from collections.abc import Callable
from typing import Any, Final

import attrs
from msgspec import UNSET

from broker.messages import Principal

from .issuers import Configured, Entry, Fetched, Issuer
from .settings import API_KEYS, ApiKey, Settings
from .tokens import LONGEST, LONGEST_NAME, Claims, check, name_of, peek, read, refusal

__all__ = ["Verifier"]

OURS: Final = frozenset({"admin", "agent", "api"})
"""The scopes that the broker itself heeds: of several issuers, only those may give them that are said to."""
WHICH: Final = "its issuer has several keys of this algorithm: the token's header has to name the one (kid)"
NOT_ITS: Final = "its issuer may not name this user (sub)"

_HASHED: Final = hashlib.sha256


@attrs.frozen
class _Backend:
    """An API key, as it is compared and as it is known."""

    digest: bytes = attrs.field(repr=False)
    mark: str
    principal: Principal


class Verifier:
    """Says who shows a token or an API key.

    What it notes in the principal's `claims` for later: `rooms`, `sessions` and, if anything says so, `projects`, as
    in the token or of the settings; `by`, a mark that is among `marks` for as long as the settings hold the key and say
    the same of it; `iss`, `jti`, `iat` in milliseconds, or `api_key`, its name.

    Args:
        settings: the settings.
        now: milliseconds since the epoch.
        monotonic: seconds that never run backwards.
        earlier: the one before it, whose fetched keys are kept where the settings are the same.
    """

    def __init__(
        self,
        settings: Settings,
        now: Callable[[], int],
        monotonic: Callable[[], float],
        earlier: "Verifier | None" = None,
    ) -> None:
        self.settings = settings
        self._now = now
        kept = earlier.fetched if earlier is not None else []
        known = {issuer.settings: issuer for issuer in kept}
        self.fetched: list[Fetched] = [
            known.get(published) or Fetched(published, monotonic) for published in settings.jwks
        ]
        self._issuers: dict[str, Issuer] = {issuer.settings.issuer: issuer for issuer in self.fetched}
        if settings.keys:
            self._issuers[settings.issuer] = Configured(settings.keys)
        entries = [(entry, iss) for iss, issuer in self._issuers.items() for entry in issuer.entries()]
        self._prefixes = {API_KEYS, *(entry.prefix or "" for entry, _ in entries)}
        self._backends = [_backend(name, api_key) for name, api_key in settings.api_keys.items()]
        self.marks = frozenset(
            [self._mark(entry, iss) for entry, iss in entries] + [backend.mark for backend in self._backends]
        )

    async def recognize(self, text: str, *, api_keys: bool) -> Principal:
        """Return who shows this.

        Args:
            text: what was shown.
            api_keys: whether it may be an API key, which must not travel everywhere that a token may.

        Raises:
            BrokerError: `unauthenticated` or `token_expired`.
        """
        if len(text) > LONGEST:
            raise refusal(f"a token has at most {LONGEST} bytes")
        backend = self._backend_of(text)
        if backend is not None and api_keys:
            return backend.principal
        claims, entry = await self.verify(text)
        return self._principal(claims, entry, f"jti:{claims.jti}" if claims.jti else name_of(text))

    async def verify(self, token: str) -> tuple[Claims, Entry]:
        """Return what a token says, and what stands in the settings about the key that signed it.

        Raises:
            BrokerError: `unauthenticated` or `token_expired`.
        """
        header, iss = peek(token)
        issuer = self._issuers.get(iss)
        if issuer is None:
            raise refusal()
        for key, entry in await issuer.find(header.alg, header.kid):
            payload = check(token, key)
            if payload is not None:
                claims = read(payload, iss, self._now() / 1000, self.settings)
                self._check_user(claims, entry)
                return claims, entry
        raise refusal(WHICH if issuer.is_ambiguous(header.alg, header.kid) else None)

    def user_of(self, claims: Claims, entry: Entry) -> str:
        """Return what the user of a token is called here."""
        return f"{entry.prefix or ''}{claims.sub}"

    def scopes_of(self, claims: Claims, entry: Entry) -> frozenset[str]:
        """Return those of a token's scopes that its issuer may give."""
        said = claims.all_scopes()
        if entry.scopes is not None:
            return said & frozenset(entry.scopes)
        return said - OURS if len(self._issuers) > 1 else said

    def _check_user(self, claims: Claims, entry: Entry) -> None:
        """Refuse a name that is another's: it belongs to the longest prefix that it begins with."""
        user, own = self.user_of(claims, entry), entry.prefix or ""
        if len(user) > LONGEST_NAME:
            raise refusal(f"sub is too long; with the prefix {own} a name has at most {LONGEST_NAME} characters")
        if any(len(prefix) > len(own) and user.startswith(prefix) for prefix in self._prefixes):
            raise refusal(NOT_ITS)

    def _backend_of(self, text: str) -> _Backend | None:
        """Compare with all of them, in a time that says nothing of which one, or how much of it, was right."""
        shown = _HASHED(text.encode(errors="surrogatepass")).digest()
        found = None
        for backend in self._backends:
            if hmac.compare_digest(shown, backend.digest):
                found = backend
        return found

    def _principal(self, claims: Claims, entry: Entry, credential: str) -> Principal:
        noted: dict[str, Any] = {
            "rooms": list(self.settings.rooms) if claims.rooms is UNSET else claims.rooms,
            "sessions": list(self.settings.sessions) if claims.sessions is UNSET else claims.sessions,
            "by": self._mark(entry, claims.iss),
            "iss": claims.iss,
            "iat": None if claims.iat is None else round(claims.iat * 1000),
            "jti": claims.jti,
        }
        if claims.projects is not UNSET:
            noted["projects"] = claims.projects
        elif self.settings.projects is not None:
            noted["projects"] = list(self.settings.projects)
        scopes = self.scopes_of(claims, entry)
        return Principal(self.user_of(claims, entry), scopes, self._end(claims), credential, noted)

    def _end(self, claims: Claims) -> int:
        """Return when it is nobody any more: at `exp`, or, where that has just passed, with the leeway."""
        end = round(claims.exp * 1000)
        return end if end > self._now() else end + round(self.settings.leeway * 1000)

    def _mark(self, entry: Entry, issuer: str) -> str:
        everything = entry.scopes is None and len(self._issuers) == 1
        scopes = ("*",) if everything else sorted(entry.scopes or ())
        return _digest(entry.mark, issuer, self.settings.audience, entry.prefix or "", *scopes)


def _backend(name: str, api_key: ApiKey) -> _Backend:
    digest = _HASHED(api_key.key.reveal().encode()).digest()
    user = api_key.user or f"{API_KEYS}{name}"
    # Of all that makes it what it is: who was let in with it is not, once any of this is another.
    mark = _digest(name, digest.hex(), user, *sorted(api_key.scopes))
    noted = {"rooms": ["*"], "sessions": ["*"], "by": mark, "api_key": name}
    return _Backend(digest, mark, Principal(user, frozenset(api_key.scopes), None, f"{API_KEYS}{name}", noted))


def _digest(*parts: str) -> str:
    return _HASHED("\0".join(parts).encode()).hexdigest()[:32]
