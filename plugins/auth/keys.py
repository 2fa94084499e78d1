"""Keys: each is bound to one algorithm, and is long enough for it, or it is none.

Sources of the rules: RFC 7518 sections 3.2 to 3.5 (lengths, curves), RFC 8725 sections 3.1 to 3.5 (one algorithm per
key, none of what the token itself says about keys).
"""

import hashlib
from typing import Any, Final, Literal, get_args

import attrs
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

__all__ = ["Algorithm", "KeyRefused", "Verifying", "read_private", "read_public", "read_published", "read_secret"]

Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]

RSA_BITS: Final = 2048
"""Fewer are refused (RFC 7518 section 3.3)."""
RSA_MOST_BITS: Final = 16384
"""More make each check a burden."""

_HASH_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
_CURVES_OF_JWK: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA", "Ed448": "EdDSA"}
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_ED: Final = (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)


class KeyRefused(ValueError):  # noqa: N818 - named after what became of the key
    """A key that must not be used; says why, and nothing of the key."""


@attrs.frozen
class Verifying:
    """What a signature is checked with.

    Attributes:
        algorithm: the one it is good for.
        key: bytes for HMAC, otherwise a public key of `cryptography`.
        kid: its name in tokens, None if it has none.
        fingerprint: tells it from other keys and gives nothing away.
    """

    algorithm: str
    key: Any = attrs.field(repr=False, eq=False)
    kid: str | None
    fingerprint: str


class _Jwk(msgspec.Struct):
    """What is looked at of a published key before it is read."""

    kty: str
    use: str | None = None
    key_ops: list[str] | None = None
    alg: str | None = None
    kid: str | None = None
    crv: str | None = None


def read_secret(algorithm: str, text: str, kid: str | None) -> Verifying:
    """Return a key for HMAC.

    Raises:
        KeyRefused: it is shorter than the hash, or is a public key, which everybody could sign with.
    """
    least = _HASH_BYTES[algorithm]
    secret = text.encode()
    if not secret:
        raise KeyRefused(f"{algorithm} needs a secret; make one: openssl rand -hex {least} > auth.key")
    if text.startswith(("-----BEGIN", "ssh-")):
        raise KeyRefused(f"that is no secret but a key in PEM or OpenSSH form, which {algorithm} is not for")
    if len(secret) < least:
        raise KeyRefused(
            f"{algorithm} takes at least {least} bytes and this secret has {len(secret)}; "
            f"make one: openssl rand -hex {least}"
        )
    return Verifying(algorithm, secret, kid, _fingerprint(algorithm, secret))


def read_public(algorithm: str, pem: str, kid: str | None) -> Verifying:
    """Return a public key.

    Raises:
        KeyRefused: it is none, or does not fit its algorithm, or is too short.
    """
    if not pem:
        raise KeyRefused(f"{algorithm} needs a public_key: PEM, such as !file public.pem")
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyRefused(
            f"the public_key is not PEM that begins with -----BEGIN PUBLIC KEY----- ({algorithm})"
        ) from None
    return _checked(algorithm, key, kid)


def read_private(algorithm: str, pem: str, kid: str | None) -> tuple[Any, Verifying]:
    """Return a private key for signing, and its public key.

    Raises:
        KeyRefused: it is none, or does not fit its algorithm, or is too short.
    """
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyRefused(f"the private_key is not PEM without a password ({algorithm})") from None
    return key, _checked(algorithm, key.public_key(), kid)


def read_published(jwk: Any) -> Verifying:
    """Return a public key of a JWK (RFC 7517 section 4), bound to the algorithm it names or its kind implies.

    Raises:
        KeyRefused: it is not for signatures, is no public key, or does not fit its algorithm.
    """
    try:
        said = msgspec.convert(jwk, _Jwk)
    except msgspec.ValidationError:
        raise KeyRefused("not a key") from None
    if said.kty not in {"RSA", "EC", "OKP"} or "d" in jwk:
        raise KeyRefused("not a public key")
    if said.use not in {None, "sig"} or (said.key_ops is not None and "verify" not in said.key_ops):
        raise KeyRefused("not for signatures")
    # OpenID Connect's default where an RSA key names no algorithm; the other kinds leave no choice.
    algorithm = said.alg or _CURVES_OF_JWK.get(said.crv or "", "RS256")
    if algorithm not in get_args(Algorithm) or algorithm in _HASH_BYTES:
        raise KeyRefused("an algorithm that is not for public keys")
    return _checked(algorithm, _from_jwk(algorithm, jwk), said.kid)


def _from_jwk(algorithm: str, jwk: dict[str, Any]) -> Any:
    from jwt import PyJWK  # noqa: PLC0415 - only where keys are fetched
    from jwt.exceptions import PyJWTError  # noqa: PLC0415

    try:
        return PyJWK(jwk, algorithm).key
    except (PyJWTError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        raise KeyRefused("it cannot be read") from None


def _checked(algorithm: str, key: Any, kid: str | None) -> Verifying:
    if algorithm in _RSA:
        if not isinstance(key, rsa.RSAPublicKey):
            raise KeyRefused(f"{algorithm} takes an RSA key, and this is another kind")
        if not RSA_BITS <= key.key_size <= RSA_MOST_BITS:
            raise KeyRefused(f"an RSA key has {RSA_BITS} to {RSA_MOST_BITS} bits, and this one {key.key_size}")
    elif algorithm in _CURVES:
        curve = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else "another kind of key"
        if curve != _CURVES[algorithm]:
            raise KeyRefused(f"{algorithm} takes a key on the curve {_CURVES[algorithm]}, and this is {curve}")
    elif not isinstance(key, _ED):
        raise KeyRefused(f"{algorithm} takes an Ed25519 or Ed448 key, and this is another kind")
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Verifying(algorithm, key, kid, _fingerprint(algorithm, der))


def _fingerprint(algorithm: str, material: bytes) -> str:
    return hashlib.sha256(algorithm.encode() + b"\0" + material).hexdigest()[:32]
