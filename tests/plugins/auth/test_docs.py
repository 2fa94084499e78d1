"""docs/auth.md names every setting with its default, and its examples are what it says."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from broker import config
from broker.extensions.loader import load
from broker.plugins.auth.settings import ApiKey, Cookie, Key, Published, Revoked, Settings
from broker.plugins.auth.verifier import Verifier

PAGE = (Path(__file__).parents[3] / "docs" / "auth.md").read_text()
PARTS = {
    "keys": ("keys[]", Key),
    "jwks": ("jwks[]", Published),
    "cookie": ("cookie", Cookie),
    "api_keys": ("api_keys.NAME", ApiKey),
    "revoked": ("revoked", Revoked),
}


def names(cls: type = Settings, prefix: str = "") -> Iterator[str]:
    for field in attrs.fields(cls):
        if field.init:
            if not prefix and field.name == "revoked":
                yield from names(Revoked, "revoked.")
                continue
            yield prefix + field.name
            if not prefix and field.name in PARTS:
                path, part = PARTS[field.name]
                yield from names(part, f"{path}.")


def test_every_setting_has_its_row_in_its_place() -> None:
    table = PAGE[PAGE.index("## Settings") : PAGE.index("## Where a token")]
    assert re.findall(r"^\| `([\w.\[\]]+)` \|", table, re.MULTILINE) == list(names())


@pytest.mark.parametrize("yaml", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_each_configuration_is_a_good_one(tmp_path: Path, pems: Callable[[str], tuple[str, str]], yaml: str) -> None:
    (tmp_path / "auth.key").write_text("0123456789abcdef" * 4)
    (tmp_path / "public.pem").write_text(pems("ES256")[1])
    (tmp_path / "config.yaml").write_text(yaml)
    loaded = config.load(tmp_path / "config.yaml", {}, {})
    assert load(loaded.settings, loaded.file).problems == []


def test_the_token_on_the_page_would_be_let_in(look_at: Callable[[str], Any]) -> None:
    (claims,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    who = look_at(claims)
    assert (who.user, who.scopes) == ("ann", {"api"})
    assert who.claims["sessions"] == {"*": ["attach", "history"]}


@pytest.fixture
def look_at(configured: Callable[..., Settings], sign: Callable[..., str], now: Callable[[], int]) -> Any:
    def recognize(claims: str) -> Any:
        verifier = Verifier(configured(), now, lambda: 0.0)
        return asyncio.run(verifier.recognize(sign(**json.loads(claims)), api_keys=False))

    return recognize
