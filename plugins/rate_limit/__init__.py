"""How much may come from one connection, one user and one address; what is more is refused, not queued.

Nobody is slowed down: to let one client wait, the broker would have to keep its messages for it. Who goes on sending
what was refused is closed.
"""

from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Final

from broker.errors import BrokerError, CloseCode
from broker.hooks import Broker, Control, Handshake, Inbound, Peer, Plugin

from .buckets import SLACK, Charges, Limit, Purse, Purses, pay, wait_of
from .rules import Rules
from .settings import Limits

MOST: Final = 65_536
"""Connections, users and addresses, so many of each, whose use is remembered."""

PIECE: Final = 1024
"""Bytes from which on a piece of a message costs no more than its bytes; browsers cut large messages."""


class Client(Purse):
    """What one connection has used, and where the use of its user and its address is kept.

    Attributes:
        peer: whose it is.
        rules: the rules that it was bound by.
        user: its user's purse; for one without a name its own, or its address' if it is but a request over HTTP.
        address: its address' purse.
        charges: each bucket that a message is taken out of, and its limit.
    """

    __slots__ = ("address", "charges", "peer", "rules", "user")

    def bind(self, peer: Peer, rules: Rules, user: Purse | None, address: Purse) -> None:
        """Take note of who it is, and what it is bound by."""
        lasting = bool(peer.connection_id)  # what a request over HTTP had is gone with it
        self.peer, self.rules, self.address = peer, rules, address
        self.user = user or (self if lasting else address)
        parts = [(address, rules.address)] + ([(user, rules.user)] if user else [])
        if lasting:
            parts.insert(0, (self, rules.client))
        self.charges = tuple((purse.bucket(limit.name), limit) for purse, limits in parts for limit in limits)


class RateLimit(Plugin):
    """Refuses what is too much as `rate_limited`, and closes with 4501 who goes on all the same."""

    version = "1.0"
    Settings = Limits
    settings: Limits

    def __init__(self, settings: Limits, broker: Broker) -> None:
        super().__init__(settings, broker)
        self._rules = Rules(settings)
        self._clients: Purses[str, Client] = Purses(MOST)
        self._users: Purses[str, Purse] = Purses(MOST)
        self._addresses: Purses[str, Purse] = Purses(MOST)

    def reload(self, settings: Limits) -> bool:
        """Take the new limits, for those who are connected too; what they have used up stays used up."""
        self._rules = Rules(settings)
        self.settings = settings
        return True

    def on_handshake(self, handshake: Handshake) -> None:
        """Count an attempt to connect, or a request, of this address."""
        limit = self._rules.requests if handshake.protocol == "http" else self._rules.handshakes
        if limit is None:
            return
        burst, now = self._rules.burst, self.broker.monotonic()
        charges = ((_purse(self._addresses, network_of(handshake.remote), now).bucket(limit.name), limit),)
        if pay(charges, 0, burst, now) is not None:
            self.broker.stats.rate_limited[limit.metric] += 1
            raise _too_much(limit, wait_of(charges, 0, burst, now))

    def on_message(self, message: Inbound) -> None:
        """Charge a message to all buckets it counts for; one that is too much for any is charged to none.

        A request over HTTP counts for its user, its address and its action.
        """
        if message.derived:
            return  # the message that it is asked for has been paid for
        client, now = self._client(message.peer), self.broker.monotonic()
        charges = client.charges
        of_action = self._rules.of_action(message.action)
        if of_action is not None:
            charges = (*charges, (client.user.bucket(of_action.name), of_action))
        refused_by = pay(charges, message.size, self._rules.burst, now)
        if refused_by is not None:
            raise self._refusal(client, refused_by, charges, message.size, now)

    def on_control(self, frame: Control) -> None:
        """Count a ping, a pong or a small piece; a large one is paid for with its message."""
        limit = self._rules.control
        if limit is None or (frame.kind == "piece" and frame.size >= PIECE):
            return
        client, now = self._client(frame.peer), self.broker.monotonic()
        charges = ((client.bucket(limit.name), limit),)
        if pay(charges, 0, self._rules.burst, now) is not None:
            raise self._refusal(client, limit, charges, 0, now)

    def disconnected(self, peer: Peer, code: int) -> None:
        """Forget a connection; what its user and its address have used is remembered until they have it back."""
        self._clients.forget(peer.connection_id)

    def _client(self, peer: Peer) -> Client:
        if not peer.connection_id:
            return self._bound(Client(), peer)
        client = self._clients.get(peer.connection_id)
        if (
            client is not None
            and client.peer is peer  # which changes when it says who it is
            and client.rules is self._rules
            and not client.user.gone
            and not client.address.gone
        ):
            return client
        if client is None:
            client = self._clients.add(peer.connection_id, Client(), self.broker.monotonic())
        return self._bound(client, peer)

    def _bound(self, client: Client, peer: Peer) -> Client:
        name, now = peer.principal.user, self.broker.monotonic()
        user = None if name is None else _purse(self._users, name, now)
        client.bind(peer, self._rules, user, _purse(self._addresses, network_of(peer.address), now))
        return client

    def _refusal(self, client: Client, limit: Limit, charges: Charges, size: int, now: float) -> BrokerError:
        """Return a refusal; it closes a connection that, refused, has sent as much again as could come at once."""
        burst = self._rules.burst
        self.broker.stats.rate_limited[limit.metric] += 1
        ignored = pay(((client.bucket("refused"), self._rules.weighing(limit)),), size, burst, now)
        return _too_much(limit, wait_of(charges, size, burst, now), CloseCode.PROTOCOL_ABUSE if ignored else None)


def network_of(address: str) -> str:
    """Return what an address counts as: IPv4 as itself, IPv6 as its /64, since everybody has all of one."""
    if ":" not in address:
        return address
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if not isinstance(ip, IPv6Address):
        return address
    return str(ip.ipv4_mapped or IPv6Address(int(ip) >> 64 << 64))


def _purse(purses: Purses[str, Purse], key: str, now: float) -> Purse:
    return purses.get(key) or purses.add(key, Purse(), now)


def _too_much(limit: Limit, wait: float, close: CloseCode | None = None) -> BrokerError:
    # Whole milliseconds, never fewer than are needed, and not one more for what is but rounding.
    milliseconds = max(1, ceil(wait * 1000 - SLACK))
    return BrokerError("rate_limited", limit.sentence, retry_after=milliseconds / 1000, close=close)
