"""Lines, however the bytes arrive."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.agents.acp.lines import Lines


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_lines_are_the_same_however_the_bytes_arrive(data: bytes, cuts: list[int]):
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    lines = Lines(100)
    heard = [line for start, end in pairwise(edges) for line in lines.feed(data[start:end])]
    assert heard == data.split(b"\n")[:-1]


def test_a_line_over_the_limit_is_refused_before_it_is_complete():
    lines = Lines(10)
    assert list(lines.feed(b"x" * 10)) == []
    with pytest.raises(OverflowError, match="more than 10 bytes"):
        list(lines.feed(b"x"))


def test_lines_before_the_one_that_is_too_long_are_handed_on():
    lines = Lines(10).feed(b"short\n" + b"x" * 11)
    assert next(lines) == b"short"
    with pytest.raises(OverflowError):
        next(lines)
