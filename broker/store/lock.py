"""One broker per store: a lock that the kernel gives back when its holder dies, however it dies."""

import fcntl
import os
from pathlib import Path

from broker.store.port import StoreError

__all__ = ["lock"]


def lock(path: Path) -> int:
    """Take the lock of the store at `path`, and hold it until the returned descriptor is closed.

    SQLite would let several programs write to one file by turns. We do not: a broker owns its sessions,
    and before 3.51.3 two connections that write or checkpoint at once can damage the file.

    Raises:
        StoreError: another broker holds it, or the directory cannot be written to.
    """
    beside = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"store {path}: cannot create {beside.name} beside it ({error.strerror}); "
            f"the directory {beside.parent} has to exist and to belong to the broker's user"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StoreError(
            f"store {path}: another broker (process {holder}) has it open; stop that one or give this one "
            f"a store.url of its own"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return descriptor
