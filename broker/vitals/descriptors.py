"""How many sockets there can be: never so many that nothing else can be opened (setrlimit(2), RLIMIT_NOFILE)."""

import resource
from typing import Final

from loguru import logger

__all__ = ["room_for", "spared"]

LEAST: Final = 32
"""Descriptors kept for all else: the store, the log, agents, the event loop, those being turned away."""
PART: Final = 10
"""Kept is one in so many, if that is more."""


def room_for(connections: int, taken: int) -> int:
    """Return how many connections there can be, after raising the process's own limit as far as it may and need be.

    Args:
        connections: how many are wanted.
        taken: descriptors beyond that which the doors need for connections that do not stay.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + taken
    wanted = max(wanted + LEAST, -(-wanted * PART // (PART - 1)))
    if soft != resource.RLIM_INFINITY and soft < wanted:
        new = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (new, hard))
        soft = new
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    room = max(1, soft - spared(soft) - taken)
    text = "listen.max_connections is {}, but the system allows {} open files: at most {} connections are let in"
    logger.warning(text, connections, soft, room)
    return room


def spared(limit: int) -> int:
    """Return how many of so many descriptors are kept for all else."""
    return max(LEAST, -(-limit // PART))
