"""Tokens that a program shows: one for good, or one asked for whenever it is due (PROTOCOL 2a, who you are)."""

import asyncio
import base64
import binascii
import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

import msgspec
from aiohttp import ClientError

__all__ = ["GetToken", "Tokens"]

GetToken = Callable[[], str | Awaitable[str | None] | None]
"""Gives a token, at once or awaited; None for none."""

_TOKEN: Final = re.compile(r"[!-~]+")


class Tokens:
    """Gives the token of now.

    Args:
        token: a token for good; None for none; or what is asked for one, each time that one is needed. Who asks
            while another asks gets the same answer.

    Attributes:
        fresh: whether asking again may give another one.
        proved: whether one has ever been taken; then trouble with the next is passing.
        expiry: until when the newest is good, by its own word, in seconds since the epoch; None if it does not say.
    """

    def __init__(self, token: str | GetToken | None) -> None:
        self._token = token
        self._asked: asyncio.Future[str | None] | None = None
        self._waiting = 0
        self.fresh = callable(token)
        self.proved = False
        self.expiry: float | None = None

    def __repr__(self) -> str:
        return f"<Tokens {'asked for' if self.fresh else 'fixed'}>"

    async def get(self) -> str | None:
        """Return the token to show.

        Raises:
            ConnectionError: there is none for now.
            Exception: what was asked raised it, and no token of it was ever taken.
        """
        if self._asked is None:
            self._asked = asyncio.ensure_future(self._ask())
        asked = self._asked
        self._waiting += 1
        try:
            return await asyncio.shield(asked)
        finally:
            self._waiting -= 1
            if not self._waiting or asked.done():
                asked.cancel()  # nobody wants to know any more; who asks next begins anew
                self._asked = None if self._asked is asked else self._asked

    async def _ask(self) -> str | None:
        try:
            got = self._token() if callable(self._token) else self._token
            token = await got if inspect.isawaitable(got) else got
            self.expiry = _expiry_of(_fit(token))
        except Exception as e:
            if self.proved or isinstance(e, (ClientError, OSError)):
                raise ConnectionError(f"there is no token: {type(e).__name__}") from e
            raise
        return token


def _fit(token: str | None) -> str | None:
    if token is not None and not _TOKEN.fullmatch(token):
        raise ValueError("the token has characters that no header may carry")
    return token


class _Claims(msgspec.Struct):
    exp: Annotated[float, msgspec.Meta(gt=0)]


def _expiry_of(token: str | None) -> float | None:
    """Return until when a JWT is good; None for what is none or does not say."""
    try:
        claims = (token or "").split(".")[1]
        text = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
        return msgspec.json.decode(text, type=_Claims).exp
    except (IndexError, binascii.Error, ValueError, RecursionError):
        return None
