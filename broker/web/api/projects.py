"""Projects over HTTP; what is published in them is published in their rooms."""

from typing import Any, Final

from broker import operations as ops
from broker.actors.requests import ToRoom
from broker.ids import new_id
from broker.protocol import payloads
from broker.protocol.checks import check_name
from broker.web.api import answers
from broker.web.api.endpoint import Call, endpoint

MARGIN: Final = 2.0
"""Seconds for the project to say itself that its agent did not answer in time."""


@endpoint(
    *("POST", "/projects/{project}/feedback", "project.feedback", payloads.Feedback),
    answer=answers.FeedbackAnswer,
    resource="room",
    errors=("agent_unavailable", "overloaded", "timeout", "conflict"),
)
async def ask_agent(call: Call, feedback: payloads.Feedback) -> Any:
    """Bring feedback to the project's agent, and answer with what that says."""
    check_name(feedback.project, "project")
    operation = ops.Feedback(call.by, call.sender, None, feedback.feedback_id or new_id(), bytes(feedback.data))
    patience = call.services.settings.projects.feedback + MARGIN
    return await call.registry.ask(ToRoom(feedback.room, operation), timeout=patience)
