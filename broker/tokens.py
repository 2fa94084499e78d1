"""What `broker gentoken` and `broker checktoken` do: they ask the plugin that looks after tokens."""

import asyncio
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from broker.clock import rfc3339
from broker.config import ConfigErrors, Loaded, Place, Problem
from broker.config.units import parse_duration
from broker.errors import BrokerError
from broker.extensions.loader import load
from broker.hooks import Plugin

__all__ = ["Refused", "Wanted", "check", "issue"]

LONGEST: Final = 64 * 1024
"""Characters that are read as a token."""


class Refused(Exception):  # noqa: N818 - what the command says
    """A token that is not made, or is not let in; says why."""


@attrs.frozen(kw_only=True)
class Wanted:
    """What a token is to say.

    Attributes:
        user: whom it stands for.
        scopes: what that one may do.
        rooms: patterns of rooms; empty to say nothing of them.
        sessions: patterns of sessions, likewise.
        ttl: how long it is good, such as `1h`.
        claims: further ones, as `name=value`; a value that is JSON is taken as such.
    """

    user: str
    scopes: Sequence[str] = ()
    rooms: Sequence[str] = ()
    sessions: Sequence[str] = ()
    ttl: str = "1h"
    claims: Sequence[str] = ()

    def as_claims(self, now: float) -> dict[str, Any]:
        """Return them as a token says them (RFC 7519 section 4.1).

        Args:
            now: seconds since the epoch.

        Raises:
            Refused: `ttl` is no duration, or one of `claims` has no name.
        """
        try:
            seconds = parse_duration(self.ttl)
        except ValueError as e:
            raise Refused(f"--ttl: {e}") from None
        said = {"sub": self.user, "iat": int(now), "exp": int(now) + round(seconds), "jti": secrets.token_hex(16)}
        lists = {"scopes": self.scopes, "rooms": self.rooms, "sessions": self.sessions}
        return {**said, **{name: list(values) for name, values in lists.items() if values}, **self._further()}

    def _further(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for pair in self.claims:
            name, equals, text = pair.partition("=")
            if not name or not equals:
                raise Refused(f"--claim {pair}: write name=value")
            try:
                found[name] = json.loads(text)
            except ValueError:
                found[name] = text
        return found


def issue(loaded: Loaded, name: str, wanted: Wanted) -> dict[str, Any]:
    """Return a token of plugin `name`, and what it says: `{"token", "claims", "expires_at"}`.

    Raises:
        ConfigErrors: the plugin is not configured.
        Refused: it cannot make such a token.
    """
    plugin, settings = _plugin(loaded, name)
    claims = wanted.as_claims(time.time())
    try:
        token = plugin.issue_token(settings, claims)
    except NotImplementedError:
        raise Refused(f"the plugin {name} makes no tokens") from None
    except ValueError as e:
        raise Refused(str(e)) from None
    return {"token": token, "claims": claims, "expires_at": _end(claims)}


def check(loaded: Loaded, name: str, token: str) -> dict[str, Any]:
    """Return what a token says, if plugin `name` would let it in: `{"claims", "expires_at"}`.

    Raises:
        ConfigErrors: the plugin is not configured.
        Refused: the token would not be let in.
    """
    plugin, settings = _plugin(loaded, name)
    try:
        claims = asyncio.run(plugin.check_token(settings, token))
    except NotImplementedError:
        raise Refused(f"the plugin {name} looks at no tokens") from None
    except BrokerError as e:
        raise Refused(f"{e.message} ({e.hint})" if e.hint else e.message) from None
    return {"claims": dict(claims), "expires_at": _end(claims)}


def _plugin(loaded: Loaded, name: str) -> tuple[type[Plugin], Any]:
    if name not in loaded.settings.plugins:
        place = Place(str(loaded.file) if loaded.file else "defaults")
        text = f"there is no plugin {name} here, so nobody is asked for a token; see docs/auth.md"
        raise ConfigErrors([Problem(f"plugins.{name}", text, place)])
    plugins = load(loaded.settings, loaded.file)
    if plugins.problems:
        raise ConfigErrors(plugins.problems)
    return next((record.plugin, record.settings) for record in plugins.records if record.plugin and record.name == name)


def _end(claims: Mapping[str, Any]) -> str | None:
    exp = claims.get("exp")
    return rfc3339(round(exp * 1000)) if isinstance(exp, int | float) else None
