"""What can go wrong, as exceptions: one that a worker raises, and one that it gets."""

__all__ = ["Refused", "TurnFailed"]


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


class Refused(ConnectionError):  # noqa: N818 - said of the worker, not of a mistake in it
    """The broker will not have this worker, and trying again would not change that.

    Args:
        message: why, in the broker's words where it said so.
        code: the close code (4500 to 4999, PROTOCOL 2c) or HTTP status it said so with; 0 for neither.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
