"""Answers that are given again: which, for how long, and how many."""

import asyncio

import pytest

from broker.errors import BrokerError
from broker.tasks import spawn
from broker.testing import ManualClock
from broker.web.api.replays import KEEP_SECONDS, Replays, Reply, check_key

LONGEST = "k" * 255
KEY = ("user ann", "POST", "/api/v1/sessions", "k1")


class Work:
    """Something that is done, and how often it was."""

    def __init__(self, status: int = 201, body: bytes = b"{}", *, final: bool = True) -> None:
        self.done = 0
        self.reply = Reply(status, body, {}, final)

    async def __call__(self) -> Reply:
        self.done += 1
        return self.reply


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_what_was_done_is_not_done_again(clock: ManualClock) -> None:
    replays, work = Replays(clock), Work()
    assert [await replays.once(KEY, b"1", work) for _ in range(3)] == [
        (work.reply, False),
        (work.reply, True),
        (work.reply, True),
    ]
    assert work.done == 1


@pytest.mark.parametrize("part", range(4))
async def test_another_key_path_method_or_user_is_another_request(clock: ManualClock, part: int) -> None:
    replays, work = Replays(clock), Work()
    await replays.once(KEY, b"1", work)
    await replays.once((*KEY[:part], "other", *KEY[part + 1 :]), b"2", work)
    assert work.done == 2


async def test_a_key_is_for_one_body(clock: ManualClock) -> None:
    replays, work = Replays(clock), Work()
    await replays.once(KEY, b"1", work)
    with pytest.raises(BrokerError) as refused:
        await replays.once(KEY, b"2", work)
    assert (refused.value.code, refused.value.status) == ("conflict", 422)


async def test_what_may_go_better_another_time_is_done_again(clock: ManualClock) -> None:
    replays, work = Replays(clock), Work(503, final=False)
    for _ in range(2):
        assert await replays.once(KEY, b"1", work) == (work.reply, False)
    assert work.done == 2


async def test_what_breaks_is_done_again(clock: ManualClock) -> None:
    replays, work = Replays(clock), Work()

    async def broken() -> Reply:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await replays.once(KEY, b"1", broken)
    assert await replays.once(KEY, b"1", work) == (work.reply, False)


async def test_while_the_first_is_under_way_others_are_told_to_wait(clock: ManualClock) -> None:
    replays, begun, go = Replays(clock), asyncio.Event(), asyncio.Event()
    reply = Reply(201, b"{}", {}, final=True)

    async def slow() -> Reply:
        begun.set()
        await go.wait()
        return reply

    first = spawn(replays.once(KEY, b"1", slow), name="the first")
    await begun.wait()
    with pytest.raises(BrokerError) as refused:
        await replays.once(KEY, b"1", slow)
    assert (refused.value.code, refused.value.status, refused.value.retry_after) == ("busy", 409, 1.0)
    go.set()
    assert await first == (reply, False)
    assert await replays.once(KEY, b"1", slow) == (reply, True)


async def test_an_answer_is_forgotten_after_ten_minutes(clock: ManualClock) -> None:
    replays, work = Replays(clock), Work()
    await replays.once(KEY, b"1", work)
    clock.advance(KEEP_SECONDS - 1)
    await replays.once(KEY, b"1", work)
    assert work.done == 1
    clock.advance(1)
    await replays.once(KEY, b"1", work)
    assert work.done == 2


async def test_the_oldest_go_first_when_there_are_too_many_or_they_are_too_large(clock: ManualClock) -> None:
    for replays in (Replays(clock, most=3), Replays(clock, memory=3 * 1700)):
        work = Work(body=b"x" * 1000)
        for number in range(5):
            await replays.once((*KEY, str(number)), b"1", work)
        assert work.done == 5
        for number in (2, 3, 4):
            assert (await replays.once((*KEY, str(number)), b"1", work))[1]
        assert not (await replays.once((*KEY, "0"), b"1", work))[1]


async def test_what_is_under_way_is_never_forgotten_to_make_room(clock: ManualClock) -> None:
    replays, begun, go = Replays(clock, most=1), asyncio.Event(), asyncio.Event()

    async def slow() -> Reply:
        begun.set()
        await go.wait()
        return Reply(201, b"{}", {}, final=True)

    first = spawn(replays.once(KEY, b"1", slow), name="the first")
    await begun.wait()
    with pytest.raises(BrokerError) as refused:
        await replays.once((*KEY, "2"), b"1", Work())
    assert refused.value.code == "overloaded"
    go.set()
    await first


@pytest.mark.parametrize(
    ("text", "key"), [(None, None), ("a b", "a b"), ('"in quotes"', "in quotes"), ('"', '"'), (LONGEST, LONGEST)]
)
def test_a_key_may_stand_in_quotes(text: str | None, key: str | None) -> None:
    assert check_key(text) == key


@pytest.mark.parametrize("text", ["", "k" * 256, "é", "a\tb"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(BrokerError) as refused:
        check_key(text)
    assert refused.value.field == "Idempotency-Key"
