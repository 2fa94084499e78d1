"""What the settings amount to."""

import re
from fnmatch import translate
from typing import Final

from .buckets import Limit
from .settings import Limits

__all__ = ["Rules"]

KIB: Final = 1 << 10
MIB: Final = 1 << 20
_PERIODS: Final = {1: "second", 60: "minute", 3600: "hour"}
_WILD: Final = re.compile(r"[*?\[]")


class Rules:
    """All limits of one version of the settings; those that are switched off are not there.

    Args:
        settings: that version.

    Attributes:
        burst: seconds' worth of each rate that may come at once.
        client: what a message is charged to its connection.
        user: what it is charged to its user.
        address: what it is charged to its address.
        control: of frames that are no messages.
        handshakes: of attempts to connect.
        requests: of requests of the HTTP API.
    """

    def __init__(self, settings: Limits) -> None:
        here, user, address = "on one connection", "of one user", "from one address"
        self.burst = settings.burst
        self.client = _traffic("", settings.messages, settings.bytes, here)
        self.user = _traffic("user_", settings.user.messages, settings.user.bytes, user)
        self.address = _traffic("address_", settings.address.messages, settings.address.bytes, address)
        self.control = _limit("control", settings.control, "pings, pongs and small pieces of messages", here)
        self.handshakes = _limit("handshakes", settings.address.handshakes, "attempts to connect", address)
        self.requests = _limit("requests", settings.address.requests, "requests", address)
        self._messages = _limit("messages", settings.messages, "messages", here)
        self._exact: dict[str, Limit] = {}
        self._patterns: list[tuple[re.Pattern[str], Limit]] = []
        for pattern, rate in settings.actions.items():
            limit = _counted(f"action {pattern}", "actions", rate, f"times {pattern}", user)
            if _WILD.search(pattern):
                self._patterns.append((re.compile(translate(pattern)), limit))
            else:
                self._exact[pattern] = limit

    def weighing(self, refused_by: Limit) -> Limit:
        """Return the limit by which a refusal counts.

        One by the limit of an action counts like any message, so that a low limit closes nobody for a handful of them.
        """
        return self._messages or refused_by if refused_by.metric == "actions" else refused_by

    def of_action(self, action: str) -> Limit | None:
        """Return the limit of an action: its own, or that of the first pattern it fits."""
        limit = self._exact.get(action)
        if limit is not None or not self._patterns:
            return limit
        return next((limit for pattern, limit in self._patterns if pattern.match(action)), None)


def _traffic(prefix: str, messages: float | None, size: float | None, whose: str) -> tuple[Limit, ...]:
    name = f"{prefix}bytes"
    by_size = () if size is None else (Limit(name, name, 0.0, 1 / size, f"At most {_size(size)} a second {whose}."),)
    by_count = _limit(f"{prefix}messages", messages, "messages", whose)
    return by_size if by_count is None else (by_count, *by_size)


def _limit(name: str, rate: float | None, what: str, whose: str) -> Limit | None:
    return None if rate is None else _counted(name, name, rate, what, whose)


def _counted(name: str, metric: str, rate: float, what: str, whose: str) -> Limit:
    seconds = next((seconds for seconds in _PERIODS if rate * seconds >= 1), max(_PERIODS))
    sentence = f"At most {rate * seconds:g} {what} a {_PERIODS[seconds]} {whose}."
    return Limit(name, metric, 1 / rate, 0.0, sentence)


def _size(rate: float) -> str:
    if rate < KIB:
        return f"{rate:.3g} bytes"
    return f"{rate / MIB:.3g} MiB" if rate >= MIB else f"{rate / KIB:.3g} KiB"
