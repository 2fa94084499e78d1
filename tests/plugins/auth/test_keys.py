"""Keys and settings: what cannot be used is told at start, in words."""

from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker.config import ConfigErrors
from broker.plugins.auth.keys import KeyRefused, read_published
from broker.plugins.auth.settings import Settings


def public_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form).decode()


def mistakes(configured: Callable[..., object], **block: object) -> str:
    """Return all that is wrong with some settings."""
    with pytest.raises(ConfigErrors) as refused:
        configured(**block)
    return refused.value.render()


@pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_is_at_least_as_long_as_the_hash(
    configured: Callable[..., Settings], algorithm: str, least: int
) -> None:
    assert configured(keys=[{"algorithm": algorithm, "secret": "x" * least}])
    text = mistakes(configured, keys=[{"algorithm": algorithm, "secret": "x" * (least - 1)}])
    assert f"at least {least} bytes and this secret has {least - 1}" in text
    assert f"openssl rand -hex {least}" in text


def test_a_public_key_is_no_secret(configured: Callable[..., Settings], pems: Callable[[str], tuple[str, str]]) -> None:
    """Everybody has it, so everybody could sign with it: the key confusion of CVE-2022-29217."""
    assert "that is no secret" in mistakes(configured, keys=[{"algorithm": "HS256", "secret": pems("RS256")[1]}])


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_an_rsa_key_fits_the_rsa_algorithms(
    configured: Callable[..., Settings], pems: Callable[[str], tuple[str, str]], algorithm: str
) -> None:
    assert configured(keys=[{"algorithm": algorithm, "public_key": pems("RS256")[1]}])
    assert "takes an RSA key" in mistakes(configured, keys=[{"algorithm": algorithm, "public_key": pems("ES256")[1]}])


def test_a_short_rsa_key_is_refused(configured: Callable[..., Settings]) -> None:
    short = public_of(rsa.generate_private_key(65537, 1024))
    assert "and this one 1024" in mistakes(configured, keys=[{"algorithm": "RS256", "public_key": short}])


@pytest.mark.parametrize(("algorithm", "other"), [("ES256", "ES384"), ("ES384", "ES512"), ("ES512", "ES256")])
def test_a_curve_has_to_fit(
    configured: Callable[..., Settings], pems: Callable[[str], tuple[str, str]], algorithm: str, other: str
) -> None:
    assert configured(keys=[{"algorithm": algorithm, "public_key": pems(algorithm)[1]}])
    text = mistakes(configured, keys=[{"algorithm": algorithm, "public_key": pems(other)[1]}])
    assert "takes a key on the curve" in text


def test_ed25519_is_for_eddsa(configured: Callable[..., Settings], pems: Callable[[str], tuple[str, str]]) -> None:
    assert configured(keys=[{"algorithm": "EdDSA", "public_key": pems("EdDSA")[1]}])
    assert "Ed25519" in mistakes(configured, keys=[{"algorithm": "EdDSA", "public_key": pems("ES256")[1]}])


def test_a_private_key_has_to_belong_to_the_public_one(
    configured: Callable[..., Settings], pems: Callable[[str], tuple[str, str]]
) -> None:
    private, public = pems("RS256")
    assert configured(keys=[{"algorithm": "RS256", "private_key": private}])
    assert configured(keys=[{"algorithm": "RS256", "private_key": private, "public_key": public}])
    other = public_of(rsa.generate_private_key(65537, 2048))
    text = mistakes(configured, keys=[{"algorithm": "RS256", "private_key": private, "public_key": other}])
    assert "is not that of the public_key" in text


MISTAKES = [
    ({"mode": "JWT"}, "expected one of: none, jwt"),
    ({"keys": []}, "mode jwt needs keys, jwks or api_keys"),
    ({"keys": [{"algorithm": "none"}]}, "expected one of: HS256"),
    ({"keys": [{"algorithm": "HS256"}]}, "needs a secret"),
    ({"keys": [{"algorithm": "RS256"}]}, "needs a public_key"),
    ({"keys": [{"algorithm": "RS256", "secret": "x" * 64}]}, "takes a public_key, and no secret"),
    ({"keys": [{"algorithm": "HS256", "secret": "x" * 64, "public_key": "y"}]}, "takes a secret"),
    ({"keys": [{"algorithm": "RS256", "private_key": "x"}]}, "the private_key is not PEM"),
    ({"leeway": "31s"}, "at most 30s"),
    ({"max_lifetime": "0"}, "more than 0"),
    ({"jwks": [{"issuer": "a", "url": "http://id.example.org/x"}]}, "must begin with https://"),
    ({"jwks": [{"issuer": "a", "url": "file:///etc/passwd"}]}, "must begin with https://"),
    ({"jwks": [{"issuer": "a", "url": "https://u:p@id.example.org/x"}]}, "must not hold a password"),
    ({"jwks": [{"issuer": "a", "url": "https://[::1"}]}, "expected a url"),
    ({"jwks": [{"issuer": "actor-broker", "url": "https://id.example.org/x"}]}, "each issuer can stand here once"),
    ({"jwks": [{"issuer": "id", "url": "https://id.example.org/x"}]}, "with several issuers each key"),
    ({"keys": [{"algorithm": "HS256", "secret": "k" * 32, "prefix": "key:a"}]}, "does not begin with key:"),
    ({"keys": [{"algorithm": "HS256", "secret": "k" * 32, "prefix": "a\n"}]}, "printable"),
    ({"cookie": {"name": "t", "origins": []}}, "every page could use it"),
    ({"cookie": {"name": "t", "origins": ["null"]}}, "is no origin"),
    ({"cookie": {"name": "t", "origins": ["https://a.example/"]}}, "is no origin"),
    ({"cookie": {"name": "t;", "origins": ["https://a.example"]}}, "no name of a cookie"),
    ({"api_keys": {"ops": {"key": "x" * 31}}}, "shorter than 32 characters"),
    ({"api_keys": {"ops": {"key": "x" * 31 + "\u00e9"}}}, "printable ASCII"),
    ({"api_keys": {"a": {"key": "x" * 32}, "b": {"key": "x" * 32}}}, "two api_keys are the same"),
    ({"rooms": ["x" * 257]}, "at most 256 patterns"),
    ({"alogrithms": []}, "unknown setting"),
]


@pytest.mark.parametrize(("block", "text"), MISTAKES, ids=[text for _, text in MISTAKES])
def test_a_mistake_in_the_settings_is_told_in_words(configured: Callable[..., Settings], block: Any, text: str) -> None:
    assert text in mistakes(configured, **block)


def test_no_setting_shows_its_secrets(
    configured: Callable[..., Settings], pems: Callable[[str], tuple[str, str]]
) -> None:
    private, _ = pems("RS256")
    keys = [{"algorithm": "HS256", "secret": "s" * 40}, {"algorithm": "RS256", "private_key": private}]
    settings = configured(keys=keys, api_keys={"ops": {"key": "a" * 40}})
    for hidden in ("s" * 40, "a" * 40, private.splitlines()[1], str(b"s" * 40)):
        assert hidden not in repr(settings)
        assert hidden not in repr([key.verifying for key in settings.keys])


REFUSED = [
    {},
    "text",
    {"kty": "oct", "k": "c2VjcmV0"},
    {"kty": "RSA", "use": "enc"},
    {"kty": "RSA", "key_ops": ["encrypt"]},
    {"kty": "RSA", "kid": 5},
    {"kty": "RSA", "alg": "HS256"},
    {"kty": "RSA", "alg": "none"},
    {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
    {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
    {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
    {"kty": "OKP", "crv": "X25519", "x": "AA"},
    {"kty": "RSA", "n": 5, "e": None},
    {"kty": ["RSA"]},
    {"kty": "RSA", "key_ops": 5},
    {"kty": "EC", "crv": ["P-256"]},
    ["kty"],
]


@pytest.mark.parametrize("jwk", REFUSED)
def test_what_is_no_public_key_for_signatures_is_not_taken_from_an_issuer(jwk: Any) -> None:
    with pytest.raises(KeyRefused):
        read_published(jwk)


@pytest.mark.parametrize(("kind", "algorithm"), [("RS256", "RS256"), ("ES384", "ES384"), ("EdDSA", "EdDSA")])
def test_a_published_key_is_bound_to_what_it_names_or_its_kind_implies(
    pems: Callable[[str], tuple[str, str]], kind: str, algorithm: str
) -> None:
    private, public = pems(kind)
    made = jwt.algorithms.get_default_algorithms()[kind]
    jwk = made.to_jwk(made.prepare_key(public), as_dict=True)
    assert read_published(jwk).algorithm == algorithm
    assert read_published({**jwk, "kid": "k1", "use": "sig"}).kid == "k1"
    secret = made.to_jwk(made.prepare_key(private), as_dict=True)
    with pytest.raises(KeyRefused, match="not a public key"):
        read_published(secret)
