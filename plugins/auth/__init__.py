"""Who is there, and what they may do: tokens (JWT), API keys, patterns of rooms and sessions, revocation.

docs/auth.md is its manual. The parts: `settings`; `keys` and `issuers`, what tokens are checked with; `tokens`, how;
`sources`, where they travel; `verifier`, from a token to a principal; `permissions` and `patterns`, what that one may
do; `revocations`; `issuing`, for `broker gentoken`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Self

import msgspec
from aiohttp import web

from broker.errors import BrokerError, CloseCode
from broker.hooks import Auth, Broker, Handshake, Peer, Permission, Plugin, Principal, Route, Undeclared

from .issuing import issue, verifier_of
from .permissions import Permissions
from .revocations import Kind, Revocations, of_issuer
from .settings import Settings as AuthSettings
from .sources import shown_by
from .standing import Standing, is_named
from .tokens import refusal
from .verifier import Verifier

__all__ = ["Identity"]

HOW: Final = "Authorization: Bearer TOKEN"
HOW_PAGES_DO: Final = "or the subprotocol bearer.TOKEN beside the format's"
_HOW_TO_REVOKE: Final = 'Say {"user": NAME}, {"jti": ID} or {"jti": ID, "issuer": ISS}.'
REVOKED: Final = "revoked; a new token is needed"

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class _Revoke(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/revocations`: a user, or a token, of one issuer or of whichever has it."""

    user: _Name | None = None
    jti: _Name | None = None
    issuer: _Name | None = None


class Identity(Plugin):
    """Asks for tokens and says who shows them."""

    version = "1.0"
    Settings = AuthSettings
    settings: AuthSettings

    def __new__(cls, settings: AuthSettings, _: Broker) -> Self:
        """Return one without gates where there is nothing to ask for: so the core knows that it is open to all."""
        return super().__new__(_Everybody if settings.mode == "none" else cls)  # type: ignore[return-value]

    def __init__(self, settings: AuthSettings, broker: Broker) -> None:
        super().__init__(settings, broker)
        self._verifier = Verifier(settings, broker.now, broker.monotonic)
        self._writing = asyncio.Lock()
        self._revocations = Revocations(broker.now, _keep(settings), None)
        self._judge()

    async def start(self) -> None:
        """Read what was revoked, and begin to fetch keys."""
        file = Path(self.settings.revoked_file) if self.settings.revoked_file else None
        self._revocations = await asyncio.to_thread(Revocations, self.broker.now, _keep(self.settings), file)
        self._judge()
        for issuer in self._verifier.fetched:
            issuer.start(self.broker.spawn)

    async def stop(self) -> None:
        """Fetch no more keys."""
        for issuer in self._verifier.fetched:
            issuer.stop()

    def reload(self, settings: AuthSettings) -> bool:
        """Take over new settings, and close the connections of those whom they no longer let in."""
        if (settings.mode, settings.revoked_file) != (self.settings.mode, self.settings.revoked_file):
            return False
        earlier = self._verifier
        self._verifier = Verifier(settings, self.broker.now, self.broker.monotonic, earlier)
        self.settings, self._revocations.keep = settings, _keep(settings)
        self._judge()
        for issuer in set(earlier.fetched) - set(self._verifier.fetched):
            issuer.stop()
        for issuer in set(self._verifier.fetched) - set(earlier.fetched):
            issuer.start(self.broker.spawn)
        self.broker.spawn(self._part(self._is_lost), name="close what is not let in any more")
        return True

    def _judge(self) -> None:
        """Judge by the settings and revocations as they are now."""
        settings = self.settings
        self._standing = Standing(self._verifier.marks, settings.revoked, self._revocations, settings.leeway)
        self._permissions = Permissions(settings)

    def _is_lost(self, peer: Peer) -> bool:
        return self._standing.is_lost(peer.principal)

    def trouble(self) -> str | None:
        """Tell of keys that cannot be fetched, where there are no others; whence, only the log says, not everybody."""
        fetched = self._verifier.fetched
        if self.settings.keys or not fetched or any(issuer.fetched for issuer in fetched):
            return None
        return "the keys that tokens are checked with cannot be fetched; the log says why"

    # -- gates --------------------------------------------------------------------------------------

    async def on_handshake(self, handshake: Handshake) -> Principal | Undeclared | None:
        """Say who it is by the token that came along, or let it say so in its first message."""
        if handshake.known is not None:
            self._refuse_lost(handshake.known)
            return None
        shown = shown_by(handshake, self.settings)
        if shown is not None:
            return await self._recognize(shown.text, api_keys=shown.api_key)
        if self.settings.first_message and handshake.protocol != "http":
            return Undeclared(self.settings.first_message)
        raise BrokerError("unauthenticated", hint=HOW if handshake.protocol == "http" else f"{HOW}, {HOW_PAGES_DO}")

    async def on_auth(self, auth: Auth) -> Principal | None:
        """Say who shows a token in band; of one who shows a ticket, whether it is still good."""
        if auth.known is not None:
            self._refuse_lost(auth.known)
            return None
        return await self._recognize(auth.token, api_keys=True)

    def on_permission(self, check: Permission) -> None:
        """Judge by patterns and scopes, each time anew."""
        if self._standing.is_lost(check.principal):
            raise refusal("revoked")
        self._permissions.check(check)

    def connected(self, peer: Peer) -> Awaitable[None] | None:
        """Close a connection that was on its way in while it was revoked."""
        return self._send_away(peer.connection_id) if self._is_lost(peer) else None

    async def _recognize(self, text: str, *, api_keys: bool) -> Principal:
        principal = await self._verifier.recognize(text, api_keys=api_keys)
        self._refuse_lost(principal)
        return principal

    # -- revocation ---------------------------------------------------------------------------------

    def routes(self) -> Sequence[Route]:
        """Serve revocation to administrators' backends."""
        return (Route("POST", "/api/v1/revocations", self.revoke, scope="admin"),)

    async def revoke(self, request: web.Request) -> web.Response:
        """Revoke a user's tokens, or one token, and close their connections."""
        if "api" not in request["principal"].scopes:
            raise BrokerError("forbidden", "This takes the scope api.")
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="the body has to be application/json")
        kind, name = _whom(await request.read())
        until = self._revocations.add(kind, name)
        try:
            async with self._writing:
                await asyncio.to_thread(self._revocations.write, kind, name)
        except OSError as e:
            text = "It is in force, and would be forgotten at the next start: the file could not be written."
            raise BrokerError("unavailable", text, hint=e.strerror) from e
        finally:
            count = await self._part(lambda peer: is_named(peer.principal, kind, name))
        answer = {"disconnected": count, "until": _rfc3339(until), "durable": self._revocations.durable}
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    def _refuse_lost(self, who: Principal) -> None:
        if self._standing.is_lost(who):
            raise refusal("revoked")

    async def _send_away(self, connection_id: str) -> None:
        await self._part(lambda other: other.connection_id == connection_id)

    async def _part(self, whom: Callable[[Peer], bool]) -> int:
        return await self.broker.disconnect(whom, CloseCode.BAD_TOKEN, REVOKED)

    # -- the command line ---------------------------------------------------------------------------

    @classmethod
    def issue_token(cls, settings: AuthSettings, claims: Mapping[str, Any]) -> str:
        """Return a token that says `claims`."""
        return issue(settings, claims)

    @classmethod
    async def check_token(cls, settings: AuthSettings, token: str) -> Mapping[str, Any]:
        """Return what a token says, for which keys are fetched if need be."""
        if settings.mode == "none":
            raise BrokerError("unavailable", "With mode: none nobody is asked for a token.")
        verifier = verifier_of(settings)
        claims, entry = await verifier.verify(token)
        claims.scope, claims.scopes = None, sorted(verifier.scopes_of(claims, entry)) or None
        said: dict[str, Any] = msgspec.to_builtins(claims)
        user = verifier.user_of(claims, entry)
        here = {"user": user} if user != claims.sub else {}
        return {name: value for name, value in said.items() if value is not None} | here


class _Everybody(Identity):
    """Mode none: no gates, so that everybody is anonymous."""

    on_handshake = Plugin.on_handshake  # type: ignore[assignment]
    on_auth = Plugin.on_auth  # type: ignore[assignment]
    on_permission = Plugin.on_permission  # type: ignore[assignment]
    connected = Plugin.connected

    def routes(self) -> Sequence[Route]:
        """There is nothing to revoke."""
        return ()


def _rfc3339(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _keep(settings: AuthSettings) -> float:
    """Return the seconds after which no token of today can be good any more."""
    return settings.max_lifetime + 2 * settings.leeway


def _whom(body: bytes) -> tuple[Kind, str]:
    try:
        wanted = msgspec.json.decode(body, type=_Revoke)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise BrokerError("invalid_message", _HOW_TO_REVOKE, hint=str(e)) from None
    if wanted.user is not None and wanted.jti is None and wanted.issuer is None:
        return "user", wanted.user
    if wanted.jti is not None and wanted.user is None:
        return "jti", of_issuer(wanted.jti, wanted.issuer)
    raise BrokerError("invalid_message", _HOW_TO_REVOKE)
