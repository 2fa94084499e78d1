"""What is kept of a report, whatever an agent puts into it."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.agents.bounds import DEPTH_LIMIT, RECORD_LIMIT, bounded, checked, vendor_record

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
