"""One session's line to an agent that plays scripts."""

import msgspec

from broker.agents.echo.play import CallLater, Play
from broker.agents.port import Configuration, Configured, Emit
from broker.errors import BrokerError
from broker.messages import Prompt, TurnFailed

__all__ = ["ScriptedLink", "text_of"]


class _Block(msgspec.Struct, frozen=True):
    type: str
    text: str = ""


_CONTENT = msgspec.json.Decoder(str | list[_Block])


def text_of(content: bytes) -> str:
    """Return the text of a prompt's content: a JSON string, or blocks of which those without text are named.

    Raises:
        msgspec.MsgspecError: if the content is neither (`ValueError` if it is not UTF-8).
    """
    decoded = _CONTENT.decode(content)
    if isinstance(decoded, str):
        return decoded
    return "".join(block.text if block.type == "text" else f"[{block.type}]" for block in decoded)


class ScriptedLink:
    """A line on which one script after the other is played; a `broker.agents.port.AgentLink` but for `answer`.

    Args:
        emit: hears what is said.
        call_later: where time comes from; the running loop if left out.
        name: what refusals call the agent.
    """

    def __init__(self, emit: Emit, call_later: CallLater | None, name: str) -> None:
        self._emit = emit
        self._call_later = call_later
        self._name = name
        self._play: Play | None = None
        self._paused = False

    def answer(self, turn_id: str, text: str) -> None:
        """Answer a turn with this text."""
        raise NotImplementedError

    def start_turn(self, prompt: Prompt) -> None:
        """Answer, unless another turn is still being answered or the content cannot be read."""
        turn_id = prompt.turn_id
        if self._play is not None and not self._play.over:
            message = f"The {self._name} is still streaming another turn."
            self._emit(TurnFailed(turn_id, "busy", message, retryable=True))
            return
        try:
            text = text_of(prompt.content)
        except (msgspec.MsgspecError, ValueError):
            self._emit(TurnFailed(turn_id, "invalid_message", "The content is neither text nor blocks."))
            return
        self.answer(turn_id, text)

    def _begin(self, play: Play) -> None:
        """Say what takes time or is told to go wrong; what the last turn's play has still to say is left out."""
        if self._play is not None:
            self._play.stop()
        self._play = play
        if self._paused:
            play.hold()
        play.go_on()

    def cancel_turn(self, turn_id: str) -> None:
        """Stop streaming and settle as `cancelled`."""
        if self._play is not None and self._play.turn_id == turn_id:
            self._play.cancel()

    def answer_approval(self, turn_id: str, key: str, option_id: str | None) -> None:
        """Go on with what was asked for."""
        if self._play is not None and self._play.turn_id == turn_id:
            self._play.answer(option_id)

    def configure(self, configuration: Configuration, configured: Configured) -> None:
        """Say that there is nothing to choose."""
        configured(BrokerError("not_found", f"The {self._name} has no modes and no options."))

    def pause(self) -> None:
        """Say nothing after the next wait; what has no delay is said already."""
        self._paused = True
        if self._play is not None:
            self._play.hold()

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        if self._play is not None:
            self._play.release()

    async def close(self) -> None:
        """Stop at once and say nothing more."""
        if self._play is not None:
            self._play.stop()
            self._play = None
