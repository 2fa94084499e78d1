"""Fuzz the frame decoder: `python -m fuzz.frames --seconds 60` (atheris; Linux, `pip install -e .[fuzz]`).

Whatever the bytes are, the decoder gives frames or a `Violation` and raises nothing else; a message is no larger than
allowed, text is UTF-8, and it makes no difference how the bytes were cut. `tests/protocol/test_incoming.py` replays
the corpus, so that what was once found stays found.
"""

from collections.abc import Iterable
from pathlib import Path

from broker.protocol import assembly, edge, incoming
from broker.protocol.incoming import PIECE, TEXT, Decoder, Violation

__all__ = ["CORPUS", "check"]

CORPUS = Path(__file__).parents[1] / "tests" / "protocol" / "corpus" / "frames"
LIMITS = (16, 130, 1000, 70_000)


def check(data: bytes) -> None:
    """Try one input: a byte of options, a byte that says how to cut, and then frames.

    Raises:
        AssertionError: a rule does not hold.
    """
    if len(data) < 2:
        return
    options, step, wire = data[0], data[1] % 17 + 1, data[2:]
    if options & 8:
        wire = built(wire)
    limit, deflate = LIMITS[options & 3], bool(options & 4)
    whole = hear(Decoder(limit, deflate=deflate), [wire])
    cut = hear(Decoder(limit, deflate=deflate), [wire[at : at + step] for at in range(0, len(wire), step)])
    assert whole == cut, (whole, cut)
    for opcode, payload in whole[0]:
        assert len(payload) <= max(limit, 125)
        assert opcode != PIECE or not payload
        if opcode == TEXT:
            payload.decode()


def built(data: bytes) -> bytes:
    """Return frames that are right as far as masks and short lengths go, of bytes that know nothing of them."""
    wire = bytearray()
    while len(data) > 1:
        size = min(data[1] % 126, len(data) - 2)
        wire += bytes((data[0], 0x80 | size)) + bytes(4) + data[2 : 2 + size]
        data = data[2 + size :]
    return bytes(wire)


def hear(decoder: Decoder, chunks: Iterable[bytes]) -> tuple[list[tuple[int, bytes]], bool]:
    """Return what is in the chunks, and whether they end with a violation."""
    heard = []
    try:
        for chunk in chunks:
            decoder.feed(chunk)
            while (frame := decoder.next()) is not None:
                heard.append(frame)
            assert decoder.waiting() <= 14 + 125, "more is kept than a header and a control frame"
    except Violation:
        return heard, True
    return heard, False


def main() -> None:
    """Fuzz the frame decoder for a while."""
    from fuzz.harness import fuzz  # noqa: PLC0415 - atheris is not there on every platform, nor needed to replay

    fuzz(check, incoming, assembly, edge, corpus=CORPUS, most=600)


if __name__ == "__main__":
    main()
