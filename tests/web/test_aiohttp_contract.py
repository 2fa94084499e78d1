"""What `broker/web/reader.py` relies on inside aiohttp: each private part has a test, so that an upgrade fails here."""

import inspect
from typing import Any

import pytest
from aiohttp import web
from aiohttp._websocket.helpers import websocket_mask
from aiohttp.test_utils import RawTestServer
from aiohttp.web_protocol import RequestHandler

from broker.protocol.incoming import unmask
from broker.web.reader import FrameSocket, Reader


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 125, 1000, 70_001])
def test_it_unmasks_in_place_and_as_we_do(size: int) -> None:
    ours, theirs = bytearray(range(256)) * (size // 256 + 1), bytearray(range(256)) * (size // 256 + 1)
    unmask(b"\x01\x80\xff\x00", ours)
    websocket_mask(b"\x01\x80\xff\x00", theirs)
    assert ours == theirs != bytearray(range(256)) * (size // 256 + 1)


def test_the_steps_of_a_handshake_are_where_we_change_them() -> None:
    own = web.WebSocketResponse
    assert list(inspect.signature(own._post_start).parameters) == ["self", "request", "protocol", "writer"]
    assert list(inspect.signature(own._handshake).parameters) == ["self", "request"]
    assert list(inspect.signature(own.write_eof).parameters) == ["self"]
    assert "self._post_start(" in inspect.getsource(own.prepare)
    assert "self._handshake(" in inspect.getsource(own._pre_start)


def test_a_parser_is_fed_and_told_of_the_end() -> None:
    assert list(inspect.signature(RequestHandler.set_parser).parameters)[:2] == ["self", "parser"]
    assert "eof, tail = self._payload_parser.feed_data(data)" in inspect.getsource(RequestHandler.data_received)
    assert "self._payload_parser.feed_eof()" in inspect.getsource(RequestHandler.connection_lost)
    assert inspect.signature(Reader.feed_data).return_annotation == tuple[bool, bytes]


def test_reading_is_paused_and_resumed_by_the_connection() -> None:
    for name in ("pause_reading", "resume_reading"):
        assert not inspect.iscoroutinefunction(getattr(RequestHandler, name))
    # what we hold is not let go when aiohttp lets go of its own buffer
    assert "if not self._reading_paused" in inspect.getsource(RequestHandler._resume_reading_for_buffer)


async def test_what_comes_with_the_handshake_waits_for_the_parser(knock: Any) -> None:
    tails: list[bytes] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        socket = FrameSocket("")
        await socket.prepare(request)
        assert request.protocol._upgraded
        tails.append(request.protocol._message_tail)
        return socket

    async with RawTestServer(handler) as server:
        raw = await knock(server.port, X="y\r\n\r\nglued")  # ends the headers itself
        assert raw.status == 101
        assert await raw.reader.read() == b"", "who does not read any more ends the connection"
    assert tails == [b"glued\r\n\r\n"]
