"""Settings from a YAML file, the environment and flags, with every mistake reported at its place."""

from broker.config.load import EX_CONFIG, Loaded, load, take
from broker.config.problems import ConfigErrors, Problem
from broker.config.secret import Secret
from broker.config.settings import (
    AcpProfile,
    AgentProfile,
    Deadlines,
    EchoProfile,
    Heartbeat,
    Limits,
    Listen,
    Log,
    Rooms,
    Runtime,
    Sessions,
    Settings,
    Shutdown,
    Store,
)
from broker.config.structure import structure_block
from broker.config.tree import Located, Place
from broker.config.units import ByteRate, Count, Duration, Percent, Port, Positive, Rate, Size

__all__ = [
    "EX_CONFIG",
    "AcpProfile",
    "AgentProfile",
    "ByteRate",
    "ConfigErrors",
    "Count",
    "Deadlines",
    "Duration",
    "EchoProfile",
    "Heartbeat",
    "Limits",
    "Listen",
    "Loaded",
    "Located",
    "Log",
    "Percent",
    "Place",
    "Port",
    "Positive",
    "Problem",
    "Rate",
    "Rooms",
    "Runtime",
    "Secret",
    "Sessions",
    "Settings",
    "Shutdown",
    "Size",
    "Store",
    "load",
    "structure_block",
    "take",
]
