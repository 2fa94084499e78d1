"""The checker of histories: what clients were told against what the log says in the end (PROTOCOL P1-P5).

Pure: evidence in, complaints out. An empty list is a broker that kept its word.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import attrs

View = list[tuple[int, str]]
"""What a client was shown of one log: the numbers and the texts, in the order in which they came."""


Judge = Callable[[list[Any]], Iterator[str]]
"""Complains of the records of one turn, the last of which is its end."""


@attrs.frozen
class Acked:
    """Something that a client was told is accepted.

    Attributes:
        log: `session:<id>` or `room:<name>`.
        seq: the number of the record that it was told.
        kind: `turn`, `publish` or `update`.
        key: the client's own id of it.
        content: what it consists of.
        turn_id: the turn it was told.
    """

    log: str
    seq: int
    kind: str
    key: str
    content: Any
    turn_id: str | None = None


@attrs.define
class Evidence:
    """What one client did and was told.

    Attributes:
        who: its name, for complaints.
        acked: in the order in which it was told.
        sent: how often it sent which (log, key), acknowledged or not.
        views: what it was shown, by log; empty if it was not looking.
        resets: logs of which it was told that they do not continue.
    """

    who: str
    acked: list[Acked] = attrs.Factory(list)
    sent: Counter[tuple[str, str]] = attrs.Factory(Counter)
    views: dict[str, View] = attrs.Factory(dict)
    resets: list[str] = attrs.Factory(list)


def echoed(records: list[Any]) -> Iterator[str]:
    """Judge a turn of an agent that echoes and does nothing wrong: its outcome, and what it said."""
    outcome, asked = records[-1]["data"]["outcome"], asked_by(records)
    said = said_in(records)
    if outcome == "completed" and said != asked:
        yield f"completed with {said!r} for {asked!r}"
    if outcome == "lost" and asked is not None and not asked.startswith(said):
        yield f"lost after {said!r}, which is no part of {asked!r}"
    if outcome not in {"completed", "lost"}:
        yield f"ended as {outcome}"


def complaints(logs: dict[str, list[str]], evidence: list[Evidence], judge: Judge = echoed) -> list[str]:
    """Return every promise that was broken.

    Args:
        logs: the texts of each log's records, read back in the end.
        evidence: of every client.
        judge: complains of the records of one turn that has ended.
    """
    found = [f"{log}: {text}" for log, texts in logs.items() for text in _of_log(log, texts, judge)]
    sent = Counter(key for one in evidence for key in one.sent)
    for one in evidence:
        found += [f"{one.who}: {text}" for text in _of_client(logs, one)]
    for log, texts in logs.items():
        found += [f"{log}: {text}" for text in _of_senders(log, texts, sent)]
    return found


def asked_by(records: list[Any]) -> Any:
    """Return the prompt of a turn, None if its record is missing."""
    return next((record["data"]["content"] for record in records if record["event"] == "user.message"), None)


def said_in(records: list[Any]) -> str:
    """Return what the agent said in a turn."""
    return "".join(record["data"]["text"] for record in records if record["event"] == "message.delta")


def _of_log(log: str, texts: list[str], judge: Judge) -> Iterator[str]:
    records = [json.loads(text) for text in texts]
    seqs = [record["seq"] for record in records]
    if seqs != list(range(1, len(seqs) + 1)):
        holes = sorted(set(range(1, max(seqs, default=0) + 1)) - set(seqs))
        yield f"its numbers are not 1, 2, 3 ...: missing {holes[:5]}, twice {_twice(seqs)[:5]}"
    if log.startswith("session:"):
        by_turn: dict[str, list[Any]] = defaultdict(list)
        for record in records:
            if "turn_id" in record:
                by_turn[record["turn_id"]].append(record)
        for turn_id, own in by_turn.items():
            yield from (f"turn {turn_id}: {text}" for text in _of_turn(own, judge))
        yield from _one_at_a_time(records)


def _of_turn(records: list[Any], judge: Judge) -> Iterator[str]:
    kinds = [record["event"] for record in records]
    for kind in ("user.message", "turn.ended"):
        if kinds.count(kind) != 1:
            yield f"{kinds.count(kind)} records {kind}"
    for kind in ("turn.queued", "turn.started"):
        if kinds.count(kind) > 1:
            yield f"{kinds.count(kind)} records {kind}"
    if kinds[0] != "user.message":
        yield f"begins with {kinds[0]}"
    if kinds[-1] != "turn.ended":
        yield f"{kinds[-1]} comes after its end"
        return
    yield from judge(records)


def _one_at_a_time(records: list[Any]) -> Iterator[str]:
    running = None
    for record in records:
        if record["event"] == "turn.started":
            if running is not None:
                yield f"turn {record['turn_id']} started while {running} ran"
            running = record["turn_id"]
        elif record["event"] == "turn.ended" and record["turn_id"] == running:
            running = None


def _of_client(logs: dict[str, list[str]], one: Evidence) -> Iterator[str]:
    for log in one.resets:
        yield f"was told that {log} does not continue"
    for acked in one.acked:
        texts = logs[acked.log]
        where = [i + 1 for i, text in enumerate(texts) if _key(text) == acked.key]
        if not where:
            yield f"{acked.kind} {acked.key} was acknowledged and is gone"
        elif len(where) > 1:
            yield f"{acked.kind} {acked.key} is there {len(where)} times"
        else:
            record = json.loads(texts[where[0] - 1])
            expected = (acked.seq, acked.turn_id, acked.content)
            if (record["seq"], record.get("turn_id"), _content(record)) != expected:
                yield f"{acked.kind} {acked.key} was acknowledged as {expected} and is {record}"
    for log, view in one.views.items():
        shown, kept = [text for _, text in view], logs[log]
        if shown != kept:
            first = next((i for i, (a, b) in enumerate(zip(shown, kept, strict=False)) if a != b), len(shown))
            yield f"was shown {len(shown)} records of {log}, which has {len(kept)}; they differ from {first + 1} on"


def _of_senders(log: str, texts: list[str], sent: Counter[tuple[str, str]]) -> Iterator[str]:
    for key, times in Counter(filter(None, map(_key, texts))).items():
        if times > 1:
            yield f"{key} is there {times} times"
        if (log, key) not in sent:
            yield f"{key} is there and was sent by nobody"


def _key(text: str) -> str | None:
    """Return the client's own id of what a record holds, if it holds something of a client's."""
    record = json.loads(text)
    match record["event"]:
        case "user.message":
            return str(record["data"]["client_msg_id"])
        case "room.event":
            return str(record["data"]["data"]["key"])
        case "variables.changed":
            return str(record["data"]["set"]["key"])
    return None


def _content(record: Any) -> Any:
    match record["event"]:
        case "user.message":
            return record["data"]["content"]
        case "room.event":
            return record["data"]["data"]
        case _:
            return record["data"]["set"]


def _twice(values: list[int]) -> list[int]:
    return [value for value, times in Counter(values).items() if times > 1]
