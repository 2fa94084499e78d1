"""Whether nobody but us and root can change a file: asked of code that runs with all the broker's rights.

As with the keys of OpenSSH (its `StrictModes`), all folders on the way to the file count, since who can change a folder
can put another file in its place.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

__all__ = ["Unsafe", "check", "read"]

LINKS: Final = 40
"""Links on the way to a file after which it counts as endless, as for Linux itself."""

_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_WRITABLE: Final = "can be changed by others than its owner"


class Unsafe(Exception):  # noqa: N818 - named after the state of the file
    """Somebody else could change the plugin's code, which runs with all the broker's rights."""


def check(path: Path) -> None:
    """Refuse a file, or a folder with all that is in it, that somebody else can change.

    Raises:
        Unsafe: says what to do about it.
        OSError: it cannot be looked at.
    """
    way = list(_on_the_way(path))
    # The last two are the file and its folder, where everybody's adding is not fine either.
    reasons = {part: _why_unsafe(part.lstat(), sticky_is_fine=part not in way[-2:]) for part in way}
    reasons |= {part: _why_unsafe(part.lstat(), sticky_is_fine=False) for part in _inside(path)}
    # What is mounted read-only, as Kubernetes does with its world-writable folders, nobody here can change.
    found = {part: why for part, why in reasons.items() if why and not _read_only(os.statvfs(_place_of(part)))}
    if found:
        told = "; ".join(f"{part} {why}" for part, why in found.items())
        raise Unsafe(f"{told}; to allow it: {_cure(found)}")


def read(path: Path) -> bytes:
    """Return what is in a file, after looking whether it was safe as it was opened.

    Raises:
        Unsafe: it was not.
        OSError: it cannot be read.
    """
    check(path)
    with path.open("rb") as file:
        why = _why_unsafe(os.fstat(file.fileno()), sticky_is_fine=False)
        if why and not _read_only(os.fstatvfs(file.fileno())):
            raise Unsafe(f"{path} {why}")
        return file.read()


def _why_unsafe(status: os.stat_result, *, sticky_is_fine: bool) -> str | None:
    if status.st_uid not in {0, os.geteuid()}:
        return f"belongs to another user (uid {status.st_uid})"
    if stat.S_ISLNK(status.st_mode):  # whose mode says nothing
        return None
    # In a sticky folder, such as /tmp, everybody may add, and nobody may take away or replace what is not theirs.
    if status.st_mode & _OTHERS and not (sticky_is_fine and status.st_mode & stat.S_ISVTX):
        return _WRITABLE
    return None


def _read_only(filesystem: os.statvfs_result) -> bool:
    return bool(filesystem.f_flag & os.ST_RDONLY)


def _place_of(part: Path) -> Path:
    return part.parent if part.is_symlink() else part


def _cure(found: Mapping[Path, str]) -> str:
    """Return the commands after which all of these are safe."""
    ours = os.geteuid() or "root"
    owned = " ".join(str(part) for part, why in found.items() if why != _WRITABLE)
    writable = " ".join(str(part) for part, why in found.items() if why == _WRITABLE)
    return " && ".join([f"chown -h {ours} {owned}"] * bool(owned) + [f"chmod go-w {writable}"] * bool(writable))


def _on_the_way(path: Path) -> Iterator[Path]:
    """Yield all that is passed on the way to a file, from the root on: folders, links, and the file itself."""
    to_go = list(reversed(path.absolute().parts[1:]))
    here, links = Path(path.absolute().anchor), 0
    yield here
    while to_go:
        there = here / to_go.pop()
        if there.name == "..":
            here = here.parent
            continue
        yield there
        if not there.is_symlink():
            here = there
            continue
        links += 1
        if links > LINKS:
            raise Unsafe(f"{path} is a link without end")
        target = there.readlink()
        if target.is_absolute():
            here = Path(target.anchor)
        to_go += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _inside(path: Path) -> Iterator[Path]:
    for part in path.rglob("*") if path.is_dir() else ():
        if part.is_symlink():
            yield from _on_the_way(part)
        else:
            yield part
