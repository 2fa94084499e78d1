"""A value that is used but never shown."""

import attrs

__all__ = ["HIDDEN", "Secret"]

HIDDEN = "********"
"""What stands in place of a secret wherever settings are shown."""


@attrs.frozen(repr=False, str=False)
class Secret:
    """Text that no `repr`, `str`, format, log line or `--print` ever shows.

    Args:
        text: what `reveal` gives back.
    """

    _text: str

    def reveal(self) -> str:
        """Return the secret itself; for the one place that needs it."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)
