"""The agent kind `worker`: agents that dial in at `/agent` and share the load of one profile (PROTOCOL section 4)."""

from broker.agents.remote.carrier import Carrier
from broker.agents.remote.frames import Hello
from broker.agents.remote.pool import Pool
from broker.clock import Clock, SystemClock
from broker.errors import CloseCode

__all__ = ["WorkerAgent"]


class WorkerAgent(Pool):
    """An agent profile of kind `worker`.

    Args:
        reattach: seconds for which a worker's turns wait for its broken link to come back.
        clock: time.
    """

    def __init__(self, *, reattach: float = 30.0, clock: Clock | None = None) -> None:
        super().__init__(reattach=reattach, clock=clock or SystemClock())

    async def start(self) -> None:
        """Do nothing: workers come by themselves."""

    async def accept(self, carrier: Carrier, hello: Hello, user: str | None) -> None:
        """Serve one worker until its link ends.

        Args:
            carrier: the way to it, entered.
            hello: how it introduced itself.
            user: whom it authenticated as; only the same one may take up its turns after a broken link.
        """
        await carrier.carry(self, hello, user or "")

    async def close(self) -> None:
        """Send the workers away with 1012: they may come back to the broker's next run."""
        self.hang_up(CloseCode.SERVICE_RESTART)
