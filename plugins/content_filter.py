"""Refuses what people must not say, or takes it out: patterns on the texts inside of what they say, and its size.

docs/content-filter.md is its manual. Patterns meet text that hostile people write, so they are RE2's, whose time grows
with the text and never with its powers. What is looked at are the strings in the JSON, keys left out; where one is
changed, all around it stays byte for byte.
"""

import asyncio
import fnmatch
import functools
import logging
import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Awaitable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
AT_ONCE: Final = 64 << 10
"""Bytes of a message that no thread is needed for, each quote counted as `QUOTE`."""
QUOTE: Final = 32
EFFORT_AT_ONCE: Final = 1 << 20
EFFORT: Final = 32
"""Characters gone through to take something out: at once, and in a thread for each byte of the message, or of 1 MiB."""
FOLDED: Final = 16  # what a character counts that may have to be folded
PIECE: Final = 32 << 10
"""Characters that are folded while other threads wait."""
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

    def concerns(self, operation: str, resource: str | None) -> bool:
        """Tell whether it is about what is said like this, there."""
        is_room = operation.startswith(("room.", "project."))
        there = self.rooms is None or (is_room and _fits(self.rooms, resource or ""))
        return there and _fits(self.operations, operation)


class Finder:
    """Tells which of many rules, all folding or none, find something in a text: it is gone through once or twice."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.fold = rules[0].fold
        self._rules = rules
        patterns = [rule.pattern for rule in rules]
        self._any = compile_pattern(patterns, fold=self.fold)
        self._which = re2.Set.SearchSet(_options(fold=self.fold))
        for pattern in patterns:
            self._which.Add(pattern.translate(foldings()) if self.fold else pattern)
        self._which.Compile()

    def found(self, seen: str) -> Sequence[Rule]:
        """Return the rules that find something; all if that many cannot be told apart for want of memory."""
        if self._any.search(seen) is None:
            return ()
        which = self._which.Match(seen)
        return [self._rules[index] for index in which] if which else self._rules


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
    finders: tuple[Finder, ...] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if len(self.rules) > MOST_RULES:
            raise ValueError(f"at most {MOST_RULES} rules")
        names = Counter(rule.name for rule in self.rules)
        if twice := [name for name, number in names.items() if number > 1]:
            raise ValueError(f"two rules are called {twice[0]}")
        kinds = ([rule for rule in self.rules if rule.fold is fold] for fold in (False, True))
        object.__setattr__(self, "finders", tuple(Finder(rules) for rules in kinds if rules))


class ContentFilter(Plugin):
    """Refuses or changes what people say."""

    version = "1.0"
    Settings = FilterSettings
    settings: FilterSettings

    def __init__(self, settings: FilterSettings, broker: Broker) -> None:
        super().__init__(settings, broker)
        self.hits: Counter[str] = Counter()
        self._quiet_until: dict[str, float] = {}
        self._thread = ThreadPoolExecutor(1, "content_filter")  # which begins when there is something for it

    async def stop(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def reload(self, settings: FilterSettings) -> bool:
        """Take over new rules."""
        self.settings = settings
        return True

    def on_content(self, content: Content) -> Awaitable[bytes | None] | bytes | None:
        """Let pass what is said, refuse it, or return it without what must not be said."""
        if len(content.data) + QUOTE * content.data.count(b'"') <= AT_ONCE:
            work = Work(self.settings, content, EFFORT_AT_ONCE)
            try:
                return work.done()
            except Exhausted:
                pass  # which needs more time than everybody may be made to wait
            finally:
                self._note(work)
        return self._in_thread(content)

    async def _in_thread(self, content: Content) -> bytes | None:
        work = Work(self.settings, content, EFFORT * max(1 << 20, len(content.data)))
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work.done)
        except Exhausted:
            raise BrokerError("too_large", "Too much would have to be taken out of this.") from None
        finally:
            self._note(work)

    def _note(self, work: "Work") -> None:
        """Count, and log now and then, which rules had to do something; never about what."""
        now = self.broker.monotonic()
        for rule in work.noted.values():
            self.hits[rule.name] += 1
            if now >= self._quiet_until.get(rule.name, now):
                self._quiet_until[rule.name] = now + LOG_PAUSE
                done = (rule.name, rule.action, work.content.operation, work.content.principal.user)
                log.info("rule %s: %s %s of %s, time %d", *done, self.hits[rule.name])


class Exhausted(Exception):  # noqa: N818 - what the effort is
    """It takes too long."""


class Work:
    """The rules on one message; `effort` is what may be gone through, `noted` the rules that had to do something."""

    def __init__(self, settings: FilterSettings, content: Content, effort: int) -> None:
        self.content = content
        self.noted: dict[str, Rule] = {}
        self._settings = settings
        self._effort = effort
        self._rules = [rule for rule in settings.rules if rule.concerns(content.operation, content.resource)]
        self._taken_out = 0
        self._text = self._folded = ""

    def done(self) -> bytes | None:
        """Return what is to be said instead, if anything; raises `BrokerError` to refuse, or `Exhausted`."""
        texts = strings_of(self.content.data, self._settings.max_strings)
        self._measure(texts)
        if not self._rules:
            return None
        changed = [(start, end, new) for start, end, old in texts if (new := self._cleaned(old)) is not old]
        return spliced(self.content.data, changed) if changed else None

    def _measure(self, texts: Iterable[tuple[int, int, str]]) -> None:
        """Refuse what is too large (`too_large`)."""
        limits, data = self._settings, self.content.data
        if limits.max_text is not None and sum(len(text.encode()) for _, _, text in texts) > limits.max_text:
            raise BrokerError("too_large", f"All text together has at most {limits.max_text} bytes here.")
        if limits.max_depth is not None and depth_of(data) > limits.max_depth:
            raise BrokerError("too_large", f"Nothing is deeper than {limits.max_depth} levels here.")
        if limits.max_blocks is not None and self.content.operation.startswith("turn.") and data.lstrip()[:1] == b"[":
            blocks = msgspec.json.decode(data, type=list[msgspec.Raw])
            if len(blocks) > limits.max_blocks:
                raise BrokerError("too_large", f"A turn has at most {limits.max_blocks} blocks here.")

    def _cleaned(self, text: str) -> str:
        """Return a text without what must not be said; the same object if that is all of it."""
        found = self._found(text)
        if not found:
            return text
        self._refuse(found, text)
        clean = text
        for rule in self._rules:
            if rule.action == "redact" and rule.name in found:
                less = self._redacted(rule, clean)
                found, clean = found if less is clean else self._found(less), less
        if clean is not text:
            self._refuse(found, clean)
        return clean

    def _found(self, text: str) -> frozenset[str]:
        """Return the names of the rules that find something in a text, among others that are not about this message."""
        seen = ((finder, self._seen(text, fold=finder.fold)) for finder in self._settings.finders)
        return frozenset(rule.name for finder, text in seen for rule in finder.found(text))

    def _seen(self, text: str, *, fold: bool) -> str:
        """Return what a rule looks at, made once for all of them."""
        if not fold or text.isascii():
            return text
        if self._text is not text:
            self._text, self._folded = text, folded(text)
        return self._folded

    def _refuse(self, found: frozenset[str], text: str) -> None:
        for rule in self._rules:
            if rule.action == "refuse" and rule.name in found and self._matches(rule, text, 1):
                self.noted[rule.name] = rule
                raise BrokerError("forbidden", rule.message, hint=f"rule {rule.name}")

    def _redacted(self, rule: Rule, text: str) -> str:
        matches = (match.span() for match in self._matches(rule, text, MOST_TAKEN_OUT + 1))
        spans = [span for span in matches if span[0] < span[1]]
        if not spans:
            return text
        self.noted[rule.name] = rule
        self._taken_out += len(spans)
        if self._taken_out > MOST_TAKEN_OUT:
            raise BrokerError("forbidden", rule.message, hint=f"rule {rule.name}")
        return replaced(text, unfolded(text, spans) if rule.fold else spans, rule.replace)

    def _matches(self, rule: Rule, text: str, most: int) -> list[Any]:
        folds = self._settings.finders[-1].fold and not text.isascii()
        self._effort -= len(text) * (FOLDED if folds else 1)
        if self._effort < 0:
            self.noted.clear()
            raise Exhausted
        return list(islice(rule.compiled.finditer(self._seen(text, fold=rule.fold)), most))


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


# -- texts ------------------------------------------------------------------------------------------


def _options(*, fold: bool) -> Any:
    options = re2.Options()
    options.log_errors, options.max_mem, options.case_sensitive = False, PATTERN_MEMORY, not fold
    return options


def compile_pattern(patterns: Sequence[str], *, fold: bool) -> Any:
    """Return what looks for any of these patterns; raises `ValueError` where RE2 cannot take them, and says why."""
    whole = "|".join(f"(?:{pattern})" for pattern in patterns) if len(patterns) > 1 else patterns[0]
    try:
        # What is looked for is folded like what it is looked for in; the characters of the syntax stay as they are.
        return re2.compile(whole.translate(foldings()) if fold else whole, _options(fold=fold))
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
    if text.isascii():
        return text
    pieces = (text[start : start + PIECE] for start in range(0, len(text), PIECE))
    return "".join(piece.translate(foldings()) for piece in pieces)


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
