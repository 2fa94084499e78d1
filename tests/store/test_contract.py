"""What every engine promises, asked of each of them in the same words."""

from collections.abc import Collection, Iterator
from pathlib import Path

import attrs
import pytest

from broker.messages import LogRow, Record, SessionRow, TurnRow, Write
from broker.store.engines import engine_for
from broker.store.port import Engine, Reader, StoreError

S, R = "session:s", "room:r"
AWKWARD = ['{"t":"\\u0000\\ud800 \u00e9 \U0001f600"}'.encode(), b"{}", b'""', b"[1,  2 ]", b'"' + b"x" * 70_000 + b'"']


def record(seq: int, kind: str = "message.delta", at: int = 0, data: bytes = b"{}") -> Record:
    return Record(seq, at or seq, kind, data)


def records(first: int, last: int) -> tuple[Record, ...]:
    return tuple(record(seq) for seq in range(first, last + 1))


def session(session_id: str = "s", owner: str | None = "ann", created_at: int = 1, title: str = "") -> SessionRow:
    return SessionRow(session_id, owner, "echo", "/w", title, b'{"a":1}', False, created_at, created_at)


def turn(turn_id: str, seq: int, outcome: str | None = None, content: bytes | None = b'"hi"') -> TurnRow:
    return TurnRow(
        "s", turn_id, seq, None, f"c-{turn_id}", b"\0\xff", "ended" if outcome else "running", outcome, content
    )


@pytest.fixture(params=["memory", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    engine = engine_for("memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/broker.db")
    engine.open()
    yield engine
    engine.close()


@pytest.fixture
def reader(engine: Engine) -> Iterator[Reader]:
    reader = engine.reader()
    yield reader
    reader.close()


def seqs(page: list[Record]) -> list[int]:
    return [r.seq for r in page]


def held(reader: Reader, log: str) -> LogRow:
    row = reader.log(log)
    assert row is not None
    return row


def after(reader: Reader, seq: int, log: str = S, limit: int = 100, max_bytes: int = 1 << 20) -> list[Record]:
    return reader.records_after(log, seq, limit=limit, max_bytes=max_bytes)


def before(
    reader: Reader,
    seq: int,
    log: str = S,
    limit: int = 100,
    max_bytes: int = 1 << 20,
    kinds: Collection[str] | None = None,
) -> list[Record]:
    return reader.records_before(log, seq, limit=limit, max_bytes=max_bytes, kinds=kinds)


def test_records_come_back_exactly_as_they_were_written(engine: Engine, reader: Reader) -> None:
    full = tuple(
        Record(seq, 7, "room.event", data, None if seq % 2 else "t", None if seq % 3 else data)
        for seq, data in enumerate(AWKWARD, 1)
    )
    engine.write([Write(S, 9, full, create="e1")])
    assert after(reader, 0) == list(full)
    assert reader.log(S) == LogRow(S, "e1", 5, 1, 9, 9, sum(map(len, AWKWARD)))


def test_what_is_not_there_reads_as_nothing(reader: Reader) -> None:
    assert reader.log(S) is None
    assert reader.session("s") is None
    assert [after(reader, 0), before(reader, 5)] == [[], []]
    assert [reader.turns("s"), reader.unfinished_sessions()] == [[], []]
    assert reader.sessions(None, everyone=True, limit=5) == []


def test_a_page_forward_starts_above_the_number_and_ends_at_the_limit(engine: Engine, reader: Reader) -> None:
    engine.write([Write(S, 1, records(1, 10), create="e")])
    assert seqs(after(reader, 3, limit=4)) == [4, 5, 6, 7]
    assert seqs(after(reader, 8, limit=4)) == [9, 10]
    assert after(reader, 10) == after(reader, 1 << 70) == []


def test_a_page_forward_holds_no_more_bytes_than_asked_but_at_least_one_record(engine: Engine, reader: Reader) -> None:
    sizes = (100, 30, 30, 30, 500)
    engine.write([Write(S, 1, tuple(record(n, data=b"x" * s) for n, s in enumerate(sizes, 1)), create="e")])
    assert seqs(after(reader, 0, max_bytes=160)) == [1, 2, 3]
    assert seqs(after(reader, 0, max_bytes=159)) == [1, 2]
    assert seqs(after(reader, 0, max_bytes=10)) == [1]
    assert seqs(after(reader, 4, max_bytes=0)) == [5]


def test_a_page_backward_holds_the_newest_below_the_number_oldest_first(engine: Engine, reader: Reader) -> None:
    engine.write([Write(S, 1, records(1, 10), create="e")])
    assert seqs(before(reader, 8, limit=3)) == [5, 6, 7]
    assert seqs(before(reader, 3, limit=5)) == [1, 2]
    assert seqs(before(reader, 1 << 70, limit=2)) == [9, 10]
    assert before(reader, 1, limit=5) == []


@pytest.mark.parametrize("kinds", [None, ["message.delta"], ["message.completed"]])
def test_a_page_backward_holds_no_more_bytes_than_asked_but_at_least_one_record(
    engine: Engine, reader: Reader, kinds: list[str] | None
) -> None:
    kind = "message.delta" if kinds is None else kinds[0]
    sizes = (500, 30, 30, 30, 100)
    row = [record(n, kind, data=b"x" * size) for n, size in enumerate(sizes, 1)]
    engine.write([Write(S, 1, (*row, record(6, "other", data=b"x" * (0 if kinds is None else 999))), create="e")])
    assert seqs(before(reader, 6, max_bytes=160, kinds=kinds)) == [3, 4, 5]
    assert seqs(before(reader, 7, max_bytes=160, kinds=kinds))[-3:] == ([4, 5, 6] if kinds is None else [3, 4, 5])
    assert seqs(before(reader, 6, max_bytes=159, kinds=kinds)) == [4, 5]
    assert seqs(before(reader, 6, max_bytes=160, limit=1, kinds=kinds)) == [5]
    assert seqs(before(reader, 6, max_bytes=10, kinds=kinds)) == [5]
    assert seqs(before(reader, 2, max_bytes=0, kinds=kinds)) == [1]


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        (["user.message", "message.completed"], [7, 9, 10]),
        (["user.message"], [4, 7, 10]),
        (["turn.started"], [2, 5, 8]),
        (["turn.started", "user.message"], [7, 8, 10]),
        (["turn.edited", "user.message", "message.replaced"], [4, 7, 10]),
        (["vendor.x"], []),
        ([], []),
    ],
)
def test_a_page_backward_may_ask_for_kinds(engine: Engine, reader: Reader, kinds: list[str], found: list[int]) -> None:
    names = ["user.message", "turn.started", "message.completed"]
    row = [record(n, names[(n - 1) % 3]) for n in range(1, 11)]
    row[5] = record(6, "message.delta")
    engine.write([Write(S, 1, tuple(row), create="e")])
    assert seqs(before(reader, 11, limit=3, kinds=kinds)) == found


def test_creating_a_log_that_exists_is_refused_by_name(engine: Engine, reader: Reader) -> None:
    engine.write([Write(S, 1, create="e1")])
    with pytest.raises(StoreError, match=r"session:s.*exists"):
        engine.write([Write(S, 2, create="e2")])
    with pytest.raises(StoreError, match="exists"):
        engine.write([Write(R, 2, create="a"), Write(R, 2, create="b")])
    assert held(reader, S).epoch == "e1"
    assert reader.log(R) is None


def test_writing_to_a_log_that_does_not_exist_is_refused(engine: Engine) -> None:
    with pytest.raises(StoreError, match="no log 'room:r'"):
        engine.write([Write(R, 1, records(1, 1))])


@pytest.mark.parametrize("wrong", [1, 3, 5])
def test_a_number_that_does_not_follow_on_the_head_is_refused(engine: Engine, reader: Reader, wrong: int) -> None:
    engine.write([Write(S, 1, records(1, 3), create="e")])
    with pytest.raises(StoreError, match=rf"gap.*record {wrong} .*3"):
        engine.write([Write(S, 1, (record(wrong),))])
    with pytest.raises(StoreError, match="gap"):
        engine.write([Write(S, 1, (record(4), record(6)))])
    assert held(reader, S).head == 3


def test_a_row_of_another_session_is_refused(engine: Engine) -> None:
    with pytest.raises(StoreError, match="'other'"):
        engine.write([Write(S, 1, create="e", session=session("other"))])
    with pytest.raises(StoreError, match="'s'"):
        engine.write([Write(R, 1, create="e", turns=(turn("t", 1),))])


def test_a_batch_with_one_bad_write_leaves_nothing_and_the_next_one_succeeds(engine: Engine, reader: Reader) -> None:
    engine.write([Write(S, 1, records(1, 2), create="e", session=session())])
    bad = [
        Write(S, 5, records(3, 4), turns=(turn("t", 3),), session=session(title="new")),
        Write(R, 5, records(1, 1), create="e"),
        Write(S, 5, records(9, 9)),
    ]
    with pytest.raises(StoreError):
        engine.write(bad)
    assert reader.log(S) == LogRow(S, "e", 2, 1, 1, 1, 4)
    assert reader.log(R) is None
    assert reader.turns("s") == []
    assert reader.session("s") == session()
    engine.write(bad[:2])
    assert held(reader, S).head == 4


def test_writes_of_one_batch_follow_on_each_other(engine: Engine, reader: Reader) -> None:
    engine.write([Write(S, 1, records(1, 2), create="e"), Write(R, 2, records(1, 1), create="f")])
    engine.write([Write(S, 3, records(3, 3)), Write(R, 4, records(2, 3)), Write(S, 5, records(4, 300))])
    assert seqs(after(reader, 0, limit=1000)) == list(range(1, 301))
    assert (held(reader, S).updated_at, held(reader, R).updated_at) == (5, 4)


def test_trimming_drops_records_and_keeps_the_head(engine: Engine, reader: Reader) -> None:
    engine.write([Write(R, 1, records(1, 10), create="e")])
    engine.write([Write(R, 2, records(11, 12), floor=5)])
    assert reader.log(R) == LogRow(R, "e", 12, 5, 1, 2, 24)
    assert seqs(after(reader, 0, R)) == seqs(before(reader, 99, R)) == list(range(5, 13))
    assert seqs(after(reader, 6, R, limit=2)) == [7, 8]
    engine.write([Write(R, 3, floor=3)])
    assert held(reader, R).floor == 5
    engine.write([Write(R, 3, floor=99)])
    assert reader.log(R) == LogRow(R, "e", 12, 13, 1, 3, 24)
    engine.write([Write(R, 4, records(13, 13))])
    assert seqs(after(reader, 0, R)) == [13]


def test_deleting_a_log_drops_all_that_belongs_to_it(engine: Engine, reader: Reader) -> None:
    engine.write([Write(S, 1, records(1, 3), create="e", session=session(), turns=(turn("t", 1),))])
    engine.write([Write(S, 2, delete=True), Write("room:never", 2, delete=True)])
    assert reader.log(S) is None
    assert reader.session("s") is None
    assert [after(reader, 0), reader.turns("s"), reader.unfinished_sessions()] == [[], [], []]


def test_a_log_can_be_deleted_and_begun_anew_within_one_batch(engine: Engine, reader: Reader) -> None:
    engine.write([Write(S, 1, records(1, 9), create="old", session=session(), turns=(turn("t", 1),))])
    engine.write(
        [
            Write(S, 2, records(10, 10)),
            Write(S, 2, delete=True),
            Write(S, 3, records(1, 2), create="new", session=session(title="again")),
        ]
    )
    assert reader.log(S) == LogRow(S, "new", 2, 1, 3, 3, 4)
    assert seqs(after(reader, 0)) == [1, 2]
    assert reader.turns("s") == []
    assert reader.session("s") == session(title="again")


def test_a_log_begun_and_deleted_within_one_batch_never_was(engine: Engine, reader: Reader) -> None:
    engine.write([Write(S, 1, records(1, 2), create="e", session=session()), Write(S, 1, delete=True)])
    assert reader.log(S) is None
    assert reader.session("s") is None


def test_a_session_is_inserted_and_replaced(engine: Engine, reader: Reader) -> None:
    engine.write([Write(S, 1, create="e", session=session())])
    assert reader.session("s") == session()
    changed = attrs.evolve(session(), title="T\0é", variables=b'{"b": 2}', closed=True, workspace_dir=None)
    changed = attrs.evolve(changed, members='{"é":"viewer"}'.encode())
    engine.write([Write(S, 2, session=session(title="mid")), Write(S, 2, session=changed)])
    assert reader.session("s") == changed
    assert reader.sessions("ann", everyone=False, limit=9) == [attrs.evolve(changed, variables=b"", updated_at=2)]


def test_the_members_of_sessions_in_one_list_are_not_mixed_up(engine: Engine, reader: Reader) -> None:
    rows = [attrs.evolve(session(f"s{n}", created_at=n), members=b'{"u%d":"member"}' % n * (n % 3)) for n in range(7)]
    engine.write([Write(f"session:{row.session_id}", 1, create="e", session=row) for row in rows])
    listed = [attrs.evolve(row, variables=b"", updated_at=1) for row in rows[::-1]]
    assert reader.sessions("ann", everyone=False, limit=9) == listed


def test_the_bytes_of_a_log_are_those_of_all_records_ever_written(engine: Engine, reader: Reader) -> None:
    engine.write([Write(S, 1, (record(1, data=b"12345"),), create="e"), Write(R, 1, create="e")])
    engine.write([Write(S, 2, (record(2, data=b"67"), record(3, data=b"890"))), Write(R, 2, records(1, 500))])
    engine.write([Write(S, 3, (record(4, data=b"x"),), floor=4), Write(R, 3)])
    assert [held(reader, S).bytes, held(reader, R).bytes] == [11, 1000]
    with pytest.raises(StoreError):
        engine.write([Write(S, 4, (record(5, data=b"never"),)), Write(S, 4, (record(9),))])
    engine.write([Write(S, 5, (record(5, data=b"y"),))])
    assert held(reader, S).bytes == 12


def test_turns_are_replaced_and_listed_in_the_order_of_acceptance(engine: Engine, reader: Reader) -> None:
    engine.write([Write(S, 1, create="e", turns=(turn("b", 7), turn("a", 2)))])
    assert reader.turns("s") == [turn("a", 2), turn("b", 7)]
    engine.write([Write(S, 1, turns=(turn("b", 7, "failed"),)), Write(S, 1, turns=(turn("c", 9),))])
    assert reader.turns("s") == [turn("a", 2), turn("b", 7, "failed", content=None), turn("c", 9)]


def test_the_last_state_of_a_turn_in_a_batch_wins_and_an_ended_turn_keeps_no_prompt(
    engine: Engine, reader: Reader
) -> None:
    states = [attrs.evolve(turn("t", 1), state=state) for state in ("queued", "dispatching", "running")]
    engine.write([Write(S, 1, create="e", turns=(*states, turn("t", 1, "completed")))])
    assert reader.turns("s") == [turn("t", 1, "completed", content=None)]


def test_sessions_with_open_turns_are_found(engine: Engine, reader: Reader) -> None:
    for name in ("s", "ended", "none"):
        rows = (attrs.evolve(turn("1", 1, "completed"), session_id=name),)
        engine.write([Write(f"session:{name}", 1, create="e", turns=() if name == "none" else rows)])
    engine.write([Write(S, 1, turns=(turn("2", 2), turn("3", 3)))])
    assert reader.unfinished_sessions() == ["s"]
    engine.write([Write(S, 1, turns=(turn("2", 2, "lost"), turn("3", 3, "lost")))])
    assert reader.unfinished_sessions() == []


def test_ephemeral_sessions_are_found_until_they_are_closed(engine: Engine, reader: Reader) -> None:
    fleeting = attrs.evolve(session(), ephemeral=True)
    engine.write([Write(S, 1, create="e", session=fleeting, turns=(turn("1", 1),))])
    engine.write([Write("session:other", 1, create="e", session=session("other"))])
    assert (reader.unfinished_sessions(), reader.session("s")) == (["s"], fleeting)
    engine.write([Write(S, 1, turns=(turn("1", 1, "lost"),))])
    assert reader.unfinished_sessions() == ["s"]
    engine.write([Write(S, 1, session=attrs.evolve(fleeting, closed=True))])
    assert reader.unfinished_sessions() == []


def test_a_listed_session_was_updated_when_its_log_was_and_keeps_its_place(engine: Engine, reader: Reader) -> None:
    for name, at in (("old", 1), ("new", 2)):
        engine.write([Write(f"session:{name}", at, create="e", session=session(name, created_at=at))])
    engine.write([Write("session:old", 9, records(1, 1))])
    listed = [(row.session_id, row.updated_at) for row in reader.sessions(None, everyone=True, limit=9)]
    assert listed == [("new", 2), ("old", 9)]


def test_sessions_are_listed_newest_first_by_owner_with_a_cursor(engine: Engine, reader: Reader) -> None:
    rows = [session(f"s{n}", None if n == 3 else "ann" if n % 2 else "bob", created_at=n // 2) for n in range(8)]
    engine.write([Write(f"session:{row.session_id}", 1, create="e", session=row) for row in rows])

    def listed(
        owner: str | None, limit: int = 9, before: tuple[int, str] | None = None, *, everyone: bool = False
    ) -> list[str]:
        page = reader.sessions(owner, everyone=everyone, limit=limit, before=before)
        return [row.session_id for row in page]

    assert listed(None, everyone=True) == ["s7", "s6", "s5", "s4", "s3", "s2", "s1", "s0"]
    assert listed(None, limit=3, before=(2, "s5"), everyone=True) == ["s4", "s3", "s2"]
    assert listed("ann", limit=2) == ["s7", "s5"]
    assert listed("ann", before=(2, "s5")) == ["s1"]
    assert listed(None) == ["s3"]


def test_rooms_are_listed_by_name_after_any_other_name(engine: Engine, reader: Reader) -> None:
    names = ["", " ", "Z", "a", "a/b", "ab", "\u00e9", "\uffff", "\U0001f600", "\U0010ffff"]
    engine.write([Write(f"room:{name}", 7, records(1, 2), create="e") for name in reversed(names[1:])])
    engine.write(
        [Write(S, 1, create="e", session=session()), Write("rooms", 1, create="e"), Write("room", 1, create="e")]
    )
    for place, name in enumerate(names):
        found = reader.rooms(name, limit=3)
        assert [row.name for row in found] == [f"room:{other}" for other in names[place + 1 : place + 4]]
    assert reader.rooms("a", limit=1) == [LogRow("room:a/b", "e", 2, 1, 7, 7, 4)]
    assert reader.rooms("aa", limit=1) == reader.rooms("a/b", limit=1)


def test_expiry_drops_old_sessions_and_rooms_but_never_live_ones(engine: Engine, reader: Reader) -> None:
    for name, at in (("session:old", 10), ("session:live", 10), ("session:new", 50), ("room:old", 10)):
        engine.write([Write(name, at, (record(1, at=at),), create="e")])
    engine.write([Write("session:old", 10, session=session("old"))])
    gone = engine.expire(sessions_before=20, rooms_before=20, room_history=5, live={"session:live"})
    assert sorted(gone) == ["room:old", "session:old"]
    assert [reader.log("session:old"), reader.log("room:old"), reader.session("old")] == [None, None, None]
    assert held(reader, "session:live").head == held(reader, "session:new").head == 1
    assert engine.expire(sessions_before=20, rooms_before=20, room_history=5, live={"session:live"}) == []
    engine.write([Write("room:old", 60, records(1, 1), create="e2"), Write("session:new", 60, records(2, 2))])
    assert held(reader, "room:old").epoch == "e2"


def test_expiry_trims_rooms_by_age_and_by_number_and_leaves_sessions_whole(engine: Engine, reader: Reader) -> None:
    aged = tuple(record(n, at=n * 10) for n in range(1, 9))
    for name in ("room:age", "room:number", "room:live", S):
        engine.write([Write(name, 80, aged, create="e")])
    live = {"room:live", "room:number"}
    assert engine.expire(sessions_before=0, rooms_before=35, room_history=6, live=live) == []
    assert reader.log("room:age") == LogRow("room:age", "e", 8, 4, 80, 80, 16)
    assert seqs(after(reader, 0, "room:age")) == [4, 5, 6, 7, 8]
    engine.expire(sessions_before=0, rooms_before=0, room_history=2, live={"room:live"})
    assert seqs(after(reader, 0, "room:number")) == seqs(after(reader, 0, "room:age")) == [7, 8]
    assert held(reader, S).floor == held(reader, "room:live").floor == 1
    engine.write([Write("room:age", 90, records(9, 9))])
    assert reader.log("room:age") == LogRow("room:age", "e", 9, 7, 80, 90, 18)


def test_a_batch_larger_than_any_statement_is_whole(engine: Engine, reader: Reader) -> None:
    logs = [f"room:{n}" for n in range(300)]
    engine.write([Write(name, 1, records(1, 3), create="e") for name in logs])
    engine.write([Write(name, 2, records(4, 5), floor=2) for name in reversed(logs)])
    assert all(seqs(after(reader, 0, name)) == [2, 3, 4, 5] for name in logs)
