"""`python -m bench`: what the broker costs, measured in one run beside bare aiohttp on the same loop."""

import argparse
import asyncio
import gc
import json
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench import rows, turns
from bench.load import LoadError
from bench.report import Line, as_json, table
from bench.servers import take_core

ROWS = {
    "echo": rows.echo,
    "guarded_echo": rows.guarded_echo,
    "fanout": rows.fanout,
    "publish": rows.publish,
    "turns": turns.turns,
    "first_word": turns.first_word,
    "agent": turns.agent,
    "idle": rows.idle,
    "guarded_idle": rows.guarded_idle,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each row (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of a round (1)")
    parser.add_argument("--sockets", type=int, default=5000, help="idle sockets (5000)")
    parser.add_argument("--dir", type=Path, default=None, help="where databases go; a disk, or it means nothing")
    parser.add_argument("--json", action="store_true", help="print every round's value as JSON")
    options = parser.parse_args()
    if unknown := [name for name in options.rows if name not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return options


async def _measure(names: list[str], plan: rows.Plan) -> list[Line]:
    lines: list[Line] = []
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr)
        try:
            lines.extend([line async for line in ROWS[name](plan)])
        except (LoadError, RuntimeError, TimeoutError) as error:
            # A row that cannot be measured must not cost the others; it is named, and has no figures.
            print(f"{name} could not be measured: {error!r}", file=sys.stderr)
    return lines


def _room_for_sockets() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Measure and print; marks are words, and never a reason to fail."""
    options = _options()
    _room_for_sockets()
    take_core()
    gc.disable()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="broker-bench-", dir=options.dir) as folder:
        plan = rows.Plan(Path(folder), options.rounds, options.seconds, options.sockets)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            lines = runner.run(_measure(options.rows or list(ROWS), plan))
    if options.json:
        print(json.dumps(as_json(lines), indent=2))
        return
    print(table(lines))
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    rounds = f"medians of {options.rounds} rounds of {options.seconds:g} s"
    print(f"\n{machine}; {rounds}; {time.monotonic() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
