"""Fuzz the frame decoder: `python -m fuzz.frames --seconds 60` (atheris; Linux, `pip install -e .[fuzz]`).

Whatever the bytes are, the decoder gives frames or a `Violation` and raises nothing else; a message is no larger than
allowed, text is UTF-8, and it makes no difference how the bytes were cut. `tests/protocol/test_incoming.py` replays
the corpus, so that what was once found stays found.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from inspect import isclass, isfunction
from pathlib import Path
from types import FunctionType, ModuleType

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


def functions(*modules: ModuleType) -> Iterator[FunctionType]:
    """Yield all functions and methods that are written in these modules."""
    for module in modules:
        for value in vars(module).values():
            if isfunction(value):
                yield value
            elif isclass(value) and value.__module__ == module.__name__:
                yield from filter(isfunction, vars(value).values())


def main() -> None:
    """Fuzz for a while; inputs that reach something new are kept in `--corpus`."""
    parser = argparse.ArgumentParser(description="Fuzz the frame decoder.")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="read, and written to; default %(default)s")
    arguments = parser.parse_args()
    import atheris  # noqa: PLC0415 - not there on every platform, and not needed to replay

    for function in functions(incoming, assembly, edge):
        atheris.instrument_func(function)
    options = [f"-max_total_time={arguments.seconds}", "-max_len=600", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(arguments.corpus)], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
