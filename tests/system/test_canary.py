"""What is secret is nowhere to be found afterwards: not in the log, a metric, an answer, a trace or a file.

Secrets are used well and badly wherever they can travel, in a broker that logs all it can. A secret counts as found
if any twelve characters of it in a row are.
"""

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import jwt
from aiohttp import ClientError, ClientSession
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

WINDOW = 12
PAGE = "https://chat.example.org"
SECRET = "canary-secret-of-hmac-0123456789-abcdefghijklmn"
API_KEY = "canary-api-key-zyxwvutsrqponmlkjihgfedcba-98765"
LEAKY = '''
from loguru import logger

from broker.hooks import Handshake, Plugin


class Leaky(Plugin):
    """What nobody should write."""

    def on_handshake(self, handshake: Handshake) -> None:
        logger.info("knocking with {}", dict(handshake.headers))
'''

Make = Callable[..., Any]


def token(secret: str = SECRET, **claims: Any) -> str:
    now = int(time.time())
    said = {"iss": "actor-broker", "aud": "actor-broker", "sub": "ann", "iat": now - 100, "exp": now + 600, **claims}
    return jwt.encode(said, secret, "HS256")


@attrs.define
class Canaries:
    """The secrets that were used, and what the broker said."""

    secrets: dict[str, str] = attrs.field(factory=dict)
    said: list[tuple[str, bytes]] = attrs.field(factory=list)

    def add(self, name: str, secret: str) -> str:
        self.secrets[name] = secret
        return secret

    def hear(self, where: str, what: str | bytes) -> None:
        self.said.append((where, what.encode() if isinstance(what, str) else what))

    def found(self) -> Iterator[str]:
        """Yield each secret that is somewhere, and where."""
        for name, secret in self.secrets.items():
            # The header of a JWT is the same for all, and what it says is no secret.
            hidden = secret.partition(".")[2] if secret.startswith("eyJ") else secret
            windows = {hidden[at : at + WINDOW].encode() for at in range(len(hidden) - WINDOW + 1)}
            windows |= {base64.b64encode(hidden.encode())[:WINDOW], quote(hidden[:WINDOW]).encode()}
            for where, what in self.said:
                at = min((at for window in windows if (at := what.find(window)) >= 0), default=None)
                if at is not None:
                    yield f"{name} in {where}: {what[max(0, at - 60) : at + WINDOW]!r}"


def settings(**more: Any) -> dict[str, Any]:
    auth = {
        "mode": "jwt",
        "keys": [{"algorithm": "HS256", "secret": SECRET}],
        "api_keys": {"ops": {"key": API_KEY, "scopes": ["api", "admin", "debug"]}},
        "cookie": {"name": "t", "origins": [PAGE]},
        "first_message": "5s",
        **more.pop("auth", {}),
    }
    return {
        "listen": {"origins": [PAGE]},
        "log": {"level": "trace", "format": "text"},
        "plugins": {"auth": auth, "metrics": {}, **more.pop("plugins", {})},
        **more,
    }


async def knock(heard: Canaries, where: str, url: str, *messages: Any, **options: Any) -> None:
    """Open a socket, say something, and keep all that is answered."""
    try:
        async with connect(url, compression=None, close_timeout=2, **options) as socket:
            for message in messages:
                await socket.send(message if isinstance(message, str) else json.dumps(message))
            await socket.send(json.dumps({"id": "last", "type": "request", "action": "ping"}))
            while True:
                text = str(await asyncio.wait_for(socket.recv(), 10))
                heard.hear(f"a message to {where}", text)
                if '"last"' in text:
                    return
    except ConnectionClosed as e:
        heard.hear(f"the close of {where}", str(e.rcvd))
    except InvalidStatus as e:
        heard.hear(f"the refusal of {where}", f"{e.response.headers} {e.response.body!r}")
    except (InvalidMessage, OSError) as e:
        heard.hear(f"the refusal of {where}", str(e))


async def use_by_sockets(heard: Canaries, base: str) -> None:
    """Show good and bad tokens in each place where one can travel, and where none should."""
    kinds = {"good": {}, "expired": {"exp": 1_600_000_000, "iat": 1_599_999_000}, "foreign": {"secret": "y" * 64}}
    for kind, how in kinds.items():

        def fresh(where: str, kind: str = kind, how: dict[str, Any] = how) -> str:
            return heard.add(f"the {kind} token of {where}", token(jti=f"{where}{kind}", **how))

        def auth(text: str) -> dict[str, Any]:
            return {"id": "1", "type": "request", "action": "auth", "payload": {"token": text}}

        header = {"Authorization": f"Bearer {fresh('header')}"}
        await knock(heard, "header", f"{base}/ws", auth(fresh("refresh")), additional_headers=header)
        await knock(heard, "offer", f"{base}/ws", subprotocols=["broker.v1.json", f"bearer.{fresh('offer')}"])
        await knock(heard, "bare offer", f"{base}/ws", subprotocols=[fresh("bare-offer")])
        cookie = {"Cookie": f"t={fresh('cookie')}"}
        await knock(heard, "cookie", f"{base}/ws", additional_headers=cookie, origin=PAGE)
        await knock(heard, "foreign page", f"{base}/ws", additional_headers=cookie, origin="https://evil.example")
        await knock(heard, "query", f"{base}/ws?access_token={fresh('query')}")
        await knock(heard, "wrong query", f"{base}/ws?token={fresh('wrong-query')}&ticket={fresh('ticket-query')}")
        await knock(heard, "path", f"{base}/ws/{fresh('path')}")
        await knock(heard, "first message", f"{base}/ws", auth(fresh("first-message")))
        await knock(heard, "misshapen", f"{base}/ws", {**auth(""), "payload": {"toekn": fresh("misshapen")}})
        await knock(heard, "bare text", f"{base}/ws", fresh("bare-text"))
        await knock(heard, "no scheme", f"{base}/ws", additional_headers={"Authorization": fresh("no-scheme")})
        await knock(heard, "agent", f"{base}/agent", additional_headers={"Authorization": f"Bearer {fresh('agent')}"})
        long = fresh("long") + "x" * 8000
        await knock(heard, "long header", f"{base}/ws", additional_headers={"Authorization": f"Bearer {long}"})
        await knock(heard, "long query", f"{base}/ws?access_token={long}")
        await knock(heard, "long message", f"{base}/ws", auth(long))


async def use_by_requests(heard: Canaries, base: str) -> str:
    """Ask the HTTP API, get tickets and use them; return the metrics."""
    paths = ["sessions", "connections", "stats", "rooms", "trace/x", f"trace/{heard.add('trace', token(jti='tr'))}"]
    async with ClientSession(base) as http:

        async def ask(path: str, shown: str | None, method: str = "GET", **options: Any) -> bytes:
            headers = {"Authorization": f"Bearer {shown}"} if shown else {}
            try:
                async with http.request(method, path, headers=headers, **options) as answer:
                    body = await answer.read()
                    heard.hear(f"the headers of {path}", str(answer.headers))
            except ClientError:
                return b""
            if path != "/api/v1/tickets" or answer.status != 201:
                heard.hear(f"the answer to {method} {path[:40]}", body)
            return body

        bad = heard.add("a bad API key", f"{API_KEY[::-1]}")
        for shown in (API_KEY, bad, heard.add("a token for requests", token(scope="api debug", jti="http")), None):
            for path in paths:
                await ask(f"/api/v1/{path}", shown)
        for body in ({"user": "ann"}, {"user": 5}):
            await ask("/api/v1/revocations", bad, "POST", json=body)
        for _ in range(2):
            made = json.loads(await ask("/api/v1/tickets", API_KEY, "POST", json={"user": "ann", "expires_in": 60}))
            ticket = heard.add("a ticket", made["ticket"])
            for _ in range(2):
                await knock(heard, "ticket", f"{base.replace('http', 'ws')}/ws?ticket={ticket}")
            await knock(heard, "offered ticket", f"{base.replace('http', 'ws')}/ws", subprotocols=[f"ticket.{ticket}"])
        revoked = heard.add("a token to revoke", token(jti="revoked", sub="zoe"))
        await ask("/api/v1/revocations", API_KEY, "POST", json={"user": "zoe"})
        await ask("/api/v1/sessions", revoked)
        async with http.get("/metrics") as answer:
            return await answer.text()


async def work(heard: Canaries, dial: Callable[..., Awaitable[Any]], port: int) -> None:
    """Have a session with a turn, a room and details of connections, by somebody with a token."""
    text = heard.add("the token of the session", token(scope="admin debug", jti="work"))
    client = await dial(port, additional_headers={"Authorization": f"Bearer {text}"})
    session_id = (await client.do("session.create"))["session_id"]
    await client.do("turn.start", session_id=session_id, client_msg_id="1", content="hello")
    await client.records("turn.ended")
    await client.do("room.publish", room="lobby", data="hello")
    await client.do("auth", token=heard.add("the token of a refresh", token(scope="admin", jti="again")))
    heard.hear("the connections", (await client.ask("get_connections")).text)


def hear_arguments(heard: Canaries, broker: Any) -> None:
    """Keep what every user of the machine can see of the process."""
    heard.hear("the arguments", Path(f"/proc/{broker.process.pid}/cmdline").read_bytes())


def hear_the_rest(heard: Canaries, broker: Any) -> None:
    """Keep what the commands print, and all files but the configuration, which holds the secrets."""
    command = Path(sys.executable).with_name("broker")
    for arguments in (["check-config", "--print"], ["plugins"], ["plugins", "auth"], ["checktoken", token("z" * 64)]):
        done = subprocess.run([command, *arguments], cwd=broker.folder, capture_output=True, timeout=30, check=False)
        heard.hear(f"broker {arguments[0]}", done.stdout + done.stderr)
    made = subprocess.run(
        [command, "gentoken", "--user", "ann"], cwd=broker.folder, capture_output=True, timeout=30, check=False
    )
    heard.add("a token of gentoken", made.stdout.decode().strip())
    heard.hear("the complaints of gentoken", made.stderr)
    files = [file for file in broker.folder.rglob("*") if file.is_file() and file.name != "config.yaml"]
    assert {"log", "broker.db"} <= {file.name for file in files}
    for file in files:
        heard.hear(f"the file {file.name}", file.read_bytes())


async def test_no_secret_is_anywhere(make_broker: Make, dial: Callable[..., Awaitable[Any]]) -> None:
    broker = make_broker(**settings(auth={"query": "access_token", "revoked_file": "revoked"}))
    broker.start()
    heard = Canaries({"the HMAC secret": SECRET, "the API key": API_KEY})
    await use_by_sockets(heard, f"ws://127.0.0.1:{broker.port}")
    heard.hear("the metrics", await use_by_requests(heard, f"http://127.0.0.1:{broker.port}"))
    await work(heard, dial, broker.port)
    hear_arguments(heard, broker)
    assert broker.end() == 0, broker.log
    hear_the_rest(heard, broker)
    assert len(heard.secrets) > 50
    found = sorted(set(heard.found()))
    assert found == [], "\n".join(found)


async def test_a_token_in_a_query_that_is_not_read_is_nowhere_either(make_broker: Make) -> None:
    broker = make_broker(**settings())
    broker.start()
    heard = Canaries()
    for name in ("access_token", "token", "t"):
        text = heard.add(name, token(jti=name))
        await knock(heard, name, f"ws://127.0.0.1:{broker.port}/ws?{name}={text}")
    assert broker.end() == 0, broker.log
    heard.hear("the file log", broker.log)
    found = list(heard.found())
    assert found == [], "\n".join(found)


async def test_a_leak_that_was_planted_is_found(make_broker: Make) -> None:
    broker = make_broker(**settings(plugins={"leaky": {}}))
    (broker.folder / "plugins").mkdir(mode=0o755)
    (broker.folder / "plugins" / "leaky.py").write_text(LEAKY)
    (broker.folder / "plugins" / "leaky.py").chmod(0o644)
    broker.start()
    heard = Canaries()
    text = heard.add("the token", token())
    header = {"Authorization": f"Bearer {text}"}
    await knock(heard, "header", f"ws://127.0.0.1:{broker.port}/ws", additional_headers=header)
    assert broker.end() == 0
    heard.hear("the file log", broker.log)
    (found,) = heard.found()
    assert found.startswith("the token in the file log: ")
