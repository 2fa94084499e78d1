"""What was revoked while running: users up to a moment, and single tokens; forgotten once no such token can live.

With a file it outlives the broker: each line is appended and synchronised before it is acknowledged, and lines that
are past are left out at the next start.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from broker.errors import BrokerError

__all__ = ["Kind", "Revocations", "Unreadable", "of_issuer"]

MOST: Final = 100_000
"""Revocations that are in force at the same time; each takes some 200 bytes."""


class Unreadable(Exception):  # noqa: N818 - named after the state of the file
    """The file is there and is not ours: somebody was revoked in it and would be let in."""


Kind = Literal["user", "jti"]


class _Line(msgspec.Struct):
    kind: Kind
    name: str
    at: int


_decode: Final = msgspec.json.Decoder(_Line).decode


def of_issuer(jti: str, issuer: str | None) -> str:
    """Return the name of a token that is unique to its issuer; `jti` alone means that of any."""
    return jti if issuer is None else f"{issuer} {jti}"


class Revocations:
    """Revoked users and tokens.

    Args:
        now: milliseconds since the epoch.
        keep: seconds for which one is in force: as long as a token can live.
        file: where they are kept; None to forget them at the end.

    Attributes:
        some: whether there are any.

    Raises:
        Unreadable: the file holds something else.
        OSError: it cannot be read or written.
    """

    def __init__(self, now: Callable[[], int], keep: float, file: Path | None) -> None:
        self.keep = keep
        self.some = False
        self._now = now
        self._file = file
        self._at: dict[Kind, dict[str, int]] = {"user": {}, "jti": {}}
        if file is not None:
            self._load(file)

    def __len__(self) -> int:
        """Return how many are remembered."""
        return sum(len(names) for names in self._at.values())

    @property
    def durable(self) -> bool:
        """Whether they outlive the broker."""
        return self._file is not None

    def of_user(self, name: str) -> int | None:
        """Return when a user was revoked, in milliseconds since the epoch; None if not, or long ago."""
        return self._find("user", name)

    def of_token(self, jti: str) -> int | None:
        """Return when a token was revoked, as `of_user`; its name is as `of_issuer` makes it."""
        return self._find("jti", jti)

    def add(self, kind: Kind, name: str) -> int:
        """Revoke a user or a token from now on; return until when that is in force, milliseconds since the epoch.

        Raises:
            BrokerError: `overloaded`: there are as many as there may be.
        """
        self._sweep()
        if len(self) >= MOST and name not in self._at[kind]:
            raise BrokerError("overloaded", f"{MOST} revocations are in force already.", retry_after=60.0)
        self._at[kind][name] = self._now()
        self.some = True
        return self._at[kind][name] + self._milliseconds

    def write(self, kind: Kind, name: str) -> None:
        """Append one that was added to the file, durably; blocks, so for a thread. Without a file it does nothing.

        Raises:
            OSError: it is not on the disk.
        """
        at = self._at[kind].get(name)
        if self._file is None or at is None:
            return
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            whole = os.fstat(descriptor).st_size
            try:
                _put(descriptor, msgspec.json.encode(_Line(kind, name, at)) + b"\n")
            except OSError:
                os.ftruncate(descriptor, whole)  # or the next line would go on where this one broke off
                raise
        finally:
            os.close(descriptor)

    @property
    def _milliseconds(self) -> int:
        return round(self.keep * 1000)

    def _find(self, kind: Kind, name: str) -> int | None:
        at = self._at[kind].get(name)
        return at if at is not None and at + self._milliseconds >= self._now() else None

    def _sweep(self) -> None:
        past = self._now() - self._milliseconds
        for kind, names in self._at.items():
            self._at[kind] = {name: at for name, at in names.items() if at >= past}
        self.some = any(self._at.values())

    def _load(self, file: Path) -> None:
        lines = file.read_bytes().split(b"\n") if file.exists() else [b""]
        whole = lines[:-1]  # what a crash cut short was never acknowledged
        for number, text in enumerate(whole, 1):
            try:
                line = _decode(text)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                raise Unreadable(
                    f"{file}, line {number}: this is no revocation; repair the line or remove it"
                ) from None
            known = self._at[line.kind]
            known[line.name] = max(line.at, known.get(line.name, 0))
        self._sweep()
        self._rewrite(file)

    def _rewrite(self, file: Path) -> None:
        fresh = file.with_name(f"{file.name}.new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        lines = (_Line(kind, name, at) for kind, names in self._at.items() for name, at in names.items())
        try:
            _put(descriptor, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        finally:
            os.close(descriptor)
        fresh.replace(file)
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _put(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)
