"""Whether a directory is there, asked of file systems that may never answer."""

import asyncio
import os
import threading
from contextlib import suppress
from typing import Final

__all__ = ["PATIENCE", "Folders"]

PATIENCE: Final = 5.0
"""Seconds that a file system has to tell whether a directory is there."""


class Folders:
    """Looks for directories, each in a thread that holds up neither the loop nor the end of the program."""

    def __init__(self) -> None:
        self._looking: dict[str, asyncio.Future[bool]] = {}

    async def holds(self, path: str, patience: float = PATIENCE) -> bool:
        """Tell whether this directory is there; one that nothing is heard of in time is not.

        Whoever asks for the same again meanwhile waits for the same answer, so that a file system which never
        gives one costs one thread for each directory.
        """
        found = self._looking.get(path)
        if found is None:
            found = self._looking[path] = asyncio.get_running_loop().create_future()
            found.add_done_callback(lambda _: self._looking.pop(path, None))
            look = threading.Thread(target=_look, args=(path, found), name=f"looks for {path}", daemon=True)
            look.start()
        done, _ = await asyncio.wait([found], timeout=patience)
        return bool(done) and found.result()


def _look(path: str, found: "asyncio.Future[bool]") -> None:
    there = os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises where it may not look
    # By now the loop may be closed; then nobody waits any more.
    with suppress(RuntimeError):
        found.get_loop().call_soon_threadsafe(found.set_result, there)
