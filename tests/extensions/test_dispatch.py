"""Gates refuse, observers are never felt, and what nobody overrides costs nothing."""

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from loguru import logger

from broker import logs
from broker.errors import BrokerError
from broker.extensions.dispatch import OBSERVING, Hooks, overridden
from broker.hooks import (
    HOOKS,
    Auth,
    Content,
    Control,
    Handshake,
    Inbound,
    NoSettings,
    Peer,
    Permission,
    Plugin,
    Stats,
    TurnRequest,
    Undeclared,
)
from broker.messages import Principal

PEER = Peer("c1", Principal("ann"), "127.0.0.1", "broker.v1.json")
MESSAGE = Inbound(PEER, "echo", 12)
HANDSHAKE = Handshake("/ws", {}, {}, "127.0.0.1", None, "broker.v1.json")


class Lone:
    """A broker with counters and nobody connected."""

    def __init__(self) -> None:
        self.version = "1"
        self.stats = Stats()


def plugin(name: str, **members: Any) -> Plugin:
    """Make a plugin of these methods."""
    cls = type(name.title(), (Plugin,), {"name": name, **members})
    return cls(NoSettings(), Lone())  # type: ignore[arg-type]


def refuse(*_: Any) -> None:
    raise BrokerError("rate_limited", retry_after=2.0)


def crash(*_: Any) -> None:
    raise LookupError("a bug")


async def crash_later(*_: Any) -> None:
    crash()


async def fine_later(*_: Any) -> None:
    pass


async def yes_later(*_: Any) -> str:
    return "yes"


@pytest.fixture
def stats() -> Stats:
    return Stats()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is logged meanwhile, tracebacks included, as if nothing had been before."""
    monkeypatch.setattr(logs, "_limiter", logs.Limiter())
    written: list[str] = []
    sink = logger.add(lambda message: written.append(str(message)), format="{message}", backtrace=False)
    yield written
    logger.remove(sink)


# -- compiling -----------------------------------------------------------------------------------


def test_without_plugins_every_hook_is_an_empty_tuple_and_asking_it_needs_no_await() -> None:
    hooks = Hooks()
    assert hooks.handshake == hooks.message == hooks.permission == hooks.turn == ()
    assert hooks.connected == hooks.disconnected == hooks.committed == hooks.turn_ended == hooks.failed == ()
    assert hooks.run_gates(hooks.message, MESSAGE) is None


def test_only_overridden_hooks_are_compiled_also_those_of_a_plugin_s_own_base() -> None:
    base = type("Base", (Plugin,), {"on_turn": refuse})
    child = type("Child", (base,), {"name": "child", "connected": fine_later})
    assert overridden(child) == ("on_turn", "connected")
    hooks = Hooks([child(NoSettings(), Lone())])  # type: ignore[arg-type]
    assert len(hooks.turn) == len(hooks.connected) == 1
    assert not hooks.message


def test_an_attribute_called_like_a_hook_is_none() -> None:
    counting = plugin("counting")
    counting.failed = 0  # type: ignore[assignment,method-assign]
    assert Hooks([counting]).failed == ()


# -- gates ---------------------------------------------------------------------------------------


def test_plain_gates_are_asked_in_order_until_one_refuses_and_nothing_is_awaited(stats: Stats) -> None:
    asked: list[str] = []
    first = plugin("first", on_message=lambda self, m: asked.append("first"))
    second = plugin("second", on_message=refuse)
    third = plugin("third", on_message=lambda self, m: asked.append("third"))
    hooks = Hooks([first, second, third], stats)
    with pytest.raises(BrokerError) as refusal:
        hooks.run_gates(hooks.message, MESSAGE)
    assert (refusal.value.code, refusal.value.retry_after) == ("rate_limited", 2.0)
    assert asked == ["first"]
    assert not stats.plugin_errors


async def test_an_async_gate_is_awaited_and_the_plain_ones_behind_it_are_asked_too() -> None:
    hooks = Hooks([plugin("a", on_turn=fine_later), plugin("b", on_turn=fine_later), plugin("c", on_turn=refuse)])
    pending = hooks.run_gates(hooks.turn, object())
    assert inspect.isawaitable(pending)
    with pytest.raises(BrokerError, match="Too many"):
        await pending
    passing = Hooks([plugin("a", on_turn=fine_later), plugin("b", on_turn=lambda self, t: None)])
    assert await passing.run_gates(passing.turn, object()) is None  # type: ignore[misc]


@pytest.mark.parametrize("bug", [crash, crash_later, lambda self, m: False, yes_later])
async def test_whatever_a_gate_does_unexpectedly_refuses_as_internal(bug: Any, stats: Stats, lines: list[str]) -> None:
    hooks = Hooks([plugin("buggy", on_message=bug)], stats)
    with pytest.raises(BrokerError) as refusal:
        await hooks.run_gates(hooks.message, MESSAGE)  # type: ignore[misc]
    assert refusal.value.code == "internal"
    assert "bug" not in refusal.value.message
    assert stats.plugin_errors == {"buggy": 1}
    assert lines[0].startswith("plugin buggy failed in on_message, trace ")
    assert refusal.value.hint in lines[0]


def test_a_logged_traceback_begins_at_the_plugin_s_own_line(lines: list[str]) -> None:
    hooks = Hooks([plugin("buggy", on_message=crash)])
    with pytest.raises(BrokerError) as refusal:
        hooks.run_gates(hooks.message, MESSAGE)
    assert "broker/extensions/dispatch.py" not in lines[0]
    assert 'raise LookupError("a bug")' in lines[0]
    cause = refusal.value.__cause__
    assert cause is not None
    assert cause.__traceback__ is not None
    assert cause.__traceback__.tb_frame.f_code.co_name == "crash"


async def test_a_gate_that_does_not_answer_refuses_with_timeout(stats: Stats) -> None:
    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    hooks = Hooks([plugin("slow", on_permission=hang)], stats, patience=0.001)
    with pytest.raises(BrokerError) as refusal:
        await hooks.run_gates(hooks.permission, object())  # type: ignore[misc]
    assert (refusal.value.code, refusal.value.retryable) == ("timeout", True)
    assert stats.plugin_errors == {"slow": 1}


async def test_the_first_plugin_that_knows_says_who_it_is_and_a_later_one_may_still_refuse() -> None:
    async def is_bob(*_: Any) -> Principal:
        return Principal("bob")

    unsure = plugin("unsure", on_handshake=lambda self, h: None)
    ann = plugin("ann", on_handshake=lambda self, h: Principal("ann"))
    bob = plugin("bob", on_handshake=is_bob)
    assert await Hooks([unsure, bob, ann]).identify(HANDSHAKE) == Principal("bob")
    assert await Hooks([unsure]).identify(HANDSHAKE) is None
    with pytest.raises(BrokerError, match="Too many"):
        await Hooks([ann, plugin("strict", on_handshake=refuse)]).identify(HANDSHAKE)


@pytest.mark.parametrize("bug", [crash, crash_later, lambda self, h: "ann"])
async def test_a_handshake_gate_that_breaks_lets_nobody_in(bug: Any) -> None:
    with pytest.raises(BrokerError) as refusal:
        await Hooks([plugin("buggy", on_handshake=bug)]).identify(HANDSHAKE)
    assert refusal.value.code == "internal"


# -- whatever a hook does ------------------------------------------------------------------------

GIVEN = {
    "on_handshake": HANDSHAKE,
    "on_auth": Auth(PEER, "s3cret"),
    "on_message": MESSAGE,
    "on_control": Control(PEER, "ping", 0),
    "on_permission": Permission(Principal("ann"), "echo"),
    "on_content": Content(Principal("ann"), "turn.start", "s", b'"hi"'),
    "on_turn": TurnRequest("s", Principal("ann"), b'"hi"'),
}
GATES = [name for name, hook in HOOKS.items() if hook.kind == "gate" and name != "on_dispatch"]
OBSERVERS = [name for name, hook in HOOKS.items() if hook.kind == "observer"]


async def ask(hooks: Hooks, gate: str) -> object:
    """Ask a gate as the broker does."""
    value: Any = GIVEN[gate]
    match gate:
        case "on_handshake":
            return await hooks.identify(value)
        case "on_auth":
            return await hooks.recognize(value)
        case "on_control":
            return hooks.check_control(value)
        case "on_content":
            said = hooks.run_filters(value)
            return None if (said if isinstance(said, bytes) else await said) == value.data else said
    waiting = hooks.run_gates(getattr(hooks, gate.removeprefix("on_")), value)
    return None if waiting is None else await waiting


def raises(error: type[BaseException]) -> Any:
    def act(*_: Any) -> None:
        raise error

    return act


def raises_later(error: type[BaseException]) -> Any:
    async def act(*_: Any) -> None:
        raise error

    return act


async def hang(*_: Any) -> None:
    await asyncio.Event().wait()


async def never_let_go(*_: Any) -> None:
    gone = asyncio.get_running_loop().time() + 0.05
    while asyncio.get_running_loop().time() < gone:  # pays no heed to being cancelled, for a while
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            continue


async def cancel_itself(*_: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


def foreign_future(*_: Any) -> asyncio.Future[None]:
    """Something to be awaited that was cancelled by others."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


def generate(*_: Any) -> Any:
    return (number for number in range(3))


async def generate_later(*_: Any) -> Any:
    yield 1


BUGS: dict[str, Any] = {
    "raises": crash,
    "exits": raises(SystemExit),
    "is interrupted": raises(KeyboardInterrupt),
    "is cancelled": raises(asyncio.CancelledError),
    "is closed": raises(GeneratorExit),
    "raises a wrong refusal": lambda *_: BrokerError("no_such_code") and None,
    "says false": lambda *_: False,
    "says yes": lambda *_: "yes",
    "generates": generate,
    "generates later": lambda *_: generate_later(),
    "raises later": crash_later,
    "exits later": raises_later(SystemExit),
    "is interrupted later": raises_later(KeyboardInterrupt),
    "is cancelled later": raises_later(asyncio.CancelledError),
    "is closed later": raises_later(GeneratorExit),
    "cancels itself": cancel_itself,
    "awaits what was cancelled": foreign_future,
    "says yes later": yes_later,
    "never ends": hang,
    "never ends and will not be cancelled": never_let_go,
}


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("gate", GATES)
async def test_no_gate_is_opened_by_a_bug_and_none_ends_the_broker(gate: str, bug: str, stats: Stats) -> None:
    made = plugin("buggy")
    setattr(type(made), gate, BUGS[bug])  # past the checks of the class
    hooks = Hooks([made], stats, patience=0.01)
    with pytest.raises(BrokerError) as refusal:
        await ask(hooks, gate)
    assert refusal.value.code in {"internal", "timeout"}
    assert stats.plugin_errors == {"buggy": 1}
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)


@pytest.mark.parametrize("gate", GATES)
async def test_a_gate_that_says_nothing_lets_pass_and_one_that_refuses_says_why(gate: str, stats: Stats) -> None:
    assert await ask(Hooks([plugin("fine", **{gate: lambda self, value: None})], stats), gate) is None
    with pytest.raises(BrokerError) as refusal:
        await ask(Hooks([plugin("strict", **{gate: refuse})], stats), gate)
    assert refusal.value.code == "rate_limited"
    assert not stats.plugin_errors


async def test_only_a_handshake_may_be_answered_with_later() -> None:
    later = plugin("later", on_handshake=lambda self, h: Undeclared(5), on_auth=lambda self, a: Undeclared(5))
    assert await Hooks([later]).identify(HANDSHAKE) == Undeclared(5)
    with pytest.raises(BrokerError, match="Something went wrong"):
        await Hooks([later]).recognize(Auth(PEER, "t"))


async def test_who_stops_waiting_for_a_gate_stops_the_gate_and_is_not_refused(stats: Stats) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(*_: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    hooks = Hooks([plugin("slow", on_turn=wait)], stats)
    asking = asyncio.ensure_future(ask(hooks, "on_turn"))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await ended.wait()
    assert not stats.plugin_errors


async def test_who_stops_waiting_before_the_gate_has_begun_leaves_nothing_behind() -> None:
    asking = asyncio.ensure_future(ask(Hooks([plugin("slow", on_turn=hang)]), "on_turn"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):  # and no coroutine that was never awaited: warnings are errors
        await asking
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)


@pytest.mark.parametrize("bug", [bug for bug in BUGS if not bug.startswith(("never", "says", "generates", "raises a"))])
@pytest.mark.parametrize("name", OBSERVERS)
async def test_no_observer_s_bug_is_felt_and_each_is_counted(name: str, bug: str, stats: Stats) -> None:
    told: list[str] = []
    made, other = plugin("buggy"), plugin("other", **{name: lambda self, *args: told.append(name)})
    setattr(type(made), name, BUGS[bug])
    hooks = Hooks([made, other], stats)
    hooks.observe(getattr(hooks, name), *(object() for _ in HOOKS[name].parameters))
    assert told == [name]
    await hooks.settled()
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)
    assert stats.plugin_errors == ({"buggy": 1} if bug != "cancels itself" else {})


@pytest.mark.parametrize("bug", [bug for bug in BUGS if not bug.startswith(("says", "raises a"))])
async def test_no_action_s_bug_ends_the_broker_and_each_is_answered(bug: str, stats: Stats) -> None:
    def act(peer: Peer, payload: object) -> object:
        return BUGS[bug](peer, payload)

    hooks = Hooks([plugin("buggy", actions=lambda self: {"break": act})], stats, acting=0.01)
    with pytest.raises(BrokerError) as refusal:
        await hooks.act(hooks.actions["break"], PEER, b"{}")
    assert refusal.value.code == ("timeout" if bug.startswith("never ends") else "internal")
    assert stats.plugin_errors == {"buggy": 1}
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)


# -- trouble -------------------------------------------------------------------------------------


def test_the_first_plugin_in_trouble_is_named_with_its_words() -> None:
    fine, bad = plugin("fine"), plugin("bad", trouble=lambda self: "no keys were fetched yet")
    assert Hooks([fine]).trouble() is None
    assert Hooks([fine, bad]).trouble() == "plugin bad: no keys were fetched yet"
    assert Hooks([fine, bad]).troubles() == {"bad": "no keys were fetched yet"}


@pytest.mark.parametrize("bug", ["raises", "exits", "is cancelled", "says false", "generates", "raises later"])
def test_a_plugin_that_cannot_say_how_it_fares_is_in_trouble(bug: str, stats: Stats) -> None:
    made = plugin("buggy")
    setattr(type(made), "trouble", lambda self: BUGS[bug]())  # noqa: B010 - mypy would mind the other form
    assert str(Hooks([made], stats).trouble()).startswith("plugin buggy: cannot say how it fares")
    assert stats.plugin_errors == {"buggy": 1}


# -- observers -----------------------------------------------------------------------------------


async def test_an_observer_s_error_is_logged_and_counted_and_the_others_are_told(
    stats: Stats, lines: list[str]
) -> None:
    seen: list[int] = []

    async def see(self: Plugin, peer: Peer, code: int) -> None:
        seen.append(code)

    broken, late, good = (
        plugin("p", disconnected=crash),
        plugin("q", disconnected=crash_later),
        plugin("r", disconnected=see),
    )
    hooks = Hooks([broken, late, good], stats)
    hooks.observe(hooks.disconnected, PEER, 1001)
    await hooks.settled()
    assert seen == [1001]
    assert stats.plugin_errors == {"p": 1, "q": 1}
    assert [line.partition(",")[0] for line in lines] == [
        "plugin p failed in disconnected",
        "plugin q failed in disconnected",
    ]


async def test_async_observers_are_not_waited_for_and_begin_in_order() -> None:
    begun: list[str] = []
    gate, all_begun = asyncio.Event(), asyncio.Event()

    async def wait(self: Plugin, peer: Peer) -> None:
        begun.append(peer.connection_id)
        if len(begun) == 3:
            all_begun.set()
        await gate.wait()

    hooks = Hooks([plugin("slow", connected=wait)])
    for number in range(3):
        hooks.observe(hooks.connected, Peer(f"c{number}", Principal(), "::1", "broker.v1.json"))
    assert begun == []
    await all_begun.wait()
    assert begun == ["c0", "c1", "c2"]
    gate.set()
    await hooks.settled()


async def test_a_slow_observer_is_bounded_and_leaves_the_other_plugins_alone(stats: Stats) -> None:
    gate, all_seen = asyncio.Event(), asyncio.Event()
    seen: list[object] = []

    async def wait(self: Plugin, peer: Peer) -> None:
        await gate.wait()

    async def see(self: Plugin, peer: Peer) -> None:
        seen.append(peer)
        if len(seen) == OBSERVING:
            all_seen.set()

    hooks = Hooks([plugin("slow", connected=wait), plugin("quick", connected=see)], stats)
    for _ in range(OBSERVING):
        hooks.observe(hooks.connected, PEER)
    await all_seen.wait()
    hooks.observe(hooks.connected, PEER)
    assert stats.dropped == {"observer": 1}
    gate.set()
    await hooks.settled()
    assert len(seen) == OBSERVING + 1


# -- actions -------------------------------------------------------------------------------------


async def test_an_action_is_answered_by_its_plugin_plain_or_async(stats: Stats) -> None:
    async def later(peer: Peer, payload: dict[str, int]) -> dict[str, object]:
        return {"user": peer.principal.user, **payload}

    handlers = {"now": lambda peer, payload: payload["n"] + 1, "later": later}
    hooks = Hooks([plugin("p", actions=lambda self: handlers)], stats)
    assert await hooks.act(hooks.actions["now"], PEER, b'{"n": 1}') == b"2"
    assert await hooks.act(hooks.actions["later"], PEER, b'{"n":1}') == b'{"user":"ann","n":1}'


@pytest.mark.parametrize("bug", [crash, crash_later, lambda *_: object()])
async def test_an_action_that_breaks_is_answered_internal_and_counted(bug: Any, stats: Stats) -> None:
    async def act(peer: Peer, payload: object) -> object:
        answer = bug(peer, payload)
        return await answer if inspect.isawaitable(answer) else answer

    hooks = Hooks([plugin("buggy", actions=lambda self: {"break": act})], stats)
    with pytest.raises(BrokerError) as refusal:
        await hooks.act(hooks.actions["break"], PEER, b"{}")
    assert refusal.value.code == "internal"
    assert stats.plugin_errors == {"buggy": 1}


async def test_an_action_may_refuse(stats: Stats) -> None:
    hooks = Hooks([plugin("p", actions=lambda self: {"no": lambda peer, payload: refuse()})], stats)
    with pytest.raises(BrokerError, match="Too many"):
        await hooks.act(hooks.actions["no"], PEER, b"{}")
    assert not stats.plugin_errors


# -- content -----------------------------------------------------------------------------------------

SAID = Content(Principal("ann"), "turn.start", "s1", b'"damn"')


async def said(hooks: Hooks) -> bytes:
    answer = hooks.run_filters(SAID)
    return answer if isinstance(answer, bytes) else await answer


async def polite_later(_: Plugin, content: Content) -> bytes:
    return content.data.replace(b"damn", b"dear")


def shout(_: Plugin, content: Content) -> bytes:
    return content.data.upper()


async def test_each_gate_for_content_sees_what_the_one_before_it_made_of_it(stats: Stats) -> None:
    polite, loud = plugin("polite", on_content=polite_later), plugin("loud", on_content=shout)
    nothing = plugin("nothing", on_content=lambda *_: None)
    assert await said(Hooks([polite, nothing, loud], stats)) == b'"DEAR"'
    assert await said(Hooks([loud, polite, nothing], stats)) == b'"DAMN"'
    assert Hooks([nothing, loud], stats).run_filters(SAID) == b'"DAMN"'


@pytest.mark.parametrize("answer", ["text", b"no json", b"\xff", False, ("a",)])
async def test_what_is_no_json_is_not_said(stats: Stats, answer: Any) -> None:
    async def later(*_: Any) -> Any:
        return answer

    for gate in (lambda *_: answer, later):
        with pytest.raises(BrokerError) as caught:
            await said(Hooks([plugin("odd", on_content=gate)], stats))
        assert caught.value.code == "internal"
    assert stats.plugin_errors == {"odd": 2}


@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"[" * 65 + b"]" * 65, "internal"), (b'"' + b"a" * 99 + b'"', "too_large"), (b'"' + b"a" * 98 + b'"', None)],
)
async def test_what_is_said_instead_is_bound_as_every_message_is(stats: Stats, answer: bytes, code: str | None) -> None:
    async def later(*_: Any) -> Any:
        return answer

    for gate in (lambda *_: answer, later):
        hooks = Hooks([plugin("large", on_content=gate)], stats, largest=100)
        if code is None:
            assert await said(hooks) == answer
            continue
        with pytest.raises(BrokerError) as caught:
            await said(hooks)
        assert caught.value.code == code
    assert stats.plugin_errors == ({"large": 2} if code == "internal" else {})


@pytest.mark.parametrize("gate", [crash, crash_later])
async def test_a_content_gate_that_fails_refuses(stats: Stats, gate: Any) -> None:
    with pytest.raises(BrokerError) as caught:
        await said(Hooks([plugin("faulty", on_content=gate)], stats))
    assert caught.value.code == "internal"


async def test_a_content_gate_may_refuse(stats: Stats) -> None:
    with pytest.raises(BrokerError) as caught:
        await said(Hooks([plugin("strict", on_content=refuse)], stats))
    assert caught.value.code == "rate_limited"
