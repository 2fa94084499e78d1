"""Looks at the figures that the broker keeps anyway, and says once when one is too high and once when it is well again.

docs/alerts.md is its manual. A rule fires when its figure was above a bound for so long, and is resolved when it was
not above a lower one for as long; what lies between the two changes nothing. Each change is said in the log, to a
webhook if there is one, and `GET /api/v1/alerts` tells how everything stands.
"""

import asyncio
import logging
from asyncio import Task
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from broker.hooks import Broker, Plugin, Route, TurnEnded
from broker.messages import Record

from .figures import FIGURES
from .notices import Notices
from .rules import Alert, AlertsSettings, rfc3339

log = logging.getLogger(__name__)

STALLED: Final = 10_000
"""Stalled turns that are remembered."""


class Alerts(Plugin):
    """Says when a figure of the broker's is too high, and when it is well again."""

    version = "1.0"
    Settings = AlertsSettings
    settings: AlertsSettings

    def __init__(self, settings: AlertsSettings, broker: Broker) -> None:
        super().__init__(settings, broker)
        self._alerts: dict[str, Alert] = {}
        self._looks: deque[tuple[float, dict[str, Any]]] = deque()
        self._stalled: dict[str, None] = {}
        self._notices = Notices(broker, settings.webhook)
        self._watching: Task[None] | None = None
        self._take(settings)

    def _take(self, settings: AlertsSettings) -> None:
        self.settings = settings
        self._notices.webhook = settings.webhook
        before, at = self._alerts, self.broker.now()
        self._alerts = {name: Alert(name, rule, at) for name, rule in settings.all_rules.items()}
        for name, alert in before.items():
            now = self._alerts.get(name)
            if now is not None and now.rule == alert.rule:
                self._alerts[name] = alert
            elif alert.firing:
                alert.firing, alert.since = False, at
                self._say(alert, f"{name}: its rule was changed")

    async def start(self) -> None:
        """Look for the first time, and go on looking."""
        self._looks.append((self.broker.monotonic(), self._look()))
        self._watching = self.broker.spawn(self._watch(), name="look after the figures")

    async def stop(self) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.cancel()
        await self._notices.close()

    def reload(self, settings: AlertsSettings) -> bool:
        """Take over all settings; rules that stay as they were stand as they stood."""
        self._take(settings)
        return True

    def routes(self) -> Sequence[Route]:
        """Show operators' backends how everything stands."""
        return (Route("GET", "/api/v1/alerts", self.show, scope="api"),)

    async def show(self, request: web.Request) -> web.Response:
        """Answer how each rule stands, those that fire first."""
        alerts = sorted(self._alerts.values(), key=lambda alert: not alert.firing)
        shown = {"alerts": [alert.describe() for alert in alerts], "webhook": self._notices.describe()}
        return web.json_response(shown, headers={"Cache-Control": "no-store"})

    # -- what the figures do not tell -------------------------------------------------------------------

    def committed(self, log: str, records: Sequence[Record]) -> None:
        """Take note of turns whose agent has fallen silent, and of those that go on."""
        for record in records:
            if record.kind == "turn.stalled":
                if record.turn_id is not None and len(self._stalled) < STALLED:
                    self._stalled[record.turn_id] = None
            elif self._stalled and record.turn_id is not None:
                self._stalled.pop(record.turn_id, None)

    def turn_ended(self, turn: TurnEnded) -> None:
        """Forget a turn that has ended."""
        self._stalled.pop(turn.turn_id, None)

    # -- looking ----------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.settings.every)
            try:
                self.check()
            except Exception:  # an alarm that stops at the first mishap is none
                self.broker.stats.plugin_errors[self.name] += 1
                log.exception("the figures could not be looked at")

    def check(self) -> None:
        """Look at all figures, and say what has changed."""
        now, at = self.broker.monotonic(), self.broker.now()
        latest = self._look()
        self._looks.append((now, latest))
        while self._looks[1][0] <= now - self.settings.window and len(self._looks) > 2:  # noqa: PLR2004 - then and now
            self._looks.popleft()
        then, before = self._looks[0]
        for alert in self._alerts.values():
            figure = alert.rule.figure
            if alert.judge(FIGURES[figure].tell(before[figure], latest[figure], now - then), now, at):
                self._say(alert, alert.sentence())

    def _look(self) -> dict[str, Any]:
        read = {name: figure.read(self.broker.stats) for name, figure in FIGURES.items()}
        return {**read, "stalled_turns": len(self._stalled)}

    def _say(self, alert: Alert, sentence: str) -> None:
        """Say that an alert fires, or does no more."""
        state = "firing" if alert.firing else "resolved"
        log.log(logging.WARNING if alert.firing else logging.INFO, "alert %s: %s", state, sentence)
        self._notices.add({**alert.describe(), "state": state, "text": sentence, "at": rfc3339(self.broker.now())})
