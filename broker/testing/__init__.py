"""For tests of the broker, of plugins and of agents: time moved by hand, a socket, an agent, and a barrier.

These stand at the edges, where the broker meets the world; everything between them is the real thing.
"""

from broker.testing.agents import FakeAgent, FakeLine, FakeTurn
from broker.testing.patience import settled, until
from broker.testing.sockets import FakeTransport, Frame
from broker.testing.time import ManualClock

__all__ = ["FakeAgent", "FakeLine", "FakeTransport", "FakeTurn", "Frame", "ManualClock", "settled", "until"]
