"""Finds the engine that a configuration asks for."""

from typing import Final, cast, get_args

from broker.store.memory import MemoryEngine
from broker.store.port import Engine, StoreError
from broker.store.sqlite import SqliteEngine, Sync

__all__ = ["engine_for"]

_SQLITE: Final = "sqlite:///"
_MEMORY: Final = ("memory:", "memory://")
_HINT: Final = "write sqlite:///broker.db, sqlite:////var/lib/broker/broker.db (four slashes) or memory:"


def engine_for(url: str, sync: str = "full") -> Engine:
    """Return the engine for `store.url` and `store.sync` (PROTOCOL section 7), not yet open.

    Args:
        url: `sqlite:///relative/path`, `sqlite:////absolute/path`, `memory:` or `memory://`.
        sync: `full`, `normal` or `off`; of no meaning in memory.

    Raises:
        StoreError: the URL or the word is none of these.
    """
    if sync not in get_args(Sync):
        raise StoreError(f"store.sync: {sync!r} is unknown; write full, normal or off")
    if url in _MEMORY:
        return MemoryEngine()
    path = url.removeprefix(_SQLITE)
    if path == url:
        # Not the whole URL: one of another kind may hold a password.
        raise StoreError(f"store.url: there is no store of the kind {url.partition(':')[0][:40]!r}; {_HINT}")
    if not path or path.startswith(":") or "?" in path:
        raise StoreError(f"store.url: {path!r} is not a file's path; {_HINT}")
    return SqliteEngine(path, cast("Sync", sync))
