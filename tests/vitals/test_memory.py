"""Whether memory is short, as it comes and goes (`limits.memory`)."""

from broker.testing import ManualClock, until
from broker.vitals.memory import Memory, resident


async def test_short_above_the_limit_and_well_again_only_clearly_below() -> None:
    clock, size = ManualClock(), [50]
    memory = Memory(100, clock, lambda: size[0])
    memory.start()
    seen = []
    for size[0] in (100, 101, 100, 91, 89, 99, 101):
        clock.advance(1)
        seen.append(memory.short)
    assert seen == [False, True, True, True, False, False, True]
    memory.stop()
    size[0] = 1
    clock.advance(10)
    assert memory.short


async def test_without_a_limit_nothing_is_looked_at() -> None:
    clock, looked = ManualClock(), []
    memory = Memory(0, clock, lambda: looked.append(1))
    memory.start()
    clock.advance(10)
    assert (memory.short, looked) == (False, [])
    memory.stop()


async def test_where_the_system_does_not_tell_it_is_never_short() -> None:
    clock = ManualClock()
    memory = Memory(1, clock, lambda: None)
    memory.start()
    clock.advance(10)
    assert not memory.short
    memory.stop()


async def test_what_a_real_process_has_is_seen() -> None:
    before = resident()
    assert before is not None
    ballast = bytearray(64 << 20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    await until(lambda: (resident() or 0) > before + (48 << 20))
    assert ballast
