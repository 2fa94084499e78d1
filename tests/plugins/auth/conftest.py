"""What tests of the auth plugin share: keys of every kind, tokens, and settings as the configuration gives them."""

import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from broker.config import Located, Place, structure_block
from broker.plugins.auth.settings import Settings

NOW = 1_700_000_000
SECRET = "k" * 64
KINDS: dict[str, Callable[[], Any]] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


def located(value: Any, path: str = "plugins.auth") -> Located:
    """Return a value as the configuration's reader would."""
    place = Place("config.yaml", 1, 1)
    if isinstance(value, dict):
        value = {name: located(child, f"{path}.{name}") for name, child in value.items()}
    elif isinstance(value, list):
        value = [located(child, f"{path}[{index}]") for index, child in enumerate(value)]
    return Located(value, place, place, path)


@pytest.fixture(scope="session")
def pems() -> Callable[[str], tuple[str, str]]:
    """Private and public PEM of a kind, made once; what PS and RS take is the same."""
    made: dict[str, tuple[str, str]] = {}

    def pem(kind: str) -> tuple[str, str]:
        if kind not in made:
            key = KINDS[kind]()
            private = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            public = key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            made[kind] = (private.decode(), public.decode())
        return made[kind]

    return pem


@pytest.fixture(scope="session")
def configured() -> Callable[..., Settings]:
    """Settings from what would stand under `auth:`; mode jwt and an HS256 key unless said otherwise."""

    def make(**block: Any) -> Settings:
        block = {"mode": "jwt", "keys": [{"algorithm": "HS256", "secret": SECRET}], **block}
        return structure_block(Settings, located(block))

    return make


@pytest.fixture(scope="session")
def sign() -> Callable[..., str]:
    """Make a token; claims that are None are left out."""

    def make(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
        both = {
            "iss": "actor-broker",
            "aud": "actor-broker",
            "sub": "ann",
            "iat": NOW,
            "exp": NOW + 600,
            **claims,
        }
        said = {name: value for name, value in both.items() if value is not None}
        return str(jwt.api_jws.encode(json.dumps(said).encode(), key, algorithm, headers))

    return make


@pytest.fixture
def now() -> Callable[[], int]:
    """The time at which all tokens are judged, in milliseconds."""
    return lambda: NOW * 1000
