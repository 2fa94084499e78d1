"""The HTTP API against schemathesis: whatever its description allows, or forbids, is answered as it says.

Requests are made from the description that the broker serves, valid and broken ones, with a fixed seed: every corner
of each parameter of a broker that asks for tokens, and chance ones of a broker that asks for none.
"""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from broker.app import App

Start = Callable[..., Awaitable[App]]

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance"),
    *("response_schema_conformance", "negative_data_rejection", "positive_data_acceptance", "unsupported_method"),
    "ignored_auth",
)
SETTINGS = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 422, 429, 503]

{}
"""
BEYOND_SCHEMAS = """
[[operations]]
include-operation-id = ["{}"]
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, 409, 422, 429, 503]
"""
"""For what a schema cannot say: the broker makes cursors, names have to be printable, a turn needs an id or a key."""
OPERATIONS = (
    "list_connections",
    "list_users_connections",
    "list_rooms",
    "list_sessions",
    "list_events",
    "publish",
    "ask_agent",
    "send",
    "start_turn",
    "issue_ticket",
)
SHOWS_TOKENS = '''
from broker.errors import BrokerError
from broker.hooks import Handshake, Plugin, Principal


class Doorman(Plugin):
    """Knows one token."""

    def on_handshake(self, handshake: Handshake):
        if handshake.headers.get("Authorization") != "Bearer good":
            raise BrokerError("unauthenticated")
        return Principal(user="backend", scopes=frozenset({"api", "admin"}))
'''


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("phase", "guarded", "least"), [("coverage", True, 500), ("fuzzing", False, 100)])
async def test_no_request_is_answered_otherwise_than_described(
    start: Start, tmp_path: Path, phase: str, guarded: bool, least: int
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/doorman.py").write_text(SHOWS_TOKENS)
    app = await start(plugins={"doorman": {}} if guarded else {}, projects={"agent": "echo"})
    settings = SETTINGS.format(BEYOND_SCHEMAS.format('", "'.join(OPERATIONS)))
    (tmp_path / "schemathesis.toml").write_text(settings)
    process = await asyncio.create_subprocess_exec(
        *(str(SCHEMATHESIS), "run", f"http://127.0.0.1:{app.port}/api/v1/openapi.json"),
        *("--phases", phase, "--max-examples", "8", "--seed", "1", "--continue-on-failure"),
        *("--checks", ",".join(CHECKS), "--no-color", "--output-truncate", "false"),
        *(("--header", "Authorization: Bearer good") if guarded else ()),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    text = out.decode()
    assert process.returncode == 0, text
    tried = re.search(r"(\d+) generated", text)
    assert tried is not None
    assert int(tried[1]) > least
    assert app.stats.errors["internal"] == 0
