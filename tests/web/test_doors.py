"""Who is let in: hosts, pages and trusted proxies, as rules and through real sockets (PROTOCOL section 7)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.app import App
from broker.errors import BrokerError
from broker.web.doors import check_host, check_origin
from broker.web.proxies import Proxies, bucket, parse

Dial = Callable[..., Awaitable[Any]]
Get = Callable[..., Awaitable[tuple[int, Any, Any]]]
Knock = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

EVERYWHERE = {"host": "0.0.0.0", "insecure": True}
HERE = {"trusted_proxies": ["127.0.0.1"]}


# -- pages -------------------------------------------------------------------------------------------

ORIGINS = ("https://chat.example.org", "https://xn--bcher-kva.example:8443")


@pytest.mark.parametrize(
    ("origin", "scheme", "host"),
    [
        (None, "http", "127.0.0.1:3000"),
        (None, "http", None),
        ("http://127.0.0.1:3000", "http", "127.0.0.1:3000"),
        ("http://localhost:3000", "http", "LocalHost:3000"),
        ("http://localhost", "http", "localhost:80"),
        ("https://[::1]", "https", "[::1]:443"),
        ("http://192.0.2.7:3000", "http", "192.0.2.7:3000"),
        ("https://broker.example.org", "https", "broker.example.org"),
        ("https://chat.example.org", "https", "elsewhere.example"),
        ("https://xn--bcher-kva.example:8443", "http", "127.0.0.1:3000"),
    ],
)
def test_pages_that_may_come_in(origin: str | None, scheme: str, host: str | None) -> None:
    check_origin(origin, scheme=scheme, host=host, allowed=ORIGINS, known={"broker.example.org"})


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("null", "127.0.0.1:3000"),
        ("", "127.0.0.1:3000"),
        ("file://", "127.0.0.1:3000"),
        ("http://127.0.0.1:3001", "127.0.0.1:3000"),  # another server on this machine
        ("http://localhost:3000", "127.0.0.1:3000"),
        ("http://127.0.0.1", "127.0.0.1:3000"),
        ("https://127.0.0.1:3000", "127.0.0.1:3000"),
        ("http://127.0.0.1:3000/", "127.0.0.1:3000"),
        ("http://user@127.0.0.1:3000", "127.0.0.1:3000"),
        ("http://user@127.0.0.1:3000", "user@127.0.0.1:3000"),
        ("HTTP://127.0.0.1:3000", "127.0.0.1:3000"),
        ("http://127.0.0.1:3000 ", "127.0.0.1:3000"),
        ("http://127.0.0.1:3000, https://chat.example.org", "127.0.0.1:3000"),
        ("https://chat.example.org:443", "127.0.0.1:3000"),
        ("https://Chat.example.org", "127.0.0.1:3000"),
        ("https://chat.example.org.", "127.0.0.1:3000"),
        ("https://chat.example.org.evil.example", "127.0.0.1:3000"),
        ("https://evil-chat.example.org", "127.0.0.1:3000"),
        ("https://bücher.example:8443", "127.0.0.1:3000"),
        ("http://evil.example:3000", "evil.example:3000"),  # rebound to us: Origin and Host agree
        ("http://127.0.0.1.evil.example", "127.0.0.1.evil.example"),
        ("http://2130706433:3000", "2130706433:3000"),
        ("http://evil.example", None),
        ("http://", ""),
    ],
)
def test_pages_that_may_not(origin: str, host: str | None) -> None:
    with pytest.raises(BrokerError) as refusal:
        check_origin(origin, scheme="http", host=host, allowed=ORIGINS, known={"broker.example.org"})
    assert refusal.value.code == "forbidden"


# -- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "bound_to", "strict", "fine"),
    [
        ("127.0.0.1:3000", "127.0.0.1", False, True),
        ("localhost.:3000", "127.0.0.1", False, True),
        ("Chat.Example.Org.", "127.0.0.1", False, True),
        ("evil.example", "127.0.0.1", False, False),
        ("192.0.2.7", "127.0.0.1", False, False),
        ("0.0.0.0:3000", "127.0.0.1", False, False),
        ("chat.example.org@evil.example", "127.0.0.1", False, False),
        ("chat.example.org/evil", "127.0.0.1", False, False),
        ("[::1", "127.0.0.1", False, False),
        ("", "127.0.0.1", False, False),
        ("any.example", "0.0.0.0", False, True),
        ("any.example", "0.0.0.0", True, False),
        ("chat.example.org:80", "0.0.0.0", True, True),
        ("192.0.2.7:3000", "0.0.0.0", True, True),
        ("localhost:3000", "0.0.0.0", True, True),
    ],
)
def test_names_that_can_be_ours(host: str, bound_to: str, strict: bool, fine: bool) -> None:
    def check() -> None:
        check_host(host, bound_to=bound_to, known={"chat.example.org"}, strict=strict)

    if fine:
        check()
        return
    with pytest.raises(BrokerError) as refusal:
        check()
    assert (refusal.value.code, refusal.value.hint) == ("forbidden", "list the name under listen.hosts")


async def test_beyond_loopback_only_pages_of_listed_names_and_addresses_are_our_own(start: Start, knock: Knock) -> None:
    app = await start(listen=EVERYWHERE)
    assert (await knock(app.port, Host="mybox:80", Origin=None)).status == 101
    assert (await knock(app.port, Host="mybox", Origin="http://mybox")).status == 403
    assert (await knock(app.port, Host="192.0.2.7", Origin="http://192.0.2.7")).status == 101


async def test_a_listed_name_is_ours_and_then_no_other_is(start: Start, knock: Knock) -> None:
    app = await start(listen={**EVERYWHERE, "hosts": ["mybox"]})
    assert (await knock(app.port, Host="mybox", Origin="http://mybox")).status == 101
    assert (await knock(app.port, Host="other", Origin=None)).status == 403
    assert (await knock(app.port, "/livez", Host="other")).status == 403


async def test_on_loopback_a_proxy_may_call_us_by_a_listed_name(start: Start, knock: Knock) -> None:
    app = await start(listen={"hosts": ["chat.example.org"], "origins": ["https://app.example.org"]})
    for host in ("chat.example.org", "app.example.org"):
        assert (await knock(app.port, Host=host)).status == 101
    assert (await knock(app.port, Host="other.example.org")).status == 403


async def said(port: int, *lines: str) -> int:
    """Send a request made of these lines, and return the status it is answered with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "headers",
    [
        ("Host: localhost", "Host: localhost"),
        ("Host: localhost", "Host: evil.example"),
        (),
        ("Host:",),
        ("Host: localhost", "Origin: http://localhost", "Origin: https://evil.example"),
    ],
)
async def test_headers_that_no_browser_sends_are_a_bad_request(app: App, headers: tuple[str, ...]) -> None:
    assert await said(app.port, "GET /livez HTTP/1.1", *headers) == 400


async def test_http_1_0_needs_no_host(app: App) -> None:
    assert await said(app.port, "GET /livez HTTP/1.0") == 200


# -- proxies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7:4711 ", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unknown", None),
        ("_hidden", None),
        ("", None),
        ("unix:", None),
        ("fe80::1%eth0", None),
        ("192.0.2.300", None),
        ("192.0.2.7, 192.0.2.8", None),
    ],
)
def test_addresses_as_proxies_write_them(text: str, address: str | None) -> None:
    found = parse(text)
    assert (None if found is None else str(found)) == address


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([], "10.0.0.1"),
        (["203.0.113.9"], "203.0.113.9"),
        (["6.6.6.6, 203.0.113.9"], "203.0.113.9"),  # the left one the client has made up
        (["6.6.6.6", "203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (["[2001:db8::9]:4711, 10.0.0.2"], "2001:db8::9"),
        (["203.0.113.9, rubbish"], "10.0.0.1"),
        (["203.0.113.9, rubbish, 10.0.0.2"], "10.0.0.1"),
        (["rubbish, 203.0.113.9"], "203.0.113.9"),
        ([""], "10.0.0.1"),
        ([", ".join(["10.0.0.2"] * 33)], "10.0.0.1"),
    ],
)
def test_the_client_is_the_first_that_is_not_trusted_from_the_right(headers: list[str], client: str) -> None:
    assert Proxies(["10.0.0.0/8", "fd00::/8"]).client("10.0.0.1", headers) == client


def test_nobody_is_trusted_by_default_and_only_networks_that_are_listed() -> None:
    assert not Proxies([]).trust("127.0.0.1")
    proxies = Proxies(["10.0.0.0/8", "::1"])
    assert [proxies.trust(peer) for peer in ("10.1.2.3", "::1", "::ffff:10.1.2.3")] == [True] * 3
    assert [proxies.trust(peer) for peer in ("11.0.0.1", "::2", "", None)] == [False] * 4


def test_the_nearest_proxy_says_by_which_scheme_it_was_reached() -> None:
    proxies = Proxies(["10.0.0.1"])
    assert proxies.scheme(["https"]) == "https"
    assert proxies.scheme(["https, HTTP"]) == "http"
    assert proxies.scheme([]) is None
    assert proxies.scheme(["javascript"]) is None


def test_ipv6_counts_by_site() -> None:
    assert bucket("2001:db8:1:2:3:4:5:6") == bucket("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert bucket("2001:db8:1:3::1") != bucket("2001:db8:1:2::1")
    assert bucket("::ffff:192.0.2.7") == bucket("192.0.2.7") == "192.0.2.7"


async def address_of(client: Any) -> str:
    """Return the address that a client is known by."""
    data = await client.do("get_connections")
    (address,) = {known["address"] for known in data["connections"]}
    return str(address)


async def test_a_trusted_proxys_word_reaches_everybody(start: Start, dial: Dial, people: dict[str, Any]) -> None:
    app = await start(listen=HERE, **people)
    headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9"}
    client = await dial(app.port, "?name=ann&scopes=admin", additional_headers=headers)
    assert await address_of(client) == "203.0.113.9"


async def test_anybody_elses_word_does_not(start: Start, dial: Dial, people: dict[str, Any]) -> None:
    app = await start(listen={"trusted_proxies": ["10.0.0.0/8"]}, **people)
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Forwarded": "for=203.0.113.9"}
    client = await dial(app.port, "?name=ann&scopes=admin", additional_headers=headers)
    assert await address_of(client) == "127.0.0.1"


async def test_behind_https_our_own_page_is_one_of_https(start: Start, knock: Knock) -> None:
    app = await start(listen=HERE | {"hosts": ["chat.example.org"]})
    page = {"Host": "chat.example.org", "Origin": "https://chat.example.org"}
    assert (await knock(app.port, **page)).status == 403
    assert (await knock(app.port, X_Forwarded_Proto="https", **page)).status == 101
    http = page | {"Origin": "http://chat.example.org"}
    assert (await knock(app.port, X_Forwarded_Proto="https", **http)).status == 403
