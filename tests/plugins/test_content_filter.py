"""What `content_filter` refuses and takes out, what it leaves alone to the byte, and that nothing makes it slow."""

import asyncio
import inspect
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import config
from broker.errors import BrokerError
from broker.extensions.loader import Plugins, load
from broker.facade import Facade
from broker.hooks import Content, Stats
from broker.messages import Principal
from broker.plugins.content_filter import FilterSettings, Rule, depth_of, folded, spliced, strings_of, unfolded
from broker.testing import ManualClock

MIB = 1 << 20


async def settled(said: Awaitable[bytes | None]) -> bytes | None:
    return await said


class Filter:
    """The plugin as the loader makes it."""

    def __init__(self, folder: Path, *rules: dict[str, Any], **block: Any) -> None:
        self.clock = ManualClock()
        self._file = folder / "config.yaml"
        plugins = self.load({"rules": [{"name": f"rule{n}", **rule} for n, rule in enumerate(rules)], **block})
        assert plugins.problems == []
        plugins.create(Facade(Stats(), self.clock))
        self.plugin: Any = plugins.instances[0]

    def load(self, block: dict[str, Any]) -> Plugins:
        self._file.write_text(json.dumps({"plugins": {"content_filter": block}}))
        loaded = config.load(self._file, {}, {})
        return load(loaded.settings, loaded.file)

    def pass_raw(self, data: bytes, operation: str = "room.publish", resource: str | None = "lobby") -> bytes | None:
        said = self.plugin.on_content(Content(Principal("ann"), operation, resource, data))
        if inspect.isawaitable(said):  # looked at in a thread
            said = asyncio.run(settled(said))
        assert said is None or isinstance(said, bytes)
        return said

    def pass_(self, value: Any, *args: Any) -> Any:
        said = self.pass_raw(json.dumps(value).encode(), *args)
        return value if said is None else json.loads(said)

    def refused(self, value: Any, *args: Any) -> BrokerError:
        with pytest.raises(BrokerError) as refused:
            self.pass_(value, *args)
        return refused.value


Make = Callable[..., Filter]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    return lambda *rules, **block: Filter(tmp_path, *rules, **block)


REFUSE = {"pattern": r"\bdarn\b"}
REDACT = {"pattern": r"sk-[0-9]{4,}", "action": "redact", "replace": "[key]"}


# -- rules ------------------------------------------------------------------------------------------


def test_a_refusal_says_neither_what_was_said_nor_what_is_looked_for(made: Make) -> None:
    refused = made({**REFUSE, "message": "Mind your words."}).refused({"a": ["oh darn 4711"]})
    assert (refused.code, refused.message, refused.hint) == ("forbidden", "Mind your words.", "rule rule0")
    assert not any(part in str(refused.as_data()) for part in ("darn", "4711", r"\b"))


def test_what_is_taken_out_leaves_everything_else_as_it_came_byte_for_byte(made: Make) -> None:
    data = b'{ "sk-1234" : "sk-1234", "n":1.10, "b":1E+2,"z":[true,null,"\\u00e9\\/"],"a":" a sk-99999.b " , "z":-0.0}'
    said = made(REDACT).pass_raw(data)
    assert said == data.replace(b': "sk-1234"', b': "[key]"').replace(b"sk-99999", b"[key]")


def test_where_nothing_is_found_nothing_is_returned(made: Make) -> None:
    assert made(REDACT, REFUSE).pass_raw(b'{"sk-12345": ["fine", "Darn", "darned"], "darn": 1}') is None


@pytest.mark.parametrize(
    "data",
    [b'"sk-1234"', b'"\\u0073k-1234"', b'["x","\\"sk-1234\\""]', b'{"a\\":":"\\\\sk-1234\\\\"}', b'{"":"sk-1234:"}'],
)
def test_escapes_hide_nothing_and_keep_their_meaning(made: Make, data: bytes) -> None:
    said = made(REDACT).pass_raw(data)
    assert said is not None
    assert json.loads(said) == json.loads(json.dumps(json.loads(data)).replace("sk-1234", "[key]"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def upper(value: Any) -> Any:
    if isinstance(value, list):
        return [upper(item) for item in value]
    if isinstance(value, dict):
        return {key: upper(item) for key, item in value.items()}
    return value.upper() if isinstance(value, str) else value


def depth(value: Any) -> int:
    if not isinstance(value, list | dict):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


@given(value=JSON, indent=st.sampled_from([None, 1]), ascii_=st.booleans())
def test_every_string_that_is_no_key_is_found_and_can_be_changed_whatever_the_json(
    value: Any, indent: int | None, ascii_: bool
) -> None:
    try:
        data = json.dumps(value, indent=indent, ensure_ascii=ascii_).encode()
        msgspec.json.decode(data)
    except (UnicodeEncodeError, msgspec.DecodeError):  # a lone surrogate, or a number that is refused at the edge
        return
    texts = strings_of(data, 10_000)
    assert json.loads(spliced(data, [(start, end, text.upper()) for start, end, text in texts])) == upper(value)
    assert depth_of(data) == depth(value)


def test_rules_apply_in_order_and_refusals_to_what_came_and_to_what_becomes_of_it(made: Make) -> None:
    rules = [{"pattern": "-", "action": "redact", "replace": ""}, {"pattern": "a", "action": "redact", "replace": "b"}]
    assert made(*rules).pass_("c-a-t") == "cbt"
    assert made(*rules, {"pattern": "cbt"}).refused("c-a-t").hint == "rule rule2"
    assert made(*rules, {"pattern": "a-t"}).refused("c-a-t").hint == "rule rule2"


@pytest.mark.parametrize(
    ("rule", "operation", "resource", "refused"),
    [
        ({}, "turn.start", "s1", True),
        ({"operations": ["room.*"]}, "turn.start", "s1", False),
        ({"operations": ["turn.start", "room.*"]}, "room.publish", "lobby", True),
        ({"rooms": ["project:*"]}, "room.publish", "project:1", True),
        ({"rooms": ["project:*"]}, "project.feedback", "project:1", True),
        ({"rooms": ["project:*"]}, "room.publish", "lobby", False),
        ({"rooms": ["*"]}, "turn.start", "project:1", False),
        ({"rooms": ["*"]}, "broadcast", None, False),
        ({"operations": ["room.*"], "rooms": ["a?"]}, "room.publish", "ab", True),
    ],
)
def test_a_rule_looks_where_it_is_told_to(
    made: Make, rule: dict[str, Any], operation: str, resource: str | None, refused: bool
) -> None:
    opened = made({**REFUSE, **rule})
    if refused:
        assert opened.refused("darn", operation, resource).code == "forbidden"
    else:
        opened.pass_("darn", operation, resource)


@pytest.mark.parametrize(
    "text",
    [
        "DÁRN it",
        "d\u200bar\u00adn it",
        "\uff44\uff41\uff52\uff4e it",
        "da\u0301rn it",
        "\U0001d41d\U0001d41arn it",
        "so d\u0336a\u0336r\u0336n\u0336 it",
    ],
)
def test_fold_looks_past_disguises_to_refuse_and_to_take_out(made: Make, text: str) -> None:
    rule = {"pattern": "därn", "fold": True}
    assert made(rule).refused(text).code == "forbidden"
    clean = made({**rule, "action": "redact"}).pass_(text)
    assert "***" in clean
    assert clean.endswith(" it")
    assert folded(clean) == folded(text).lower().replace("darn", "***")
    made({**rule, "fold": False}).pass_(text)


@pytest.mark.parametrize("word", ["क्या", "한국어", "日本語", "שלום", "ёж", "straße", "naïve"])
def test_fold_finds_words_of_every_script_as_they_are_written(made: Make, word: str) -> None:
    assert made({"pattern": word, "fold": True}).refused(f"x {word.upper()} y").code == "forbidden"


@given(st.text(st.sampled_from("aé\u0301\u200bﬃßA한"), max_size=12), st.data())
def test_what_is_found_in_folded_text_is_where_it_came_from(text: str, data: st.DataObject) -> None:
    whole = folded(text)
    if not whole:
        return
    start = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(start + 1, len(whole)))
    [(first, last)] = unfolded(text, [(start, end)])
    assert whole[start:end] in folded(text[first:last])
    assert folded(text[:first]) == whole[: len(folded(text[:first]))]
    assert len(folded(text[:first])) <= start
    assert end <= len(folded(text[:last]))


# -- size -------------------------------------------------------------------------------------------

TOO_LARGE = [
    ({"max_text": "10B"}, ["12345", "123456"], "room.publish"),
    ({"max_text": 10}, "éééééé", "room.publish"),
    ({"max_strings": 2}, ["", "", ""], "room.publish"),
    ({"max_depth": 2}, [[[]]], "room.publish"),
    ({"max_depth": 2}, {"a": [{"b": 1}]}, "room.publish"),
    ({"max_blocks": 1}, [{"type": "text"}, {"type": "text"}], "turn.start"),
]
FITTING = [
    ({"max_text": "10B"}, ["12345", "12345"], "room.publish"),
    ({"max_text": 10}, {"a key that is long": 5}, "room.publish"),
    ({"max_strings": 2}, ["", "", 1, 2, 3], "room.publish"),
    ({"max_depth": 2}, [["[[[["], {"a": "}{[["}], "room.publish"),
    ({"max_blocks": 1}, [{"type": "text"}], "turn.start"),
    ({"max_blocks": 1}, "text", "turn.start"),
    ({"max_blocks": 1}, [1, 2, 3], "room.publish"),
]


@pytest.mark.parametrize(("block", "value", "operation"), TOO_LARGE)
def test_what_is_too_large_is_refused(made: Make, block: Any, value: Any, operation: str) -> None:
    assert made(**block).refused(value, operation).code == "too_large"


@pytest.mark.parametrize(("block", "value", "operation"), FITTING)
def test_what_just_fits_passes(made: Make, block: Any, value: Any, operation: str) -> None:
    assert made(**block).pass_(value, operation) == value


def test_what_is_made_of_what_has_to_be_taken_out_is_refused(made: Make) -> None:
    redact = made({"pattern": "[0-9]", "action": "redact"})
    redact.pass_("1 " * 1000)
    assert redact.refused(["1 " * 500, "1 " * 501]).code == "forbidden"


# -- nothing makes it slow --------------------------------------------------------------------------

SLOW = [
    (r"(x+x+)+y", '"' + "x" * (MIB - 2) + '"'),
    (r"^(a|a?)+b$", '"' + "a" * (MIB - 3) + '!"'),
    (r"(?i)(a|b|ab)*!", '"' + "ab" * (MIB // 2 - 1) + '"'),
    (r"x", "[" + '"",' * 9_999 + '""]'),
    (r"x", "[" * 60 + '"' + "\\\\" * (MIB // 2 - 100) + '"' + "]" * 60),
    (r"x", '"' + '\\"' * (MIB // 2 - 1) + '"'),
    (r"z", '"' + "a" + "\u0301\u0327" * (MIB // 4 - 1) + '"'),
    (r"z", '"' + "\ufdfa" * (MIB // 3 - 1) + '"'),
]


@pytest.mark.parametrize(("pattern", "text"), SLOW, ids=range(len(SLOW)))
@pytest.mark.parametrize("action", ["refuse", "redact"])
def test_no_text_makes_a_pattern_slow(made: Make, pattern: str, text: str, action: str) -> None:
    """Each of these takes a backtracking engine, or a normalization of the whole, from seconds to for ever."""
    opened = made({"pattern": pattern, "action": action, "fold": True}, max_depth=64)
    data = text.encode()
    opened.pass_raw(b'"once"')
    began = time.process_time()
    opened.pass_raw(data)
    assert time.process_time() - began < 1.0


def many(opened: Filter, *more: Rule, fold: bool) -> Filter:
    """Give it as many rules as there may be, which nobody has to write into a file for that."""
    words = range(500 - len(more))
    rules = (Rule(name=f"word {n}", pattern=f"<word {n}>", action="redact", fold=fold) for n in words)
    opened.plugin.reload(FilterSettings(rules=(*rules, *more)))
    return opened


WORDS = " ".join(f"<word {n}>" for n in range(500))


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("much", ["a " * (MIB // 2), "é" * (MIB // 2)], ids=["ascii", "beyond"])
def test_many_rules_on_much_text_take_no_longer_than_few(made: Make, much: str, fold: bool) -> None:
    """One by one five hundred rules take seconds for 1 MiB, and where each has to fold it half a minute."""
    opened = many(made(), fold=fold)
    opened.pass_("é")
    began = time.process_time()
    assert opened.pass_(much + "<word 499>") == much + "***"
    assert opened.refused(much + WORDS).code in {"too_large", "forbidden"}
    assert time.process_time() - began < 3.0


def test_every_one_of_many_rules_is_followed_in_its_order(made: Make) -> None:
    last = Rule(name="last", pattern=r"\*{3} \*{3}", action="redact", replace="-")
    opened = many(made(), last, fold=True)
    assert opened.pass_(f"é {WORDS}") == "é" + " -" * 249 + " *** <word 499>"
    assert len(opened.plugin.hits) == 500


def test_a_short_text_is_looked_at_at_once_and_a_long_one_while_others_go_on(made: Make) -> None:
    opened = made(REDACT)

    def say(text: str) -> Any:
        return opened.plugin.on_content(Content(Principal("ann"), "send", None, json.dumps(text).encode()))

    async def beside() -> int:
        said, steps = asyncio.ensure_future(say("a " * MIB)), 0
        while not said.done():
            await asyncio.sleep(0)
            steps += 1
        assert await said is None
        return steps

    assert say("a" * 60_000) is None
    assert say("sk-1234" + "a" * 60_000).startswith(b'"[key]')
    assert asyncio.run(beside()) > 1
    assert opened.plugin.hits == {"rule0": 1}


def test_a_rule_that_fits_between_characters_refuses_all_the_same(made: Make) -> None:
    assert made({"pattern": r"\b"}).refused("a").code == "forbidden"


# -- what the operator sees -------------------------------------------------------------------------


def test_hits_are_counted_and_logged_now_and_then_without_what_was_said(
    made: Make, caplog: pytest.LogCaptureFixture
) -> None:
    opened = made(REDACT)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            opened.pass_(["sk-4711", "sk-4712"])
        opened.clock.advance(11)
        opened.pass_("sk-4713")
    assert opened.plugin.hits == {"rule0": 4}
    assert [record.getMessage() for record in caplog.records] == [
        "rule rule0: redact room.publish of ann, time 1",
        "rule rule0: redact room.publish of ann, time 4",
    ]


def test_new_rules_are_taken_over(made: Make) -> None:
    opened = made(REDACT)
    new = opened.load({"rules": [{"name": "x", "pattern": "y"}]}).records[0].settings
    assert opened.plugin.reload(new)
    assert opened.pass_("sk-1234") == "sk-1234"
    assert opened.refused("y").hint == "rule x"


@pytest.mark.parametrize(
    ("block", "mistake"),
    [
        ({"rules": [{"name": "a"}]}, "rules[0]"),
        ({"rules": [{"name": "a", "pattern": "("}]}, "missing )"),
        ({"rules": [{"name": "a", "pattern": "x"}, {"name": "b", "pattern": "(?=a)b"}]}, "rules[1]"),
        ({"rules": [{"name": "a", "pattern": r"(a)\1"}]}, "invalid escape"),
        ({"rules": [{"name": "a", "pattern": "x*"}]}, "everywhere"),
        ({"rules": [{"name": "a", "pattern": "x", "action": "delete"}]}, "refuse, redact"),
        ({"rules": [{"name": "a", "pattern": "x"}, {"name": "a", "pattern": "y"}]}, "two rules are called a"),
        ({"rules": [{"name": f"a{n}", "pattern": "x"} for n in range(501)]}, "at most 500"),
        ({"max_text": "much"}, "max_text"),
        ({"max_strings": 0}, "max_strings"),
    ],
)
def test_mistakes_are_told_at_start(tmp_path: Path, block: dict[str, Any], mistake: str) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps({"plugins": {"content_filter": block}}, indent=1))
    loaded = config.load(tmp_path / "config.yaml", {}, {})
    told = "\n".join(f"{problem.path} {problem.message}" for problem in load(loaded.settings, loaded.file).problems)
    assert mistake in told
