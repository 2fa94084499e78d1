"""Durations, sizes and rates: what is written is what is meant."""

from typing import Annotated, get_args

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import ByteRate, Duration, Rate, Size
from broker.config.units import Unit, format_duration, format_size, parse_duration, parse_rate, parse_size

UNITS = {name: get_args(kind)[1] for name, kind in {"rate": Rate, "bytes": ByteRate}.items()}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("1h30m", 5400.0),
        ("200ms", 0.2),
        ("7d", 604800.0),
        ("1.5s", 1.5),
        ("1m0.5s", 60.5),
        ("0s", 0.0),
        ("0", 0.0),
        (0, 0.0),
        ("1s500ms", 1.5),
    ],
)
def test_a_duration_is_seconds(text: object, seconds: float):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), (4096, 4096), ("1MiB", 1 << 20), ("64KiB", 65536), ("1MB", 10**6), ("1.5 KiB", 1536), ("7B", 7)],
)
def test_a_size_is_bytes(text: object, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "rate"), [("50/s", 50.0), ("600/m", 10.0), ("0.5/s", 0.5), ("3600/h", 1.0)])
def test_a_rate_is_events_per_second(text: str, rate: float):
    assert parse_rate(text) == rate


@pytest.mark.parametrize(("text", "rate"), [("1MiB/s", float(1 << 20)), ("6kB/m", 100.0), ("10B/s", 10.0)])
def test_a_rate_of_bytes_is_bytes_per_second(text: str, rate: float):
    assert UNITS["bytes"].parse(text) == rate


@pytest.mark.parametrize(
    "bad", ["", "s", "1", 1, 1.5, "1 s", "1S", "1x", "-1s", "1s1s", "1s1m", "1e3s", "\u0661s", None, True]
)
def test_what_is_no_duration_is_refused(bad: object):
    with pytest.raises(ValueError, match=r"duration|unit"):
        parse_duration(bad)


@pytest.mark.parametrize("bad", ["", "B", "1XB", "1 mib", -1, 1.0, "0.1B", True, None, "1e3", "1iB", [], 1 << 60])
def test_what_is_no_size_is_refused(bad: object):
    with pytest.raises(ValueError, match=r"size|whole number|too large"):
        parse_size(bad)


@pytest.mark.parametrize("bad", ["50", "50/x", "/s", 50, "1MiB/s", None])
def test_what_is_no_rate_is_refused(bad: object):
    with pytest.raises(ValueError, match="expected a rate such as 50/s"):
        parse_rate(bad)


@given(st.integers(0, 10**12).map(lambda milliseconds: milliseconds / 1000))
def test_a_written_duration_reads_as_the_same(seconds: float):
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 1 << 52))
def test_a_written_size_reads_as_the_same(size: int):
    assert parse_size(format_size(size)) == size


@given(st.sampled_from(sorted(UNITS)), st.integers(1, 10**9).map(lambda thousandths: thousandths / 1000))
def test_a_written_rate_reads_as_the_same(name: str, rate: float):
    unit = UNITS[name]
    assert unit.parse(unit.write(rate)) == rate


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused_with_a_sentence(text: str):
    for parse in (parse_duration, parse_size, parse_rate, UNITS["bytes"].parse):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            assert str(error)  # noqa: PT017 - either way is right, but never another exception


def test_the_types_say_which_unit_they_are():
    @attrs.frozen
    class Example:
        wait: Duration
        room: Size
        twice: Annotated[Duration, "more"]

    names = [
        mark.name for field in attrs.fields(Example) for mark in get_args(field.type)[1:] if isinstance(mark, Unit)
    ]
    assert names == ["duration", "size", "duration"]
