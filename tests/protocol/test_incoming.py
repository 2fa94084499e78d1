"""The frame decoder: RFC 6455 section 5 and RFC 7692, cut in whatever way the network likes."""

import importlib.util
import itertools
import os
import struct
import tracemalloc
import zlib
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.incoming import BINARY, CLOSE, NO_CODE, PIECE, PING, PONG, TEXT, Decoder, Violation, close_code

ROOT = Path(__file__).parents[2]
CORPUS = sorted((ROOT / "tests/protocol/corpus/frames").iterdir())
LIMIT = 1 << 20
Frame = tuple[int, bytes]


def frame(first: int, payload: bytes = b"", mask: bytes = b"\x11\x22\x33\x44") -> bytes:
    """Return a client's frame; `first` is its first byte."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + mask + bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))


def pack(text: bytes, end: int = zlib.Z_SYNC_FLUSH) -> bytes:
    """Compress one message (RFC 7692 section 7.2.1)."""
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(text) + deflate.flush(end)).removesuffix(b"\x00\x00\xff\xff")


def read(decoder: Decoder, *chunks: bytes) -> list[Frame]:
    """Feed chunks one after another; return what came of them."""
    frames = []
    for chunk in chunks:
        decoder.feed(chunk)
        while (found := decoder.next()) is not None:
            frames.append(found)
    return frames


def refusal(*chunks: bytes, limit: int = LIMIT, deflate: bool = False) -> int:
    """Return the code that the bytes are refused with."""
    with pytest.raises(Violation) as caught:
        read(Decoder(limit, deflate=deflate), *chunks)
    assert len(caught.value.reason.encode()) <= 123
    return int(caught.value.code)


PARTS = st.lists(
    st.tuples(st.sampled_from([TEXT, BINARY, PING, PONG]), st.binary(max_size=300), st.binary(min_size=4, max_size=4)),
    max_size=8,
)


@given(PARTS, st.lists(st.integers(0, 3000), max_size=20), st.booleans())
def test_what_was_encoded_is_decoded_however_it_is_cut(
    parts: list[tuple[int, bytes, bytes]], cuts: list[int], deflate: bool
) -> None:
    wire, expected = b"", []
    for opcode, random, mask in parts:
        payload = random.hex().encode() if opcode == TEXT else random[:125] if opcode > 7 else random
        packed = deflate and opcode < 8
        wire += frame((0xC0 if packed else 0x80) | opcode, pack(payload) if packed else payload, mask)
        expected.append((opcode, payload))
    places = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    chunks = [wire[start:end] for start, end in itertools.pairwise(places)]
    assert read(Decoder(LIMIT, deflate=deflate), *chunks) == expected


@given(st.text(min_size=1, max_size=60), st.data())
def test_a_message_in_fragments_is_whole_and_each_fragment_but_the_last_is_seen(text: str, data: st.DataObject) -> None:
    whole = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    wire = b""
    for at, piece in enumerate(pieces):
        wire += frame((TEXT if at == 0 else PIECE) | (0x80 if at == len(pieces) - 1 else 0), piece) + frame(0x89, b"!")
    heard = read(Decoder(LIMIT), wire)
    assert [found for found in heard if found[0] != PING] == [(PIECE, b"")] * len(cuts) + [(TEXT, whole)]
    assert len(heard) == 2 * len(pieces)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("step", [None, 4093, 1_000_000])
def test_every_length_is_read_whole_and_in_chunks(size: int, step: int | None) -> None:
    payload = os.urandom(size)
    wire = frame(0x82, payload)
    chunks = [wire[at : at + step] for at in range(0, len(wire), step)] if step else [wire[:1], wire[1:]]
    assert read(Decoder(LIMIT), *chunks) == [(BINARY, payload)]


REFUSED = {
    "a text that is not masked": b"\x81\x05hello",
    "a ping that is not masked": b"\x89\x00",
    "a close that is not masked": b"\x88\x02\x03\xe8",
    "RSV1 without compression": frame(0xC1, b"x"),
    "RSV2": frame(0xA1, b"x"),
    "RSV3": frame(0x91, b"x"),
    "RSV1 on a ping": frame(0xC9),
    "opcode 3": frame(0x83),
    "opcode 7": frame(0x87),
    "opcode 11": frame(0x8B),
    "opcode 15": frame(0x8F),
    "a ping in fragments": frame(0x09),
    "a ping of 126 bytes": frame(0x89, bytes(126)),
    "a close of 126 bytes": frame(0x88, b"\x03\xe8" + b"x" * 124),
    "half a close code": frame(0x88, b"\x03"),
    "a continuation of nothing": frame(0x80, b"x"),
    "a message inside a message": frame(0x01, b"x") + frame(0x81, b"y"),
    "a binary one inside a text": frame(0x01, b"x") + frame(0x02, b"y"),
    "125 in two bytes": b"\x82\xfe\x00\x7d",
    "5 in eight bytes": b"\x82\xff" + struct.pack("!Q", 5),
    "65,535 in eight bytes": b"\x82\xff" + struct.pack("!Q", 65_535),
    "2^63": b"\x82\xff" + struct.pack("!Q", 1 << 63),
    **{f"close code {code}": frame(0x88, struct.pack("!H", code)) for code in (0, 999, 1004, 1005, 1006, 1015, 1016)},
    **{f"close code {code}": frame(0x88, struct.pack("!H", code)) for code in (1100, 2000, 2999, 5000, 65_535)},
}


@pytest.mark.parametrize("wire", REFUSED.values(), ids=REFUSED.keys())
def test_what_breaks_the_protocol_is_refused_with_1002(wire: bytes) -> None:
    assert refusal(wire) == 1002
    assert refusal(*(wire[at : at + 1] for at in range(len(wire)))) == 1002


@pytest.mark.parametrize("wire", [b"\x81\x05", b"\xb1\x80", b"\x83\x80", b"\x09\x80", b"\x89\xfe"])
def test_two_bytes_are_enough_to_refuse_a_frame(wire: bytes) -> None:
    assert refusal(wire) == 1002


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999])
def test_a_close_code_that_may_be_sent_is_read(code: int) -> None:
    ((opcode, payload),) = read(Decoder(LIMIT), frame(0x88, struct.pack("!H", code) + b"bye"))
    assert (opcode, close_code(payload)) == (CLOSE, code)


def test_a_close_may_say_nothing() -> None:
    ((_, payload),) = read(Decoder(LIMIT), frame(0x88))
    assert close_code(payload) == NO_CODE


def test_a_close_reason_has_to_be_utf_8() -> None:
    assert refusal(frame(0x88, b"\x03\xe8\xff")) == 1007


# -- UTF-8 -------------------------------------------------------------------------------------------

BAD = [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\x80"]


@pytest.mark.parametrize("bad", BAD)
def test_text_that_is_not_utf_8_is_refused_in_any_cut(bad: bytes) -> None:
    assert refusal(frame(0x81, bad)) == 1007
    assert refusal(*(frame(0x81, bad)[at : at + 1] for at in range(6 + len(bad)))) == 1007
    pieces = [frame(0x01, b"")] + [frame(0x00, bad[at : at + 1]) for at in range(len(bad))]
    assert refusal(*pieces, frame(0x80)) == 1007


def test_text_may_not_end_within_a_character() -> None:
    assert refusal(frame(0x81, "é".encode()[:1])) == 1007
    assert refusal(frame(0x01, "é".encode()[:1]), frame(0x80)) == 1007


@pytest.mark.parametrize("wire", [frame(0x01, b"ab\xf4\x90"), frame(0x81, b"ab\xf4\x90" + bytes(9))[:-9]])
def test_bytes_that_nothing_can_make_utf_8_are_refused_before_the_rest_comes(wire: bytes) -> None:
    assert refusal(wire) == 1007


def test_binary_may_be_anything() -> None:
    assert read(Decoder(LIMIT), frame(0x02, b"\xff"), frame(0x80, b"\xfe")) == [(PIECE, b""), (BINARY, b"\xff\xfe")]


# -- limits ------------------------------------------------------------------------------------------


def test_a_message_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert read(Decoder(100), frame(0x81, b"x" * 100)) == [(TEXT, b"x" * 100)]
    assert read(Decoder(100), frame(0x01, b"x" * 60), frame(0x80, b"x" * 40))[-1] == (TEXT, b"x" * 100)
    assert refusal(frame(0x81, b"x" * 101), limit=100) == 1009
    assert refusal(frame(0x01, b"x" * 60), frame(0x80, b"x" * 41), limit=100) == 1009


@pytest.mark.parametrize("size", [101, 1 << 20, 1 << 40, (1 << 63) - 1])
def test_too_large_is_said_at_the_header(size: int) -> None:
    head = b"\x81\xe5" if size == 101 else b"\x81\xff" + struct.pack("!Q", size)
    assert refusal(head, limit=100) == 1009


def test_a_limit_does_not_concern_control_frames() -> None:
    assert read(Decoder(10), frame(0x89, bytes(125))) == [(PING, bytes(125))]


@pytest.mark.parametrize("piece", [b"", b"x"])
def test_fragments_pile_up_bytes_and_not_objects(piece: bytes) -> None:
    decoder, wire = Decoder(LIMIT), frame(0x00, piece) * 1000
    read(decoder, frame(0x01))
    tracemalloc.start()
    for _ in range(20):
        decoder.feed(wire)
        while decoder.next() is not None:
            pass
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 40_000
    assert read(decoder, frame(0x80, b"!")) == [(TEXT, piece * 20_000 + b"!")]


def test_a_silent_peer_keeps_no_memory() -> None:
    decoder = Decoder(LIMIT)
    tracemalloc.start()
    read(decoder, frame(0x82, bytes(500_000)) + frame(0x81, b"x")[:3])
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2000
    assert decoder.waiting() == 3


# -- compression -------------------------------------------------------------------------------------


def test_messages_may_refer_to_those_before_them() -> None:
    deflate, wire = zlib.compressobj(wbits=-15), b""
    for _ in range(3):
        packed = deflate.compress(b"again and again") + deflate.flush(zlib.Z_SYNC_FLUSH)
        wire += frame(0xC1, packed.removesuffix(b"\x00\x00\xff\xff"))
    assert read(Decoder(LIMIT, deflate=True), wire) == [(TEXT, b"again and again")] * 3


def test_a_packed_message_in_fragments_with_a_ping_between_them_is_whole() -> None:
    packed = pack(b"la" * 1000)
    wire = frame(0x41, packed[:3]) + frame(0x00) + frame(0x89, b"p") + frame(0x80, packed[3:])
    assert read(Decoder(LIMIT, deflate=True), wire) == [(PIECE, b"")] * 2 + [(PING, b"p"), (TEXT, b"la" * 1000)]


def test_only_the_first_frame_of_a_message_says_that_it_is_packed() -> None:
    assert refusal(frame(0x41, pack(b"x")), frame(0xC0), deflate=True) == 1002


def test_plain_messages_may_come_between_packed_ones() -> None:
    wire = frame(0xC1, pack(b"one")) + frame(0x81, b"two") + frame(0xC1, pack(b"three"))
    assert read(Decoder(LIMIT, deflate=True), wire) == [(TEXT, b"one"), (TEXT, b"two"), (TEXT, b"three")]


@pytest.mark.parametrize("limit", [1000, 65_536])
def test_a_bomb_is_refused_and_never_unpacked(limit: int) -> None:
    bomb = pack(bytes(50_000_000))
    wire = b"".join(
        [frame(0x42, bomb[:limit]), *(frame(0, bomb[at : at + limit]) for at in range(limit, 60_000, limit))]
    )
    tracemalloc.start()
    assert refusal(wire, limit=limit, deflate=True) == 1009
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * limit + 200_000


def test_a_packed_message_has_the_limit_when_it_is_unpacked() -> None:
    noise = os.urandom(1000)  # larger when packed
    assert len(pack(noise)) > 1000
    assert read(Decoder(1000, deflate=True), frame(0xC2, pack(noise))) == [(BINARY, noise)]
    assert refusal(frame(0xC2, pack(noise + b"x")), limit=1000, deflate=True) == 1009
    assert refusal(frame(0xC2, bytes(1300)), limit=1000, deflate=True) == 1009


def test_damaged_data_is_refused() -> None:
    assert refusal(frame(0xC1, b"\xff\xff\xff\xff"), deflate=True) == 1002


def test_final_blocks_are_understood_and_not_without_end() -> None:
    """RFC 7692 section 7.2.3.5: a final block, its padding, and what else there is."""
    hello = pack(b"Hello", zlib.Z_FINISH)
    wire = frame(0xC1, hello + b"\0") * 2 + frame(0xC1, hello + hello + b"\0")
    assert read(Decoder(LIMIT, deflate=True), wire) == [(TEXT, b"Hello")] * 2 + [(TEXT, b"HelloHello")]
    assert refusal(frame(0xC1, b"\x03\x00" * 100), deflate=True) == 1002


# -- the corpus --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    """The fuzzer's rules; fuzz/ is no package that is installed."""
    spec = importlib.util.spec_from_file_location("fuzz_frames", ROOT / "fuzz" / "frames.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_rules_hold_for_what_the_fuzzer_has_found(fuzz: ModuleType) -> None:
    assert len(CORPUS) > 10
    for file in CORPUS:
        fuzz.check(file.read_bytes())


def test_the_fuzzer_would_see_a_decoder_that_minds_the_cuts(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(Decoder):
        __slots__ = ()

        def feed(self, data: bytes) -> None:
            self._buffer, self._at = data, 0

    monkeypatch.setattr(fuzz, "Decoder", Forgetful)
    with pytest.raises(AssertionError):
        fuzz.check(b"\x00\x02" + frame(0x81, b"hello"))
