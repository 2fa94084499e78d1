"""Who is let in before anything looks at what they want: hosts, pages, proxies, subprotocols (PROTOCOL section 7).

A browser may be sent to us by any page. What it says about that page is its Origin, and by which name it knows us its
Host. Both count: a page whose name was rebound to our address (DNS rebinding) has an Origin equal to its Host.
"""

from collections.abc import Collection
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import attrs
from aiohttp import HttpVersion10, hdrs, web

from broker.config import Listen
from broker.errors import BrokerError
from broker.web.admission import Guest, full
from broker.web.problems import Handler, problem_of, with_status
from broker.web.proxies import Proxies
from broker.web.services import SERVICES

__all__ = [
    "ARRIVAL",
    "Arrival",
    "check_host",
    "check_origin",
    "check_page",
    "choose_protocol",
    "doors",
    "guest_of",
    "is_loopback",
    "names",
]

SOCKETS: Final = frozenset({"agent", "ws", "ws.format"})
"""The names of the routes where a connection becomes a socket, and stays."""
IDENTITY: Final = "identity"
"""The content coding of what is not packed (RFC 9110 section 8.4.1)."""
_GUEST: Final = web.RequestKey("_GUEST", Guest)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


@attrs.frozen(eq=False)
class Arrival:
    """How a request came that somebody else's server has taken.

    Attributes:
        guest: how it is counted.
        bound_to: the address that it came to.
    """

    guest: Guest
    bound_to: str


ARRIVAL: Final = web.RequestKey("ARRIVAL", Arrival)


@web.middleware
async def doors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request in under the address of its client, or refuse it before anything looks at it."""
    services = request.app[SERVICES]
    admission = services.admission
    arrival = request.get(ARRIVAL)
    line: Guest | None = arrival.guest if arrival else getattr(request.protocol, "guest", None)
    guest = line
    proxied = admission.proxies.trust(request.remote)
    response: web.StreamResponse
    try:
        if proxied:
            request = _past_proxies(request, admission.proxies)
            guest = admission.knock(request.remote or "")
        if guest is not None:
            request[_GUEST] = guest
        _check(request, line, guest)
    except BrokerError as e:
        if _is_socket(request):
            services.stats.handshakes[e.code] += 1
        response = problem_of(services, e)
    else:
        response = await handler(request)
    finally:
        if proxied and guest is not None:
            guest.known()
    if line is not None and line.spare and not response.prepared:
        response.force_close()
    return response


def guest_of(request: web.Request) -> Guest | None:
    """Return how the client of a request is counted; None outside of a broker's own server."""
    return request.get(_GUEST)


def _past_proxies(request: web.Request, proxies: Proxies) -> web.Request:
    """Return the request as it came to the outermost trusted proxy: with its client's address and scheme."""
    client = proxies.client(request.remote or "", request.headers.getall(hdrs.X_FORWARDED_FOR, []))
    scheme = proxies.scheme(request.headers.getall(hdrs.X_FORWARDED_PROTO, []))
    return request.clone(remote=client, scheme=scheme or request.scheme)


def _is_socket(request: web.Request) -> bool:
    return request.match_info.route.name in SOCKETS


def _check(request: web.Request, line: Guest | None, guest: Guest | None) -> None:
    _check_headers(request)
    if _is_socket(request):
        _check_socket(request, line)
        if guest is not None:
            guest.unknown(request.remote or "")
    elif hdrs.UPGRADE not in request.headers and guest is not None:
        guest.known()


# -- sockets --------------------------------------------------------------------------------------------


def _check_socket(request: web.Request, line: Guest | None) -> None:
    """Refuse what wants to stay where nobody more can, and pages that may not come in.

    Raises:
        BrokerError: `unavailable`, `overloaded` or `forbidden`.
    """
    services = request.app[SERVICES]
    if not services.ready:
        raise BrokerError("unavailable", "The broker is stopping.", retry_after=1.0)
    if line is not None and line.spare:
        raise full()
    services.load.check("connect")
    check_page(request)


def check_page(request: web.Request) -> None:
    """Let in our own pages, pages of listed origins, and clients that are no browsers and so send no Origin.

    Raises:
        BrokerError: `forbidden`.
    """
    listen = request.app[SERVICES].settings.listen
    headers = request.headers
    check_origin(
        headers.get(hdrs.ORIGIN),
        scheme=request.scheme,
        host=headers.get(hdrs.HOST),
        allowed=listen.origins,
        known=names(listen),
    )


def check_origin(
    origin: str | None, *, scheme: str, host: str | None, allowed: Collection[str], known: Collection[str] = ()
) -> None:
    """Let in our own pages, listed origins, and clients that send none.

    Args:
        origin: the Origin header.
        scheme: how we were reached, `http` or `https`.
        host: the Host header; an origin equal to `scheme://host` is our own page, if we are known by that name.
        allowed: further origins, compared exactly.
        known: the names that we are known by, beside addresses and those of this machine: a page of any other name
            may have been rebound to our address.

    Raises:
        BrokerError: `forbidden`.
    """
    if origin is None or origin in allowed:
        return
    if host is not None and _is_known(_name(host), known) and origin == _origin(scheme, host):
        return
    raise BrokerError("forbidden", "Pages of this origin may not connect.", hint="list it under listen.origins")


def choose_protocol(offered: list[str], known: list[str], default: str) -> str:
    """Return the first subprotocol that the client offers and we know; the default if it offers none.

    Raises:
        BrokerError: `invalid_message`: it offers only what we do not know.
    """
    if not offered:
        return default
    for name in offered:
        if name in known:
            return name
    raise BrokerError("invalid_message", "None of the offered subprotocols is known here.", hint=", ".join(known))


# -- names ----------------------------------------------------------------------------------------------


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address means this machine alone."""
    if host.rstrip(".").lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def names(listen: Listen) -> frozenset[str]:
    """Return the names that the configuration knows us by: those listed, and those of the listed origins."""
    return frozenset(listen.hosts) | {urlsplit(origin).hostname or "" for origin in listen.origins}


def check_host(host: str | None, *, bound_to: str, known: Collection[str] = (), strict: bool = False) -> None:
    """Refuse a Host that cannot be ours: that of a page which had its name rebound to our address.

    Args:
        host: the Host header.
        bound_to: the address that we listen on. On loopback only this machine's names can be ours.
        known: further names that are ours.
        strict: whether, listening elsewhere, no other names are; otherwise any may be.

    Raises:
        BrokerError: `forbidden`.
    """
    if host is None:
        return
    name, local = _name(host), is_loopback(bound_to)
    if name in known or is_loopback(name) or not (local or strict) or (not local and _is_address(name)):
        return
    raise BrokerError("forbidden", "This broker is not known by that name.", hint="list the name under listen.hosts")


def _check_headers(request: web.Request) -> None:
    """Refuse what browsers never send, bodies that would have to be unpacked, and names that are not ours.

    Raises:
        BrokerError: `invalid_message` or `forbidden`.
    """
    coding = request.headers.get(hdrs.CONTENT_ENCODING, IDENTITY)
    if coding.lower() != IDENTITY and request.body_exists:
        refusal = BrokerError("invalid_message", "Send the body as it is, not compressed.", field="Content-Encoding")
        raise with_status(refusal, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    for name in (hdrs.HOST, hdrs.ORIGIN):
        if len(request.headers.getall(name, [])) > 1:
            raise BrokerError("invalid_message", f"There is more than one {name}.")
    host = request.headers.get(hdrs.HOST)
    if not host and request.version > HttpVersion10:
        raise with_status(BrokerError("invalid_message", "There is no Host."), HTTPStatus.BAD_REQUEST)
    listen = request.app[SERVICES].settings.listen
    arrival = request.get(ARRIVAL)
    check_host(
        host, bound_to=arrival.bound_to if arrival else listen.host, known=names(listen), strict=bool(listen.hosts)
    )


def _name(host: str) -> str:
    """Return the name or address in a Host header, in lower case and without a port; empty if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        ok = parts.username is None and parts.netloc == host
        return (parts.hostname or "").rstrip(".") if ok else ""
    except ValueError:
        return ""


def _origin(scheme: str, host: str) -> str:
    """Return the origin of a page that came from here, as browsers write it: without the scheme's own port."""
    return f"{scheme}://{host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ''))}"


def _is_known(name: str, known: Collection[str]) -> bool:
    return name in known or is_loopback(name) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
