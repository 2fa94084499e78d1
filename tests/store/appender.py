"""Writes to a store without end and says, record by record, what has been acknowledged.

    python appender.py PATH SYNC

Prints `room seq` after `write` has returned. To be killed.
"""

import os
import sys
from typing import cast

from broker.messages import Record, Write
from broker.store.sqlite import SqliteEngine, Sync

ROOMS = 4


def data(room: str, seq: int) -> bytes:
    """Return what a record has to hold."""
    return b'{"n":%d,"room":"%s","fill":"%s"}' % (seq, room.encode(), b"x" * 400)


def main() -> None:
    """Append, in batches of changing size, until killed."""
    engine = SqliteEngine(sys.argv[1], cast("Sync", sys.argv[2]))
    engine.open()
    rooms = [f"room:{n}" for n in range(ROOMS)]
    engine.write([Write(room, 0, create="e") for room in rooms])
    heads = dict.fromkeys(rooms, 0)
    turn = 0
    while True:
        turn += 1
        batch = []
        for room in rooms[: 1 + turn % ROOMS]:
            heads[room] += 1
            batch.append(Write(room, turn, (Record(heads[room], turn, "message", data(room, heads[room])),)))
        engine.write(batch)
        os.write(1, b"".join(b"%s %d\n" % (write.log.encode(), write.records[0].seq) for write in batch))


if __name__ == "__main__":
    main()
