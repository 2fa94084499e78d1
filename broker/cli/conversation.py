"""A conversation in a terminal: what is typed goes to the session, what its log says comes back."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

from broker.cli.output import show_line
from broker.cli.screen import Screen, text_of
from broker.ids import new_id
from broker.tasks import spawn

if TYPE_CHECKING:
    from broker.cli.keyboard import Keyboard
    from broker.client import Record, Session

__all__ = ["Approvals", "Conversation"]

Approvals = Literal["ask", "allow", "reject"]

_EARLIER: Final = 20
"""Messages that are shown of a session that is resumed."""
_OWN: Final = 100
"""Messages of ours that are known again when they come back from the log."""


class Conversation:
    """One session, and who sits at the terminal.

    Args:
        session: what is talked in.
        keyboard: what is typed; None where nobody can be asked.
        approvals: who answers what the agent asks: a person, or we, with the first option of that kind.
        alone: whether answers stand alone on stdout.
        as_json: whether records are printed as they are instead.

    Attributes:
        screen: where it is shown.
        left: set once somebody wants to leave.
    """

    def __init__(
        self, session: "Session", keyboard: "Keyboard | None", approvals: Approvals, *, alone: bool, as_json: bool
    ) -> None:
        self._own: deque[str] = deque(maxlen=_OWN)
        self.screen = Screen(self._own.__contains__, alone=alone)
        self._session = session
        self._keyboard = keyboard
        self._approvals = approvals
        self._as_json = as_json
        self._changed = asyncio.Event()
        self._questions: dict[str, dict[str, Any]] = {}
        self._running: str | None = None  # the session's turn at work, whoever started it
        self._sent: str | None = None  # our message whose turn has not ended
        self._turn_id: str | None = None  # its turn, once the log tells of it
        self._ended: dict[str, Any] | None = None
        self._stopping = False
        self._cancelling: asyncio.Task[None] | None = None
        self.left = asyncio.Event()

    # -- what the log says ------------------------------------------------------------------------------

    async def follow(self, after_seq: int) -> None:
        """Show the session's records, until cancelled."""
        from broker.client import LogReset  # noqa: PLC0415

        records = self._session.records(after_seq=after_seq)
        while True:
            try:
                async for record in records:
                    self._take(record)
            except LogReset:
                self.screen.note("The broker has not kept what was here. All there is now:", fg="red")
            else:
                return

    async def resume(self) -> int:
        """Show what was said last, and return the number of the record after which to follow the log.

        What came after the message of the running turn is left to `follow`, so that the whole of that is shown.
        """
        attached = await self._session.attach(after_seq=-1)
        running: str = "" if attached.turn is None else attached.turn["turn_id"]
        after_seq = attached.head
        for message in await self._session.messages(limit=_EARLIER):
            seq = message["metadata"]["seq"]
            if message["turn_id"] == running:
                after_seq = min(after_seq, seq - 1)
            elif seq <= attached.head:
                self.screen.message(message["role"], text_of(message["content"]))
        return after_seq

    async def head(self) -> int:
        """Return the number of the newest record."""
        return (await self._session.attach(after_seq=-1)).head

    def _take(self, record: "Record") -> None:
        data = record.data if isinstance(record.data, dict) else {}
        if record.event == "user.message" and data.get("client_msg_id") == self._sent:
            self._turn_id = record.turn_id
            if self._stopping:
                self._cancelling = spawn(self._cancel(), name="cancel")
        if self._as_json:
            if record.turn_id is not None and record.turn_id == self._turn_id:
                show_line({"event": record.event, "seq": record.seq, "at": record.at, "data": record.data})
        elif not (record.event == "approval.resolved" and data.get("approval_id") not in self._questions):
            self.screen.show(record.event, data)
        self._note(record, data)
        self._changed.set()

    def _note(self, record: "Record", data: dict[str, Any]) -> None:
        """Remember what is to be asked, and what is over."""
        if record.event == "approval.requested":
            self._questions[data["approval_id"]] = data
            if self._keyboard is not None:
                self._keyboard.forget()
        elif record.event == "approval.resolved":
            self._questions.pop(data["approval_id"], None)
        elif record.event == "turn.started":
            self._running = record.turn_id
        elif record.event == "turn.ended":
            self._running = None
            if record.turn_id == self._turn_id and self._sent is not None:
                self._ended, self._sent = data, None

    # -- what is said -----------------------------------------------------------------------------------

    async def say(self, text: str) -> dict[str, Any] | None:
        """Start a turn, answer what its agent asks, and return how it ended; None if it was refused or we left.

        Raises:
            BrokerError: the broker refuses it.
        """
        self._sent, self._turn_id, self._ended, self._stopping = new_id(), None, None, False
        self._own.append(self._sent)
        try:
            await self._session.send(text, client_msg_id=self._sent)
        except BaseException:
            self._sent = None
            raise
        while self.is_busy and not self.left.is_set():
            if self._questions:
                await self._answer()
            else:
                await self._change()
        return self._ended

    async def talk(self) -> None:
        """Take lines and say them, until somebody leaves."""
        from broker.client import BrokerError  # noqa: PLC0415

        while not self.left.is_set():
            if self._questions:  # of a turn that somebody else started
                await self._answer()
                continue
            line = await self._line("> ")
            if line:
                try:
                    await self.say(line)
                except BrokerError as e:
                    self.screen.note(f"Not sent: {e}", fg="red")

    async def _answer(self) -> None:
        """Have the oldest question answered."""
        approval_id, question = next(iter(self._questions.items()))
        option_id = await self._choice(approval_id, question["options"])
        if option_id is None:
            return
        from broker.client import BrokerError  # noqa: PLC0415

        self._questions.pop(approval_id, None)
        try:
            await self._session.answer(approval_id, option_id)
        except BrokerError as e:
            self.screen.note(str(e))

    async def _choice(self, approval_id: str, options: list[dict[str, Any]]) -> str | None:
        """Return what was chosen; None if the question is gone, nothing fits, or nobody can be asked."""
        if self._approvals != "ask":
            fitting = [one["option_id"] for one in options if str(one.get("kind", "")).startswith(self._approvals)]
            if fitting:
                return str(fitting[0])
        if self._keyboard is None:
            self.screen.note("Nobody can answer here: use a terminal, or --approvals allow or reject.", fg="red")
            await self._cancel()
            await self._change()
            return None
        line = await self._line(f"1-{len(options)}? " if len(options) > 1 else "1? ", approval_id)
        if line is None:
            return None
        names = {str(number): one["option_id"] for number, one in enumerate(options, 1)}
        names |= {one["option_id"]: one["option_id"] for one in options}
        if line not in names:
            self.screen.note("Type the number of an option.")
        return names.get(line)

    async def _line(self, prompt: str, approval_id: str | None = None) -> str | None:
        """Return a line; None if there will be none, or another question is the one to ask now."""
        keyboard = self._keyboard
        if keyboard is None:
            return None
        with keyboard.listening():
            while not self.left.is_set() and next(iter(self._questions), None) == approval_id:
                line = keyboard.take()
                if line is not None:
                    self.screen.typed()
                    return line
                if keyboard.over:
                    self.leave()
                    break
                if approval_id is not None or self._running is None:
                    self.screen.prompt(prompt)
                await self._change(keyboard.came)
        return None

    async def _change(self, came: asyncio.Event | None = None) -> None:
        """Wait until a record or a line came, or somebody wants to leave."""
        events = [self._changed] if came is None else [self._changed, came]
        waits = [spawn(event.wait(), name="change") for event in events]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._changed.clear()

    # -- stopping ---------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Cancel our turn, the first time; leave, the second time or if there is none."""
        if self._sent is None or self._stopping:
            self.leave()
        else:
            self._stopping = True
            self.screen.note("Ctrl-C again leaves.")
            self._cancelling = spawn(self._cancel(), name="cancel")

    def leave(self) -> None:
        """Say nothing more; a turn that runs goes on without us."""
        self.left.set()
        self._changed.set()

    @property
    def is_stopped(self) -> bool:
        """Whether somebody here has stopped the turn."""
        return self._stopping

    @property
    def is_busy(self) -> bool:
        """Whether our turn has not ended."""
        return self._sent is not None

    async def _cancel(self) -> None:
        from broker.client import BrokerError  # noqa: PLC0415

        with suppress(BrokerError, OSError):
            if self._turn_id is not None:
                await self._session.cancel(self._turn_id)
