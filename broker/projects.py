"""Projects: rooms of a kind of their own, known by their names (seed 002; PROTOCOL section 6)."""

from typing import Final

__all__ = ["EVENTS", "FEEDBACK_RESPONSE", "MAX_GUID", "PREFIX", "STATUS", "UPDATES", "guid_of", "room_of"]

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


def room_of(guid: str) -> str:
    """Return the name of a project's room."""
    return PREFIX + guid


def guid_of(room: str) -> str | None:
    """Return the guid of the project whose room this is; None for a room that is no project's."""
    return room.removeprefix(PREFIX) if room.startswith(PREFIX) and room != PREFIX else None
