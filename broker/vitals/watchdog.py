"""Who blocks the event loop: seen from a thread beside it, and said while it still blocks.

One call that does not come back stops everybody, and until it is over the loop itself can tell nobody. So a thread asks
the loop for a sign of life four times a second, and looks at what the loop's thread is doing if none comes. The
plugin whose code is on that stack is named in the log at once, and counted once the loop is back. What waits without
blocking (`await`) is on no stack, so nobody is blamed for it.

Python runs one thread at a time: a single call in C that does not let go of the interpreter, such as a regular
expression gone wild, can be named only when it returns.
"""

import asyncio
import sys
import threading
import time
import traceback
from asyncio import AbstractEventLoop
from collections import Counter
from collections.abc import Callable, Mapping
from types import CodeType, FrameType
from typing import Final

import attrs
from loguru import logger

__all__ = ["OURSELVES", "Watchdog"]

EVERY: Final = 0.25
"""Seconds between two questions: a thread that wakes four times a second costs nothing that can be measured."""
LATE: Final = 0.4
"""Seconds without an answer after which the loop's thread is looked at ..."""
LOOKS: Final = 3
"""... so many times, since a loop that only has much to do does something else each time ..."""
BETWEEN: Final = 0.05
"""... with so many seconds in between: half a second is a block, and is named well within one."""
AGAIN: Final = 5.0
"""Seconds after which a block that goes on is told again, and then ever later."""
STOPPING: Final = 1.0

OURSELVES: Final = "broker"
"""Who is blamed if no plugin's code is on the stack."""
_DROP_IN: Final = "broker_plugin_"
"""What the modules of plugins loaded from files begin with (`broker.extensions.files`)."""


@attrs.frozen
class _Sight:
    """What the loop's thread was seen doing."""

    plugin: str
    place: str
    stack: str


class Watchdog:
    """Watches the loop it is started on, from a thread of its own.

    Args:
        modules: the plugins that came from installed packages, by the module of their class.
        blocked: where each block is counted, by who did it.
    """

    def __init__(self, modules: Mapping[str, str], blocked: Counter[str]) -> None:
        packages = {module.rpartition(".")[0] or module: name for module, name in modules.items()}
        self._owners = packages | dict(modules)
        self._blocked = blocked
        self._answered = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch the running loop; called on it."""
        work = (asyncio.get_running_loop(), threading.get_ident())
        self._thread = threading.Thread(target=self._watch, args=work, name="watchdog", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Stop watching; the thread is gone then."""
        self._stopping.set()
        self._answered.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, STOPPING)

    # -- in the thread ------------------------------------------------------------------------------

    def _watch(self, loop: AbstractEventLoop, ident: int) -> None:
        while not self._stopping.wait(EVERY):
            self._answered.clear()
            asked = time.monotonic()
            if not _call(loop, self._answered.set):
                return
            if not self._answered.wait(LATE):
                self._see(loop, ident, asked)

    def _see(self, loop: AbstractEventLoop, ident: int, asked: float) -> None:
        """Tell of a block, when there really is one, and of its end."""
        sight = self._look(ident)
        if sight is None or self._stopping.is_set():
            return
        _call(loop, self._count, sight.plugin)
        seconds = time.monotonic() - asked
        logger.error("{} blocks the event loop for {:.1f} s so far: {}", _named(sight), seconds, sight.place)
        logger.debug("what the event loop is doing:\n{}", sight.stack)
        wait = AGAIN
        while not self._answered.wait(wait):
            wait *= 2
            seconds = time.monotonic() - asked
            logger.error("{} still blocks the event loop, {:.0f} s so far: {}", _named(sight), seconds, sight.place)
        if not self._stopping.is_set():
            seconds = time.monotonic() - asked
            logger.warning("the event loop goes on: {} had blocked it for {:.1f} s", _named(sight), seconds)

    def _look(self, ident: int) -> _Sight | None:
        """Look more than once; return what was seen most often, None if the loop was about to answer anyway."""
        sights = [self._sight(ident)]
        while len(sights) < LOOKS and not self._answered.wait(BETWEEN):
            sights.append(self._sight(ident))
        (plugin, _), *_ = Counter(sight.plugin for sight in sights).most_common(1)
        if len(sights) < LOOKS and plugin == OURSELVES:
            return None  # the whole process did not get to run, as after SIGSTOP
        return next(sight for sight in reversed(sights) if sight.plugin == plugin)

    def _sight(self, ident: int) -> _Sight:
        innermost = sys._current_frames().get(ident)  # noqa: SLF001 - its documented use: to look at another thread
        stack = "".join(traceback.format_stack(innermost)) if innermost else ""
        ours: FrameType | None = None
        frame = innermost
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            plugin = self._owner(module)
            if plugin is not None:
                return _Sight(plugin, _place(frame.f_code, frame.f_lineno), stack)
            if ours is None and module.startswith("broker."):
                ours = frame
            frame = frame.f_back
        shown = ours or innermost
        return _Sight(OURSELVES, _place(shown.f_code, shown.f_lineno) if shown else "nowhere", stack)

    def _owner(self, module: str) -> str | None:
        """Return the plugin that a module belongs to, None if it belongs to none."""
        if module.startswith(_DROP_IN):
            return module.removeprefix(_DROP_IN).partition(".")[0]
        while module:
            if module in self._owners:
                return self._owners[module]
            module = module.rpartition(".")[0]
        return None

    # -- on the loop --------------------------------------------------------------------------------

    def _count(self, plugin: str) -> None:
        self._blocked[plugin] += 1


def _call(loop: AbstractEventLoop, callback: Callable[..., object], *args: object) -> bool:
    """Have the loop call something once it gets to it; return whether it still may."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:  # closed
        return False
    return True


def _named(sight: _Sight) -> str:
    return OURSELVES if sight.plugin == OURSELVES else f"plugin {sight.plugin}"


def _place(code: CodeType, line: int) -> str:
    return f"{code.co_filename}:{line} {code.co_name}"
