"""What is kept of a report, whatever an agent puts into it."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.agents.bounds import (
    DEPTH_LIMIT,
    FIELDS_LIMIT,
    RECORD_LIMIT,
    bounded,
    checked,
    fields_in,
    kept,
    vendor_record,
)

SIZES = st.dictionaries(st.text(max_size=100), st.sampled_from([1, 1000, RECORD_LIMIT // 3, RECORD_LIMIT]), max_size=8)


@given(SIZES)
def test_a_record_fits_and_says_what_it_left_out(sizes: dict[str, int]):
    sizes.pop("truncated", None)
    data = bounded({name: msgspec.Raw(b'"' + b"x" * size + b'"') for name, size in sizes.items()})
    assert len(data) <= RECORD_LIMIT
    kept = json.loads(data)
    gone = kept.pop("truncated", [])
    assert {name: len(value) for name, value in kept.items()}.items() <= sizes.items()
    assert len(kept) + len(gone) == len(sizes)
    assert not gone or sum(sizes.values()) > RECORD_LIMIT - 10_000


@pytest.mark.parametrize(("depth", "fine"), [(DEPTH_LIMIT, True), (DEPTH_LIMIT + 1, False), (100_000, False)])
def test_what_nests_too_deep_for_a_reader_is_refused(depth: int, fine: bool):
    raw = msgspec.Raw(b"[" * depth + b"]" * depth)
    if fine:
        checked(raw)
    else:
        with pytest.raises((ValueError, RecursionError)):
            checked(raw)


@pytest.mark.parametrize("raw", [b"7", b'"word"', b"[{}]"])
def test_a_report_that_is_no_object_is_none(raw: bytes):
    with pytest.raises(ValueError, match="no JSON object"):
        vendor_record("weather", msgspec.Raw(raw), None)


HUGE = b"[" + b"[]," * RECORD_LIMIT + b'"\xff"]'
"""Neither UTF-8 nor small: whoever read it would fail."""


def test_a_field_beyond_the_limit_is_never_read():
    record = vendor_record("weather", msgspec.Raw(b'{"sky":%s,"sea":1}' % HUGE), None)
    assert json.loads(record.data) == {"sea": 1, "truncated": ["sky"]}
    assert kept({"sky": msgspec.Raw(HUGE)}).keys() == {"truncated"}
    with pytest.raises(ValueError, match="more than a record may hold"):
        checked(msgspec.Raw(HUGE))


def test_what_is_kept_of_a_report_that_was_cut_is_read():
    with pytest.raises((ValueError, msgspec.MsgspecError)):
        vendor_record("weather", msgspec.Raw(b'{"sky":%s,"sea":"\xff"}' % HUGE), None)


def test_a_large_report_of_too_many_fields_is_refused_before_all_are_taken_apart():
    fields = b",".join(b'"%032d":0' % number for number in range(FIELDS_LIMIT))
    assert len(fields_in(msgspec.Raw(b"{%s}" % fields))) == FIELDS_LIMIT
    with pytest.raises(ValueError, match="too many fields"):
        fields_in(msgspec.Raw(b'{%s,"more":0,{no JSON' % fields))


def test_a_second_cut_still_names_what_fell_to_the_first():
    once = kept({"sky": msgspec.Raw(HUGE), "sea": msgspec.Raw(b"1")})
    twice = json.loads(bounded(once | {"land": msgspec.Raw(b'"' + b"x" * RECORD_LIMIT + b'"')}))
    assert twice == {"sea": 1, "truncated": ["sky", "land"]}
