"""What stands under `auth:`, checked as far as it can be without the network: every mistake is told at start."""

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import attrs
from msgspec import Meta

from broker.hooks import Duration, Positive, Secret

from .keys import Algorithm, KeyRefused, Verifying, read_private, read_public, read_secret
from .patterns import check_claim

__all__ = ["API_KEYS", "ApiKey", "Cookie", "Key", "Published", "Revoked", "Settings"]

SHORTEST_API_KEY: Final = 32
"""Characters of an API key; 32 of the letters and digits that `openssl rand -hex 16` prints are 128 bits."""

API_KEYS: Final = "key:"
"""Begins the names of those who are known by an API key; no token's user can be called so."""

_NONE: Final = Secret("")
_ORIGIN: Final = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?", re.ASCII)
_COOKIE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

Text = Annotated[str, Meta(min_length=1)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Prefix = Annotated[str, Meta(max_length=64)]


def _check_prefix(prefix: str | None) -> None:
    if prefix and (not prefix.isprintable() or prefix.startswith(API_KEYS)):
        raise ValueError(f"a prefix has printable characters and does not begin with {API_KEYS}, as API keys' names do")


@attrs.frozen(kw_only=True)
class Key:
    """A key that tokens of `issuer` are signed with; bound to one algorithm.

    Attributes:
        algorithm: The one algorithm it is used with; a token that names another is refused.
        secret: For HS256, HS384 and HS512: at least as many bytes as the hash has. Take it from a file.
        public_key: For all others: PEM, from a file or written out.
        private_key: PEM; only for `broker gentoken`. The broker itself never needs it.
        kid: Its name in tokens; a key without one is tried with each token of its algorithm.
        prefix: Begins its users' names here: `corp:` makes `ann` `corp:ann`. Needed where there are several issuers.
        scopes: What its tokens may give; null for all, but of several issuers not `admin`, `api` and `agent`.
    """

    algorithm: Algorithm
    secret: Secret = _NONE
    public_key: str = ""
    private_key: Secret = _NONE
    kid: Name | None = None
    prefix: Prefix | None = None
    scopes: tuple[Text, ...] | None = None
    verifying: Verifying = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        _check_prefix(self.prefix)
        object.__setattr__(self, "verifying", self._read())

    @property
    def mark(self) -> str:
        """What tells it from other keys."""
        return self.verifying.fingerprint

    def _read(self) -> Verifying:
        if self.algorithm.startswith("HS"):
            if self.public_key or self.private_key:
                raise KeyRefused(f"{self.algorithm} takes a secret, and no public_key or private_key")
            return read_secret(self.algorithm, self.secret.reveal(), self.kid)
        if self.secret:
            raise KeyRefused(f"{self.algorithm} takes a public_key, and no secret")
        if self.private_key:
            _, public = read_private(self.algorithm, self.private_key.reveal(), self.kid)
            if not self.public_key:
                return public
            if public.fingerprint != read_public(self.algorithm, self.public_key, self.kid).fingerprint:
                raise KeyRefused("the private_key is not that of the public_key")
        return read_public(self.algorithm, self.public_key, self.kid)


@attrs.frozen(kw_only=True)
class Published:
    """An issuer that publishes its keys (RFC 7517).

    Attributes:
        issuer: What `iss` says in its tokens, exactly.
        url: Where its keys are; https, or http on this machine.
        refresh: How often they are fetched anew.
        cooldown: Time between two fetches for the sake of keys that nobody knows.
        timeout: Time that a fetch may take.
        stale: Time for which the keys that were there last stay good while fetching fails.
        prefix: Begins the names of its users here, as for `keys`.
        scopes: What its tokens may give, as for `keys`.
    """

    issuer: Name
    url: Text
    refresh: Annotated[Duration, Positive] = 300.0
    cooldown: Annotated[Duration, Positive] = 30.0
    timeout: Annotated[Duration, Positive, Meta(le=9)] = 5.0
    stale: Annotated[Duration, Positive] = 86400.0
    prefix: Prefix | None = None
    scopes: tuple[Text, ...] | None = None

    def __attrs_post_init__(self) -> None:
        _check_prefix(self.prefix)
        try:
            url = urlsplit(self.url)
            secure = url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOOPBACK)
            whole = bool(url.hostname) and (url.port is None or url.port > 0)
        except ValueError:
            secure, whole = True, False
        if not secure:
            raise ValueError("url must begin with https://; http:// only for this machine")
        if not whole:
            raise ValueError("expected a url such as https://id.example.org/.well-known/jwks.json")
        if "@" in url.netloc:
            raise ValueError("the url must not hold a password; keys are published to everybody")

    @property
    def mark(self) -> str:
        """What tells it from others, whichever keys are there."""
        return self.url


@attrs.frozen(kw_only=True)
class Cookie:
    """A cookie that may hold the token.

    Attributes:
        name: Its name.
        origins: The pages whose browsers may send it, exactly as in `listen.origins`. A browser adds cookies to
            whatever any page makes it do, so a cookie counts only together with an Origin that is listed here.
    """

    name: Text
    origins: tuple[Text, ...]

    def __attrs_post_init__(self) -> None:
        if not _COOKIE.fullmatch(self.name):
            raise ValueError("that is no name of a cookie")
        if not self.origins:
            raise ValueError("list the origins from which the cookie counts; without any, every page could use it")
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin} is no origin; write https://host or https://host:port in lower case")


@attrs.frozen(kw_only=True)
class ApiKey:
    """A key that a backend shows instead of a token.

    Attributes:
        key: The key itself, at least 32 characters. Take it from a file.
        scopes: What it may do.
        user: Who it is; `key:NAME` if left out.
    """

    key: Secret
    scopes: tuple[Text, ...] = ("api",)
    user: Name | None = None

    def __attrs_post_init__(self) -> None:
        text = self.key.reveal()
        if len(text) < SHORTEST_API_KEY:
            raise ValueError(f"the key is shorter than {SHORTEST_API_KEY} characters; make one: openssl rand -hex 32")
        if not (text.isascii() and text.isprintable()) or " " in text:
            raise ValueError("a key is made of printable ASCII characters without blanks, or no header could hold it")


@attrs.frozen(kw_only=True)
class Revoked:
    """What is not let in, whatever it shows. Taken over by SIGHUP.

    Attributes:
        users: Users, by their names here, which begin with their issuer's `prefix`.
        tokens: Tokens, by their `jti`, or by `iss`, a blank and `jti`.
    """

    users: tuple[Name, ...] = ()
    tokens: tuple[Text, ...] = ()


@attrs.frozen(kw_only=True)
class Settings:
    """What stands under `auth:`.

    Attributes:
        mode: none lets everybody in, anonymous and with every scope; jwt asks for tokens.
        issuer: What `iss` has to be in tokens that `keys` verify.
        audience: What `aud` has to be, or to hold.
        keys: Keys of `issuer`.
        jwks: Further issuers, whose keys are fetched.
        leeway: How far clocks may differ.
        max_lifetime: The longest that a token may live.
        cookie: A cookie that may hold the token; null for none.
        query: The query parameter that may hold the token; null for none. URLs are written into many logs.
        first_message: Time in which a client without a token may show one with `auth`; 0: it is needed at once.
        api_keys: Keys for backends, by name.
        rooms: Rooms that tokens without a claim `rooms` are good for; `{user}` stands for the user.
        sessions: Sessions that tokens without a claim `sessions` are good for.
        projects: Projects, by guid or pattern, that tokens without a claim `projects` are good for; null for those
            whose rooms `project:<guid>` are good.
        require: Scopes that operations take beside, such as `broadcast: debug` or `session.*: chat`.
        revoked: What is not let in any more.
        revoked_file: File that keeps what is revoked while running; without one it is forgotten at the next start.
    """

    mode: Literal["none", "jwt"]
    issuer: Name = "actor-broker"
    audience: Name = "actor-broker"
    keys: tuple[Key, ...] = ()
    jwks: tuple[Published, ...] = ()
    leeway: Annotated[Duration, Meta(le=30)] = 10.0
    max_lifetime: Annotated[Duration, Positive] = 86400.0
    cookie: Cookie | None = None
    query: Text | None = None
    first_message: Annotated[Duration, Meta(le=60)] = 0.0
    api_keys: dict[str, ApiKey] = attrs.field(factory=dict)
    rooms: tuple[Text, ...] = ("*",)
    sessions: tuple[Text, ...] = ("*",)
    projects: tuple[Text, ...] | None = None
    require: dict[str, Text] = attrs.field(factory=dict)
    revoked: Revoked = Revoked()
    revoked_file: Text | None = None

    def __attrs_post_init__(self) -> None:
        if mistakes := self._mistakes():
            raise ValueError("; ".join(mistakes))
        check_claim(list(self.rooms))
        check_claim(list(self.sessions))
        check_claim(list(self.projects or ()))

    def _mistakes(self) -> list[str]:
        found: list[str] = []
        if self.mode == "jwt" and not (self.keys or self.jwks or self.api_keys):
            found.append("mode jwt needs keys, jwks or api_keys; to let everybody in: mode: none")
        issuers = [issuer.issuer for issuer in self.jwks] + [self.issuer] * bool(self.keys)
        if len(set(issuers)) < len(issuers):
            found.append("each issuer can stand here once: no key of one may verify the tokens of another")
        if len(issuers) > 1 and None in [entry.prefix for entries in (self.keys, self.jwks) for entry in entries]:
            found.append(
                'with several issuers each key and each entry of jwks needs a prefix, such as "corp:", '
                "or one issuer's ann would be the other's"
            )
        if len(named := [key.kid for key in self.keys if key.kid]) > len(set(named)):
            found.append("two keys have the same kid")
        shown = [api_key.key.reveal() for api_key in self.api_keys.values()]
        if len(set(shown)) < len(shown):
            found.append("two api_keys are the same; who shows it could be either")
        return found
