"""What stands under `rate_limit:`."""

from typing import Annotated

import attrs

from broker.hooks import ByteRate, Positive, Rate

__all__ = ["Address", "Limits", "User"]

PositiveRate = Annotated[Rate, Positive]
PositiveByteRate = Annotated[ByteRate, Positive]

MIB = 1 << 20


@attrs.frozen(kw_only=True)
class User:
    """What all connections of one user may send together.

    Attributes:
        messages: Messages.
        bytes: Bytes of these messages.
    """

    messages: PositiveRate | None = 200.0
    bytes: PositiveByteRate | None = 4.0 * MIB


@attrs.frozen(kw_only=True)
class Address:
    """What may come from one address, of IPv6 from one /64, whoever it is.

    Attributes:
        messages: Messages of all its connections.
        bytes: Bytes of these messages.
        handshakes: Attempts to connect.
        requests: Requests of the HTTP API.
    """

    messages: PositiveRate | None = 1000.0
    bytes: PositiveByteRate | None = 16.0 * MIB
    handshakes: PositiveRate | None = 50.0
    requests: PositiveRate | None = 50.0


@attrs.frozen(kw_only=True)
class Limits:
    """The plugin's settings; null switches a limit off.

    Attributes:
        messages: Messages on one connection.
        bytes: Bytes of these messages.
        control: Pings, pongs and small pieces of messages on one connection.
        burst: How many seconds' worth of each rate may come at once.
        user: Limits of a user, on all connections together.
        address: Limits of an address.
        actions: Limits by action, or pattern such as room.*; of a user, or of a connection whose user has no name.
    """

    messages: PositiveRate | None = 50.0
    bytes: PositiveByteRate | None = 1.0 * MIB
    control: PositiveRate | None = 20.0
    burst: Annotated[float, Positive] = 2.0
    user: User = attrs.Factory(User)
    address: Address = attrs.Factory(Address)
    actions: dict[str, PositiveRate] = attrs.Factory(lambda: {"auth": 1.0})
