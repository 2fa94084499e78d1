"""Makes docs/reference.md from the code: `python -m docs.reference` (or `make docs`)."""  # noqa: INP001 - a script

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from inspect import getdoc
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import attrs
import click
import msgspec
from aiohttp import web
from msgspec import Meta

from broker import __version__
from broker.cli import cli
from broker.config.profiles import AgentProfile, Deadlines
from broker.config.schema import descriptions
from broker.config.secret import Secret
from broker.config.settings import Settings
from broker.config.units import Unit
from broker.errors import CLOSE_REASONS, ERRORS, BrokerError, CloseCode, may_reconnect
from broker.hooks import HOOKS, Stats
from broker.messages import Record
from broker.plugins.metrics import Queues, broker_metrics
from broker.protocol import outgoing
from broker.protocol.native import NATIVE
from broker.web.actions import ACTIONS
from broker.web.api.endpoint import ENDPOINTS, PREFIX, Endpoint
from broker.web.api.templates import SUMMARIES
from broker.web.site import add_routes

__all__ = ["PAGE", "kinds_of_records", "render"]

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "reference.md"

_HEAD: Final = """\
# Reference

Made from the code by `make docs`; a test compares the two, so edit the code instead. What the entries mean together
stands in [protocol.md](protocol.md), [http.md](http.md), [configuration.md](configuration.md),
[terminal.md](terminal.md) and [plugins.md](plugins.md). The settings of the plugins that come with the broker have
[pages of their own](configuration.md#plugins).

- [Settings](#settings) · [Command line](#command-line)
- [Actions](#actions) · [Messages of the broker](#messages-of-the-broker) · [Records](#records)
- [Error codes](#error-codes) · [Close codes](#close-codes)
- [HTTP](#http) · [Hooks](#hooks) · [Metrics](#metrics)
"""
_WORDS: Final = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    bytes: "JSON",
    Secret: "secret",
}
_KIND: Final = re.compile(
    r"(?:session|variables|user|turn|message|thought|tool|plan|usage|approval|agent)\.[a-z_]+|activity|debug"
)


def render() -> str:
    """Return the whole page."""
    parts = (_settings, _commands, _actions, _messages, _records, _errors, _closes, _http, _hooks, _metrics)
    return "\n".join([_HEAD, *(f"{part()}\n" for part in parts)]).rstrip() + "\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _first_line(thing: Any) -> str:
    return re.sub(r" \(PROTOCOL [^)]*\)", "", (getdoc(thing) or "").partition("\n")[0])


# -- settings ---------------------------------------------------------------------------------------


def _settings() -> str:
    text = (
        "As an environment variable, `listen.port` is `BROKER_LISTEN__PORT`. How durations, sizes and secrets are "
        "written, and which settings are not in force yet, stands in [configuration.md](configuration.md)."
    )
    parts = ["## Settings", text]
    single = []
    for field in attrs.fields(Settings):
        if field.type is not None and attrs.has(field.type):
            parts += [f"### {field.name}", _first_line(field.type), _fields(field.type, f"{field.name}.")]
        else:
            single.append(field.name)
    for cls in get_args(AgentProfile):
        name = attrs.fields(cls).kind.default
        parts += [f"### Agent profile of kind {name}", _first_line(cls), _fields(cls, "agents.NAME.")]
    parts += ["### deadlines", _first_line(Deadlines), _fields(Deadlines, "agents.NAME.deadlines.")]
    parts += ["### At the top level", _fields(Settings, "", only=single)]
    return "\n\n".join(parts)


def _fields(cls: type, prefix: str, only: Sequence[str] | None = None) -> str:
    said = descriptions(cls)
    rows = [
        (f"`{prefix}{field.name}`", _kind(field.type), _default(field), said.get(field.name, ""))
        for field in attrs.fields(cls)
        if only is None or field.name in only
    ]
    return _table(("setting", "type", "default", "what it is"), rows)


def _kind(kind: Any) -> str:
    """Return a type in words."""
    base, marks = (get_args(kind)[0], get_args(kind)[1:]) if get_origin(kind) is Annotated else (kind, ())
    unit = next((mark for mark in marks if isinstance(mark, Unit)), None)
    words = unit.name if unit else _plain(base)
    return words + "".join(_bounds(mark, unit, base) for mark in marks if isinstance(mark, Meta))


def _plain(kind: Any) -> str:
    members = [member for member in get_args(kind) if member is not NoneType]
    if get_origin(kind) is Literal:
        return ", ".join(f"`{member}`" for member in members)
    if get_origin(kind) in {tuple, list}:
        return f"list of {_kind(members[0])}"
    if get_origin(kind) is dict:
        return "block, by name"
    if members:  # something or None
        return " or ".join(_kind(member) for member in members)
    return "any JSON" if kind is msgspec.Raw else _WORDS.get(kind, "block")


def _bounds(mark: Meta, unit: Unit | None, base: Any) -> str:
    def number(value: float) -> str:
        return unit.write(value) if unit else str(value)

    if mark.ge is not None:
        return f", {number(mark.ge)} to {number(mark.le)}" if mark.le is not None else f", at least {number(mark.ge)}"
    if mark.gt is not None:
        return ", more than 0"
    if mark.max_length is not None:
        least = f"{mark.min_length} to" if mark.min_length else "at most"
        return f", {least} {mark.max_length} {'characters' if base is str else 'entries'}"
    return f", `{mark.pattern.partition('$')[0]}$`" if mark.pattern else ""


def _default(field: Any) -> str:
    default = field.default
    if default is attrs.NOTHING:
        return "required"
    if hasattr(default, "factory"):
        made = default.factory()
        return "an `echo`" if made and isinstance(made, dict) else "" if attrs.has(type(made)) else "empty"
    unit = next((mark for mark in get_args(field.type) if isinstance(mark, Unit)), None)
    if unit is not None:
        return f"`{unit.write(default)}`"
    if default is None or default == ():
        return "none" if default is None else "empty"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


# -- command line -----------------------------------------------------------------------------------


def _commands() -> str:
    group = click.Context(cli, info_name="broker", terminal_width=100, **cli.context_settings)
    return "\n\n".join(["## Command line", *(f"```text\n{text}\n```" for text in _helps(group))])


def _helps(context: click.Context) -> Iterator[str]:
    """Yield the help of a command, and of those below it."""
    yield context.command.get_help(context)
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            if command is not None:
                yield from _helps(click.Context(command, context, info_name=name))


# -- protocol ---------------------------------------------------------------------------------------


def _actions() -> str:
    parts = ["## Actions", "What a client may request, and what the payload holds."]
    for row in ACTIONS.values():
        parts += [f"### `{row.name}`", SUMMARIES[row.name]]
        payload = row.decode.args[0] if isinstance(row.decode, partial) else None
        parts.append("Any JSON, or nothing." if payload is None else _payload(payload))
    return "\n\n".join(parts)


def _payload(cls: type, prefix: str = "") -> str:
    return _table(("field", "type", "default"), _payload_rows(cls, prefix))


def _payload_rows(cls: type, prefix: str) -> Iterator[Sequence[str]]:
    attrs.resolve_types(cls)
    for field in attrs.fields(cls):
        if attrs.has(field.type):
            yield from _payload_rows(field.type, f"{prefix}{field.name}.")
        else:
            default = "`null`" if isinstance(field.default, msgspec.Raw) else _default(field)
            null = " or null" if default == "required" and NoneType in get_args(field.type) else ""
            yield f"`{prefix}{field.name}`", _kind(field.type) + null, default


_AT: Final = 1_700_000_000_000
_FROM: Final = b'{"connection_id":"c1","user":"ann"}'
_AGENT: Final = b'{"connection_id":null,"user":null,"agent":"planner"}'
_SAMPLES: Final[tuple[outgoing.Outgoing, ...]] = (
    outgoing.Welcome("c1", "ann", NATIVE.name, f"actor-broker/{__version__}", "n1", 30.0, 1 << 20),
    outgoing.Response("1", b'{"text":"hi"}'),
    outgoing.Failure("1", BrokerError("queue_full", retry_after=1.0)),
    outgoing.SessionRecord(
        "s1", Record(12, _AT, "message.delta", b'{"message_id":"m1","role":"assistant","text":"hi"}', "t1")
    ),
    outgoing.CaughtUp("s1", 12),
    outgoing.SessionReset("s1", "e2", 12, 5),
    outgoing.SessionDetached("s1"),
    outgoing.RoomEvent("lobby", 7, "message", _FROM, b'{"text":"hi"}', _AT),
    outgoing.FeedbackAnswer("project:p1", "f1", _AGENT, b'{"thanks":true}', _AT),
    outgoing.RoomLeft("lobby"),
    outgoing.Restarting(2.5),
    outgoing.Broadcast(_FROM, b'{"text":"hi"}'),
    outgoing.Direct(_FROM, b'{"text":"hi"}'),
    outgoing.Tapped(
        b'{"at":"2026-11-21T01:24:40.539Z","what":"message","name":"room.publish","connection_id":"c1","user":"ann",'
        b'"room":"lobby","protocol":"broker.v1.json","size":98,"data":{"room":"lobby","data":{"text":"hi"}}}'
    ),
)


def _messages() -> str:
    parts = ["## Messages of the broker", f"One of each, as `{NATIVE.name}` writes it."]
    for sample in _SAMPLES:
        message = msgspec.json.decode(NATIVE.encode(sample))
        name = f"`{message['event']}`" if "event" in message else f"`{message['type']}`"
        title = "A record of a session" if isinstance(sample, outgoing.SessionRecord) else name
        shown = NATIVE.encode(sample).decode()
        parts.append(f"### {title}\n\n{_first_line(type(sample))}\n\n```json\n{shown}\n```")
    return "\n\n".join(parts)


_SESSIONS: Final = [ROOT / "actors/session.py", ROOT / "actors/watched.py"]


def kinds_of_records() -> dict[str, list[str]]:
    """Return each kind of record that the broker's code writes, and the files that do."""
    found: dict[str, list[str]] = {}
    for file in sorted({*ROOT.glob("broker/turns/*.py"), *ROOT.glob("broker/agents/**/*.py"), *_SESSIONS}):
        name = file.relative_to(ROOT).as_posix()
        for kind in sorted(set(_kinds_written(ast.parse(file.read_text())))):
            found.setdefault(kind, []).append(name)
    return {kind: sorted(found[kind]) for kind in sorted(found)}


def _kinds_written(tree: ast.AST) -> Iterator[str]:
    # What is written is an argument, a value of a table or one of two choices; what is compared or asked for is not,
    # and under the key "kind" stands what an `activity` would have been.
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            values = [value for key, value in pairs if not (isinstance(key, ast.Constant) and key.value == "kind")]
            yield from _constants(values)
            continue
        if isinstance(node, ast.Call):
            yield from _constants([*node.args, *(keyword.value for keyword in node.keywords)])
        elif isinstance(node, ast.IfExp):
            yield from _constants([node.body, node.orelse])
        yield from _kinds_written(node)


def _constants(values: Iterable[ast.expr]) -> Iterator[str]:
    for value in values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and _KIND.fullmatch(value.value):
            yield value.value


def _records() -> str:
    rows = [(f"`{kind}`", ", ".join(f"`{file}`" for file in files)) for kind, files in kinds_of_records().items()]
    text = (
        "What a session's log holds, and where it comes from. `vendor.*` comes on top: what an agent reports and the "
        "broker has no word for. What each holds stands in [protocol.md](protocol.md#3a-records)."
    )
    return "\n\n".join(["## Records", text, _table(("kind", "comes from"), rows)])


def _errors() -> str:
    rows = [
        (
            *(f"`{row.code}`", row.category, "yes" if row.retryable else "no", str(row.status.value)),
            *(row.sentence, row.recovery),
        )
        for row in ERRORS.values()
    ]
    heads = ("code", "category", "retryable", "HTTP status", "sentence", "recovery")
    return "\n\n".join(["## Error codes", _table(heads, rows)])


def _closes() -> str:
    rows = [(str(int(code)), CLOSE_REASONS[code], "yes" if may_reconnect(code) else "no") for code in CloseCode]
    return "\n\n".join(["## Close codes", _table(("code", "reason", "may come back"), rows)])


# -- the rest ---------------------------------------------------------------------------------------


def _http() -> str:
    rows = [
        (f"`{row.method} {PREFIX}{row.path}`", row.summary, _taken(row), f"`{row.operation}`", _shown(row))
        for row in sorted(ENDPOINTS, key=lambda row: (row.path, row.method))
    ]
    text = (
        "What plugins are asked for, before anything is done, is the permission. Routes of plugins come on top. How "
        "requests, answers and errors look stands in [http.md](http.md), and for programs in "
        "`GET /api/v1/openapi.json`; what the socket says, in `GET /api/v1/asyncapi.json`."
    )
    others = "For everybody, without a token: " + ", ".join(f"`GET {path}`" for path in _open_paths()) + "."
    sockets = "Sockets: `GET /ws` and `GET /ws/FORMAT` for clients, `GET /agent` for agents that dial in."
    heads = ("endpoint", "what it does", "takes", "permission", "scope")
    return "\n\n".join(["## HTTP", text, _table(heads, rows), others, sockets])


def _taken(row: Endpoint) -> str:
    return "any JSON" if row.payload is msgspec.Raw else " ".join(f"`{name}`" for name in row.fields)


def _shown(row: Endpoint) -> str:
    """Return what the token that is shown has to have."""
    if row.public:
        return "no token"
    return "any token" if row.scope is None else f"`{row.scope}`"


def _open_paths() -> list[str]:
    """Return the paths that are answered by no endpoint of the table."""
    app = web.Application()
    add_routes(app)
    paths = {route.resource.canonical for route in app.router.routes() if route.resource is not None}
    return sorted(path for path in paths - {PREFIX + row.path for row in ENDPOINTS} if "/static/" not in path)


def _hooks() -> str:
    rows = [
        (f"[`{hook.name}`](plugins.md#{hook.name})", hook.kind, ", ".join(hook.parameters), hook.summary)
        for hook in HOOKS.values()
    ]
    return "\n\n".join(["## Hooks", _table(("hook", "kind", "given", "what it is for"), rows)])


@attrs.frozen
class _Idle:
    """A broker in which nothing has happened."""

    version: str = __version__
    stats: Stats = attrs.Factory(Stats)


def _metrics() -> str:
    broker: Any = _Idle()
    suffixes = {"counter": "_total", "info": "_info"}
    rows = [
        (f"`{family.name}{suffixes.get(family.type, '')}`", family.type, family.documentation)
        for family in broker_metrics(broker, Queues())
    ]
    text = "Served by the plugin `metrics`, beside the process's own (`process_*`, `python_gc_*`)."
    return "\n\n".join(["## Metrics", text, _table(("metric", "type", "what it counts"), rows)])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
