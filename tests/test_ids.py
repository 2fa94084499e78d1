"""Ids: RFC 9562's version 7, each another, in the order of their making."""

import time
import uuid
from urllib.parse import quote

from broker.ids import new_id


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
