"""What no message may contain: too many levels, or what is not UTF-8."""

import tracemalloc
from itertools import accumulate
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BrokerError
from broker.protocol import edge
from broker.protocol.edge import MAX_DEPTH, check_depth, is_utf8

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_sixty_four_levels_pass_and_one_more_does_not(opening: bytes) -> None:
    levels = opening.count(b"[") + opening.count(b"{")
    closing = opening[::-1].translate(bytes.maketrans(b"[{", b"]}"), b'"a:')
    allowed = opening * (MAX_DEPTH // levels) + b"1" + closing * (MAX_DEPTH // levels)
    check_depth(allowed)
    with pytest.raises(BrokerError, match="64 levels") as refusal:
        check_depth(b"[" + allowed + b"]")
    assert refusal.value.code == "invalid_message"


FLAT = [
    b"[" + b",".join([b"[]"] * 1000) + b"]",
    b'"' + b"[" * 1000 + b'"',
    b'{"a":"' + b"{[" * 1000 + b'","b":[]}',
    b'"\\"' + b"[" * 1000 + b'"',
    b'["\\\\",' + b",".join([b"[]"] * 100) + b"]",
    b'{"\\"[[[":"' + b'\\"[' * 500 + b'"}',
    '"é'.encode() + b"[" * 100 + b'"',
]


@pytest.mark.parametrize("text", FLAT)
def test_many_brackets_are_not_depth_and_those_in_strings_do_not_count(text: bytes) -> None:
    msgspec.json.decode(text)
    check_depth(text)


DEEP = [
    b'["]]]]",' * 65 + b"1" + b"]" * 65,
    b'["\\"]",' * 65 + b"1" + b"]" * 65,
    b'["\\\\",' * 65 + b"1" + b"]" * 65,
    b"[1," + b"[" * 64 + b"]" * 64 + b"]",
]


@pytest.mark.parametrize("text", DEEP)
def test_strings_that_look_like_closing_brackets_hide_no_depth(text: bytes) -> None:
    msgspec.json.decode(text)
    with pytest.raises(BrokerError):
        check_depth(text)


@given(JSON, st.integers(0, 70))
def test_depth_is_what_a_parser_finds(value: object, levels: int) -> None:
    text = b"[" * levels + msgspec.json.encode(value) + b"]" * levels
    if depth_of(value) + levels > MAX_DEPTH:
        with pytest.raises(BrokerError):
            check_depth(text)
    else:
        check_depth(text)


TEXT = st.text('[]{}"\\\\,:n', max_size=12)
LEAF = TEXT | st.just([]) | st.just({})
TRICKY = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXT, inner, max_size=6))


@given(st.lists(TRICKY, max_size=20), st.integers(0, 70))
def test_depth_is_what_a_parser_finds_among_many_brackets_and_strings_full_of_them(values: Any, levels: int) -> None:
    """There are always more brackets than levels that are allowed, so that they are looked at."""
    value = [[] for _ in range(MAX_DEPTH)] + values
    text = b'["[\\"",' * levels + msgspec.json.encode(value) + b"]" * levels
    if levels + depth_of(value) > MAX_DEPTH:
        with pytest.raises(BrokerError):
            check_depth(text)
    else:
        check_depth(text)


MANY = 100_000
WORST = {
    "brackets": b"[" + b"[]," * MANY + b"1]",
    "objects": b"[" + b"{}," * MANY + b"1]",
    "only brackets": b"[" * 64 + b"],[" * MANY + b"]" * 64,
    "close to the limit": b"[" + (b"[" * 60 + b"]" * 60 + b",") * (MANY // 60) + b"1]",
    "empty strings": b"[" + b"[]," * 70 + b'"",' * MANY + b"1]",
    "brackets in strings": b"[" + b'"[",' * MANY + b"1]",
    "keys": b"{" + b'"":[],' * MANY + b'"":1}',
    "both": b"[" + b'["["],' * MANY + b"1]",
    "escapes": b"[" + b"[]," * 70 + b'"' + b'\\"' * MANY + b'"]',
}


@pytest.mark.parametrize("text", WORST.values(), ids=WORST)
def test_the_worst_messages_are_looked_at_by_what_is_compiled(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of Python's loops are an eighth of the bytes at most, and pieces are no more than there are strings."""
    msgspec.json.decode(text, type=msgspec.Raw)
    steps = 0

    def counting(numbers: Any, **options: Any) -> Any:
        nonlocal steps
        for number in accumulate(numbers, **options):
            steps += 1
            yield number

    monkeypatch.setattr(edge, "accumulate", counting)
    check_depth(text)
    assert steps <= len(text) // 8 + 2


@pytest.mark.parametrize("kind", ["empty strings", "brackets in strings", "keys", "escapes"])
def test_strings_side_by_side_are_not_taken_apart_one_by_one(kind: str) -> None:
    text = WORST[kind]
    tracemalloc.start()
    try:
        check_depth(text)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(text)
    finally:
        tracemalloc.stop()


def test_a_megabyte_of_quotes_and_backslashes_is_looked_at_in_no_time() -> None:
    check_depth(b'"' + b'\\"[' * 300_000 + b'"')


UTF8 = [(b"", True), (b"plain", True), ("é€💥".encode(), True)]
NOT_UTF8 = [b"\xff", b"\xc3", b"a\x80b", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80", "💥".encode()[:3]]


@pytest.mark.parametrize(("data", "good"), [*UTF8, *((data, False) for data in NOT_UTF8)])
def test_utf8_is_told_from_what_is_not(data: bytes, good: bool) -> None:
    assert is_utf8(data) is good
