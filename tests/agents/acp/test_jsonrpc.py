"""JSON-RPC over lines, without a loop."""

import msgspec
import pytest

from broker.agents.acp.jsonrpc import Misread, Peer, RpcError


class Wire:
    """A peer, what it wrote and what it was asked and told."""

    def __init__(self) -> None:
        self.written, self.asked, self.told = [], [], []
        self.peer = Peer(
            self.written.append,
            lambda key, method, params: self.asked.append((key, method, bytes(params))),
            lambda method, params: self.told.append((method, bytes(params))),
        )


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_each_call_gets_its_own_answer_whatever_the_order(wire: Wire):
    answers = {}
    wire.peer.call("a", {}, lambda answer: answers.update(a=bytes(answer)))
    wire.peer.call("b", {}, lambda answer: answers.update(b=bytes(answer)))
    wire.peer.feed(b'{"jsonrpc":"2.0","id":2,"result":{"of":"b"}}')
    wire.peer.feed(b'{"jsonrpc":"2.0","id":1,"result":{"of":"a"}}')
    assert answers == {"a": b'{"of":"a"}', "b": b'{"of":"b"}'}


@pytest.mark.parametrize(
    "line", [b'{"id":"1","result":7}', b'{"id":1.0,"result":7}', b'{"id":1,"method":"","result":7}']
)
def test_an_answer_is_one_however_its_id_is_spelled(wire: Wire, line: bytes):
    answers = []
    wire.peer.call("m", {}, answers.append)
    wire.peer.feed(line)
    assert [bytes(answer) for answer in answers] == [b"7"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":1,"result":{"stopReason":"\\ud800"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"usage":NaN}}',
        b'{"result":{"usage":NaN},"id":"1"}',
        b'{"id":1,"result":{"stop',
        b'{"result":{"why":"\xff"},"x":NaN,"id":1.0}',
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error(wire: Wire, line: bytes):
    answers = []
    wire.peer.call("m", {}, answers.append)
    wire.peer.feed(line)
    assert [(answer.code, answer.message) for answer in answers] == [(-32603, "an answer that cannot be read")]


def test_a_report_that_makes_no_sense_answers_nothing(wire: Wire):
    answers = []
    wire.peer.call("m", {}, answers.append)
    for line in (
        b'{"method":"m","id":1,"params":{"result":NaN}}',
        b'{"params":{"id":1,"result":NaN}}',
        b'{"result":NaN}',
    ):
        with pytest.raises(Misread):
            wire.peer.feed(line)
    assert answers == []


def test_an_answer_that_nobody_waits_for_any_more_is_not_misread(wire: Wire):
    answers = []
    wire.peer.waive(wire.peer.call("m", {}, answers.append))
    wire.peer.feed(b'{"id":1,"result":7}')
    wire.peer.waive(1)
    assert answers == []


def test_a_frame_is_one_line(wire: Wire):
    wire.peer.call("m", {"text": "two\nlines"}, print)
    wire.peer.notify("n", {})
    assert [line.count(b"\n") for line in wire.written] == [1, 1]
    assert msgspec.json.decode(wire.written[0]) == {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "m",
        "params": {"text": "two\nlines"},
    }


@pytest.mark.parametrize("key", ["0", '"f1"', '"\\u00e9"', "1.5"])
def test_a_request_is_answered_under_its_own_id_word_for_word(wire: Wire, key: str):
    wire.peer.feed(b'{"jsonrpc":"2.0","id":%s,"method":"ask","params":{"x": 1}}' % key.encode())
    assert wire.asked == [(key, "ask", b'{"x": 1}')]
    wire.peer.answer(key, {"yes": True})
    wire.peer.refuse(key, -32601, "no")
    assert wire.written == [
        b'{"jsonrpc":"2.0","id":%s,"result":{"yes":true}}\n' % key.encode(),
        b'{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no"}}\n' % key.encode(),
    ]


def test_ids_of_the_two_directions_are_told_apart(wire: Wire):
    answers = []
    wire.peer.call("mine", {}, answers.append)
    wire.peer.feed(b'{"jsonrpc":"2.0","id":1,"method":"theirs"}')
    assert answers == []
    wire.peer.feed(b'{"jsonrpc":"2.0","id":1,"result":null}')
    assert len(answers) == 1


@pytest.mark.parametrize("frame", [b'{"method":"tell","params":[1]}', b'{"id":null,"method":"tell","params":[1]}'])
def test_a_request_without_an_id_is_a_notification(wire: Wire, frame: bytes):
    wire.peer.feed(frame)
    assert (wire.told, wire.asked) == ([("tell", b"[1]")], [])


def test_a_second_answer_to_one_call_is_misread(wire: Wire):
    answers = []
    wire.peer.call("m", {}, answers.append)
    wire.peer.feed(b'{"id":1,"result":1}')
    with pytest.raises(Misread, match="no question"):
        wire.peer.feed(b'{"id":1,"result":2}')
    assert [bytes(answer) for answer in answers] == [b"1"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (b'{"code":-32000,"message":"who are you"}', (-32000, "who are you")),
        (b'"boom"', (-32603, "an error that cannot be read")),
        (b'{"code":"x"}', (-32603, "an error that cannot be read")),
    ],
)
def test_an_error_is_an_answer_however_it_is_spelled(wire: Wire, error: bytes, expected: tuple[int, str]):
    answers = []
    wire.peer.call("m", {}, answers.append)
    wire.peer.feed(b'{"id":1,"error":%s}' % error)
    assert [(type(answer), answer.code, answer.message) for answer in answers] == [(RpcError, *expected)]


@pytest.mark.parametrize(
    "line",
    [
        b"Loading...",
        b"[]",
        b"7",
        b'{"id":[1],"method":"m"}',
        b'{"id":{},"result":1}',
        b'{"id":true,"method":"m"}',
        b'{"method":7}',
        b'{"method":"\xff"}',
        b'{"id":"\xff","method":"m"}',
        b'{"method":"m","params":' + b"[" * 100_000,
        b'{"result":1}',
    ],
)
def test_what_is_no_message_is_misread(wire: Wire, line: bytes):
    with pytest.raises(Misread):
        wire.peer.feed(line)
    assert (wire.asked, wire.told, wire.written) == ([], [], [])
