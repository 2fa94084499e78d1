"""What the limiter lets pass and what it refuses, with a clock moved by hand and the plugin as the loader makes it."""

import itertools
import re
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import config
from broker.errors import BrokerError, CloseCode
from broker.extensions.loader import Plugins, load
from broker.facade import Facade
from broker.hooks import Control, Handshake, Inbound, Peer, Stats
from broker.messages import Principal
from broker.testing import ManualClock

OFF = "messages: null, bytes: null, control: null, actions: {}"
NOBODY = f"{{{OFF}, user: {{messages: null, bytes: null}}, address: {{messages: null, bytes: null}}}}"


class Door:
    """The plugin behind its settings, with everything that a test wants to do to it."""

    def __init__(self, folder: Path, block: str) -> None:
        self.clock = ManualClock()
        self.stats = Stats()
        self._file = folder / "config.yaml"
        plugins = self._load(block)
        assert plugins.problems == []
        plugins.create(Facade(self.stats, self.clock))
        self.plugin: Any = plugins.instances[0]

    def _load(self, block: str) -> Plugins:
        self._file.write_text(f"plugins: {{rate_limit: {block}}}")
        loaded = config.load(self._file, {}, {})
        return load(loaded.settings, loaded.file)

    def reload(self, block: str) -> bool:
        """Give it other settings while it runs."""
        return bool(self.plugin.reload(self._load(block).records[0].settings))

    def send(self, peer: Peer, size: int = 1, action: str = "echo", times: int = 1) -> None:
        for _ in range(times):
            self.plugin.on_message(Inbound(peer, action, size))

    def refused(self, peer: Peer, size: int = 1, action: str = "echo") -> BrokerError:
        return refusal(lambda: self.send(peer, size, action))

    def knock(self, remote: str = "192.0.2.1", protocol: str = "broker.v1.json", times: int = 1) -> None:
        for _ in range(times):
            self.plugin.on_handshake(Handshake("/ws", {}, {}, remote, None, protocol))

    def control(self, peer: Peer, kind: Any = "ping", size: int = 0, times: int = 1) -> None:
        for _ in range(times):
            self.plugin.on_control(Control(peer, kind, size))


def refusal(act: Callable[[], object]) -> BrokerError:
    with pytest.raises(BrokerError) as refused:
        act()
    assert refused.value.code == "rate_limited"
    return refused.value


def peer(number: int = 1, user: str | None = None, address: str = "192.0.2.1") -> Peer:
    return Peer(f"c{number}", Principal(user), address, "broker.v1.json")


Open = Callable[[str], Door]


@pytest.fixture
def door(tmp_path: Path) -> Open:
    return lambda block="{}": Door(tmp_path, block)


# -- the bucket -------------------------------------------------------------------------------------


@attrs.define
class Naive:
    """A token bucket as the books have it: so many seconds' worth in it, filled up whenever somebody looks."""

    burst: Fraction
    level: Fraction
    at: Fraction = Fraction(0)

    def take(self, cost: Fraction, now: Fraction) -> Fraction:
        self.level = min(self.burst, self.level + now - self.at)
        self.at = now
        if self.level >= cost or self.level == self.burst:
            self.level -= cost
            return Fraction(0)
        return min(cost, self.burst) - self.level


# Multiples of 2**-10 below 2**20, so that the floats of the bucket are exact and equal means equal.
SECONDS = st.integers(0, 1 << 12).map(lambda n: Fraction(n, 1 << 10))


@given(burst=SECONDS.filter(bool), steps=st.lists(st.tuples(SECONDS, SECONDS), max_size=60))
def test_a_bucket_does_what_the_naive_one_does_whatever_is_asked_of_it_and_when(
    burst: Fraction, steps: list[tuple[Fraction, Fraction]]
) -> None:
    naive, now = Naive(burst, burst), Fraction(0)
    charges = only(1.0)
    for pause, cost in steps:
        now += pause
        wait = naive.take(cost, now)
        asked = (charges, int(cost * 1024), float(burst), float(now))
        assert (buckets().pay(*asked) is not None) == bool(wait)
        assert not wait or Fraction(buckets().wait_of(*asked)) == wait


@given(rate=st.floats(0.5, 1e5), burst=st.floats(0.01, 60), days=st.floats(0, 100))
def test_a_full_bucket_gives_its_burst_at_once_to_a_thousandth_however_long_the_broker_runs(
    rate: float, burst: float, days: float
) -> None:
    charges, whole = only(1 / rate), min(max(1, int(rate * burst)), 3000)
    asked = (charges, 1024, whole / rate, days * 86400)
    passed = next(count for count in itertools.count() if buckets().pay(*asked) is not None)
    assert abs(passed - whole) <= 1 + whole / 1000


def only(kilobyte: float) -> Any:
    """Return one bucket, and a limit by which 1024 bytes cost so many seconds."""
    return ((buckets().Bucket(), buckets().Limit("x", "x", 0.0, kilobyte / 1024, "")),)


def buckets() -> Any:
    return sys.modules["broker_plugin_rate_limit.buckets"]


@pytest.fixture(autouse=True, scope="module")
def _loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    Door(tmp_path_factory.mktemp("rate_limit"), "{}")


# -- messages and bytes -----------------------------------------------------------------------------


def test_a_burst_passes_and_what_comes_after_it_is_told_how_long_to_wait(door: Open) -> None:
    here, me = door("{messages: 50/s, burst: 2}"), peer()
    here.send(me, times=100)
    refused = here.refused(me)
    assert (refused.retry_after, refused.close, refused.retryable) == (0.02, None, True)
    assert refused.message == "At most 50 messages a second on one connection."
    assert here.stats.rate_limited == {"messages": 1}


def test_who_waits_as_long_as_it_was_told_is_let_in_and_not_sooner(door: Open) -> None:
    here, me = door("{messages: 3/s, bytes: 1000B/s}"), peer()
    here.send(me, size=100, times=6)
    for size in (100, 900, 1500):
        wait = here.refused(me, size).retry_after
        assert wait is not None
        here.clock.advance(wait - 0.002)
        here.refused(me, size)
        here.clock.advance(0.002)
        here.send(me, size)


def test_a_message_larger_than_the_bucket_passes_when_the_bucket_is_full_and_is_paid_off_after(door: Open) -> None:
    here, me = door("{bytes: 1KiB/s, burst: 2}"), peer()
    here.send(me, size=10240)
    assert here.refused(me, size=1).retry_after == 8.001
    assert here.refused(me, size=10240).retry_after == 10.0
    here.clock.advance(10)
    here.send(me, size=10240)
    assert here.stats.rate_limited == {"bytes": 2}


def test_a_message_that_one_limit_refuses_is_charged_to_none(door: Open) -> None:
    here, me = (
        door("{messages: 10/s, bytes: 100B/s, burst: 1, user: {messages: 10/s}, actions: {x: 1/s}}"),
        peer(1, "ann"),
    )
    here.send(me, size=60, action="x")
    here.refused(me, size=1, action="x")
    here.refused(me, size=60)
    here.send(me, size=4, times=9)
    assert here.refused(me, size=0).message.startswith("At most 10 messages")


def test_all_connections_of_a_user_share_its_limits_and_those_without_a_name_share_none(door: Open) -> None:
    here = door(f"{{{OFF}, burst: 1, user: {{messages: 3/s, bytes: 1KiB/s}}, address: {{messages: null}}}}")
    for number in range(3):
        here.send(peer(number, "ann"))
    assert here.refused(peer(4, "ann")).message == "At most 3 messages a second of one user."
    here.send(peer(5, "bob"), size=1024)
    assert here.refused(peer(6, "bob")).message == "At most 1 KiB a second of one user."
    for number in range(7, 20):
        here.send(peer(number), times=20)
    assert here.stats.rate_limited == {"user_messages": 1, "user_bytes": 1}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("not an address", "not an address", True),
    ],
)
def test_an_address_is_one_of_ipv4_or_a_64_of_ipv6(door: Open, one: str, other: str, *, same: bool) -> None:
    here = door("{burst: 1, address: {messages: 3/s, handshakes: 3/s}}")
    here.send(peer(1, address=one), times=3)
    here.knock(one, times=3)
    if same:
        assert here.refused(peer(2, address=other)).message == "At most 3 messages a second from one address."
        refusal(lambda: here.knock(other))
    else:
        here.send(peer(2, address=other), times=3)
        here.knock(other, times=3)


def test_a_connection_that_says_who_it_is_is_charged_to_that_user_from_then_on(door: Open) -> None:
    here = door(f"{{{OFF}, burst: 1, user: {{messages: 3/s}}}}")
    here.send(peer(1, None), times=3)
    here.send(peer(1, "ann"), times=3)
    assert here.refused(peer(1, "ann")).message == "At most 3 messages a second of one user."


def test_what_is_switched_off_limits_nothing(door: Open) -> None:
    here, me = door(NOBODY), peer(1, "ann")
    here.send(me, size=1 << 20, times=2000)
    here.control(me, times=2000)
    assert not here.stats.rate_limited


# -- who does not listen ----------------------------------------------------------------------------


def test_who_sends_as_much_again_after_being_refused_is_closed(door: Open) -> None:
    here, me = door("{messages: 50/s, burst: 2}"), peer()
    here.send(me, times=100)
    assert {here.refused(me).close for _ in range(100)} == {None}
    assert here.refused(me).close is CloseCode.PROTOCOL_ABUSE


def test_who_sends_too_much_now_and_then_is_never_closed(door: Open) -> None:
    here, me = door("{messages: 50/s, burst: 2}"), peer()
    for _ in range(20):
        here.send(me, times=100)
        assert {here.refused(me).close for _ in range(80)} == {None}
        here.clock.advance(2)
    assert here.stats.rate_limited == {"messages": 1600}


def test_refused_bytes_count_as_such(door: Open) -> None:
    here, me = door("{bytes: 1KiB/s, burst: 2}"), peer()
    here.send(me, size=2048)
    assert here.refused(me, size=1024).close is None
    assert here.refused(me, size=1024).close is None
    assert here.refused(me, size=1024).close is CloseCode.PROTOCOL_ABUSE


def test_a_low_limit_of_an_action_closes_nobody_for_a_few_messages(door: Open) -> None:
    here, me = door("{messages: 50/s, burst: 2, actions: {turn.start: 1/s}}"), peer(1, "ann")
    here.send(me, action="turn.start", times=2)
    assert {here.refused(me, action="turn.start").close for _ in range(100)} == {None}
    assert here.refused(me, action="turn.start").close is CloseCode.PROTOCOL_ABUSE
    assert here.stats.rate_limited == {"actions": 101}


# -- actions ----------------------------------------------------------------------------------------


def test_an_action_has_its_own_limit_or_shares_that_of_the_first_pattern_it_fits(door: Open) -> None:
    here, me = door("{burst: 1, actions: {room.publish: 5/s, 'room.*': 3/s, '*.j*': 1/s}}"), peer()
    here.send(me, action="room.publish", times=5)
    here.send(me, action="room.join", times=2)
    here.send(me, action="room.leave")
    assert here.refused(me, action="room.publish").message == "At most 5 times room.publish a second of one user."
    assert here.refused(me, action="room.join").message == "At most 3 times room.* a second of one user."
    here.send(me, action="session.join")
    here.refused(me, action="session.join")
    here.send(me, action="roomy", times=20)


def test_a_user_has_one_allowance_of_an_action_and_each_connection_without_a_name_its_own(door: Open) -> None:
    here = door("{burst: 1, actions: {turn.start: 6/m}}")
    here.send(peer(1, "ann"), action="turn.start")
    refused = here.refused(peer(2, "ann"), action="turn.start")
    assert (refused.message, refused.retry_after) == ("At most 6 times turn.start a minute of one user.", 10.0)
    here.send(peer(3), action="turn.start")
    here.send(peer(4), action="turn.start")
    here.refused(peer(4), action="turn.start")


# -- requests ---------------------------------------------------------------------------------------


def request(user: str | None = None, address: str = "192.0.2.1") -> Peer:
    return Peer("", Principal(user), address, "http")


def test_requests_share_the_limits_of_their_user_with_its_connections(door: Open) -> None:
    here = door("{burst: 1, user: {messages: 3/s}, actions: {send: 2/s}}")
    here.send(peer(1, "ann"), action="send")
    here.send(request("ann"), action="send")
    refused = here.refused(request("ann"), action="send")
    assert (refused.message, refused.close) == ("At most 2 times send a second of one user.", None)
    here.send(request("ann"), action="echo")
    assert here.refused(peer(1, "ann")).message == "At most 3 messages a second of one user."


def test_requests_without_a_name_share_what_an_action_allows_by_their_address(door: Open) -> None:
    here = door("{burst: 1, actions: {send: 2/s}}")
    here.send(request(), action="send", times=2)
    assert {here.refused(request(), action="send").close for _ in range(1000)} == {None}
    here.send(request(address="192.0.2.2"), action="send")
    here.send(peer(1), action="send", times=2)


def test_requests_leave_no_connections_behind(door: Open) -> None:
    here = door("{}")
    for number in range(100):
        here.send(request(f"u{number}"))
    assert len(here.plugin._clients) == 0


# -- frames that are no messages ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ping", "pong", "piece"])
def test_control_frames_beyond_the_limit_are_refused_and_then_closed(door: Open, kind: str) -> None:
    here, me = door("{control: 20/s, burst: 2}"), peer()
    here.control(me, kind, times=40)
    assert {refusal(lambda: here.control(me, kind)).close for _ in range(40)} == {None}
    assert refusal(lambda: here.control(me, kind)).close is CloseCode.PROTOCOL_ABUSE
    assert here.stats.rate_limited == {"control": 41}


def test_a_large_message_in_large_pieces_is_not_taken_for_a_flood(door: Open) -> None:
    here, me = door("{control: 20/s, burst: 2}"), peer()
    here.control(me, "piece", 4096, times=255)
    here.send(me, size=1 << 20)
    here.control(me, "ping", 125, times=40)
    refusal(lambda: here.control(me, "ping", 125))


# -- handshakes and requests ------------------------------------------------------------------------


def test_attempts_to_connect_and_requests_are_limited_by_address_each_for_itself(door: Open) -> None:
    here = door("{burst: 2, address: {handshakes: 10/s, requests: 50/s}}")
    here.knock(times=20)
    here.knock(protocol="http", times=100)
    assert refusal(here.knock).retry_after == 0.1
    refused = refusal(lambda: here.knock(protocol="http"))
    assert (refused.retry_after, refused.message) == (0.02, "At most 50 requests a second from one address.")
    here.knock("192.0.2.2", times=20)
    here.clock.advance(0.1)
    here.knock()
    assert here.stats.rate_limited == {"handshakes": 1, "requests": 1}


def test_coming_back_does_not_make_an_address_or_a_user_new(door: Open) -> None:
    here = door(f"{{{OFF}, burst: 1, user: {{messages: 3/s}}, address: {{messages: 5/s}}}}")
    for number in range(3):
        here.send(peer(number, "ann"))
        here.plugin.disconnected(peer(number, "ann"), 1000)
    here.refused(peer(4, "ann"))
    here.send(peer(5, "bob"), times=2)
    assert "from one address" in here.refused(peer(6, "carl")).message


# -- settings ---------------------------------------------------------------------------------------


def test_new_settings_hold_for_those_who_are_connected_and_what_they_used_stays_used(door: Open) -> None:
    here, me = door("{messages: 10/s, burst: 1}"), peer(1, "ann")
    here.send(me, times=10)
    assert here.reload("{messages: 2/s, burst: 1, user: {messages: 1/s}}")
    assert here.refused(me).message == "At most 2 messages a second on one connection."
    here.clock.advance(1)
    here.send(me)
    assert here.refused(me).message == "At most 1 messages a second of one user."
    assert here.reload(NOBODY)
    here.send(me, times=1000)


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ("{messages: 0/s}", "of more than 0"),
        ("{messages: 50}", "expected a rate such as 50/s"),
        ("{bytes: 50/s}", "expected a rate of bytes"),
        ("{burst: 0}", "more than 0"),
        ("{mesages: 5/s}", "did you mean 'messages'?"),
        ("{user: {handshakes: 5/s}}", "unknown setting"),
        ("{actions: {echo: many}}", "expected a rate such as 50/s"),
    ],
)
def test_mistakes_are_found_before_anything_starts(tmp_path: Path, block: str, complaint: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"plugins: {{rate_limit: {block}}}")
    loaded = config.load(file, {}, {})
    [problem] = load(loaded.settings, loaded.file).problems
    assert complaint in problem.message


# -- memory -----------------------------------------------------------------------------------------


def test_what_has_nothing_to_remember_is_forgotten(door: Open) -> None:
    here = door("{}")
    for number in range(5000):
        here.send(peer(number, f"u{number}", f"10.0.{number >> 8}.{number & 255}"))
        here.clock.advance(1)
    plugin = here.plugin
    assert [len(kept) < 100 for kept in (plugin._clients, plugin._users, plugin._addresses)] == [True] * 3


def test_there_is_room_for_only_so_many_and_the_oldest_goes(door: Open) -> None:
    purses = buckets().Purses(100)
    for number in range(1000):
        purse = purses.add(number, buckets().Purse(), 0.0)
        purse.bucket("messages").full_at = 60.0
    assert len(purses) == 100
    assert purses.get(999).gone is False
    assert purses.get(0) is None


def test_connections_that_nobody_sees_leave_are_forgotten_like_all_else(door: Open) -> None:
    """One that never said who it is has sent something, and is not announced when it goes."""
    here = door("{}")
    for number in range(500):
        here.send(peer(number), action="auth")
        here.send(peer(number))
    here.clock.advance(60)
    for number in range(500, 1000):
        here.send(peer(number), action="auth")
    assert len(here.plugin._clients) <= 501


def test_a_forgotten_users_connections_share_its_next_allowance(door: Open) -> None:
    here = door(f"{{{OFF}, burst: 1, user: {{messages: 4/s}}, address: {{messages: null, handshakes: null}}}}")
    here.send(peer(1, "ann"))
    here.clock.advance(60)
    here.send(peer(2, "bob"))  # whose coming sweeps ann's away, which is full by now
    here.send(peer(3, "ann"), times=2)
    here.send(peer(1, "ann"), times=2)
    assert here.refused(peer(1, "ann")).message == "At most 4 messages a second of one user."


# -- documentation ----------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "rate-limit.md"


def test_the_page_lists_every_setting_with_its_default(door: Open) -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `(.+?)` \|", PAGE.read_text(), re.MULTILINE))
    settings = door("{}").plugin.settings
    nested = {"user": settings.user, "address": settings.address}
    there = {field.name: settings for field in attrs.fields(type(settings)) if field.name not in nested}
    there |= {f"{block}.{field.name}": nested[block] for block in nested for field in attrs.fields(type(nested[block]))}
    assert rows.keys() == there.keys()
    blocks: dict[str, list[str]] = {"": [f"{name}: {rows[name]}" for name in rows if "." not in name]}
    for name in (name for name in rows if "." in name):
        blocks.setdefault(name.partition(".")[0], []).append(f"{name.partition('.')[2]}: {rows[name]}")
    written = ", ".join([*blocks.pop(""), *(f"{name}: {{{', '.join(lines)}}}" for name, lines in blocks.items())])
    assert attrs.asdict(door(f"{{{written}}}").plugin.settings) == attrs.asdict(settings)


def test_the_examples_of_the_page_are_taken(tmp_path: Path) -> None:
    for number, example in enumerate(re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)):
        file = tmp_path / f"{number}.yaml"
        (tmp_path / "token.key").write_text("k" * 64)
        file.write_text(example)
        loaded = config.load(file, {}, {})
        assert load(loaded.settings, loaded.file).problems == []
