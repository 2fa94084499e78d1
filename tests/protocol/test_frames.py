"""Frames as RFC 6455 and RFC 7692 have them: read back by another library than the one that wrote them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

from broker.errors import CLOSE_REASONS, CloseCode
from broker.protocol.frames import MAX_REASON, close_frame, ping_frame, pong_frame, text_frame


def parse(data: bytes, extension: Any = None) -> list[Frame]:
    """Read whole frames with websockets' own parser."""
    stream = StreamReader()
    stream.feed_data(data)
    frames = []
    while stream.buffer:
        reading = Frame.parse(stream.read_exact, mask=False, extensions=[extension] if extension else None)
        try:
            next(reading)
        except StopIteration as whole:
            frames.append(whole.value)
        else:
            pytest.fail("the frame is not whole")
    return frames


HEADERS = [(0, 2), (1, 2), (125, 2), (126, 4), (127, 4), (65535, 4), (65536, 10), (1_000_000, 10)]


@pytest.mark.parametrize(("size", "header"), HEADERS)
def test_the_length_takes_the_fewest_bytes_and_is_read_back(size: int, header: int) -> None:
    payload = b"x" * size
    frame = text_frame(payload)
    assert len(frame) == header + size
    (read,) = parse(frame)
    assert (read.opcode, bytes(read.data), read.fin, read.rsv1) == (Opcode.TEXT, payload, True, False)


@pytest.mark.parametrize("window_bits", range(9, 16))
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65536])
def test_compressed_messages_are_read_back_one_by_one_and_share_nothing(window_bits: int, size: int) -> None:
    payload = bytes(i * i % 251 for i in range(size))
    frame = text_frame(payload, window_bits)
    extension = PerMessageDeflate(False, True, window_bits, 15)
    for data in (frame, frame + frame):
        assert [bytes(read.data) for read in parse(data, extension)] == [payload] * (len(data) // len(frame))
    assert frame[0] == 0xC1
    assert text_frame(payload, window_bits) == frame


def test_compression_is_worth_it() -> None:
    assert len(text_frame(b"the same again, " * 100, 15)) < 100


@given(st.lists(st.binary(max_size=200)), st.sampled_from([0, 9, 15]))
def test_any_messages_joined_in_one_write_are_read_back_in_order(payloads: list[bytes], window_bits: int) -> None:
    extension = PerMessageDeflate(False, True, window_bits, 15) if window_bits else None
    data = b"".join(text_frame(payload, window_bits) for payload in payloads)
    assert [bytes(read.data) for read in parse(data, extension)] == payloads


@pytest.mark.parametrize("code", CloseCode)
def test_every_close_code_goes_out_with_its_reason_within_123_bytes(code: CloseCode) -> None:
    (frame,) = parse(close_frame(code, CLOSE_REASONS[code]))
    close = Close.parse(bytes(frame.data))
    assert (frame.opcode, close.code, close.reason) == (Opcode.CLOSE, code, CLOSE_REASONS[code])
    assert len(close.reason.encode()) <= MAX_REASON


@pytest.mark.parametrize("reason", ["é" * 100, "x" * 122 + "€", "💥" * 31, "x" * 500])
def test_a_reason_that_is_too_long_is_cut_at_a_character_s_boundary(reason: str) -> None:
    (frame,) = parse(close_frame(4002, reason))
    cut = Close.parse(bytes(frame.data)).reason
    assert reason.startswith(cut)
    assert MAX_REASON - 4 < len(cut.encode()) <= MAX_REASON


def test_a_close_frame_needs_no_reason() -> None:
    assert close_frame(1000) == b"\x88\x02\x03\xe8"


def test_a_ping_carries_its_payload_and_a_pong_brings_it_back() -> None:
    ping, pong = parse(ping_frame(b"broker") + pong_frame(b"broker"))
    assert (ping.opcode, pong.opcode) == (Opcode.PING, Opcode.PONG)
    assert bytes(ping.data) == bytes(pong.data) == b"broker"
    assert ping_frame() == b"\x89\x00"
