"""How a person wants an ACP agent to work: asked of it one thing at a time, and again after it was restarted."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import attrs
import msgspec
from loguru import logger

from broker.agents.acp.dialect import Call, Dialect
from broker.agents.acp.jsonrpc import METHOD_NOT_FOUND, MISREAD, Answer, Answered, RpcError
from broker.agents.acp.updates import encoded, fields_of
from broker.agents.acp.wire import refusal_of
from broker.agents.bounds import Fields
from broker.agents.port import Configuration, Configured
from broker.errors import BrokerError

__all__ = ["WISHES_LIMIT", "Wishes"]

WISHES_LIMIT: Final = 16
"""Configurations that may wait for an agent."""


@attrs.define(eq=False)
class _Wish:
    """One configuration, and who is told what became of it."""

    configuration: Configuration
    configured: Configured
    steps: Iterator[tuple[str | None, Any, Call]] = attrs.field(init=False)


@attrs.define(eq=False)
class _Line:
    """An open session, as far as it can be configured."""

    session_id: str
    dialect: Dialect
    call: Callable[[str, Any, Answered], object]


class Wishes:
    """What was asked of one session's agent and what it took.

    Args:
        changed: told what an agent took: fields of an `agent.state` record.
        settled: told when nothing more is under way.
    """

    def __init__(self, changed: Callable[[Fields], None], settled: Callable[[], None]) -> None:
        self._changed = changed
        self._settled = settled
        self._waiting: deque[_Wish] = deque()
        self._current: _Wish | None = None
        self._line: _Line | None = None
        self._mode: str | None = None
        self._options: dict[str, Any] = {}

    @property
    def busy(self) -> bool:
        """Whether anything is under way or waits."""
        return self._current is not None or bool(self._waiting)

    def ask(self, configuration: Configuration, configured: Configured) -> None:
        """Want the agent to work like this, now or as soon as its session is open."""
        if len(self._waiting) >= WISHES_LIMIT:
            configured(BrokerError("overloaded", "The agent has not taken earlier configurations yet."))
            return
        self._waiting.append(_Wish(configuration, configured))
        self._next()

    def begin(self, session_id: str, dialect: Dialect, call: Callable[[str, Any, Answered], object]) -> None:
        """Configure this session: first as the one before it was, then as was asked meanwhile."""
        self._line = _Line(session_id, dialect, call)
        again = [Configuration(options={option: value}) for option, value in self._options.items()]
        if self._mode is not None:
            again.append(Configuration(self._mode))
        self._waiting.extendleft(_Wish(configuration, partial(self._again, configuration)) for configuration in again)
        self._next()

    def _again(self, configuration: Configuration, error: BrokerError | None) -> None:
        """Forget what a restarted agent does not take any more."""
        if error is None or self._line is None:
            return
        logger.warning("a restarted agent did not take its configuration again: {}", error.message)
        if configuration.mode is not None:
            self._mode = None
        for option in configuration.options:
            self._options.pop(option, None)

    def end(self, error: BrokerError) -> None:
        """The session is gone: what was not taken yet never will be."""
        self._line = None
        wishes = [wish for wish in (self._current, *self._waiting) if wish is not None]
        self._current = None
        self._waiting.clear()
        for wish in wishes:
            wish.configured(error)

    def _next(self) -> None:
        if self._line is None or self._current is not None or not self._waiting:
            return
        self._current = wish = self._waiting.popleft()
        wish.steps = _steps(self._line, wish.configuration)
        self._step(self._line, wish)

    def _step(self, line: _Line, wish: _Wish) -> None:
        try:
            step = next(wish.steps, None)
        except BrokerError as e:
            self._done(wish, e)
            return
        if step is None:
            self._done(wish, None)
            return
        option, value, (method, params) = step
        line.call(method, params, partial(self._answered, line, wish, option, value))

    def _answered(self, line: _Line, wish: _Wish, option: str | None, value: Any, answer: Answer) -> None:
        if self._current is not wish:
            return
        if isinstance(answer, RpcError):
            self._done(wish, _error_of(answer))
            return
        if option is None:
            self._mode = value
        else:
            self._options[option] = value
        self._report(line, value if option is None else None, answer)
        self._step(line, wish)

    def _report(self, line: _Line, mode: str | None, answer: msgspec.Raw) -> None:
        """Tell viewers what the agent took; it need not say so by itself."""
        try:
            options = fields_of(answer).get("config_options")
        except MISREAD:
            options = None
        if options is not None:
            line.dialect.learn(options)
            self._changed({"changed": encoded("config_options"), "config_options": options})
        elif mode is not None:
            self._changed({"changed": encoded("mode"), "current_mode_id": encoded(mode)})

    def _done(self, wish: _Wish, error: BrokerError | None) -> None:
        self._current = None
        wish.configured(error)
        self._next()
        if not self.busy:
            self._settled()


def _steps(line: _Line, wanted: Configuration) -> Iterator[tuple[str | None, Any, Call]]:
    """Yield what to ask for: the option, None for the mode, its value, and the request."""
    if wanted.mode is not None:
        yield None, wanted.mode, line.dialect.mode(line.session_id, wanted.mode)
    for option, value in wanted.options.items():
        if not isinstance(value, bool | str):
            raise BrokerError("invalid_message", f"Option {option[:64]} takes a text, or true or false.")
        yield option, value, line.dialect.option(line.session_id, option, value)


def _error_of(error: RpcError) -> BrokerError:
    if error.code == METHOD_NOT_FOUND:
        return BrokerError("not_found", "This agent cannot be configured like that.")
    return refusal_of(error)
