"""Fuzz what people show: `python -m fuzz.tokens --seconds 60` (atheris; Linux, `pip install -e .[fuzz]`).

Whatever a token, a header, a cookie or a set of published keys holds, it is refused with a typed error, or lets in
somebody who has a name, an end and patterns that can be read; and nothing that we have not signed is ever let in.
`tests/plugins/auth/test_corpus.py` replays the corpus, so that what was once found stays found.
"""

import base64
from pathlib import Path

import jwt

from broker.config import Located, Place, structure_block
from broker.errors import BrokerError
from broker.hooks import Handshake, Permission, Principal
from broker.plugins.auth import issuers, keys, patterns, permissions, sources, tokens, verifier
from broker.plugins.auth.settings import Settings

__all__ = ["CORPUS", "check"]

CORPUS = Path(__file__).parents[1] / "tests" / "plugins" / "auth" / "corpus"

NOW = 1_700_000_000
SECRET = "0123456789abcdef" * 4
REFUSALS = {"unauthenticated", "token_expired"}
PAGE = "https://chat.example.org"


def _settings() -> Settings:
    place = Place("fuzz")

    def located(value: object) -> Located:
        if isinstance(value, dict):
            return Located({name: located(child) for name, child in value.items()}, place, place)
        return Located([located(child) for child in value] if isinstance(value, list) else value, place, place)

    key = {"algorithm": "HS256", "secret": SECRET}
    cookie = {"name": "t", "origins": [PAGE]}
    block = {"mode": "jwt", "keys": [key], "cookie": cookie, "query": "t", "api_keys": {"a": {"key": "x" * 32}}}
    return structure_block(Settings, located(block))


_SETTINGS = _settings()
_VERIFIER = verifier.Verifier(_SETTINGS, lambda: NOW * 1000, lambda: 0.0)
_PERMISSIONS = permissions.Permissions(_SETTINGS)
_HMAC = jwt.algorithms.get_default_algorithms()["HS256"]


def check(data: bytes) -> None:
    """Try one input: a byte that says what it is, and then it.

    Raises:
        AssertionError: a rule does not hold.
    """
    kind, rest = data[0] % 5 if data else 0, data[1:]
    match kind:
        case 0:
            _unsigned(rest.decode("latin-1"))
        case 1:
            _unsigned(f"{_part(rest)}.{_part(rest)}.{_part(rest)}")
        case 2:
            _signed(b'{"alg":"HS256"}', rest)
        case 3:
            header, _, payload = rest.partition(b"\0")
            _signed(header, payload)
        case _:
            _published(rest)


def _unsigned(text: str) -> None:
    for headers in (
        {"Authorization": f"Bearer {text}"},
        {"Sec-WebSocket-Protocol": f"bearer.{text}"},
        {"Cookie": text},
    ):
        handshake = Handshake("/ws", headers, {"t": text}, "127.0.0.1", PAGE, "broker.v1.json")
        try:
            sources.shown_by(handshake, _SETTINGS)
        except BrokerError as e:
            _must_be(e, REFUSALS)
    assert _recognized(text) is None or text == "x" * 32, "let in with nothing that we have signed"


def _signed(header: bytes, payload: bytes) -> None:
    text = f"{_part(header)}.{_part(payload)}"
    who = _recognized(f"{text}.{_part(_HMAC.sign(text.encode(), SECRET.encode()))}")
    if who is None:
        return
    assert who.user, "nobody"
    assert who.user.isprintable()
    assert who.expires_at is not None
    assert NOW * 1000 < who.expires_at <= (NOW + 86_400 + 10) * 1000 + 1
    for operation in ("room.join", "session.create", "session.list", "turn.start"):
        for resource in (None, "lobby", who.user):
            try:
                _PERMISSIONS.check(Permission(who, operation, resource))
            except BrokerError as e:
                _must_be(e, {"forbidden"})


def _recognized(text: str) -> Principal | None:
    waiting = _VERIFIER.recognize(text, api_keys=True)
    try:
        waiting.send(None)
    except StopIteration as e:
        found: Principal = e.value
        return found
    except BrokerError as e:
        _must_be(e, REFUSALS)
        return None
    raise AssertionError("keys of the settings are waited for")


def _must_be(error: BrokerError, codes: set[str]) -> None:
    assert error.code in codes, error.code


def _published(body: bytes) -> None:
    try:
        found = issuers.read_set(body)
    except ValueError:
        return
    for (kid, algorithm), some in found.items():
        assert 0 < len(some) <= (issuers.TRIED if kid is None else 1)
        assert all(key.algorithm == algorithm and not algorithm.startswith("HS") for key in some)


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def main() -> None:
    """Fuzz tokens for a while."""
    from fuzz.harness import fuzz  # noqa: PLC0415 - atheris is not there on every platform, nor needed to replay

    fuzz(check, issuers, keys, patterns, permissions, sources, tokens, verifier, corpus=CORPUS, most=2000)


if __name__ == "__main__":
    main()
