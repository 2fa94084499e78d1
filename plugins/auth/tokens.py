"""Tokens: what one says, if it is signed by the key it is checked with, and whether that still holds.

The rules are those of RFC 7519 and RFC 8725 and some of our own: `exp`, `sub`, `aud` and `iss` have to be there, no
token lives longer than `max_lifetime`, and nothing that a token says of keys (`jku`, `x5u`, `jwk`) is ever looked at.
"""

import base64
import binascii
import hashlib
import re
from typing import Annotated, Any, Final, Protocol

import msgspec
from jwt import PyJWS
from jwt.exceptions import PyJWTError
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from broker.errors import BrokerError

from .keys import Verifying
from .patterns import check_claim

__all__ = ["LONGEST", "LONGEST_NAME", "Claims", "Header", "Rules", "check", "name_of", "peek", "read", "refusal"]

LONGEST: Final = 8192
"""Bytes of a token; a longer one is refused before anything is made of it."""

_FORM: Final = re.compile(r"[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{2,}", re.ASCII)
_MISSING: Final = re.compile(r"missing required field `(\w+)`")
_PLACE: Final = re.compile(r"\$\.(\w+)")
_NOT_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

LATEST: Final = 253_402_300_799
"""Seconds since the epoch at the end of the year 9999; what lies outside of the calendar is no time."""

LONGEST_NAME: Final = 256
"""Characters of a user's name, here as everywhere."""

User = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]
Id = Annotated[str, Meta(min_length=1, max_length=256)]
Time = Annotated[int, Meta(ge=0, le=LATEST)] | Annotated[float, Meta(ge=0, le=LATEST)]


class Header(Struct):
    """What the header of a token says that is looked at (RFC 7515 section 4.1).

    Attributes:
        alg: its algorithm; compared with the key's own, never followed.
        kid: the name of its key.
        crit: extensions that have to be understood; none is.
        b64: whether the payload is encoded; there is no other way here.
    """

    alg: str
    kid: str | None = None
    crit: Raw | UnsetType = UNSET
    b64: Raw | UnsetType = UNSET


class Claims(Struct):
    """What a token says (RFC 7519 section 4.1), and our own: `scope`, `scopes`, `rooms`, `sessions`, `projects`.

    Times are seconds since the epoch.
    """

    iss: str
    sub: User
    aud: str | list[str]
    exp: Time
    nbf: Time | None = None
    iat: Time | None = None
    jti: Id | None = None
    scope: str | None = None
    scopes: list[str] | None = None
    rooms: Any = UNSET
    sessions: Any = UNSET
    projects: Any = UNSET

    def all_scopes(self) -> frozenset[str]:
        """Return what is in `scope`, separated by blanks, and in `scopes`."""
        return frozenset((self.scope or "").split()) | frozenset(self.scopes or ())


class _Issuer(Struct):
    iss: str


class Rules(Protocol):
    """The settings that tokens are judged by."""

    @property
    def audience(self) -> str:
        """What `aud` has to be, or to hold."""

    @property
    def leeway(self) -> float:
        """Seconds that clocks may differ."""

    @property
    def max_lifetime(self) -> float:
        """Seconds that a token may live."""


_header: Final = msgspec.json.Decoder(Header)
_issuer: Final = msgspec.json.Decoder(_Issuer)
_claims: Final = msgspec.json.Decoder(Claims)


def refusal(hint: str | None = None) -> BrokerError:
    """Return the error for a token that is not let in.

    Args:
        hint: what helps an honest developer; only where it tells nothing that the token's maker does not know.
    """
    return BrokerError("unauthenticated", "That token is not accepted.", hint=hint)


def peek(token: str) -> tuple[Header, str]:
    """Return the header and the `iss` of a token, of which nothing is proved yet: they only choose the key.

    Raises:
        BrokerError: it is too long, or no signed JWT.
    """
    if len(token) > LONGEST:
        raise refusal(f"a token has at most {LONGEST} bytes")
    if not _FORM.fullmatch(token):
        raise refusal("that is no signed JWT")
    head, body, _ = token.split(".")
    try:
        header, issuer = _header.decode(_decoded(head)), _issuer.decode(_decoded(body))
    except (*_NOT_JSON, binascii.Error):
        raise refusal("a signed JWT names its algorithm (alg) and its issuer (iss)") from None
    if header.crit is not UNSET or header.b64 is not UNSET:
        raise refusal("extensions of JWT (crit, b64) are not understood here")
    return header, issuer.iss


def check(token: str, key: Verifying) -> bytes | None:
    """Return the payload of a token if this key signed it, None if not.

    Args:
        token: one that `peek` has looked at.
        key: used with its own algorithm, whatever the token says.
    """
    options: Any = {"verify_signature": True, "enforce_minimum_key_length": True}
    try:
        found = PyJWS().decode_complete(token, key.key, algorithms=[key.algorithm], options=options)
    except (PyJWTError, ValueError, TypeError, RecursionError):
        return None
    return bytes(found["payload"])


def read(payload: bytes, issuer: str, now: float, rules: Rules) -> Claims:
    """Return what a payload says, whose signature was found right.

    Args:
        payload: JSON.
        issuer: whose key it was.
        now: seconds since the epoch.
        rules: the settings.

    Raises:
        BrokerError: `token_expired`, or `unauthenticated` with a hint.
    """
    try:
        claims = _claims.decode(payload)
        for claim in (claims.rooms, claims.sessions, claims.projects):
            if claim is not UNSET:
                check_claim(claim)
    except _NOT_JSON as e:
        raise refusal(_blamed(str(e))) from None
    except ValueError as e:
        raise refusal(f"rooms, sessions or projects: {e}") from None
    if not claims.sub.isprintable():
        raise refusal("sub has characters that cannot be shown")
    if claims.iss != issuer:
        raise refusal()
    if rules.audience not in ([claims.aud] if isinstance(claims.aud, str) else claims.aud):
        raise refusal("aud does not name this broker")
    _check_times(claims, now, rules)
    return claims


def _check_times(claims: Claims, now: float, rules: Rules) -> None:
    leeway, longest = rules.leeway, rules.max_lifetime
    if claims.exp + leeway <= now:
        raise BrokerError("token_expired")
    if max(claims.nbf or 0.0, claims.iat or 0.0) > now + leeway:
        raise refusal("iat or nbf lies in the future; look at the clocks")
    began = now if claims.iat is None else claims.iat
    if claims.exp - began > longest or claims.exp - now > longest + leeway:
        raise refusal(f"exp is further away than a token may live here ({longest:g} s)")


def name_of(token: str) -> str:
    """Return a name for a token without `jti`; of what is signed, since a signature can be spelt in several ways."""
    return f"token:{hashlib.sha256(token.rpartition('.')[0].encode()).hexdigest()[:32]}"


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _blamed(text: str) -> str:
    if missing := _MISSING.search(text):
        return f"the token lacks {missing[1]}"
    place = _PLACE.search(text)
    return f"the token's {place[1]} has the wrong form" if place else "the token's claims cannot be read"
