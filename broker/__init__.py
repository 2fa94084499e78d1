"""actor-broker: a message broker between people's browsers and AI agents.

`from broker import Broker` is for programs that have it in an aiohttp application of their own; nothing of it is
imported before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.embed import Broker

__all__ = ["Broker", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is only needed by some.

    Raises:
        AttributeError: there is no such thing here.
    """
    if name == "Broker":
        return import_module("broker.embed").Broker
    raise AttributeError(f"module 'broker' has no attribute {name!r}")
