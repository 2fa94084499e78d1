"""What plugins bring: actions and routes, each there once, with the JSON of an action made into values and back."""

import inspect
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import attrs
import msgspec

from broker.errors import BrokerError
from broker.hooks import Plugin, Route

__all__ = ["Action", "Mounted", "PluginRefused", "collect_actions", "collect_routes", "to_json"]

_PLACE: Final = re.compile(r" - at `\$(.*)`$")


class PluginRefused(Exception):  # noqa: N818 - named after what happened to it
    """What a plugin brings cannot be used; the text says which plugin and why."""


@attrs.frozen(eq=False)
class Action:
    """One plugin's action.

    Attributes:
        plugin: who brings it.
        name: what clients call it.
        call: takes the peer and the decoded payload.
        decode: makes the payload of JSON.
        whole: whether it is given the client's whole message instead of the payload.
        timeout: seconds that it may take; None for as long as any.
    """

    plugin: str
    name: str
    call: Callable[..., Any]
    decode: Callable[[bytes], Any]
    whole: bool = False
    timeout: float | None = None


@attrs.frozen(eq=False)
class Mounted:
    """One plugin's route, and whose it is."""

    plugin: str
    route: Route


def collect_actions(plugins: Sequence[Plugin], reserved: Collection[str]) -> dict[str, Action]:
    """Return all plugins' actions by name; none may be one of `reserved`.

    Raises:
        PluginRefused: an action would be there twice, or cannot be called with a peer and a payload.
    """
    actions: dict[str, Action] = {}
    for plugin in plugins:
        for name, handler in _ask(plugin, plugin.actions).items():
            if name in reserved:
                raise PluginRefused(f"plugin {plugin.name!r} brings the action {name!r}, which the broker itself has")
            if name in actions:
                raise PluginRefused(f"plugins {actions[name].plugin!r} and {plugin.name!r} both bring action {name!r}")
            try:
                actions[name] = Action(plugin.name, name, handler, _decoder_for(handler))
            except Exception as e:
                raise PluginRefused(f"plugin {plugin.name!r}, action {name!r}: {e}") from e
    return actions


def collect_routes(plugins: Sequence[Plugin]) -> tuple[Mounted, ...]:
    """Return all plugins' routes in order.

    Raises:
        PluginRefused: a route would be there twice.
    """
    routes: dict[tuple[str, str], Mounted] = {}
    for plugin in plugins:
        for route in _ask(plugin, plugin.routes):
            key = (route.method.upper(), route.path)
            if key in routes:
                what = " ".join(key)
                raise PluginRefused(f"plugins {routes[key].plugin!r} and {plugin.name!r} both bring the route {what}")
            routes[key] = Mounted(plugin.name, route)
    return tuple(routes.values())


def to_json(value: Any) -> bytes:
    """Encode what a plugin gave; `bytes` are JSON already, and looked at, since they are sent as they are.

    Raises:
        TypeError: msgspec cannot encode it.
        ValueError: these bytes are no JSON.
    """
    if not isinstance(value, bytes):
        return msgspec.json.encode(value)
    value.decode()
    msgspec.json.decode(value, type=msgspec.Raw)
    return value


def _ask(plugin: Plugin, method: Callable[[], Any]) -> Any:
    try:
        return method()
    except (Exception, SystemExit) as e:
        raise PluginRefused(f"plugin {plugin.name!r}: {method.__name__}() raised {type(e).__name__}: {e}") from e


def _decoder_for(handler: Callable[..., Any]) -> Callable[[bytes], Any]:
    """Return what turns a payload into the type that the handler's second parameter is annotated with."""
    # Evaluated, so that a plugin may postpone its annotations.
    parameters = list(inspect.signature(handler, eval_str=True).parameters.values())
    if len(parameters) != 2:  # noqa: PLR2004 - the peer and the payload
        raise TypeError("it must take (peer, payload)")
    wanted = parameters[1].annotation
    if wanted is bytes:
        return bytes
    return _checked(msgspec.json.Decoder(Any if wanted is inspect.Parameter.empty else wanted))


def _checked(decoder: msgspec.json.Decoder[Any]) -> Callable[[bytes], Any]:
    def decode(payload: bytes) -> Any:
        try:
            return decoder.decode(payload)
        except msgspec.DecodeError as e:
            text = str(e)
            place = _PLACE.search(text)
            field = "$.payload" + (place[1] if place else "")
            raise BrokerError("invalid_message", _PLACE.sub("", text), field=field) from None

    return decode
