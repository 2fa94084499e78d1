"""The plugin API: what a plugin may be told, asked and given.

A plugin is a subclass of `Plugin` that overrides some of its no-op methods. *Gates* may refuse; *observers*
may not even disturb. `HOOKS` lists them as data, and `broker.extensions.dispatch.Hooks` calls them. The types that
settings are made of, such as `Duration`, are here too. With `broker.messages` and `broker.errors` this is all that
a plugin imports of ours; docs/plugins.md explains it by example.
"""

from broker.config.forms import Network
from broker.config.secret import Secret
from broker.config.units import ByteRate, Count, Duration, Percent, Positive, Rate, Size
from broker.hooks.offered import ActionHandler, Broker, Context, Event, MessageHandler, Route
from broker.hooks.plugin import HOOKS, Hook, NoSettings, Plugin
from broker.hooks.told import (
    Answered,
    Attempt,
    Auth,
    Content,
    Control,
    Degraded,
    Failure,
    Handshake,
    HandTo,
    Inbound,
    Peer,
    Permission,
    TurnEnded,
    TurnRequest,
    Undeclared,
)
from broker.messages import Principal
from broker.stats import Histogram, Stats

__all__ = [
    "HOOKS",
    "ActionHandler",
    "Answered",
    "Attempt",
    "Auth",
    "Broker",
    "ByteRate",
    "Content",
    "Context",
    "Control",
    "Count",
    "Degraded",
    "Duration",
    "Event",
    "Failure",
    "HandTo",
    "Handshake",
    "Histogram",
    "Hook",
    "Inbound",
    "MessageHandler",
    "Network",
    "NoSettings",
    "Peer",
    "Percent",
    "Permission",
    "Plugin",
    "Positive",
    "Principal",
    "Rate",
    "Route",
    "Secret",
    "Size",
    "Stats",
    "TurnEnded",
    "TurnRequest",
    "Undeclared",
]
