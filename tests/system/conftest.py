"""What system tests share."""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import attrs
import pytest

POWER_CUT = Path(__file__).with_name("powercut.py")


@attrs.define
class PowerCutDisk:
    """A mounted directory whose power can be cut once.

    Attributes:
        path: where programs write; flat, no directories in it.
        survived: a plain directory with what is on the disk for good; look at it after `cut`.
    """

    path: Path
    survived: Path
    _process: subprocess.Popen[bytes]

    def cut(self) -> Path:
        """Cut the power: what was not fsynced is gone, and programs that run on get errors. Idempotent.

        Kill the programs first, or right after: a power cut takes them too.

        Returns:
            The directory that survived.
        """
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
            subprocess.run(["umount", "-l", self.path], check=True, capture_output=True, timeout=10)
        return self.survived


@contextmanager
def mounted(directory: Path) -> Iterator[PowerCutDisk]:
    """Mount a disk below `directory` for as long as the block runs; skip the test where FUSE is missing."""
    mount, state = directory / "disk", directory / "state"
    mount.mkdir(parents=True)
    command: list[str | Path] = [sys.executable, POWER_CUT, mount, state]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    disk = PowerCutDisk(mount, state / "survived", process)
    try:
        ready, _, _ = select.select([process.stdout], [], [], 20)
        if not ready or process.stdout.readline() != b"ready\n":
            process.kill()
            reason = process.stderr.read().decode(errors="replace").strip().splitlines()
            pytest.skip(f"no power cut: FUSE does not work here: {reason[-1] if reason else 'no answer'}")
        yield disk
        disk.cut()
    finally:
        if os.path.ismount(mount):
            disk.cut()
        process.kill()
        process.wait(10)
        process.stdout.close()
        process.stderr.close()


@pytest.fixture
def power_cut_disk() -> Callable[[Path], AbstractContextManager[PowerCutDisk]]:
    """Give a context manager, to be called with a directory, whose `disk.cut()` loses what was not fsynced."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no power cut: /dev/fuse is missing or not ours")
    return mounted
