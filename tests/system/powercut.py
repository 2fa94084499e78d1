"""A disk whose power can be cut: what was not fsynced before is gone after.

    python powercut.py MOUNTPOINT STATE

Mounts one flat directory by FUSE and says `ready`. What programs write stays in this process's memory.
`fsync` of a file carries its bytes to STATE/inodes, `fsync` of the directory carries its names to
STATE/survived, as hard links. Killing the process is the power cut: STATE/survived is what a machine
would find when it comes back. Strict, as POSIX allows a file system to be: a new file whose directory
was not fsynced is gone, a deleted one is back, and nothing unsynced reaches the disk by itself.
"""

import errno
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import mfusepy as fuse


class Inode:
    """A file: its bytes as programs see them, and what of them the disk has not got yet."""

    def __init__(self, disk: Path, number: int, mode: int) -> None:
        self.mode = stat.S_IFREG | mode
        self.disk = disk / str(number)
        self.disk.touch()
        self.data = bytearray()
        self.shortest = 0  # since the last fsync: what lay beyond was cut off, even if it grew again
        self.dirty: list[tuple[int, int]] = []
        self.changed = time.time_ns()

    def write(self, data: bytes, offset: int) -> int:
        if offset > len(self.data):
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset : offset + len(data)] = data
        self.dirty.append((offset, offset + len(data)))
        self.changed = time.time_ns()
        return len(data)

    def truncate(self, length: int) -> None:
        if length < len(self.data):
            del self.data[length:]
            self.shortest = min(self.shortest, length)
        else:
            self.data.extend(bytes(length - len(self.data)))
        self.changed = time.time_ns()

    def sync(self) -> None:
        with self.disk.open("r+b") as file:
            file.truncate(self.shortest)
            for start, end in self.dirty:
                file.seek(start)
                file.write(self.data[start:end])
            file.truncate(len(self.data))
        self.disk.chmod(stat.S_IMODE(self.mode))
        self.dirty.clear()
        self.shortest = len(self.data)

    def attributes(self) -> dict[str, Any]:
        times = dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), self.changed)
        return {
            "st_mode": self.mode,
            "st_nlink": 1,
            "st_size": len(self.data),
            "st_uid": os.getuid(),
            "st_gid": os.getgid(),
            "st_blksize": 4096,
            "st_blocks": -(-len(self.data) // 512),
            **times,
        }


class PowerCut(fuse.Operations):  # type: ignore[misc]  # mfusepy is not typed
    """The file system; one thread, so every operation is whole."""

    use_ns = True

    def __init__(self, state: Path) -> None:
        self.inodes = state / "inodes"
        self.survived = state / "survived"
        for directory in (self.inodes, self.survived):
            directory.mkdir(parents=True, exist_ok=True)
        self.names: dict[str, Inode] = {}
        self.open_files: dict[int, Inode] = {}
        self.numbers = iter(range(1, sys.maxsize))

    def init(self, path: str) -> None:
        """Say that the mount stands."""
        os.write(sys.stdout.fileno(), b"ready\n")

    def find(self, path: str) -> Inode:
        try:
            return self.names[path]
        except KeyError:
            raise fuse.FuseOSError(errno.ENOENT) from None

    def hold(self, inode: Inode) -> int:
        handle = next(self.numbers)
        self.open_files[handle] = inode
        return handle

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """Return a file's or the directory's attributes."""
        if fh is not None and fh in self.open_files:
            return self.open_files[fh].attributes()
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2, "st_uid": os.getuid(), "st_gid": os.getgid()}
        return self.find(path).attributes()

    def readdir(self, path: str, fh: int) -> list[str]:
        """Return the names."""
        return [".", "..", *(name[1:] for name in self.names)]

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        """Make a file; its name is not on the disk before the directory is fsynced."""
        inode = self.names[path] = Inode(self.inodes, next(self.numbers), stat.S_IMODE(mode))
        return self.hold(inode)

    def open(self, path: str, flags: int) -> int:
        """Open a file."""
        return self.hold(self.find(path))

    def release(self, path: str, fh: int) -> int:
        """Close a file, which makes nothing durable."""
        del self.open_files[fh]
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Read what was written, durable or not."""
        return bytes(self.open_files[fh].data[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Write, into memory only."""
        return self.open_files[fh].write(data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """Cut or lengthen, in memory only."""
        (self.find(path) if fh is None else self.open_files[fh]).truncate(length)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        """Carry a file's bytes to the disk."""
        self.open_files[fh].sync()
        return 0

    def opendir(self, path: str) -> int:
        """Open the directory."""
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        """Carry the directory's names to the disk."""
        for name in {file.name for file in self.survived.iterdir()} - {path[1:] for path in self.names}:
            (self.survived / name).unlink()
        for path_, inode in self.names.items():
            target = self.survived / path_[1:]
            if not (target.exists() and target.samefile(inode.disk)):
                target.unlink(missing_ok=True)
                target.hardlink_to(inode.disk)
        return 0

    def unlink(self, path: str) -> int:
        """Drop a name; who has the file open keeps it."""
        self.find(path)
        del self.names[path]
        return 0

    def rename(self, old: str, new: str) -> int:
        """Change a name."""
        self.names[new] = self.find(old)
        del self.names[old]
        return 0

    def chmod(self, path: str, mode: int) -> int:
        """Change a file's mode."""
        inode = self.find(path)
        inode.mode = stat.S_IFREG | stat.S_IMODE(mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        """Take an owner and forget it."""
        return 0

    def utimens(self, path: str, times: Any = None) -> int:
        """Take a time and forget it."""
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        """Claim a disk of a gigabyte."""
        return {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 1 << 18, "f_bfree": 1 << 17, "f_bavail": 1 << 17}


if __name__ == "__main__":
    # No direct_io: SQLite's -shm is shared memory, which the kernel grants only where it caches pages.
    fuse.FUSE(PowerCut(Path(sys.argv[2])), sys.argv[1], foreground=True, nothreads=True, hard_remove=True)
