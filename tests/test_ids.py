"""Ids: RFC 9562's version 7, each another, in the order of their making."""

import time
import uuid
from urllib.parse import quote

from broker.ids import made_at, new_id


def test_an_id_is_a_uuid_of_version_7_of_this_moment() -> None:
    before = time.time_ns() // 1_000_000
    made = new_id()
    after = time.time_ns() // 1_000_000
    value = uuid.UUID(made)
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert before <= value.int >> 80 <= after
    assert str(value) == made
    assert quote(made, safe="") == made


def test_no_two_are_the_same_and_all_of_their_random_bits_vary() -> None:
    made = [uuid.UUID(new_id()).int for _ in range(10_000)]
    assert len(set(made)) == len(made)
    ones = zeros = 0
    for value in made:
        ones |= value
        zeros |= ~value
    random_bits = ((1 << 80) - 1) & ~(0xF000 << 64 | 0xC000 << 48)  # below the time, without version and variant
    assert random_bits.bit_count() == 74
    assert ones & zeros & random_bits == random_bits


def test_ids_made_in_different_milliseconds_are_in_order() -> None:
    made = []
    for _ in range(3):
        made.append(new_id())
        now = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 == now:
            pass
    assert made == sorted(made)


def test_an_id_tells_when_it_was_made_and_what_is_none_of_ours_does_not() -> None:
    before = time.time_ns() // 1_000_000
    made = made_at(new_id())
    assert made is not None
    assert before <= made <= time.time_ns() // 1_000_000
    assert made_at("017f22e2-79b0-7cc3-98c4-dc0c0c07398f") == 0x017F22E279B0  # the example of RFC 9562, appendix A.6
    foreign = ["", "t1", str(uuid.uuid4()), f"{new_id()}\n", new_id().replace("-", "_"), "F" + new_id()[1:]]
    for other in foreign:
        assert made_at(other) is None, other
