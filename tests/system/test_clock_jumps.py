"""The wall clock jumps under a running broker: libfaketime moves it, and leaves the monotonic one alone.

A clock that jumps back prolongs nobody's token; one that jumps forward ends what it says is over, and nothing else.
"""

import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import jwt
import pytest

SECRET = "0123456789abcdef" * 4
API_KEY = "an-api-key-of-forty-characters-or-more-00"
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
SLACK = 1.5
"""Seconds within which an expired token has to be noticed: one (PROTOCOL 2c, 4001), and what a busy machine adds."""

Dial = Callable[..., Awaitable[Any]]


@attrs.frozen
class Clock:
    """The wall clock of a broker, as it can be moved."""

    file: Path

    def jump(self, seconds: int) -> None:
        """Move it, from what it really is; the file is replaced at once, so that nobody reads half of it."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self.file)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of brokers that are started from now on."""
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed: clocks that jump are not tested (apt install faketime)")
    clock = Clock(tmp_path / "clock")
    clock.jump(0)
    monkeypatch.setenv("LD_PRELOAD", str(LIBRARIES[0]))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(clock.file))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("DONT_FAKE_MONOTONIC", "1")
    return clock


@pytest.fixture
def broker(make_broker: Callable[..., Any], clock: Clock) -> Any:
    """A broker whose heartbeats are due every second, and whose agent never ends by itself."""
    auth = {
        "mode": "jwt",
        "keys": [{"algorithm": "HS256", "secret": SECRET}],
        "api_keys": {"ops": {"key": API_KEY, "scopes": ["api"]}},
    }
    broker = make_broker(
        plugins={"auth": auth},
        heartbeat={"interval": "1s", "timeout": "900ms"},
        agents={"echo": {"kind": "echo"}, "endless": {"kind": "echo", "delay": "1h", "deadlines": {"turn": "1h"}}},
        shutdown={"grace": "0"},
    )
    broker.start()
    return broker


def bearer(seconds: float, at: float | None = None) -> dict[str, Any]:
    """Return the options of a client whose token is good for so long, by a clock that shows `at`."""
    now = time.time() if at is None else at
    said = {"iss": "actor-broker", "aud": "actor-broker", "sub": "ann", "iat": now, "exp": now + seconds}
    return {"additional_headers": {"Authorization": f"Bearer {jwt.encode(said, SECRET, 'HS256')}"}}


async def test_a_clock_that_jumps_back_prolongs_no_token(broker: Any, clock: Clock, dial: Dial) -> None:
    lasting = await dial(broker.port, **bearer(600))
    began = time.monotonic()
    ending = await dial(broker.port, **bearer(2))
    clock.jump(-3600)
    there = json.dumps((await lasting.do("ping"))["at"])
    assert there < json.dumps(time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time.time() - 3000))), "the clock did jump"
    assert (await ending.closed())[0] == 4001
    assert 1 <= time.monotonic() - began < 2 + SLACK
    await lasting.do("ping")
    new = await dial(broker.port, **bearer(600, at=time.time() - 3600))
    await new.do("ping")


async def test_a_clock_that_jumps_ahead_ends_what_is_over_and_nothing_else(
    broker: Any, clock: Clock, dial: Dial
) -> None:
    ann = await dial(broker.port, **bearer(600))
    backend = await dial(broker.port, additional_headers={"Authorization": f"Bearer {API_KEY}"})
    session_id = (await backend.do("session.create", agent="endless"))["session_id"]
    await backend.do("turn.start", session_id=session_id, client_msg_id="1", content="hello world")
    await backend.event("message.delta")
    clock.jump(86_400)
    jumped = time.monotonic()
    assert (await ann.closed())[0] == 4001
    assert time.monotonic() - jumped < SLACK
    # Its heartbeat falls due twice while this waits for a token of today to end.
    short = await dial(broker.port, **bearer(2.2, at=time.time() + 86_400))
    assert (await short.closed())[0] == 4001
    assert 2 <= time.monotonic() - jumped < 2.2 + 2 * SLACK
    state = await backend.do("session.attach", session_id=session_id, after_seq=-1)
    assert state["turn"]["state"] == "running"
    assert not [message for message in backend.heard if message.get("event") == "turn.ended"]
    other = (await backend.do("session.create"))["session_id"]
    await backend.do("turn.start", session_id=other, client_msg_id="1", content="still here")
    ended = await backend.take(lambda message: message.get("event") == "turn.ended" and message["session_id"] == other)
    assert ended["data"]["outcome"] == "completed"
