"""When somebody should look: the settings, and how each rule stands."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import attrs
from msgspec import Meta

from broker.hooks import Duration, Positive, Secret

from .figures import FIGURES, number_of, written

__all__ = ["DEFAULTS", "Alert", "AlertsSettings", "Rule", "Webhook", "rfc3339"]

LOOKS: Final = 1000
"""Looks at the figures that may lie within the window, all of which are kept."""
SHORTEST_SECRET: Final = 24
"""Bytes of a secret that nobody guesses; the specification of Standard Webhooks has the same."""

Text = Annotated[str, Meta(min_length=1, max_length=64)]


@attrs.frozen(kw_only=True)
class Rule:
    """When somebody should look.

    Attributes:
        figure: What is looked at; docs/alerts.md lists them.
        above: It fires when the figure was above this for `hold`, ...
        clear: ... and is resolved when it was not above this for as long; the same bound if left out.
        hold: For how long.
    """

    figure: Text
    above: Any
    clear: Any = None
    hold: Duration = 30.0

    def __attrs_post_init__(self) -> None:
        if self.figure not in FIGURES:
            raise ValueError(f"there is no figure {self.figure!r}; there are: {', '.join(FIGURES)}")
        if self.low > self.high:
            raise ValueError("clear must not be more than above")

    @property
    def high(self) -> float:
        """The bound above which it fires."""
        return number_of(self.figure, self.above)

    @property
    def low(self) -> float:
        """The bound above which it goes on firing."""
        return self.high if self.clear is None else number_of(self.figure, self.clear)


DEFAULTS: Final[dict[str, Rule]] = {
    "faults": Rule(figure="fault_rate", above="5%", clear="2%"),
    "errors": Rule(figure="error_rate", above="50%", clear="25%", hold=60.0),
    "answers": Rule(figure="response_p95", above="2s", clear="1s"),
    "turns": Rule(figure="turn_failure_rate", above="20%", clear="10%"),
    "stalled": Rule(figure="stalled_turns", above=0, hold=0.0),
    "connections": Rule(figure="connections_used", above="90%", clear="80%"),
    "memory": Rule(figure="memory_used", above="90%", clear="80%"),
    "store": Rule(figure="store_down", above=0, hold=5.0),
    "backlog": Rule(figure="store_backlog", above=10_000, clear=1_000),
    "loop": Rule(figure="loop_lag_p95", above="250ms", clear="100ms"),
    "plugins": Rule(figure="plugins_down", above=0, hold=10.0),
}
"""Rules that are there unless `rules` has another one, or null, under their name."""


@attrs.frozen(kw_only=True)
class Webhook:
    """Who is told.

    Attributes:
        url: Where to, by POST; it is never shown but for its host, since with some services it is a secret.
        secret: Signs what is sent, at least 24 bytes; null: it is not signed.
        timeout: Time for an answer.
        tries: How often one notice is sent that is not taken.
        pause: Time until the second try; each one after it takes twice as long, at most a minute.
    """

    url: Secret
    secret: Secret | None = None
    timeout: Annotated[Duration, Positive, Meta(le=60)] = 10.0
    tries: Annotated[int, Meta(ge=1, le=20)] = 8
    pause: Annotated[Duration, Positive] = 1.0

    def __attrs_post_init__(self) -> None:
        try:
            url = urlsplit(self.url.reveal())
            whole = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
        except ValueError:
            whole = False
        if not whole:
            raise ValueError("expected a url such as https://hooks.example.org/alerts")
        if self.secret is not None and len(self.secret.reveal().encode()) < SHORTEST_SECRET:
            raise ValueError(f"secret has fewer than {SHORTEST_SECRET} bytes; make one: openssl rand -hex 32")

    @property
    def place(self) -> str:
        """What may be shown of it."""
        url = urlsplit(self.url.reveal())
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}"


@attrs.frozen(kw_only=True)
class AlertsSettings:
    """What stands under `alerts:`.

    Attributes:
        every: How often the figures are looked at.
        window: Time over which shares, rates and times are taken.
        rules: Rules by name, beside those that are there anyway; null does away with one of those.
        webhook: Who is told, beside the log.
    """

    every: Annotated[Duration, Positive] = 5.0
    window: Annotated[Duration, Positive, Meta(le=3600)] = 60.0
    rules: dict[Text, Rule | None] = attrs.Factory(dict)
    webhook: Webhook | None = None

    def __attrs_post_init__(self) -> None:
        if self.every * LOOKS < self.window:
            raise ValueError(f"window must not be more than {LOOKS} times every")

    @property
    def all_rules(self) -> dict[str, Rule]:
        """The rules in force."""
        return {name: rule for name, rule in (DEFAULTS | self.rules).items() if rule is not None}


class Alert:
    """How one rule stands.

    Args:
        name: the rule's.
        rule: the rule.
        at: milliseconds since the epoch.

    Attributes:
        firing: whether somebody should look.
        since: since when it is as it is, milliseconds since the epoch.
        value: its figure when it was last looked at; None if it could not be told.
    """

    def __init__(self, name: str, rule: Rule, at: int) -> None:
        self.name = name
        self.rule = rule
        self.firing = False
        self.since = at
        self.value: float | None = None
        self._turning: float | None = None  # since when the figure says otherwise

    def judge(self, value: float | None, now: float, at: int) -> bool:
        """Take the figure as it is now, unknown for well; tell whether that changes how it stands."""
        self.value = value
        above = (value or 0.0) > (self.rule.low if self.firing else self.rule.high)
        if above == self.firing:
            self._turning = None
            return False
        self._turning = now if self._turning is None else self._turning
        if now - self._turning < self.rule.hold:
            return False
        self.firing, self.since, self._turning = above, at, None
        return True

    def describe(self) -> dict[str, Any]:
        """Return how it stands, as JSON-able values."""
        pending = not self.firing and self._turning is not None
        rule, figure = self.rule, self.rule.figure
        return {
            "alert": self.name,
            "state": "firing" if self.firing else "pending" if pending else "ok",
            "figure": figure,
            "unit": FIGURES[figure].unit,
            "value": None if self.value is None else round(self.value, 6),
            "above": rule.high,
            "clear": rule.low,
            "hold": rule.hold,
            "since": rfc3339(self.since),
        }

    def sentence(self) -> str:
        """Return how it stands, for people."""
        rule, figure = self.rule, self.rule.figure
        bound = f"above {written(figure, rule.high)}" if self.firing else f"not above {written(figure, rule.low)}"
        return f"{self.name}: {figure} is {written(figure, self.value)}, {bound} for {rule.hold:g} s"


def rfc3339(at: int) -> str:
    """Write milliseconds since the epoch as the rest of the broker does."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
