"""What a worker raises to choose the words of a refusal."""

__all__ = ["TurnFailed"]


class TurnFailed(Exception):  # noqa: N818 - it is named after the turn's outcome
    """Raise it in `answer` to end the turn as failed, with words of your own, or in `on_feedback` to refuse that.

    Args:
        code: a code of PROTOCOL 2b, such as `too_large` or `agent_unavailable`; any other is shown in the message.
        message: one sentence for the person who asked.
        retryable: whether asking the same again may help.
    """

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.retryable = retryable
