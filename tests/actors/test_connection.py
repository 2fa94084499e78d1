"""The writing half of a socket: one write for a burst, bounds in bytes, and codes that tell the client what to do."""

from typing import Any

import pytest
from pykka.messages import _ActorStop

from broker.actors.connection import Connection
from broker.actors.connection_mail import Hang, Pinged
from broker.actors.reply import SocketReply
from broker.errors import CLOSE_REASONS, BrokerError, CloseCode
from broker.operations import Attach, Join, Presence
from broker.protocol.native import NATIVE
from broker.protocol.outgoing import Direct, Failure, Response, Welcome
from broker.protocol.parcel import Parcel
from broker.testing import FakeTransport, settled

BIG = b'"' + b"x" * 6000 + b'"'


@pytest.fixture
async def client(house: Any) -> Any:
    return house.connect("ann")


async def test_a_burst_leaves_in_one_write_in_order(client: Any) -> None:
    client.ref.tell(Welcome("c1", "ann", NATIVE.name, "actor-broker/1", "n1", 30.0, 1024))
    client.ref.tell(Response("r1", b'{"a":1}'))
    client.ref.tell(Parcel((Direct(b"null", b"1"), Direct(b"null", b"2"))))
    client.ref.tell(Failure(None, BrokerError("invalid_json")))
    await settled(client.ref)
    assert client.socket.writes == 1
    welcome, response, *direct, error = client.socket.messages
    assert (welcome["event"], welcome["data"]["connection_id"]) == ("welcome", "c1")
    assert response == {"id": "r1", "type": "response", "data": {"a": 1}}
    assert [message["data"] for message in direct] == [1, 2]
    assert (error["type"], "id" in error) == ("error", False)


async def test_messages_and_bytes_are_counted(client: Any, house: Any) -> None:
    client.ref.tell(Parcel((Direct(b"null", b"1"), Direct(b"null", b"2"))))
    await settled(client.ref)
    assert house.stats.messages_out == 2
    assert house.stats.bytes_out == sum(len(frame.payload) + 2 for frame in client.socket.frames)


async def test_a_compressed_connection_is_sent_compressed_frames(house: Any) -> None:
    transport = FakeTransport()
    ref = Connection.start(house.connect().peer, NATIVE, transport, 15, house.connection)
    ref.tell(Response("r1", BIG))
    await settled(ref)
    assert transport.messages[0]["data"] == "x" * 6000
    assert house.stats.bytes_out < 200


async def test_who_does_not_read_is_cut_with_4002_once_its_outbox_is_full(client: Any, house: Any) -> None:
    client.socket.stall()
    for number in range(4):
        client.ref.tell(Response(f"r{number}", BIG))
        await settled(client.ref)
    assert client.ref.actor.close_code == CloseCode.TOO_SLOW
    assert house.stats.dropped == {"too_slow": 1}
    assert client.socket.get_write_buffer_size() < 3 * len(BIG)
    assert not client.socket.aborted
    house.clock.advance(house.connection.patience)
    assert client.socket.aborted


async def test_a_burst_counts_as_a_whole_even_before_it_is_written(client: Any) -> None:
    for number in range(4):
        client.ref.tell(Response(f"r{number}", BIG))
    await settled(client.ref)
    assert client.ref.actor.close_code == CloseCode.TOO_SLOW
    assert [m["id"] for m in client.socket.messages] == ["r0", "r1"]
    assert client.socket.close_code == CloseCode.TOO_SLOW


async def test_one_message_larger_than_the_outbox_is_still_sent_to_who_reads(client: Any) -> None:
    client.ref.tell(Response("r1", b'"' + b"x" * 50_000 + b'"'))
    await settled(client.ref)
    assert client.ref.actor.close_code is None
    assert len(client.socket.messages[0]["data"]) == 50_000


async def test_hanging_up_sends_what_was_said_then_the_code_then_nothing(client: Any) -> None:
    client.ref.tell(Response("r1", b"1"))
    client.ref.tell(Hang(CloseCode.SERVICE_RESTART))
    client.ref.tell(Response("r2", b"2"))
    client.ref.tell(Hang(CloseCode.NORMAL))
    client.ref.tell(Pinged(b"x"))
    await settled(client.ref)
    assert [frame.opcode for frame in client.socket.frames] == [1, 8]
    assert client.socket.close_code == 1012
    assert client.socket.frames[1].payload[2:].decode() == CLOSE_REASONS[CloseCode.SERVICE_RESTART]


async def test_a_refusal_that_closes_is_told_and_then_closes_with_its_code(client: Any) -> None:
    client.ref.tell(Failure("r1", BrokerError("rate_limited")))
    client.ref.tell(Failure("r2", BrokerError("rate_limited", close=CloseCode.PROTOCOL_ABUSE)))
    client.ref.tell(Response("r3", b"3"))
    await settled(client.ref)
    assert [message["id"] for message in client.socket.messages] == ["r1", "r2"]
    assert client.socket.close_code == 4501


async def test_a_peer_that_does_not_answer_the_good_bye_is_cut(client: Any, house: Any) -> None:
    client.ref.tell(Hang(CloseCode.NORMAL, "done"))
    await settled(client.ref)
    assert client.socket.frames[0].payload == b"\x03\xe8done"
    house.clock.advance(house.connection.patience - 0.1)
    assert not client.socket.aborted
    house.clock.advance(0.2)
    assert client.socket.aborted


async def test_a_peer_that_left_needs_no_cutting(client: Any, house: Any) -> None:
    client.ref.tell(Hang(CloseCode.NORMAL))
    await client.ref.stop()
    house.clock.advance(house.connection.patience)
    assert not client.socket.aborted


async def test_a_ping_is_answered_with_its_payload_unless_the_peer_reads_nothing(client: Any) -> None:
    client.ref.tell(Pinged(b"are you there"))
    await settled(client.ref)
    assert [(frame.opcode, frame.payload) for frame in client.socket.frames] == [(10, b"are you there")]
    client.socket.stall()
    for _ in range(1000):
        client.ref.tell(Pinged(b"x" * 100))
        await settled(client.ref)
    assert client.socket.get_write_buffer_size() < 11_000
    assert client.ref.actor.close_code is None


async def test_nothing_is_written_to_a_socket_that_closes(client: Any) -> None:
    client.socket.close()
    client.ref.tell(Response("r1", b"1"))
    await settled(client.ref)
    assert client.socket.writes == 0


async def test_a_format_that_fails_ends_its_connection_with_1011_and_no_other(house: Any, client: Any) -> None:
    class Broken:
        name = "broken"

        def encode(self, value: Any) -> bytes:
            raise LookupError("cannot be said")

    transport = FakeTransport()
    ref = Connection.start(client.peer, Broken(), transport, 0, house.connection)
    parcel = Parcel((Direct(b"null", b"1"),))
    ref.tell(parcel)
    client.ref.tell(parcel)
    await client.socket.message(data=1)
    assert transport.close_code == CloseCode.INTERNAL_ERROR
    assert transport.is_closing()
    assert not ref.is_alive()


async def test_leaving_ends_what_the_connection_follows(client: Any, house: Any) -> None:
    session_id = await house.create(client)
    await client.join("lobby")
    assert sorted(client.ref.actor.followed()) == sorted(["room:lobby", f"session:{session_id}"])
    assert client.ref.actor.place_of("room:lobby") is house.place("room:lobby")
    assert client.ref.actor.place_of("room:other") is None
    await client.hang_up()
    await house.settle()
    assert house.place("room:lobby").actor._followers == {}
    assert house.place(f"session:{session_id}").actor._followers == {}


async def test_leaving_ends_what_the_connection_has_not_read_that_it_follows(house: Any) -> None:
    ann, bob = house.connect("ann"), house.connect("ann")
    session_id = await house.create(ann)
    await ann.join("lobby")
    bob.send_to_room("lobby", Join(bob.by, bob.ref, bob.peer.connection_id, None, None))
    bob.send_to_session(session_id, Attach(bob.by, bob.ref, 0, None))
    await house.tick()  # the registry has handed them on
    bob.ref.tell(_ActorStop())
    await house.settle()
    assert list(house.place(f"session:{session_id}").actor._followers) == [ann.ref]
    assert (await ann.room("lobby", Presence(ann.by)))["members"] == [
        {"connection_id": ann.peer.connection_id, "user": "ann"}
    ]


async def test_followers_that_ended_without_leaving_are_let_go_in_time(house: Any) -> None:
    ann = house.connect("ann")
    session_id = await house.create(ann)
    await ann.join("lobby")
    ann.ref.actor._follows.clear()  # as if it had failed before it could leave
    await ann.ref.stop()
    await house.pass_time(31)
    assert house.place(f"session:{session_id}").actor._followers == {}
    assert house.place("room:lobby") is None


async def test_a_slow_viewer_costs_the_others_nothing_and_ends_up_with_everything(house: Any) -> None:
    slow, quick = house.connect("ann"), house.connect("ann")
    session_id = await house.create(slow)
    await quick.attach(session_id)
    slow.socket.stall()
    for number in range(60):
        await house.update(session_id, f"{number} {'x' * 400}", by=slow.by)
        assert slow.socket.get_write_buffer_size() < 2 * house.connection.outbox_bytes
    await quick.socket.message(seq=61)
    assert quick.seqs() == list(range(1, 62))
    assert house.place(f"session:{session_id}").actor._followers[slow.ref] is False
    slow.socket.resume()
    while len(slow.seqs()) < 61:
        house.clock.advance(0.05)
        await house.settle()
    await house.update(session_id, "live again", by=slow.by)
    await slow.socket.message(seq=62)
    assert slow.seqs() == list(range(1, 63))
    assert house.place(f"session:{session_id}").actor._followers[slow.ref] is True


async def test_a_turn_that_a_viewer_was_too_slow_for_knows_of_it(house: Any) -> None:
    viewer = house.connect("ann")
    session_id = await house.create(viewer)
    turn_id = (await house.start(session_id, by=viewer.by))["turn_id"]
    turn = await house.agent.turn()
    viewer.socket.stall()
    for _ in range(4):
        turn.say("x" * 5000)
        await house.settle()
    behind = [step for step in house.traces.find(turn_id).steps if step.where == "connection"]
    assert [(step.what, viewer.peer.connection_id in step.reason) for step in behind] == [("behind", True)]


async def test_a_reply_follows_a_log_before_it_answers_and_says_nothing_to_who_is_gone(client: Any) -> None:
    reply = SocketReply(client.ref, "r1", lambda value: b"%d" % value, client._refuse)
    reply.set(7)
    reply.set_exception((BrokerError, BrokerError("busy"), None))
    SocketReply(client.ref, None, lambda value: b"1", client._refuse).set(1)
    SocketReply(client.ref, None, lambda value: b"1", client._refuse).set_exception(None)
    await settled(client.ref)
    first, second, third = client.socket.messages
    assert first == {"id": "r1", "type": "response", "data": 7}
    assert (second["id"], second["data"]["code"]) == ("r1", "busy")
    assert "id" not in third
    await client.ref.stop()
    reply.set(8)
    reply.set_exception((BrokerError, BrokerError("busy"), None))
