"""Refuses what people must not say, or takes it out: patterns on the texts inside of what they say, and its size.

docs/content-filter.md is its manual. Patterns meet text that hostile people write, so they are RE2's, whose time grows
with the text and never with its powers. What is looked at are the strings in the JSON, keys left out; where one is
changed, all around it stays byte for byte.
"""

import fnmatch
import functools
import logging
import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain, islice
from typing import Annotated, Any, Final, Literal

import attrs
import msgspec
from msgspec import Meta

from broker.errors import BrokerError
from broker.hooks import Broker, Content, Count, Plugin, Size

try:
    import re2  # type: ignore[import-untyped]  # it has no types
except ImportError as missing:
    raise ImportError('content_filter takes google-re2: pip install "actor-broker[filters]"') from missing

log = logging.getLogger(__name__)

MOST_RULES: Final = 500
MOST_TAKEN_OUT: Final = 1000
"""Places of one message that are replaced; one with more is refused, since each costs some microseconds."""
PATTERN_MEMORY: Final = 32 << 20
"""Bytes that a compiled pattern may take; from there on RE2 is slower, and still right."""
LOG_PAUSE: Final = 10.0
"""Seconds between two lines of the log about one rule."""

_STRING: Final = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")([ \t\n\r]*+:)?', re.DOTALL)
"""A string of JSON, and the colon after it if it is a key."""
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_MARKS: Final = frozenset(
    chain(
        *(range(0x300, 0x370), range(0x1AB0, 0x1B00), range(0x1DC0, 0x1E00), range(0x20D0, 0x2100)),
        *(range(0xFE00, 0xFE10), range(0xFE20, 0xFE30)),
    )
)
"""Accents and selectors of variants that stand behind the character they belong to; not the marks of scripts that
cannot be read without."""

_decode: Final = msgspec.json.Decoder(str).decode

Text = Annotated[str, Meta(min_length=1, max_length=256)]
Pattern = Annotated[str, Meta(min_length=1, max_length=10_000)]
Search = Callable[[str], object]


@attrs.frozen(kw_only=True)
class Rule:
    """What is looked for, where, and what is done about it.

    Attributes:
        name: What the log and refused clients know it by.
        pattern: What is looked for, in RE2's syntax.
        action: Whether a text that has it is refused, or it is taken out.
        replace: What is put in its place.
        message: What a refused client is told.
        fold: Looks past case, accents, width and invisible characters.
        operations: How it is said, by pattern, such as `turn.*`.
        rooms: In which rooms, by pattern; null for everywhere, sessions too.
    """

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    pattern: Pattern
    action: Literal["refuse", "redact"] = "refuse"
    replace: Annotated[str, Meta(max_length=1000)] = "***"
    message: Text = "That must not be said here."
    fold: bool = False
    operations: tuple[Text, ...] = ("*",)
    rooms: tuple[Text, ...] | None = None
    compiled: Any = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        compiled = compile_pattern([self.pattern], fold=self.fold)
        if compiled.search("") is not None:
            raise ValueError("the pattern fits where there is nothing, and so everywhere")
        object.__setattr__(self, "compiled", compiled)

    def seen(self, text: str) -> str:
        """Return what the pattern is looked for in."""
        return folded(text) if self.fold else text

    def concerns(self, operation: str, resource: str | None) -> bool:
        """Tell whether it is about what is said like this, there."""
        if not _fits(self.operations, operation):
            return False
        is_room = operation.startswith(("room.", "project."))
        return self.rooms is None or (is_room and _fits(self.rooms, resource or ""))


@attrs.frozen(kw_only=True)
class FilterSettings:
    """What stands under `content_filter:`.

    Attributes:
        rules: What is looked for, in this order.
        max_text: Bytes of all texts of a message together, in UTF-8; null for no limit of its own.
        max_strings: Texts in one message.
        max_blocks: Content blocks of a turn; null for no limit.
        max_depth: Lists and objects within each other; null for no limit of its own.
    """

    rules: tuple[Rule, ...] = ()
    max_text: Size | None = None
    max_strings: Count = 10_000
    max_blocks: Count | None = None
    max_depth: Count | None = None
    unions: Mapping[bool, Any] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if len(self.rules) > MOST_RULES:
            raise ValueError(f"at most {MOST_RULES} rules")
        names = Counter(rule.name for rule in self.rules)
        if twice := [name for name, number in names.items() if number > 1]:
            raise ValueError(f"two rules are called {twice[0]}")
        object.__setattr__(self, "unions", {fold: self._union(fold=fold) for fold in (False, True)})

    def _union(self, *, fold: bool) -> Any:
        """Return one pattern for all rules, so that a text that nothing is wrong with is gone through once."""
        patterns = [rule.pattern for rule in self.rules if rule.fold is fold]
        try:
            return compile_pattern(patterns, fold=fold) if patterns else None
        except ValueError as e:
            raise ValueError(f"the patterns do not go together: {e}") from None


class ContentFilter(Plugin):
    """Refuses or changes what people say."""

    version = "1.0"
    Settings = FilterSettings
    settings: FilterSettings

    def __init__(self, settings: FilterSettings, broker: Broker) -> None:
        super().__init__(settings, broker)
        self.hits: Counter[str] = Counter()
        self._quiet_until: dict[str, float] = {}

    def reload(self, settings: FilterSettings) -> bool:
        """Take over new rules."""
        self.settings = settings
        return True

    def on_content(self, content: Content) -> bytes | None:
        """Let pass what is said, refuse it, or return it without what must not be said."""
        texts = strings_of(content.data, self.settings.max_strings)
        self._measure(content, texts)
        suspects = [found for found in texts if self._is_suspect(found[2])]
        if not suspects:
            return None
        work = Work(self, content)
        changed = [(start, end, new) for start, end, old in suspects if (new := work.cleaned(old)) is not old]
        return spliced(content.data, changed) if changed else None

    def _is_suspect(self, text: str) -> bool:
        """Tell whether any rule at all might have to do with a text."""
        plain, folding = self.settings.unions[False], self.settings.unions[True]
        return (plain is not None and plain.search(text) is not None) or (
            folding is not None and folding.search(folded(text)) is not None
        )

    def _measure(self, content: Content, texts: Iterable[tuple[int, int, str]]) -> None:
        """Refuse what is too large (`too_large`)."""
        limits, data = self.settings, content.data
        if limits.max_text is not None and sum(size_of(text) for _, _, text in texts) > limits.max_text:
            raise BrokerError("too_large", f"All text together has at most {limits.max_text} bytes here.")
        if limits.max_depth is not None and depth_of(data) > limits.max_depth:
            raise BrokerError("too_large", f"Nothing is deeper than {limits.max_depth} levels here.")
        if limits.max_blocks is not None and content.operation.startswith("turn.") and data.lstrip()[:1] == b"[":
            blocks = msgspec.json.decode(data, type=list[msgspec.Raw])
            if len(blocks) > limits.max_blocks:
                raise BrokerError("too_large", f"A turn has at most {limits.max_blocks} blocks here.")

    def note(self, rule: Rule, content: Content) -> None:
        """Count, and log now and then, that a rule had to do something; never about what."""
        self.hits[rule.name] += 1
        now = self.broker.monotonic()
        if now >= self._quiet_until.get(rule.name, now):
            self._quiet_until[rule.name] = now + LOG_PAUSE
            done, who, times = rule.action, content.principal.user, self.hits[rule.name]
            log.info("rule %s: %s %s of %s, time %d", rule.name, done, content.operation, who, times)


class Work:
    """The rules on one message.

    Args:
        plugin: whose settings they are.
        content: what is said, how, where and by whom.
    """

    def __init__(self, plugin: ContentFilter, content: Content) -> None:
        self._plugin = plugin
        self._content = content
        rules = [rule for rule in plugin.settings.rules if rule.concerns(content.operation, content.resource)]
        self._refusing = [rule for rule in rules if rule.action == "refuse"]
        self._redacting = [rule for rule in rules if rule.action == "redact"]
        self._noted: set[str] = set()
        self._taken_out = 0

    def cleaned(self, text: str) -> str:
        """Return a text without what must not be said; the same object if nothing had to be taken out.

        Raises:
            BrokerError: `forbidden`: one of the rules refuses it, as it came or as it would have become.
        """
        self._refuse(text)
        clean = text
        for rule in self._redacting:
            clean = self._redacted(rule, clean)
        if clean is not text:
            self._refuse(clean)
        return clean

    def _refuse(self, text: str) -> None:
        for rule in self._refusing:
            if rule.compiled.search(rule.seen(text)) is not None:
                self._note(rule)
                raise BrokerError("forbidden", rule.message, hint=f"rule {rule.name}")

    def _redacted(self, rule: Rule, text: str) -> str:
        found = rule.compiled.finditer(rule.seen(text))
        spans = [span for match in islice(found, MOST_TAKEN_OUT + 1) if (span := match.span())[0] < span[1]]
        if not spans:
            return text
        self._note(rule)
        self._taken_out += len(spans)
        if self._taken_out > MOST_TAKEN_OUT:
            raise BrokerError("forbidden", rule.message, hint=f"rule {rule.name}")
        return replaced(text, unfolded(text, spans) if rule.fold else spans, rule.replace)

    def _note(self, rule: Rule) -> None:
        if rule.name not in self._noted:
            self._noted.add(rule.name)
            self._plugin.note(rule, self._content)


# -- JSON -------------------------------------------------------------------------------------------


def strings_of(data: bytes, most: int) -> list[tuple[int, int, str]]:
    """Return the strings in JSON that are no keys: where each begins and ends, its quotes included, and what it says.

    Raises:
        BrokerError: `too_large`: there are more than `most`.
    """
    values = (found for found in _STRING.finditer(data) if found[2] is None)
    texts = [(found.start(), found.end(), _decode(found[1])) for found in islice(values, most + 1)]
    if len(texts) > most:
        raise BrokerError("too_large", f"One message holds at most {most} texts here.")
    return texts


def spliced(data: bytes, texts: Iterable[tuple[int, int, str]]) -> bytes:
    """Return JSON with other strings in the places of some, which are given in order."""
    parts, after = [], 0
    for start, end, text in texts:
        parts += [data[after:start], msgspec.json.encode(text)]
        after = end
    return b"".join([*parts, data[after:]])


def depth_of(data: bytes) -> int:
    """Return how many lists and objects are within each other, at most."""
    brackets = _STRING.sub(b"", data).translate(None, _NO_BRACKETS)
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)


def size_of(text: str) -> int:
    """Return the bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


# -- texts ------------------------------------------------------------------------------------------


def compile_pattern(patterns: Sequence[str], *, fold: bool) -> Any:
    """Return what looks for any of these patterns.

    Raises:
        ValueError: RE2 cannot take them, and says why.
    """
    options = re2.Options()
    options.log_errors, options.max_mem, options.case_sensitive = False, PATTERN_MEMORY, not fold
    whole = "|".join(f"(?:{pattern})" for pattern in patterns) if len(patterns) > 1 else patterns[0]
    try:
        # What is looked for is folded like what it is looked for in; the characters of the syntax stay as they are.
        return re2.compile(whole.translate(foldings()) if fold else whole, options)
    except re2.error as e:
        reason = e.args[0].decode(errors="replace") if isinstance(e.args[0], bytes) else e.args[0]
        raise ValueError(f"pattern: {reason}") from None


@functools.cache
def foldings() -> dict[int, str]:
    """Return what becomes of the characters beyond ASCII that do not stay as they are.

    One by one: to normalize a whole text takes time that grows with its square, where somebody heaps up accents.
    """
    found: dict[int, str] = {}
    # Planes 3 to 13 and above hold nothing but rare Han characters and what has no meaning.
    for point in chain(range(0x80, 0x30000), range(0xE0000, 0xE1000)):
        char = chr(point)
        if unicodedata.category(char) == "Cf" or point in _MARKS:
            found[point] = ""
        elif unicodedata.decomposition(char) or char.casefold() != char:
            kept = (part for part in unicodedata.normalize("NFKD", char) if ord(part) not in _MARKS)
            found[point] = unicodedata.normalize("NFC", "".join(kept)).casefold()
    return found


def folded(text: str) -> str:
    """Return a text without accents and invisible characters, in plain forms and lower case beyond ASCII."""
    return text if text.isascii() else text.translate(foldings())


def unfolded(text: str, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return where in a text those characters stand that became these of its folded form."""
    if text.isascii():
        return list(spans)
    table = foldings()
    ends = list(accumulate(len(table.get(ord(char), char)) for char in text))
    return [(bisect_right(ends, start), bisect_right(ends, end - 1) + 1) for start, end in spans]


def replaced(text: str, spans: Iterable[tuple[int, int]], by: str) -> str:
    """Return a text with something else in these places, which are given in order."""
    parts, after = [], 0
    for start, end in spans:
        if start >= after:  # of one character that became several, more than one may have been found
            parts += [text[after:start], by]
        after = max(after, end)
    return "".join([*parts, text[after:]])


def _fits(patterns: Iterable[str], name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in patterns)
