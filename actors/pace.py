"""How fast an agent may speak: as fast as the store writes, whatever anybody's browser does (PROTOCOL P7)."""

from typing import Final

from broker.actors.agent_line import AgentLine

__all__ = ["HIGH", "LOW", "Pace"]

HIGH: Final = 4 << 20
"""Bytes written and not yet durable above which nothing more is read from the agent ..."""
LOW: Final = 1 << 20
"""... and below which it is read again."""


class Pace:
    """Pauses and resumes one session's agent.

    Args:
        line: the way to it.

    Attributes:
        paused: whether it is; set as well when the bridge has done it, and it is to be resumed from here.
    """

    def __init__(self, line: AgentLine) -> None:
        self._line = line
        self.paused = False

    def check(self, waiting: int) -> None:
        """Pause or resume, now that so many bytes wait for the store."""
        if self.paused:
            if waiting < LOW:
                self.paused = False
                self._line.resume()
        elif waiting > HIGH:
            self.paused = True
            self._line.pause()

    def begin(self) -> None:
        """Pause a link that may be new, if the one before it was paused."""
        if self.paused:
            self._line.pause()
