"""What a trusted proxy says of who came to it (PROTOCOL section 7, `listen.trusted_proxies`).

Of all that proxies add only X-Forwarded-For and X-Forwarded-Proto are believed, and only from an address that is
listed: anybody else may write what they like into them.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

__all__ = ["Proxies", "bucket", "parse"]

HOPS: Final = 32
"""Proxies that one request may have passed; a longer list is none of ours."""
SITE_BITS: Final = 64
"""Bits of an IPv6 address that tell one customer of a provider from another (RFC 6177)."""

Address = IPv4Address | IPv6Address


def parse(text: str) -> Address | None:
    """Read an address as proxies write it: bare, in brackets, with a port; None if it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            return None
        return found.ipv4_mapped or found
    return found


def bucket(address: str) -> str:
    """Return under what an address is counted: with IPv6 a whole site is one, since it may use all it has."""
    found = parse(address)
    if not isinstance(found, IPv6Address):
        return address if found is None else str(found)
    return f"{IPv6Address(int(found) >> SITE_BITS << SITE_BITS)}/{SITE_BITS}"


class Proxies:
    """The proxies that are believed.

    Args:
        networks: addresses and networks, as configured.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ip_network(network) for network in networks]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trust(self, address: str | None) -> bool:
        """Tell whether what comes from here is believed."""
        if not self._networks or address is None:
            return False
        found = parse(address)
        return found is not None and self._know(found)

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the address of who came to the outermost trusted proxy.

        Args:
            peer: the address of the proxy that is connected to us, which is trusted.
            forwarded: the X-Forwarded-For headers. They are read from the right, where the nearest proxy has added
                what it saw, past all trusted ones; what stands further left may have been made up by the client.

        Returns:
            The first address that is not trusted; the leftmost if all are; `peer` if there is none that can be read.
        """
        seen = peer
        hops = ",".join(forwarded).split(",") if forwarded else []
        if len(hops) > HOPS:
            return peer
        for hop in reversed(hops):
            address = parse(hop)
            if address is None:
                return peer
            seen = str(address)
            if not self._know(address):
                break
        return seen

    def scheme(self, forwarded: Sequence[str]) -> str | None:
        """Return how the client reached the nearest proxy, by its X-Forwarded-Proto; None if it does not say."""
        said = ",".join(forwarded).rpartition(",")[2].strip().lower()
        return said if said in {"http", "https"} else None

    def _know(self, address: Address) -> bool:
        return any(address in network for network in self._networks)
