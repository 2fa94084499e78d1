"""What plugins bring: each action and route once, payloads made into what the plugin asks for."""

from collections.abc import Callable
from typing import Any, TypedDict

import attrs
import pytest

from broker.errors import BrokerError
from broker.extensions.offers import PluginRefused, collect_actions, collect_routes, to_json
from broker.hooks import NoSettings, Peer, Plugin, Route


@attrs.frozen
class Words:
    text: str
    times: int = 1


class Counted(TypedDict):
    items: list[int]


def plugin(name: str, **members: Any) -> Plugin:
    """Make a plugin of these methods."""
    return type(name.title(), (Plugin,), {"name": name, **members})(NoSettings(), None)  # type: ignore[arg-type,no-any-return]


def decoded(handler: Callable[..., Any], payload: bytes) -> object:
    return collect_actions([plugin("p", actions=lambda self: {"a": handler})], ())["a"].decode(payload)


async def serve(request: Any) -> Any:
    return request


def test_the_annotation_decides_what_a_payload_comes_as() -> None:
    def wants_words(peer: Peer, payload: Words) -> None: ...
    def wants_dict(peer: Peer, payload: Counted) -> None: ...
    def wants_bytes(peer: Peer, payload: bytes) -> None: ...
    def wants_postponed(peer: "Peer", payload: "Words") -> None: ...

    assert decoded(wants_words, b'{"text": "hi"}') == Words("hi")
    assert decoded(wants_dict, b'{"items": [1, 2]}') == {"items": [1, 2]}
    assert decoded(wants_bytes, b'{"a":  1}') == b'{"a":  1}'
    assert decoded(wants_postponed, b'{"text": "hi", "times": 2}') == Words("hi", 2)
    assert decoded(lambda peer, payload: None, b'{"a": [1.5, null]}') == {"a": [1.5, None]}


@pytest.mark.parametrize(
    ("payload", "field", "message"),
    [
        (b'{"text": 5}', "$.payload.text", "Expected `str`, got `int`"),
        (b"{}", "$.payload", "Object missing required field `text`"),
        (b"[]", "$.payload", "Expected `object`, got `array`"),
        (b'{"text": "a", "times": "b"}', "$.payload.times", "Expected `int`, got `str`"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_with_its_place(payload: bytes, field: str, message: str) -> None:
    def shout(peer: Peer, payload: Words) -> None: ...

    with pytest.raises(BrokerError) as refusal:
        decoded(shout, payload)
    assert (refusal.value.code, refusal.value.field, refusal.value.message) == ("invalid_message", field, message)


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (lambda peer: None, r"plugin 'p', action 'a': it must take \(peer, payload\)"),
        (5, "plugin 'p', action 'a': 5 is not a callable object"),
    ],
)
def test_an_action_that_could_never_be_called_is_refused_at_start(handler: Any, reason: str) -> None:
    with pytest.raises(PluginRefused, match=reason):
        decoded(handler, b"{}")


def test_an_action_is_there_once() -> None:
    one, two = (plugin(name, actions=lambda self: {"shout": lambda peer, payload: None}) for name in ("one", "two"))
    with pytest.raises(PluginRefused, match="plugins 'one' and 'two' both bring action 'shout'"):
        collect_actions([one, two], ())
    with pytest.raises(PluginRefused, match="plugin 'one' brings the action 'shout', which the broker itself has"):
        collect_actions([one], {"shout"})


def test_a_route_is_there_once() -> None:
    get, also = (plugin(name, routes=lambda self: [Route("GET", "/x", serve)]) for name in ("get", "also"))
    post = plugin("post", routes=lambda self: [Route("POST", "/x", serve)])
    assert [(m.plugin, m.route.method) for m in collect_routes([get, post])] == [("get", "GET"), ("post", "POST")]
    with pytest.raises(PluginRefused, match="plugins 'get' and 'also' both bring the route GET /x"):
        collect_routes([get, also])


def test_a_plugin_that_cannot_say_what_it_brings_is_named() -> None:
    def actions(self: Plugin) -> Any:
        raise KeyError("x")

    with pytest.raises(PluginRefused, match=r"plugin 'p': actions\(\) raised KeyError: 'x'"):
        collect_actions([plugin("p", actions=actions)], ())


def test_answers_are_encoded_and_bytes_taken_as_they_are() -> None:
    assert to_json(Words("hi")) == b'{"text":"hi","times":1}'
    assert to_json(b'{"as":  "is"}') == b'{"as":  "is"}'
    with pytest.raises(TypeError):
        to_json(object())


@pytest.mark.parametrize("text", [b"", b"nope", b"{} {}", b'"\xff"', b'{"a":1'])
def test_bytes_that_are_no_json_are_not_sent(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|decode|truncated"):
        to_json(text)
