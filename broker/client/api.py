"""A thin client of the HTTP API (PROTOCOL section 5)."""

import errno
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import msgspec
from aiohttp import ClientError, ClientOSError, ClientResponse, ClientSession, ClientTimeout, ServerDisconnectedError
from yarl import URL

from broker.client.errors import BrokerError, Disconnected, TimedOut, error_of, reason_of
from broker.client.tokens import GetToken, Tokens
from broker.ids import new_id

__all__ = ["Api"]

TIMEOUT: Final = 30.0
PREFIX: Final = "/api/v1/"

_GOOD: Final = range(200, 300)
_BROKEN: Final = frozenset({errno.ECONNRESET, errno.EPIPE})


class Api:
    """Asks the HTTP API, for as long as the `async with` block runs.

    ::

        async with Api("http://127.0.0.1:3000") as api:
            print(await api.get("stats"))
            await api.post("rooms/{}/events", {"event": "shipped", "data": 4711}, "order-4711")

    Args:
        url: where the broker's HTTP begins.
        token: a token or key with scope `api`; or a function, asynchronous or not, that gives one.
        timeout: seconds that an answer may take.

    Raises:
        ValueError: `url` is no address of a broker.
    """

    def __init__(self, url: str, token: str | GetToken | None = None, *, timeout: float = TIMEOUT) -> None:
        parts = URL(url)
        if parts.scheme not in {"http", "https"} or not parts.host:
            raise ValueError("the address of a broker's HTTP looks like http://127.0.0.1:3000")
        self._base = str(parts.with_query(None).with_fragment(None)).rstrip("/") + PREFIX
        self._tokens = Tokens(token)
        self._timeout = ClientTimeout(total=timeout)
        self._session: ClientSession | None = None

    def __repr__(self) -> str:
        return f"<Api at {self._base}>"

    async def __aenter__(self) -> Self:
        self._session = ClientSession(timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, /, *names: str, **query: Any) -> Any:
        """Return what is at `path`, such as `stats`.

        Args:
            path: behind `/api/v1/`; with `names` each `{}` in it becomes one of these, escaped.
            names: ids and names of rooms that are parts of the path.
            query: what else is asked for; what is None is left out.

        Raises:
            BrokerError: the broker's refusal, as the class for its code.
            Disconnected: nobody answers there.
            TimedOut: no answer came in time.
        """
        return await self._ask("GET", path, names, query=query)

    async def post(self, path: str, body: Any = None, /, *names: str, key: str | None = None) -> Any:
        """Send `body` to `path`, and return the answer.

        If the connection breaks before the answer the same is sent once more, under the same `Idempotency-Key`, which
        the broker does once.

        Args:
            path: as for `get`.
            body: any JSON.
            names: as for `get`.
            key: the `Idempotency-Key`, if you want to send the same again yourself; one is made if left out.

        Raises:
            BrokerError, Disconnected, TimedOut: as for `get`; it may have been done.
        """
        return await self._ask("POST", path, names, body=body, key=key or new_id())

    async def delete(self, path: str, /, *names: str, key: str | None = None) -> Any:
        """Delete what is at `path`; as `post`."""
        return await self._ask("DELETE", path, names, key=key or new_id())

    async def _ask(
        self,
        method: str,
        path: str,
        names: tuple[str, ...],
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
        key: str | None = None,
    ) -> Any:
        if self._session is None:
            raise RuntimeError("use it as `async with Api(…) as api`")
        where = path.format(*(quote(name, safe="") for name in names)) if names else path
        url = URL(self._base + where, encoded=True)
        if query:
            url = url.update_query({name: _spelled(value) for name, value in query.items() if value is not None})
        headers = {} if key is None else {"Idempotency-Key": key}
        data = None
        if method == "POST":
            data = msgspec.json.encode(body)
            headers["Content-Type"] = "application/json"
        try:
            token = await self._tokens.get()
        except ConnectionError as e:
            raise Disconnected(f"{e}.") from e
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            try:
                return await self._once(self._session, method, url, data, headers)
            except (ServerDisconnectedError, ClientOSError) as e:
                if isinstance(e, ClientOSError) and e.errno not in _BROKEN:
                    raise
                return await self._once(self._session, method, url, data, headers)
        except TimeoutError:
            raise TimedOut("timeout", f"No answer came within {self._timeout.total:g} s.") from None
        except (ClientError, OSError) as e:
            raise Disconnected(f"There is no broker at {self._base.removesuffix(PREFIX)}: {reason_of(e)}.") from None

    async def _once(
        self, session: ClientSession, method: str, url: URL, data: bytes | None, headers: dict[str, str]
    ) -> Any:
        async with session.request(method, url, data=data, headers=headers, allow_redirects=False) as answer:
            return _read(answer, await answer.read())


def _read(answer: ClientResponse, body: bytes) -> Any:
    try:
        said = msgspec.json.decode(body) if body else None
    except msgspec.DecodeError:
        pass
    else:
        if answer.status in _GOOD:
            return said
        if isinstance(said, dict) and isinstance(said.get("code"), str):
            raise error_of(said)
    raise BrokerError("internal", f"What is there answers with HTTP {answer.status}, and not as a broker does.")


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
