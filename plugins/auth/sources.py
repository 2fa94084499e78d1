"""Where a token may travel: the header, the offer of subprotocols, a cookie, and the query where that is switched on.

All that are found have to say the same; a request that shows two different ones is refused, so that no proxy or page
in between can put its own beside the sender's.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from broker.hooks import Handshake

from .settings import Settings
from .tokens import refusal

__all__ = ["Shown", "shown_by"]

OFFER: Final = "bearer."
"""Begins the item of Sec-WebSocket-Protocol that holds the token: the only header that a page can set."""

_BEARER: Final = re.compile(r"bearer[ \t]+(\S+)[ \t]*", re.IGNORECASE | re.ASCII)


@attrs.frozen
class Shown:
    """What was shown.

    Attributes:
        text: it; left out of `repr`.
        api_key: whether it came in a way that API keys may come too.
    """

    text: str = attrs.field(repr=False)
    api_key: bool


def shown_by(handshake: Handshake, settings: Settings) -> Shown | None:
    """Return the token that came with a handshake or a request, None if none did.

    Raises:
        BrokerError: `unauthenticated`: two different ones did.
    """
    found = list(_found(handshake, settings))
    if len({shown.text for shown in found}) > 1:
        raise refusal("two different tokens came at once; send one")
    return found[0] if found else None


def _found(handshake: Handshake, settings: Settings) -> Iterator[Shown]:
    for value in _all(handshake.headers, "authorization"):
        if match := _BEARER.fullmatch(value):
            yield Shown(match[1], api_key=True)
    if handshake.protocol == "http":
        return  # a cookie would let any page ask in its visitor's name, and a query is logged by every proxy
    for value in _all(handshake.headers, "sec-websocket-protocol"):
        for item in value.split(","):
            if item.strip().startswith(OFFER):
                yield Shown(item.strip().removeprefix(OFFER), api_key=False)
    if settings.cookie is not None and handshake.origin in settings.cookie.origins:
        for value in _all(handshake.headers, "cookie"):
            yield from (Shown(text, api_key=False) for text in _cookies(value, settings.cookie.name))
    if settings.query is not None:
        yield from (Shown(text, api_key=False) for text in _all(handshake.query, settings.query.lower()))


def _all(pairs: Mapping[str, Any], name: str) -> list[str]:
    """Return every value of this name, since a header or a parameter may stand there twice."""
    return [str(value) for key, value in pairs.items() if key.lower() == name]


def _cookies(header: str, name: str) -> Iterator[str]:
    for pair in header.split(";"):
        key, equals, value = pair.strip().partition("=")
        if equals and key == name:
            yield value.strip('"')
