"""Tokens of our own making, for `broker gentoken`: made with the first key that can sign, and then looked at as any."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import jwt

from broker.errors import BrokerError

from .keys import read_private
from .settings import Key, Settings
from .verifier import Verifier

__all__ = ["issue", "verifier_of"]


def verifier_of(settings: Settings) -> Verifier:
    """Return a verifier outside of any broker, on the system's clocks."""
    return Verifier(settings, lambda: time.time_ns() // 1_000_000, time.monotonic)


def issue(settings: Settings, claims: Mapping[str, Any]) -> str:
    """Return a token of `settings.issuer` for `settings.audience` that says `claims`.

    Raises:
        ValueError: no key here can sign, or the token would not be let in.
    """
    if settings.mode == "none":
        raise ValueError("with mode: none nobody is asked for a token; set mode: jwt")
    key = next((key for key in settings.keys if key.secret or key.private_key), None)
    if key is None:
        raise ValueError(
            "no key under keys: can sign: an HS256 key with a secret can, and others with a private_key; "
            "tokens of other issuers come from them"
        )
    said = {"iss": settings.issuer, "aud": settings.audience, **claims}
    token = jwt.encode(said, _signing(key), key.algorithm, headers={"kid": key.kid} if key.kid else None)
    verifier = verifier_of(settings)
    try:
        found, entry = asyncio.run(verifier.verify(token))
    except BrokerError as e:
        raise ValueError(f"such a token would not be let in: {e.hint or e.message}") from None
    if lost := found.all_scopes() - verifier.scopes_of(found, entry):
        raise ValueError(f"the key's tokens may not give {', '.join(sorted(lost))}; list it under scopes of the key")
    return token


def _signing(key: Key) -> Any:
    if key.secret:
        return key.secret.reveal().encode()
    signing, _ = read_private(key.algorithm, key.private_key.reveal(), key.kid)
    return signing
