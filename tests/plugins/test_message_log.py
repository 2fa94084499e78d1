"""What `message_log` writes, where to, and what becomes of it when that cannot be done: real files, time by hand."""

import asyncio
import json
import os
import re
import resource
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from broker import config
from broker.errors import BrokerError
from broker.extensions.dispatch import Hooks
from broker.extensions.loader import Plugins, load
from broker.facade import Facade
from broker.hooks import Answered, Failure, Inbound, Peer, Stats, TurnEnded
from broker.messages import Principal
from broker.plugins.message_log import MessageLogSettings
from broker.testing import ManualClock, until

PEER = Peer("c1", Principal("ann"), "192.0.2.7", "broker.v1.json")
TOKEN = "eyJhbGciOi.s3cret"


def load_block(folder: Path, block: dict[str, Any]) -> Plugins:
    file = folder / "config.yaml"
    file.write_text(json.dumps({"plugins": {"message_log": block}}))
    loaded = config.load(file, {}, {})
    return load(loaded.settings, loaded.file)


class Diary:
    """The plugin as the loader makes it, its hooks, and a file in a folder of its own."""

    def __init__(self, folder: Path, block: dict[str, Any]) -> None:
        self.path = folder / "messages.log"
        self.clock = ManualClock()
        self.stats = Stats()
        plugins = load_block(folder, {"path": str(self.path), **block})
        assert plugins.problems == []
        facade = Facade(self.stats, self.clock)
        plugins.create(facade, facade.of)
        self.plugin: Any = plugins.instances[0]
        self.hooks = Hooks(plugins.instances, self.stats)
        facade.connect_hooks(self.hooks)

    def say(self, action: str, payload: Any = None, *, peer: Peer = PEER, request: Any = "r1", kind: str = "") -> None:
        """Have a message come in."""
        text = b"" if payload is None else json.dumps(payload).encode()
        message = Inbound(peer, action, len(text), kind or action, text, text, request)
        assert self.hooks.run_gates(self.hooks.message, message) is None

    def answer(self, action: str, seconds: float = 0.0, error: BrokerError | None = None) -> None:
        """Have a request answered."""
        self.hooks.observe(self.hooks.answered, Answered(PEER, action, action, "r1", 40, seconds, error))

    async def lines(self, path: Path | None = None) -> list[dict[str, Any]]:
        """Return what is in the file once all is written, and every line of it is JSON."""
        await until(lambda: self.plugin._writing is None)
        return [json.loads(line) for line in (path or self.path).read_text().splitlines()]


Open = Callable[..., Any]


@pytest.fixture
async def diary(tmp_path: Path) -> AsyncIterator[Open]:
    """Start the plugin with a block of settings."""
    started: list[Diary] = []

    async def start(**block: Any) -> Diary:
        it = Diary(tmp_path, block)
        await it.plugin.start()
        started.append(it)
        return it

    yield start
    for it in started:
        await it.plugin.stop()


# -- lines --------------------------------------------------------------------------------------------


async def test_each_event_has_a_line_with_what_is_known_of_it(diary: Open) -> None:
    it = await diary()
    hooks = it.hooks
    hooks.observe(hooks.connected, PEER)
    it.say("turn.start", {"session_id": "s1", "client_msg_id": "m1", "content": "hello"}, kind="user_feedback")
    it.answer("turn.start", 0.0125)
    it.answer("turn.start", 0.0005, BrokerError("not_found", "No such session.", hint="look"))
    hooks.observe(hooks.turn_ended, TurnEnded("s1", "t1", "echo", "completed", 1.5))
    hooks.observe(hooks.failed, Failure("a request", ValueError("s3cret"), "trace-1"))
    hooks.observe(hooks.disconnected, PEER, 1000)
    lines = await it.lines()
    assert {line.pop("time") for line in lines} == {"2023-11-14T22:13:20.000Z"}
    who = {"connection": "c1", "user": "ann", "address": "192.0.2.7", "protocol": "broker.v1.json"}
    asked = {**who, "action": "turn.start", "id": "r1"}
    size = len('{"session_id": "s1", "client_msg_id": "m1", "content": "hello"}')
    assert lines == [
        {"event": "connected", **who},
        {"event": "message", **asked, "kind": "user_feedback", "size": size, "session": "s1", "client_msg_id": "m1"},
        {"event": "answer", **asked, "size": 40, "ms": 12.5, "outcome": "ok"},
        {"event": "answer", **asked, "size": 40, "ms": 0.5, "outcome": "not_found"},
        {"event": "error", **asked, "size": 40, "code": "not_found", "text": "No such session.", "hint": "look"},
        {"event": "turn", "session": "s1", "turn": "t1", "agent": "echo", "outcome": "completed", "ms": 1500.0},
        {"event": "failure", "where": "a request", "error": "ValueError", "trace": "trace-1"},
        {"event": "disconnected", **who, "close": 1000},
    ]


@pytest.mark.parametrize(
    ("group", "events"),
    [
        ("connections", ["connected", "disconnected"]),
        ("messages", ["message"]),
        ("turns", ["turn"]),
        ("errors", ["error", "failure"]),
        ("performance", ["answer", "answer"]),
    ],
)
async def test_only_the_events_that_are_asked_for_have_lines(diary: Open, group: str, events: list[str]) -> None:
    it = await diary(events=[group])
    hooks = it.hooks
    hooks.observe(hooks.connected, PEER)
    it.say("echo", 1)
    it.answer("echo")
    it.answer("echo", error=BrokerError("internal"))
    hooks.observe(hooks.turn_ended, TurnEnded("s1", "t1", "echo", "lost", 1.0))
    hooks.observe(hooks.failed, Failure("a request", ValueError()))
    hooks.observe(hooks.disconnected, PEER, 1006)
    assert [line["event"] for line in await it.lines()] == events


async def test_quick_answers_may_be_left_out(diary: Open) -> None:
    it = await diary(slow="100ms", events=["performance"])
    it.answer("echo", 0.0999)
    it.answer("echo", 0.1)
    assert [line["ms"] for line in await it.lines()] == [100.0]


async def test_only_the_fields_that_are_asked_for_are_written(diary: Open) -> None:
    it = await diary(fields=["action", "ms"])
    it.say("echo", 1)
    it.answer("echo", 0.5)
    message, answer = await it.lines()
    assert message.keys() == {"time", "event", "action"}
    assert answer.keys() == {"time", "event", "action", "ms"}


async def test_nothing_that_was_said_is_written_unless_it_is_asked_for(diary: Open) -> None:
    it = await diary()
    it.say("turn.start", {"session_id": "s1", "content": "a secret"})
    it.say("room.publish", {"room": "r", "data": "a secret"})
    await it.lines()
    assert "a secret" not in it.path.read_text()


async def test_so_many_characters_of_what_people_say_may_be_written(diary: Open) -> None:
    it = await diary(content=12)
    it.say("room.publish", {"room": "r", "data": "ein Märchen"})
    it.say("shout", {"token": TOKEN})
    published, shouted = await it.lines()
    assert published["content"] == '{"room": "r"'
    assert "content" not in shouted


async def test_patterns_are_of_what_the_broker_has_and_what_plugins_have_is_named_in_full(diary: Open) -> None:
    it = await diary(content=100, content_of=["room.*", "shout"], fields=["action", "content"])
    for action in ("room.publish", "room.join", "room.unheard_of", "shout", "shouts", "turn.start"):
        it.say(action, "words")
    assert [line["action"] for line in await it.lines() if "content" in line] == ["room.publish", "shout"]


@pytest.mark.parametrize("pattern", ["*", "auth", "a*", "Auth"])
async def test_a_token_is_never_written_whatever_the_settings_say(diary: Open, pattern: str) -> None:
    it = await diary(content=16384, content_of=[pattern])
    it.say("auth", {"token": TOKEN, "session_id": TOKEN})
    it.say("", None)  # one that cannot be read, in which anything may stand
    for kind in ("auth", "Auth", "login"):  # of a format in which what is unknown has no action
        it.say("", {"token": TOKEN, "session_id": TOKEN}, kind=kind)
    for action in ("Auth", "AUTH"):
        it.say(action, {"token": TOKEN, "session_id": TOKEN})
    it.say("authenticate", {"token": TOKEN})
    it.answer("auth", error=BrokerError("unauthenticated"))
    await it.lines()
    assert TOKEN not in it.path.read_text()


async def test_what_clients_choose_cannot_make_a_line_long_or_more_than_one_or_steer_a_terminal(diary: Open) -> None:
    it = await diary()
    nasty = "a\n\x1b[2J\x9b31m\u202e" + "x" * 10_000
    it.say(nasty, {"session_id": nasty, "room": 5, "turn_id": None}, kind=nasty + "k", request=nasty)
    (line,) = await it.lines()
    assert line["session"] == line["id"] == line["action"] == nasty[:256]
    assert "room" not in line
    text = it.path.read_text()
    assert len(text) < 2000
    assert not set(text) & set("\x1b\x9b\u202e")


async def test_a_request_over_http_has_no_connection(diary: Open) -> None:
    it = await diary(events=["messages"])
    it.say("broadcast", "hi", peer=Peer("", Principal(), "192.0.2.8", "http"), request=None)
    (line,) = await it.lines()
    assert line.keys() == {"time", "event", "address", "protocol", "action", "size"}


async def test_without_a_path_the_lines_are_in_the_broker_s_log(diary: Open, caplog: Any) -> None:
    caplog.set_level("INFO")
    it = await diary(path=None)
    it.say("echo", 1)
    (line,) = [json.loads(record.message) for record in caplog.records if record.message.startswith("{")]
    assert (line["event"], line["action"]) == ("message", "echo")
    assert not it.path.exists()


async def test_what_is_logged_changes_with_a_reload_and_where_to_does_not(diary: Open) -> None:
    it = await diary(events=["messages"])
    assert it.plugin.reload(attrs.evolve(it.plugin.settings, events=()))
    it.say("echo", 1)
    assert await it.lines() == []
    assert not it.plugin.reload(attrs.evolve(it.plugin.settings, keep=1))


# -- files --------------------------------------------------------------------------------------------


async def test_only_the_broker_s_user_may_read_the_file_and_it_goes_on_where_it_ended(diary: Open) -> None:
    first = await diary()
    first.say("one", 1)
    await first.plugin.stop()
    second = await diary()
    second.say("two", 2)
    assert [line["action"] for line in await second.lines()] == ["one", "two"]
    assert second.path.stat().st_mode & 0o777 == 0o600


async def test_a_full_file_is_put_aside_and_only_the_newest_are_kept(diary: Open) -> None:
    it = await diary(max_bytes="1KiB", keep=2, fields=["id"])
    for number in range(100):
        it.say("echo", 1, request=f"{number:03}")
        await it.lines()  # each a batch of its own
    kept = [it.path.with_name(f"messages.log{suffix}") for suffix in (".2", ".1", "")]
    assert sorted(it.path.parent.glob("messages.log*")) == sorted(kept)
    ids = [line["id"] for path in kept for line in await it.lines(path)]
    assert ids == [f"{number:03}" for number in range(100 - len(ids), 100)]
    assert all(path.stat().st_size <= 1024 for path in kept)


async def test_none_need_be_kept(diary: Open) -> None:
    it = await diary(max_bytes="1KiB", keep=0)
    for _ in range(20):
        it.say("echo", 1)
        await it.lines()
    assert [path.name for path in it.path.parent.glob("messages.log*")] == ["messages.log"]


async def test_a_file_that_somebody_else_puts_aside_is_begun_anew(diary: Open) -> None:
    it = await diary()
    it.say("one", 1)
    await it.lines()
    it.path.rename(it.path.with_name("elsewhere"))
    it.say("two", 2)
    assert [line["action"] for line in await it.lines()] == ["two"]


@pytest.mark.parametrize("place", ["folder", "missing/file", "pipe", "link"])
async def test_a_file_that_cannot_be_written_keeps_the_broker_from_starting(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    it = Diary(tmp_path, {"path": str(tmp_path / place)})
    with pytest.raises(ValueError, match=rf"path: .*{place} cannot be written: "):
        await it.plugin.start()
    assert not (tmp_path / "target").exists()


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size`, as if its disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_is_said_once_and_counted_and_the_log_goes_on_when_there_is_room(
    diary: Open, caplog: Any
) -> None:
    it = await diary(events=["messages"])
    it.say("before", 1)
    await it.lines()
    with disk_of(it.path.stat().st_size + 10):  # room for a piece of a line, which must not stay
        for _ in range(3):
            it.say("lost", 1)
            await it.lines()
    assert it.stats.dropped == {"message_log": 3}
    assert it.plugin.trouble() is None
    it.say("after", 1)
    lines = await it.lines()
    assert [line.get("action", line["event"]) for line in lines] == ["before", "after", "left_out"]
    assert lines[-1]["lines"] == 3
    said = [record.message for record in caplog.records if "message log" in record.message]
    assert ["lines are left out: " in said[0], said[1].endswith("3 lines were left out"), len(said)] == [True, True, 2]


async def test_a_disk_that_does_not_answer_costs_bounded_memory_and_holds_up_nobody(diary: Open) -> None:
    stuck = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    it = await diary(content=16384, content_of=["echo"])
    hanging = asyncio.ensure_future(asyncio.to_thread(stuck.wait, 60))
    for _ in range(1000):
        it.say("echo", "x" * 16384)
    assert it.plugin._bytes <= 8 << 20
    dropped = it.stats.dropped["message_log"]
    assert 400 < dropped < 600
    stuck.set()
    await hanging
    lines = await it.lines()
    assert (len(lines), lines[-1]["lines"]) == (1000 - dropped + 1, dropped)


async def test_what_waits_is_written_when_the_broker_stops(diary: Open) -> None:
    it = await diary()
    for number in range(100):
        it.say("echo", number)
    await it.plugin.stop()
    assert len(it.path.read_text().splitlines()) == 100


async def test_whatever_becomes_of_the_log_messages_pass(diary: Open) -> None:
    it = await diary()
    lines, it.plugin._lines = it.plugin._lines, None  # a fault of its own
    it.say("echo", 1)
    it.answer("echo")
    assert it.stats.plugin_errors["message_log"] == 2
    it.plugin._lines = lines


def test_the_page_lists_every_setting_event_and_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "message-log.md").read_text()
    table = re.findall(r"^\| `(\w+)` \|", page[page.index("## Settings") : page.index("## Lines")], re.MULTILINE)
    assert table == [field.name for field in attrs.fields(MessageLogSettings)]
    rows = page[page.index("## Lines") : page.index("Fields that are not known")]
    assert set(re.findall(r"^\| (?:`\w+`)? ?\| `(\w+)` \|", rows, re.MULTILINE)) == {
        *("connected", "disconnected", "message", "answer", "error", "failure", "turn"),
    }
    fields = {field for words in re.findall(r"`([a-z_ `]+)`", rows) for field in re.split(r"[` ]+", words)}
    assert {"connection", "user", "address", "protocol", "action", "kind", "id", "size", "close", "session"} <= fields
    assert {"room", "turn", "client_msg_id", "content", "ms", "outcome", "code", "text", "hint", "trace"} <= fields


@pytest.mark.parametrize(
    ("block", "place"),
    [
        ({"events": ["gossip"]}, "plugins.message_log.events[0]"),
        ({"content": -1}, "plugins.message_log.content"),
        ({"max_bytes": 10}, "plugins.message_log.max_bytes"),
        ({"path": ""}, "plugins.message_log.path"),
        ({"colour": True}, "plugins.message_log.colour"),
    ],
)
def test_mistakes_in_the_settings_are_told_at_their_place(tmp_path: Path, block: dict[str, Any], place: str) -> None:
    assert [problem.path for problem in load_block(tmp_path, block).problems] == [place]
