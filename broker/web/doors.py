"""Who is let in before the handshake: pure checks of a request's headers (PROTOCOL section 7)."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from broker.errors import BrokerError

__all__ = ["check_host", "check_origin", "choose_protocol", "is_loopback"]


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address means this machine alone."""
    if host.rstrip(".").lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_host(host: str | None, *, bound_to: str) -> None:
    """Refuse a Host that cannot be ours while we listen on loopback: a page that rebinds its name to us.

    Raises:
        BrokerError: `forbidden`.
    """
    if host is None or not is_loopback(bound_to):
        return
    name = urlsplit(f"//{host}").hostname or ""
    if not is_loopback(name):
        raise BrokerError("forbidden", "This broker listens on loopback and is not known by that name.")


def check_origin(origin: str | None, *, scheme: str, host: str | None, allowed: tuple[str, ...]) -> None:
    """Let in our own pages, listed origins, and clients that are no browsers and so send none.

    Args:
        origin: the Origin header.
        scheme: how we were reached, `http` or `https`.
        host: the Host header; an origin equal to `scheme://host` is our own page.
        allowed: further origins, compared exactly.

    Raises:
        BrokerError: `forbidden`.
    """
    if origin is None or origin in allowed:
        return
    if host is not None and origin == f"{scheme}://{host}":
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
