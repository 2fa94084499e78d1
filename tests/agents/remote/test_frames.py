"""The frames of `agents.v1.json`, and what an agent's reports mean: bytes in, values out (PROTOCOL section 4)."""

import json
from typing import Any

import msgspec
import pytest

from broker.agents.bounds import RECORD_LIMIT, TEXT_LIMIT
from broker.agents.remote.frames import Hello, Running, hello_of, read, written
from broker.agents.remote.job import Job
from broker.agents.remote.reports import REPORTS, variables_of, vendor_of
from broker.errors import BrokerError
from broker.messages import (
    AgentEvent,
    AgentRecord,
    ApprovalRequested,
    TextDelta,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)

LONG = "x" * RECORD_LIMIT


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def refusal(text: bytes) -> BrokerError:
    with pytest.raises(BrokerError) as refused:
        read(text)
    return refused.value


# -- the envelope ------------------------------------------------------------------------------------


def test_a_frame_is_read_whatever_else_it_has() -> None:
    text = b'{"id":7,"projectGuid":"p","new":[1],"type":"delta","data":{"turn_id":"t"},"timestamp":"x"}'
    frame = read(text)
    assert (frame.type, bytes(frame.data), bytes(frame.id)) == ("delta", b'{"turn_id":"t"}', b"7")


def test_a_frame_of_ours_has_all_parts_of_the_envelope_and_an_id_of_its_own() -> None:
    one, two = (json.loads(written("ping", {"a": msgspec.Raw(b"[1, 2]")}, 1_700_000_000_123)) for _ in range(2))
    assert set(one) == {"type", "id", "data", "timestamp"}
    assert (one["type"], one["data"], one["timestamp"]) == ("ping", {"a": [1, 2]}, "2023-11-14T22:13:20.123Z")
    assert one["id"] != two["id"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"nonsense", "invalid_json"),
        (b'{"type":"delta"', "invalid_json"),
        (b'{"type":"delta","data":{"text":NaN}}', "invalid_json"),
        (b'{"type":"delta","data":{"text":"\\ud800"}}', "invalid_json"),
        (b"[]", "invalid_message"),
        (b'{"data":{}}', "invalid_message"),
        (b'{"type":3}', "invalid_message"),
        (b'{"type":"%s"}' % (b"x" * 201), "invalid_message"),
        (b'{"type":"x","data":' + b"[" * 64 + b"]" * 64 + b"}", "invalid_message"),
    ],
)
def test_what_is_no_frame_is_refused_with_a_code(text: bytes, code: str) -> None:
    assert refusal(text).code == code


def test_nesting_is_taken_up_to_the_limit() -> None:
    assert read(b'{"type":"x","data":' + b"[" * 63 + b"]" * 63 + b"}").type == "x"


def test_a_hello_says_who_it_is_and_what_it_still_runs() -> None:
    data = {"agent": "coder", "version": "2", "capacity": 4, "instance": "i", "turns": [{"turn_id": "t", "seq": 3}]}
    hello = hello_of(read(json.dumps({"type": "hello", "data": data}).encode()))
    assert hello == Hello("coder", "2", 4, "i", (Running("t", 3),))


def test_of_a_hello_only_the_agent_is_needed() -> None:
    hello = hello_of(read(b'{"type":"hello","data":{"agent":"coder","extra":1}}'))
    assert (hello.capacity, hello.instance, hello.turns) == (1, None, ())


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "$.data"),
        ({"agent": "a", "capacity": 0}, "$.data.capacity"),
        ({"agent": "a", "capacity": 10_001}, "$.data.capacity"),
        ({"agent": "a", "turns": [{"turn_id": ""}]}, "$.data.turns[0].turn_id"),
        ({"agent": "a", "turns": [{"turn_id": "t", "seq": -1}]}, "$.data.turns[0].seq"),
    ],
)
def test_a_hello_out_of_bounds_is_refused_by_the_field(data: Any, field: str) -> None:
    frame = read(json.dumps({"type": "hello", "data": data}).encode())
    with pytest.raises(BrokerError) as refused:
        hello_of(frame)
    assert (refused.value.code, refused.value.field) == ("invalid_message", field)


def test_what_comes_first_must_be_a_hello() -> None:
    with pytest.raises(BrokerError, match="first frame must be a hello"):
        hello_of(read(b'{"type":"delta","data":{"agent":"a"}}'))


# -- reports -----------------------------------------------------------------------------------------


@pytest.fixture
def job() -> Job:
    """A turn at an agent."""
    return Job("s1", "t1", lambda _: None)


def events(job: Job, kind: str, /, **data: Any) -> list[AgentEvent]:
    report = REPORTS[kind]
    text = raw({"turn_id": "t1", **data})
    return list(report.events(job, report.decoder.decode(text), text))


def event(job: Job, kind: str, /, **data: Any) -> Any:
    (only,) = events(job, kind, **data)
    return only


def test_accepted_is_taken(job: Job) -> None:
    assert event(job, "turn_accepted") == TurnTaken("t1")


def test_a_delta_is_text_or_a_thought(job: Job) -> None:
    assert event(job, "delta", text="a", seq=1) == TextDelta("t1", "a")
    assert event(job, "delta", text="b", kind="thought") == TextDelta("t1", "b", thought=True)
    assert event(job, "delta", text="c", message_id="m") == TextDelta("t1", "c", message_id="m")


def test_a_delta_without_text_is_a_sign_of_life(job: Job) -> None:
    assert event(job, "delta", text="") == TurnTaken("t1")


def test_a_huge_delta_comes_in_parts(job: Job) -> None:
    parts: Any = events(job, "delta", text="x" * (TEXT_LIMIT + 1))
    assert [len(part.text) for part in parts] == [TEXT_LIMIT, 1]


def test_a_tool_starts_once_and_is_updated_then(job: Job) -> None:
    content = {"deep": [{"turn_id": "theirs"}]}
    first = event(job, "tool", tool_id="x", title="Read", status="pending", content=content, seq=4)
    assert first.kind == "tool.started"
    assert json.loads(first.data) == {"tool_id": "x", "title": "Read", "status": "pending", "content": content}
    assert event(job, "tool", tool_id="x", status="completed").kind == "tool.updated"
    assert event(job, "tool", tool_id="y").kind == "tool.started"


def test_what_a_tool_brought_is_left_out_where_no_record_could_hold_it(job: Job) -> None:
    record = event(job, "tool", tool_id="x", title="Read", content="x" * RECORD_LIMIT)
    assert json.loads(record.data) == {"tool_id": "x", "title": "Read", "truncated": ["content"]}


@pytest.mark.parametrize("content", ["[1e999]", "[" * 200 + "]" * 200], ids=["unreadable", "deep"])
def test_what_is_left_out_is_not_decoded_before(job: Job, content: str) -> None:
    """It may be sixteen megabytes of small values, which take seconds to become objects and as long to be let go of."""
    large = f'[{content},"{LONG}"]'
    frame = read(b'{"type":"tool","data":{"turn_id":"t1","tool_id":"x","content":%s}}' % large.encode())
    report = REPORTS[frame.type]
    (record,) = report.events(job, report.decoder.decode(frame.data), frame.data)
    assert isinstance(record, AgentRecord)
    assert json.loads(record.data) == {"tool_id": "x", "truncated": ["content"]}


def test_of_a_report_with_fields_without_number_those_are_kept_that_have_a_meaning(job: Job) -> None:
    """Each of them would become an object, before anybody knows how many there are."""
    fields = {str(number): 0 for number in range(40_000)}
    record = event(job, "tool", **fields, tool_id="x", title="Read", content={"a": 1})
    assert json.loads(record.data) == {"tool_id": "x", "title": "Read", "content": {"a": 1}}


def test_what_is_kept_of_a_large_frame_may_not_nest_too_deep(job: Job) -> None:
    """Its brackets are not counted before it is cut."""
    fields = f'"turn_id":"t1","tool_id":"x","kind":{"[" * 64}{"]" * 64},"content":"{LONG}"'
    frame = read(b'{"type":"tool","data":{%s}}' % fields.encode())
    report = REPORTS[frame.type]
    with pytest.raises(BrokerError, match="nested deeper"):
        list(report.events(job, report.decoder.decode(frame.data), frame.data))


def test_what_is_too_large_to_be_cut_is_refused_before_it_is_decoded(job: Job) -> None:
    large = f'[1e999,"{LONG}"]'
    report = REPORTS["approval_request"]
    asked = msgspec.Raw(b'{"turn_id":"t1","approval_id":"q","options":[{"id":"y","x":%s}]}' % large.encode())
    with pytest.raises(BrokerError) as refused:
        list(report.events(job, report.decoder.decode(asked), asked))
    assert (refused.value.code, refused.value.field) == ("too_large", "$.data.options")
    with pytest.raises(BrokerError) as refused:
        variables_of(msgspec.Raw(b'{"session_id":"s1","set":{"a":%s}}' % large.encode()))
    assert (refused.value.code, refused.value.field) == ("too_large", "$.data.set")


def test_what_an_agent_shows_to_those_who_debug_is_a_record_of_its_own(job: Job) -> None:
    assert event(job, "debug", prompt="hi", seq=1) == AgentRecord("t1", "debug", b'{"prompt":"hi"}')


def test_usage_is_reported_and_remembered_for_the_end(job: Job) -> None:
    assert event(job, "usage", input_tokens=3, seq=1) == AgentRecord("t1", "usage.updated", b'{"input_tokens":3}')
    assert event(job, "turn_end", stop_reason="max_tokens") == TurnSettled("t1", "max_tokens", b'{"input_tokens":3}')
    assert event(job, "turn_end", usage={"a": 1}).usage == b'{"a":1}'


def test_an_end_needs_no_reason(job: Job) -> None:
    assert event(job, "turn_end") == TurnSettled("t1", "end_turn", None, last=True)


def test_an_error_keeps_our_codes_and_explains_the_others(job: Job) -> None:
    ours = event(job, "turn_error", code="rate_limited", message="Later.", retryable=True)
    assert ours == TurnFailed("t1", "rate_limited", "Later.", retryable=True)
    theirs = event(job, "turn_error", code="E42", message="Out of cheese.")
    assert theirs == TurnFailed("t1", "agent_unavailable", "Out of cheese. (E42)")
    assert event(job, "turn_error").message == "The agent failed."
    assert len(event(job, "turn_error", message="x" * 9000).message) == 500


@pytest.mark.parametrize("spelling", ["option_id", "optionId", "id"])
def test_a_question_is_understood_however_its_options_are_spelled(job: Job, spelling: str) -> None:
    options = [{spelling: "y", "label": "Yes", "kind": "allow_once"}, {spelling: "n"}]
    asked = event(job, "approval_request", approval_id="q", title="Delete?", options=options, tool={"tool_id": "x"})
    assert isinstance(asked, ApprovalRequested)
    assert (asked.key, asked.title, asked.tool) == ("q", "Delete?", b'{"tool_id":"x"}')
    assert json.loads(asked.options) == [
        {"option_id": "y", "name": "Yes", "kind": "allow_once"},
        {"option_id": "n", "name": "n"},
    ]


@pytest.mark.parametrize("options", [[], ["y"], [{}], [{"option_id": 3}], [{"id": None}], "y", [{"id": {"id": "y"}}]])
def test_a_question_that_cannot_be_answered_is_refused(job: Job, options: Any) -> None:
    with pytest.raises((BrokerError, msgspec.ValidationError)):
        events(job, "approval_request", approval_id="q", title="?", options=options)


def test_options_beyond_all_bounds_are_refused(job: Job) -> None:
    with pytest.raises(BrokerError, match="more than a record"):
        events(job, "approval_request", approval_id="q", options=[{"id": "y", "name": "x" * RECORD_LIMIT}])


def test_numbers_that_nobody_could_read_again_are_refused(job: Job) -> None:
    report = REPORTS["tool"]
    text = msgspec.Raw(b'{"turn_id":"t1","tool_id":"x","content":[1e999]}')
    with pytest.raises(BrokerError):
        list(report.events(job, report.decoder.decode(text), text))


def test_variables_are_an_object_of_bounded_size() -> None:
    said, data = variables_of(raw({"session_id": "s1", "set": {"a": [1], "b": None}}))
    assert (said.session_id, said.turn_id, data) == ("s1", None, b'{"a":[1],"b":null}')
    unreadable: list[Any] = [{"session_id": "s1"}, {"session_id": "s1", "set": [1]}, {"set": {}}]
    for bad in unreadable:
        with pytest.raises(BrokerError):
            variables_of(raw(bad))
    with pytest.raises(BrokerError, match="more than a record"):
        variables_of(raw({"session_id": "s1", "set": {"a": "x" * RECORD_LIMIT}}))


def test_what_we_have_no_word_for_is_kept_word_for_word() -> None:
    text = msgspec.Raw(b'{"turn_id" : "t1", "n": 1.50}')
    assert vendor_of("weather", text, "t1") == AgentRecord("t1", "vendor.weather", bytes(text))
    with pytest.raises(BrokerError):
        vendor_of("weather", msgspec.Raw(b"[1]"), "t1")


# -- numbers -----------------------------------------------------------------------------------------


def test_repeats_are_told_and_a_hole_is_reported_once() -> None:
    heard: list[AgentEvent] = []
    job = Job("s1", "t1", heard.append)
    assert [job.counts(seq) for seq in (1, 2, 2, 1, 6, 6, 4, 7)] == [True, True, False, False, True, False, False, True]
    assert heard == [AgentRecord("t1", "debug", b'{"missing":[3,5]}')]


@pytest.mark.parametrize(
    ("numbers", "resumes"),
    [([], True), ([None], False), ([1], True), ([1, None], True), ([None, 1], True)],
)
def test_a_turn_can_go_on_elsewhere_if_its_frames_were_counted_or_none_came(
    job: Job, numbers: list[int | None], resumes: bool
) -> None:
    for seq in numbers:
        job.counts(seq)
    assert job.can_resume is resumes


def test_having_accepted_a_turn_needs_no_number(job: Job) -> None:
    job.counts(None, output=REPORTS["turn_accepted"].output)
    assert job.can_resume
