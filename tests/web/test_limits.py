"""What the limiter counts on a socket, messages that nobody can read too."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.app import App

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

RUBBISH = ["{", '{"id":"x","type":"request"}', '{"id":"x","type":"request","action":"echo","payload":[' + "[" * 90]
SLOW = '''
from broker.errors import BrokerError
from broker.hooks import Inbound, Plugin


class Slow(Plugin):
    """Takes a while to refuse, and says what it was asked about."""

    async def on_message(self, message: Inbound) -> None:
        if message.size > 500:
            raise BrokerError("too_large", f"{message.action!r} {message.size}")
'''


def limits(**settings: Any) -> dict[str, Any]:
    return {"plugins": {"rate_limit": {"burst": 3600, **settings}}}


async def heard(client: Any) -> dict[str, Any]:
    """Return the next error's data."""
    data: dict[str, Any] = (await client.take(lambda message: message["type"] == "error"))["data"]
    return data


@pytest.mark.parametrize("rubbish", RUBBISH)
async def test_messages_that_cannot_be_read_count_like_any_other(start: Start, dial: Dial, rubbish: str) -> None:
    app = await start(**limits(messages="3/h"))
    client = await dial(app.port)
    codes = []
    for _ in range(4):
        await client.send(rubbish)
        codes.append((await heard(client))["code"])
    assert "rate_limited" not in codes[:3]
    assert codes[3] == "rate_limited"
    assert app.services.stats.rate_limited == {"messages": 1}


async def test_their_bytes_count_too(start: Start, dial: Dial) -> None:
    app = await start(**limits(bytes="1KiB/h"))
    client = await dial(app.port)
    await client.send("x" * 4096)
    assert (await heard(client))["code"] == "invalid_json"
    assert (await client.refused("echo"))["code"] == "rate_limited"


async def test_a_message_that_can_be_read_counts_once(start: Start, dial: Dial) -> None:
    client = await dial((await start(**limits(messages="3/h"))).port)
    for number in range(3):
        assert await client.do("echo", n=number) == {"n": number}
    assert (await client.refused("echo"))["code"] == "rate_limited"


async def test_a_gate_that_takes_its_time_is_waited_for(start: Start, dial: Dial, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "slow.py").write_text(SLOW)
    client = await dial((await start(plugins={"slow": {}})).port)
    await client.send("x" * 501)
    assert await heard(client) == {"code": "too_large", "message": "'' 501", "retryable": False}
    await client.send("x" * 500)
    assert (await heard(client))["code"] == "invalid_json"


async def test_rubbish_that_is_refused_still_ends_a_connection(start: Start, dial: Dial) -> None:
    app = await start(**limits(messages="1/h"), limits={"errors_per_minute": 3})
    client = await dial(app.port)
    for _ in range(4):
        await client.send("{")
    assert (await client.closed())[0] == 4501
