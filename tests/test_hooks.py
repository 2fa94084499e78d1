"""The plugin API as classes: what is a hook, and what only looks like one."""

from collections.abc import AsyncIterator, Iterator

import attrs
import pytest

from broker.hooks import HOOKS, Handshake, Plugin, TurnRequest
from broker.messages import Principal


def test_the_table_lists_each_hook_with_its_kind_its_arguments_and_a_sentence() -> None:
    gates = [name for name, hook in HOOKS.items() if hook.kind == "gate"]
    observers = [name for name, hook in HOOKS.items() if hook.kind == "observer"]
    assert gates == [
        "on_handshake",
        "on_auth",
        "on_message",
        "on_control",
        "on_permission",
        "on_content",
        "on_turn",
        "on_dispatch",
    ]
    assert observers == ["connected", "disconnected", "answered", "committed", "turn_ended", "failed"]
    assert HOOKS["disconnected"].parameters == ("peer", "code")
    assert all(hook.summary.endswith(".") for hook in HOOKS.values())


def test_a_misspelt_gate_is_refused_with_a_suggestion() -> None:
    with pytest.raises(TypeError, match=r"on_mesage is no hook; did you mean on_message\?"):
        type("Typo", (Plugin,), {"on_mesage": lambda self, message: None})


@pytest.mark.parametrize(
    "method", [lambda self: None, lambda self, message, more: None, staticmethod(lambda message: None), 5]
)
def test_a_hook_that_cannot_take_what_it_is_given_is_refused(method: object) -> None:
    with pytest.raises(TypeError, match=r"on_message must take \(self, message\)"):
        type("Wrong", (Plugin,), {"on_message": method})


def test_a_hook_may_name_its_arguments_as_it_likes_and_take_more_by_default() -> None:
    assert type("Fine", (Plugin,), {"on_message": lambda self, m, extra=1: None})
    assert type("Finer", (Plugin,), {"disconnected": lambda self, *args: None})


def test_headers_query_and_content_stay_out_of_reprs() -> None:
    handshake = Handshake("/ws", {"Authorization": "Bearer s3cret"}, {"token": "s3cret"}, "::1", None, "broker.v1.json")
    turn = TurnRequest("s", Principal("ann"), b'"s3cret"')
    assert "s3cret" not in repr(handshake) + repr(turn)


def test_values_given_to_hooks_cannot_be_changed() -> None:
    turn = TurnRequest("s", Principal("ann"), b'"hi"')
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        turn.content = b'"other"'  # type: ignore[misc]


@pytest.mark.parametrize("name", ["on_control", "on_dispatch", "reload", "trouble"])
def test_what_nothing_waits_for_cannot_be_async(name: str) -> None:
    async def method(self: Plugin, value: object = None) -> None: ...

    method.__name__ = name
    with pytest.raises(TypeError, match=f"{name} must be plain, not async"):
        type("Late", (Plugin,), {name: method})


@pytest.mark.parametrize("name", ["on_message", "connected"])
def test_a_hook_that_yields_is_refused_since_nothing_of_it_would_run(name: str) -> None:
    def plain(self: Plugin, value: object) -> Iterator[None]:
        yield

    async def later(self: Plugin, value: object) -> AsyncIterator[None]:
        yield

    for method in (plain, later):
        with pytest.raises(TypeError, match=f"{name} must not yield"):
            type("Yielding", (Plugin,), {name: method})
