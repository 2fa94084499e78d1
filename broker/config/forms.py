"""Text with a form of its own: origins, networks, the address of a store."""

import ipaddress
import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Final
from urllib.parse import urlsplit

import attrs

__all__ = ["Host", "HttpUrl", "Network", "Origin", "Rule", "SocketUrl", "StoreUrl", "is_loopback"]

_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]{1,5}))?", re.ASCII)
_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", re.ASCII)
_DEFAULT_PORT: Final = {"http": "80", "https": "443"}


@attrs.frozen
class Rule:
    """Refuses text that has the right type and the wrong form.

    Attributes:
        check: raises ValueError with a sentence.
    """

    check: Callable[[str], object]


def check_origin(text: str) -> None:
    """Refuse what no browser sends as Origin, since it would never match (PROTOCOL section 7).

    Raises:
        ValueError: it is not `scheme://host[:port]` in the form that browsers use.
    """
    if text in {"*", "null"}:
        raise ValueError("list each origin exactly, such as https://chat.example.org")
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError("expected https://host or https://host:port in lower case, without a path")
    if match[3] is not None and match[3] == _DEFAULT_PORT.get(match[1]):
        raise ValueError(f"browsers leave the port {match[3]} out; write {match[1]}://{match[2]}")


def check_name(text: str) -> None:
    """Refuse what no browser would put before the port in a Host header.

    Raises:
        ValueError: it is not a name in lower case, without scheme and port; one of other scripts is written `xn--…`.
    """
    if not _HOST.fullmatch(text):
        raise ValueError("expected a name in lower case such as chat.example.org, without scheme and port")


def check_network(text: str) -> None:
    """Refuse what is neither an address nor a network.

    Raises:
        ValueError: it is not, or it has host bits set.
    """
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("expected an address or a network such as 10.0.0.0/8") from None


def check_store(text: str) -> None:
    """Refuse the address of a store that there is no engine for.

    Raises:
        ValueError: it is no such address.
    """
    if text not in {"memory:", "memory://"} and not re.fullmatch(r"sqlite:///.+", text):
        raise ValueError("expected sqlite:///FILE, sqlite:////ABSOLUTE/FILE or memory:")


def check_url(schemes: tuple[str, ...], text: str) -> None:
    """Refuse the address of something that cannot be dialled, and one that carries a secret in the open.

    Raises:
        ValueError: another scheme, no host, an impossible port, or a password inside.
    """
    wanted = " or ".join(f"{scheme}://host[:port]/path" for scheme in schemes)
    try:
        url = urlsplit(text)
        dialable = url.scheme in schemes and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        dialable = False
    if not dialable:
        raise ValueError(f"expected {wanted}")
    if url.username is not None or url.password is not None:
        raise ValueError("addresses are shown and logged; put the password into a header")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach what listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


Origin = Annotated[str, Rule(check_origin)]
Host = Annotated[str, Rule(check_name)]
Network = Annotated[str, Rule(check_network)]
StoreUrl = Annotated[str, Rule(check_store)]
SocketUrl = Annotated[str, Rule(partial(check_url, ("ws", "wss")))]
HttpUrl = Annotated[str, Rule(partial(check_url, ("http", "https")))]
