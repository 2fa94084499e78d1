"""What the store costs: records a second and CPU for each, as the store actor uses it.

    python bench/store.py [--seconds 2] [--dir DIR]

Every line is batches of one size, each one transaction, spread over so many logs. `busy` runs a thread
of pure Python beside it, the worst event loop there is. The first line is what the disk itself can do.
"""

import argparse
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from broker.messages import Record, Write
from broker.store.port import Engine
from broker.store.sqlite import SqliteEngine, Sync

DATA = b'{"text":"' + b"x" * 109 + b'"}'  # 120 bytes


def begin(engine: Engine, logs: int) -> list[int]:
    engine.write([Write(f"room:{n}", 0, create="e") for n in range(logs)])
    return [0] * logs


def batches(heads: list[int], size: int, keep: int | None) -> Iterator[list[Write]]:
    """Yield batches of `size` one-record writes, going round the logs; rooms keep the newest `keep`."""
    at = 0
    while True:
        batch = []
        for _ in range(size):
            at += 1
            n = at % len(heads)
            heads[n] += 1
            record = Record(heads[n], at, "message", DATA, None, b'{"user":null}')
            batch.append(Write(f"room:{n}", at, (record,), floor=None if keep is None else heads[n] - keep))
        yield batch


@contextmanager
def busy(on: bool) -> Iterator[None]:
    """Keep the interpreter's lock wanted by another thread."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    thread = threading.Thread(target=spin, daemon=True)
    if on:
        thread.start()
    yield
    stop.set()
    if on:
        thread.join()


def measure(engine: Engine, source: Iterator[list[Write]], seconds: float) -> tuple[float, float, float]:
    """Return records per second, microseconds of CPU per record and milliseconds per batch, of writing alone."""
    done = count = 0
    cpu = took = 0.0
    while took < seconds:
        batch = next(source)
        cpu_before, start = time.thread_time(), time.perf_counter()
        engine.write(batch)
        took += time.perf_counter() - start
        cpu += time.thread_time() - cpu_before
        done += len(batch)
        count += 1
    return done / took, cpu / done * 1e6, took / count * 1e3


def fsyncs(directory: Path, seconds: float) -> float:
    """Return how many times a second the disk takes 4 KiB and says they are there."""
    descriptor = os.open(directory / "probe", os.O_RDWR | os.O_CREAT)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        os.pwrite(descriptor, b"x" * 4096, count * 4096)
        os.fdatasync(descriptor)
        count += 1
    os.close(descriptor)
    return count / (time.perf_counter() - start)


def line(
    directory: Path,
    seconds: float,
    *,
    size: int,
    logs: int,
    sync: Sync = "full",
    keep: int | None = None,
    spin: bool = False,
) -> None:
    """Measure one setting and print it."""
    with TemporaryDirectory(dir=directory) as fresh:
        engine = SqliteEngine(Path(fresh) / "bench.db", sync)
        engine.open()
        source = batches(begin(engine, logs), size, keep)
        with busy(spin):
            rate, cpu, batch = measure(engine, source, seconds)
        reader = engine.reader()
        with busy(spin):
            start = time.perf_counter()
            page = len(reader.records_after("room:0", 0, limit=500, max_bytes=1 << 20))
            read = (time.perf_counter() - start) * 1e3
        reader.close()
        engine.close()
    trim = "-" if keep is None else str(keep)
    print(
        f"{sync:6} {size:5} {logs:5} {trim:>5} {'yes' if spin else 'no':>4} {rate:10,.0f} {cpu:8.2f} {batch:8.2f}"
        f"   {page:4} in {read:.2f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="on the disk to measure")
    options = parser.parse_args()
    seconds, directory = options.seconds, options.dir
    with TemporaryDirectory(dir=directory) as fresh:
        print(f"the disk: {fsyncs(Path(fresh), seconds):,.0f} fdatasync of 4 KiB a second")
    print("sync   batch  logs  keep busy  records/s   µs CPU ms/batch   a page read")
    for size in (1, 100, 200, 400):
        line(directory, seconds, size=size, logs=100)
    line(directory, seconds, size=300, logs=1)
    line(directory, seconds, size=300, logs=1000)
    line(directory, seconds, size=300, logs=100, keep=1000)
    line(directory, seconds, size=300, logs=100, sync="normal")
    line(directory, seconds, size=300, logs=100, sync="off")
    line(directory, seconds, size=300, logs=100, spin=True)


if __name__ == "__main__":
    main()
