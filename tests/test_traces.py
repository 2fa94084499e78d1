"""What is remembered of a message's way, and that it stays bounded."""

from typing import Any

import pytest

from broker.testing import ManualClock
from broker.traces import Step, Trace, Traces

MINE: dict[str, Any] = {"session_id": "s", "client_msg_id": "m", "user": "ann"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000)


@pytest.fixture
def traces(clock: ManualClock) -> Traces:
    return Traces(clock.now)


def known(traces: Traces, some_id: str) -> Trace:
    trace = traces.find(some_id)
    assert trace is not None
    return trace


def words(trace: Trace) -> list[str]:
    return [step.what for step in trace.steps]


def test_a_turn_goes_on_from_its_message_and_is_found_by_both_ids(traces: Traces, clock: ManualClock) -> None:
    traces.receive("socket", **MINE)
    clock.advance(0.002)
    traces.begin("t", **MINE)
    traces.note("t", "session", "accepted")
    traces.note("t", "session", "ended", "it was cancelled")
    trace = known(traces, "t")
    assert known(traces, "m") is trace
    assert known(traces, "s") is trace
    assert traces.find("ann") is traces.find("") is None
    assert trace.steps == [
        Step(1000, "socket", "received"),
        Step(1002, "session", "accepted"),
        Step(1002, "session", "ended", "it was cancelled"),
    ]
    assert (trace.trace_id, trace.session_id, trace.client_msg_id, trace.user) == ("t", "s", "m", "ann")


def test_a_turn_that_came_by_no_socket_has_a_trace_too(traces: Traces) -> None:
    traces.begin("t", **MINE)
    traces.note("t", "session", "accepted")
    traces.note("unknown", "session", "accepted")
    assert words(known(traces, "t")) == ["accepted"]
    assert traces.find("unknown") is None


def test_beginning_a_trace_again_changes_nothing(traces: Traces) -> None:
    traces.begin("t", **MINE)
    traces.note("t", "session", "accepted")
    traces.begin("t", **MINE)
    assert words(known(traces, "t")) == ["accepted"]
    assert traces.known_as("m") == [known(traces, "t")]


def test_a_message_sent_again_is_noted_where_it_was_before(traces: Traces) -> None:
    traces.receive("socket", **MINE)
    traces.begin("t", **MINE)
    traces.note("t", "session", "ended")
    traces.receive("socket", **MINE)
    traces.refuse("socket", "conflict: other content", **MINE)
    trace = known(traces, "m")
    assert words(trace) == ["received", "ended", "received", "refused"]
    assert (trace.trace_id, trace.is_turn, trace.ended) == ("t", True, True)


def test_a_refused_message_is_found_by_its_own_id_and_can_still_become_a_turn(traces: Traces) -> None:
    traces.receive("socket", **MINE)
    assert not known(traces, "m").ended
    traces.refuse("socket", "queue_full: wait", **MINE)
    trace = known(traces, "m")
    assert (trace.trace_id, trace.is_turn, trace.ended) == (None, False, True)
    assert trace.steps[-1].reason == "queue_full: wait"
    traces.receive("socket", **MINE)
    assert not trace.ended
    traces.begin("t", **MINE)
    assert known(traces, "t") is trace
    assert not trace.ended


@pytest.mark.parametrize("other", [{"session_id": "z"}, {"user": "bob"}, {"user": None}])
def test_the_same_id_of_another_user_or_session_is_another_message(traces: Traces, other: dict[str, Any]) -> None:
    traces.receive("socket", **MINE)
    traces.begin("t", **MINE)
    traces.receive("socket", **{**MINE, **other})
    traces.begin("u", **{**MINE, **other})
    traces.note("t", "session", "ended")
    assert traces.known_as("m") == [known(traces, "u"), known(traces, "t")]
    assert words(known(traces, "u")) == ["received"]


def test_an_id_that_many_use_leads_to_the_newest_and_costs_nobody_a_turn(traces: Traces) -> None:
    for n in range(40):
        traces.begin(f"t{n}", session_id=f"s{n}", client_msg_id="1", user=None)
    assert [trace.trace_id for trace in traces.known_as("1")] == [f"t{n}" for n in range(39, 23, -1)]
    assert known(traces, "t0").session_id == "s0"


def test_a_failed_request_is_found_by_its_trace_id(traces: Traces) -> None:
    traces.fail("x", "broker", "RuntimeError")
    trace = known(traces, "x")
    assert (trace.steps[0].what, trace.steps[0].reason, trace.ended) == ("failed", "RuntimeError", True)


# -- bounds ------------------------------------------------------------------------------------------


def nothing_kept(traces: Traces) -> bool:
    return not (traces._by_id or traces._by_message or traces._turns._traces or traces._others._traces)


def test_the_oldest_is_forgotten_first_under_all_its_ids(clock: ManualClock) -> None:
    traces = Traces(clock.now, turns=3)
    for n in range(5):
        traces.receive("socket", session_id="s", client_msg_id=f"m{n}", user=None)
        traces.begin(f"t{n}", session_id="s", client_msg_id=f"m{n}", user=None)
    found = [traces.find(f"{kind}{n}") is not None for n in range(5) for kind in "tm"]
    assert found == [False] * 4 + [True] * 6
    assert len(traces._by_id) == len(traces._by_message) == 3


def test_no_flood_of_refusals_or_failures_pushes_out_a_turn(clock: ManualClock) -> None:
    traces = Traces(clock.now, turns=3, others=5)
    traces.begin("t", **MINE)
    for n in range(100):
        traces.receive("socket", session_id="s", client_msg_id=f"bad{n}", user="eve")
        traces.refuse("socket", "forbidden", session_id="s", client_msg_id=f"bad{n}", user="eve")
        traces.fail(f"x{n}", "broker", "RuntimeError")
    assert known(traces, "t").is_turn
    assert len(traces._by_message) + len(traces._by_id) <= 5 + 2


def test_its_bytes_are_bounded_however_much_is_noted(clock: ManualClock) -> None:
    memory = 100_000
    traces = Traces(clock.now, memory=memory)
    for n in range(200):
        traces.begin(f"t{n}", session_id="s", client_msg_id=f"m{n}", user=None)
        for _ in range(n):
            traces.note(f"t{n}", "agent", "stalled", "x" * 5000)
        kept = traces._turns._traces
        assert traces._turns._size == sum(trace.size for trace in kept) <= memory
        for trace in kept:
            told = sum(128 + len(step.reason or "") for step in trace.steps)
            assert told < trace.size < told + 3000
    assert traces.find("t199") is not None
    assert traces.find("t0") is None


def test_a_long_trace_keeps_its_beginning_and_its_end(traces: Traces) -> None:
    traces.begin("t", **MINE)
    for n in range(500):
        traces.note("t", "agent", str(n))
    said = words(known(traces, "t"))
    assert (len(said), known(traces, "t").left_out) == (100, 400)
    assert said == [str(n) for n in (*range(50), *range(450, 500))]


def test_reasons_are_cut(traces: Traces) -> None:
    for _ in range(2):
        traces.refuse("socket", "r" * 1000, **MINE)
    assert [len(step.reason or "") for step in known(traces, "m").steps] == [300, 300]


def test_a_trace_too_large_to_be_kept_is_forgotten_whole(clock: ManualClock) -> None:
    traces = Traces(clock.now, memory=3000)
    traces.begin("t", **MINE)
    traces.note("t", "session", "ended", "x" * 299)
    assert known(traces, "t")
    traces.note("t", "session", "shown", "x" * 299)
    traces.note("t", "session", "shown", "x" * 299)
    assert nothing_kept(traces)
    assert traces._turns._size == 0
