"""How the broker fares, and where a message went, over HTTP."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from broker import __version__
from broker.protocol.payloads import Trace
from broker.stats import Histogram
from broker.web.api.answers import Time
from broker.web.api.endpoint import Call, Nothing, endpoint
from broker.web.tracing import shown, trace_data

__all__ = ["Traced"]


class Step(TypedDict):
    """How far a message came, and when."""

    at: Time
    where: str
    what: str
    reason: NotRequired[str]


class Stopped(TypedDict):
    """Where it is now, and why."""

    where: str
    what: str
    reason: str | None


class Traced(TypedDict):
    """The way of a message."""

    id: str
    steps: list[Step]
    ended: bool
    stopped: Stopped | None
    turn_id: NotRequired[str]
    session_id: NotRequired[str]
    client_msg_id: NotRequired[str]
    left_out: NotRequired[int]


class Traffic(TypedDict):
    """What went over sockets since the start."""

    connections: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int


class Memory(TypedDict):
    """Bytes of memory of the process, and for each connection what came on top since the broker listens."""

    process: int
    per_connection: int


class Responses(TypedDict):
    """How long requests took to be answered: seconds within which half, 95 and 99 of a hundred were; none yet: null."""

    count: int
    p50: float | None
    p95: float | None
    p99: float | None


class PluginState(TypedDict):
    """A plugin, and how it fares: `trouble` is what keeps it from its work."""

    name: str
    status: str
    version: str | None
    trouble: str | None
    errors: int
    blocked: int


class Stats(TypedDict):
    """How the broker fares; counts are since its start, `trouble` is why it wants no new work."""

    version: str
    node: str
    uptime: float
    trouble: str | None
    connections: int
    sessions: int
    rooms: int
    total: Traffic
    turns: dict[str, int]
    errors: dict[str, int]
    closes: dict[str, int]
    handshakes: dict[str, int]
    requests: dict[str, int]
    response_seconds: Responses
    memory: Memory
    records: int
    tickets: int
    plugins: list[PluginState]


@endpoint("GET", "/trace/{id}", "trace", Trace, answer=Traced, resource="id", errors=("not_found",))
async def trace(call: Call, wanted: Trace) -> Any:
    """Tell where a message went, by the id of its turn, its own, that of an internal error, or its session's."""
    return trace_data(await shown(call.services, wanted.id, call.by), wanted.id)


@endpoint("GET", "/stats", "stats", Nothing, answer=Stats)
async def show_stats(call: Call, _: Nothing) -> Stats:
    """Count what the broker has done since its start."""
    services = call.services
    stats = services.stats
    return {
        "version": __version__,
        "node": services.node,
        "uptime": round(services.clock.monotonic() - stats.started_at, 3),
        "trouble": services.trouble(),
        "connections": stats.connections,
        "sessions": stats.sessions,
        "rooms": stats.rooms,
        "total": {
            "connections": stats.connections_total,
            "messages_in": stats.messages_in,
            "messages_out": stats.messages_out,
            "bytes_in": stats.bytes_in,
            "bytes_out": stats.bytes_out,
        },
        "turns": {"accepted": stats.turns_accepted, **stats.turns_ended},
        "errors": dict(stats.errors),
        "closes": {str(int(code)): count for code, count in stats.closes.items()},
        "handshakes": dict(stats.handshakes),
        "requests": dict(stats.requests),
        "response_seconds": _responses(stats.request_seconds),
        "memory": {"process": int(stats.memory()), "per_connection": int(stats.connection_memory())},
        "records": stats.records,
        "tickets": len(services.tickets),
        "plugins": [_plugin_state(row) for row in services.plugin_rows() if row["started"]],
    }


def _responses(seen: Histogram) -> Responses:
    return {
        "count": sum(seen.counts),
        "p50": seen.quantile(0.5),
        "p95": seen.quantile(0.95),
        "p99": seen.quantile(0.99),
    }


def _plugin_state(row: Mapping[str, Any]) -> PluginState:
    return {
        "name": row["name"],
        "status": row["status"],
        "version": row["version"],
        "trouble": row["trouble"],
        "errors": row["errors"],
        "blocked": row["blocked"],
    }
