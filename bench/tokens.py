"""Tokens for brokers that ask for one, as `bench/guarded.yaml` sets them up."""

import os
import secrets
import time
from functools import cache

import jwt

__all__ = ["SECRET", "token_of"]

SECRET = os.environ.get("BENCH_SECRET") or secrets.token_hex(32)
"""Good for one run; the broker and other processes of it find it in their environment."""

_LIFETIME = 3600


@cache
def token_of(index: int) -> str:
    """Return the token of the client of this index, who is a user of its own."""
    now = int(time.time())
    claims = {"sub": f"user-{index}", "jti": f"token-{index}", "iat": now, "exp": now + _LIFETIME}
    return jwt.encode({**claims, "iss": "actor-broker", "aud": "actor-broker"}, SECRET, "HS256")
