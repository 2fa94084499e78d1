"""Projects: rooms of a kind of their own, known by their names, and their statuses (seed 002; PROTOCOL section 6)."""

from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar

__all__ = [
    "ALL_STATUSES",
    "EVENTS",
    "FEEDBACK_RESPONSE",
    "LONGEST_STATUS",
    "MAX_GUID",
    "PREFIX",
    "STATUS",
    "UPDATES",
    "Statuses",
    "guid_of",
    "room_of",
]

PREFIX: Final = "project:"
"""What the name of a project's room begins with; the project's guid follows."""
MAX_GUID: Final = 255 - len(PREFIX)
"""Characters of a guid, so that the room has a name that rooms may have."""

STATUS: Final = "project_status_change"
"""The event with which a project's status changes; the latest one is its status."""
UPDATES: Final = frozenset({"project_stage_update", "project_message"})
"""The events that its agent is told as they happen."""
EVENTS: Final = UPDATES | {STATUS, "agent_message"}
"""The events that a project has; the only ones that agents may publish."""
FEEDBACK_RESPONSE: Final = "user_feedback_response"
"""What an agent answers feedback with; and the event with which another connection of the asker is told of it."""


LONGEST_STATUS: Final = 64 << 10
"""Bytes of a status that is kept for agents that come later; a longer one is told as it happens, and never again."""
ALL_STATUSES: Final = 64 << 20
"""Bytes that all of them may have together."""
_BESIDE: Final = 512
"""What one takes beside its data, so that there cannot be any number of short ones."""


class _Status(Protocol):
    """What is to be known of a status."""

    @property
    def project(self) -> str: ...

    @property
    def data(self) -> bytes: ...


S = TypeVar("S", bound=_Status)


class Statuses(Generic[S]):
    """The last status of each project, by its guid, for agents that are told it later: no more of them than fit."""

    def __init__(self) -> None:
        self._by_project: dict[str, S] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._by_project)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_project)

    def get(self, project: str) -> S | None:
        """Return a project's status, if it is known."""
        return self._by_project.get(project)

    def put(self, status: S) -> None:
        """Keep a status in place of the project's last one; if there is no room for it, none is known any more."""
        last = self._by_project.get(status.project)
        total = self._bytes + _size(status) - (0 if last is None else _size(last))
        if len(status.data) > LONGEST_STATUS or total > ALL_STATUSES:
            self.pop(status.project)
            return
        self._by_project[status.project] = status
        self._bytes = total

    def pop(self, project: str) -> S | None:
        """Return a project's status, and keep it no longer."""
        status = self._by_project.pop(project, None)
        if status is not None:
            self._bytes -= _size(status)
        return status


def _size(status: _Status) -> int:
    return _BESIDE + len(status.data)


def room_of(guid: str) -> str:
    """Return the name of a project's room."""
    return PREFIX + guid


def guid_of(room: str) -> str | None:
    """Return the guid of the project whose room this is; None for a room that is no project's."""
    return room.removeprefix(PREFIX) if room.startswith(PREFIX) and room != PREFIX else None
