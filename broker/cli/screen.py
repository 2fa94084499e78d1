"""What a session's records look like in a terminal."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from broker.cli.output import one_line, printable

if TYPE_CHECKING:
    from broker.client import Connection

__all__ = ["Screen", "tell_of_link", "text_of"]

_TITLE: Final = 200
"""Characters shown of a title or a reason."""
_OUTCOMES: Final = {
    "cancelled": "was cancelled",
    "failed": "failed",
    "timed_out": "took too long",
    "lost": "was lost",
}
_OVER: Final = frozenset({"completed", "failed", "cancelled"})
"""States in which a tool call is over."""


def text_of(content: Any) -> str:
    """Return the text of a message's content: text, or blocks of which those without text are named."""
    if isinstance(content, str):
        return printable(content)
    blocks = content if isinstance(content, list) else []
    shown = [block for block in blocks if isinstance(block, dict)]
    return printable("".join(str(block.get("text", f"[{block.get('type')}]")) for block in shown))


def _title(said: Any) -> str:
    """Return what an agent calls something, on one line, so that it cannot pass for what stands around it."""
    return one_line(str(said)[:_TITLE])


class Screen:
    """Shows records one after the other: answers as they grow, the rest as dim lines between them.

    Args:
        alone: whether answers stand alone on stdout, and everything else goes to stderr: where nobody looks at that,
            only what matters.
        own: tells whether a message, by its `client_msg_id`, was typed here, so that it stands there already.
    """

    def __init__(self, own: Callable[[Any], bool], *, alone: bool = False) -> None:
        self._own = own
        self._alone = alone
        self._quiet = alone and not sys.stderr.isatty()
        self._kind: str | None = None  # of the line that is being written; None at the beginning of a line
        self._prompt = ""
        self._written: set[Any] = set()  # messages of this turn whose deltas were shown
        self._tools: dict[Any, str] = {}

    # -- lines ------------------------------------------------------------------------------------------

    def prompt(self, text: str) -> None:
        """Ask for a line."""
        if self._prompt != text:
            self._clear()
            click.secho(text, nl=False, bold=True, err=self._alone)
            self._prompt = text

    def typed(self) -> None:
        """Take note that a line was typed: the cursor is at the beginning of the next one."""
        self._prompt = ""

    def note(self, text: str, fg: str | None = None) -> None:
        """Write a line about what goes on; with a colour if it matters."""
        if self._quiet and fg is None:
            return
        self._clear()
        style: dict[str, Any] = {"fg": fg} if fg else {"dim": True}
        click.secho(printable(text), err=self._alone, **style)

    def finish(self) -> None:
        """Leave the cursor at the beginning of a line."""
        self._clear()

    def _clear(self) -> None:
        """Go to the beginning of a line."""
        if self._prompt:
            click.echo("\r\x1b[K", nl=False, err=self._alone)
            self._prompt = ""
        if self._kind is not None:
            click.echo(err=self._alone and self._kind != "message")
            self._kind = None

    def _write(self, kind: str, text: str) -> None:
        """Write on, or begin a line if what was written was of another kind."""
        if self._kind != kind:
            self._clear()
        thought = kind == "thought"
        if not text or (thought and self._quiet):
            return
        click.echo(click.style(text, dim=True) if thought else text, nl=False, err=self._alone and thought)
        self._kind = kind

    # -- records ----------------------------------------------------------------------------------------

    def show(self, event: str, data: dict[str, Any]) -> None:
        """Show a record; those of kinds that say nothing to a person are passed over."""
        shown = self._SHOWN.get(event)
        if shown is not None:
            shown(self, data)

    def message(self, who: str, text: str) -> None:
        """Show what somebody said."""
        self._clear()
        click.secho(f"{_title(who)}: ", nl=False, bold=True, err=self._alone)
        click.echo(text, err=self._alone)

    def _user_message(self, data: dict[str, Any]) -> None:
        if not self._own(data.get("client_msg_id")):
            self.message(str(data.get("author") or "somebody"), text_of(data.get("content")))

    def _delta(self, data: dict[str, Any]) -> None:
        self._written.add(data.get("message_id"))
        self._write("message", printable(str(data.get("text", ""))))

    def _completed(self, data: dict[str, Any]) -> None:
        if data.get("message_id") not in self._written:
            self._write("message", text_of(data.get("content")))
        if self._kind == "message":
            self._clear()

    def _replaced(self, data: dict[str, Any]) -> None:
        self._written.add(data.get("message_id"))
        self.note("The agent takes that back, and says instead:", fg="yellow")
        self._write("thought" if data.get("thought") else "message", text_of(data.get("content")))

    def _thought(self, data: dict[str, Any]) -> None:
        self._write("thought", printable(str(data.get("text", ""))))

    def _tool(self, data: dict[str, Any]) -> None:
        title = _title(data.get("title") or data.get("kind") or "a tool")
        self._tools[data.get("tool_id")] = title
        self.note(f"[{title}]")

    def _tool_update(self, data: dict[str, Any]) -> None:
        title = self._tools.get(data.get("tool_id"), "a tool")
        if data.get("status") in _OVER and data["status"] != "completed":
            self.note(f"[{title}: {data['status']}]")

    def _plan(self, data: dict[str, Any]) -> None:
        entries = [entry for entry in data.get("entries") or [] if isinstance(entry, dict)]
        for entry in entries:
            mark = {"completed": "x", "in_progress": ">"}.get(str(entry.get("status")), " ")
            self.note(f"  [{mark}] {_title(entry.get('content', ''))}")

    def _requested(self, data: dict[str, Any]) -> None:
        self.note(f"The agent asks: {_title(data.get('title') or 'may it go on?')}", fg="yellow")
        for number, option in enumerate(data.get("options") or [], 1):
            self.note(f"  {number}  {_title(option.get('name') or option['option_id'])}", fg="yellow")

    def _resolved(self, data: dict[str, Any]) -> None:
        by = f" by {_title(data['resolved_by'])}" if data.get("resolved_by") else ""
        chosen = f": {_title(data['option_id'])}" if data.get("option_id") else ""
        self.note(f"The question is {data.get('outcome', 'answered').replace('selected', 'answered')}{by}{chosen}.")

    def _queued(self, data: dict[str, Any]) -> None:
        ahead = data.get("ahead")
        behind = f"behind {ahead} other{'s' * (ahead != 1)}" if ahead else "for the agent to have time"
        self.note(f"It waits {behind}.")

    def _stalled(self, data: dict[str, Any]) -> None:
        self.note(f"Still waiting: {data.get('reason', 'nothing was said for a while')}.")

    def _cancelling(self, data: dict[str, Any]) -> None:
        self.note("Stopping it ...")

    def _agent(self, data: dict[str, Any]) -> None:
        if data.get("state") in {"restarting", "gone"}:
            reason = f": {data['reason']}" if data.get("reason") else ""
            self.note(_title(f"The agent is {data['state']}{reason}."))

    def _ended(self, data: dict[str, Any]) -> None:
        self._written.clear()
        self._tools.clear()
        self._clear()
        if data.get("outcome") != "completed":
            error = data.get("error") or {}
            reason = error.get("message") or data.get("reason")
            outcome = _OUTCOMES.get(str(data.get("outcome")), f"ended {data.get('outcome')}")
            if reason and reason.startswith("cancelled"):
                said = f"was {reason.removesuffix('.')}."
            else:
                said = f"{outcome}: {reason}" if reason else f"{outcome}."
            self.note(f"The turn {_title(said)}", fg="red")
        elif data.get("empty"):
            self.note("The agent ended without saying anything.", fg="yellow")

    _SHOWN: Final[dict[str, Callable[["Screen", dict[str, Any]], None]]] = {
        "user.message": _user_message,
        "message.delta": _delta,
        "message.completed": _completed,
        "message.replaced": _replaced,
        "thought.delta": _thought,
        "tool.started": _tool,
        "tool.updated": _tool_update,
        "plan.updated": _plan,
        "approval.requested": _requested,
        "approval.resolved": _resolved,
        "turn.queued": _queued,
        "turn.stalled": _stalled,
        "turn.cancelling": _cancelling,
        "turn.ended": _ended,
        "agent.state": _agent,
    }


async def tell_of_link(broker: "Connection", screen: Screen) -> None:
    """Say when the broker is away, and when it is back, until cancelled."""
    away = False
    async for state in broker.states():
        if state.name == "waiting" and not away:
            away = True
            screen.note("The broker is away; waiting for it to come back. Ctrl-C leaves.", fg="yellow")
        elif state.name == "open" and away:
            away = False
            screen.note("The broker is back.", fg="yellow")
