"""What the broker is made of, over HTTP: its agents, its plugins, its settings."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final, Literal, NotRequired, TypedDict

from broker.clock import rfc3339
from broker.stats import Agents, Profile
from broker.web.api.answers import Time
from broker.web.api.endpoint import Call, Nothing, endpoint
from broker.web.services import Services

NOT_ITS_FAULT: Final = "cancelled"
"""The outcome that says nothing of an agent: somebody changed his mind."""


class Shares(TypedDict):
    """Seconds within which half, and 95 of a hundred, were."""

    p50: float | None
    p95: float | None


class Trouble(TypedDict):
    """Why the newest turn ended badly that did."""

    at: Time
    message: str


class AgentProfile(TypedDict):
    """An agent profile, and how it fares since the broker's start.

    `state` is `busy` if it has turns, `ready` if agents are linked that have none, `idle` if one is made when a turn
    comes, `down` if there is none. `success_rate` is the share of `completed` among what nobody cancelled.
    """

    name: str
    kind: str
    default: bool
    state: Literal["ready", "busy", "down", "idle"]
    linked: int | None
    capacity: int | None
    in_flight: int
    queued: int
    outcomes: dict[str, int]
    success_rate: float | None
    first_token: Shares | None
    restarts: int
    last_error: Trouble | None


class AgentProfiles(TypedDict):
    """The agent profiles, as configured."""

    agents: list[AgentProfile]


class PluginRow(TypedDict):
    """A plugin that is loaded, or could be; `settings` are those of one that is, secrets hidden."""

    name: str
    status: str
    version: str | None
    source: str | None
    description: str | None
    trouble: str | None
    errors: int
    blocked: int
    hooks: list[str]
    actions: list[str]
    routes: list[str]
    settings: NotRequired[Any]


class PluginRows(TypedDict):
    """The plugins, in the order in which they are called; then those that are not loaded."""

    plugins: list[PluginRow]


class Configuration(TypedDict):
    """The settings in force, secrets hidden, and where each was written: by its dotted name, `default` if nowhere.

    `waiting` names those that were changed since, and that a restart will put in force.
    """

    file: str | None
    settings: dict[str, Any]
    origins: dict[str, str]
    waiting: list[str]


@endpoint("GET", "/agents", "agents", answer=AgentProfiles)
async def list_agents(call: Call, _: Nothing) -> Any:
    """Show each agent profile: whether it is there, what it has to do, and how its turns have ended."""
    services = call.services
    now = services.stats.agents()
    profiles = services.stats.profiles
    return {"agents": [_agent(services, name, now[name], profiles.get(name) or Profile()) for name in now]}


def _agent(services: Services, name: str, agents: Agents, profile: Profile) -> AgentProfile:
    settings = services.settings
    judged = profile.outcomes.total() - profile.outcomes[NOT_ITS_FAULT]
    return {
        "name": name,
        "kind": settings.agents[name].kind,
        "default": name == settings.default_agent,
        "state": _state(agents, profile),
        "linked": agents.linked,
        "capacity": agents.capacity,
        "in_flight": profile.in_flight,
        "queued": profile.queued,
        "outcomes": dict(profile.outcomes),
        "success_rate": profile.outcomes["completed"] / judged if judged else None,
        "first_token": _shares(profile),
        "restarts": agents.restarts,
        "last_error": None if profile.trouble is None else _trouble(*profile.trouble),
    }


def _state(agents: Agents, profile: Profile) -> Literal["ready", "busy", "down", "idle"]:
    if agents.capacity == 0:
        return "down"
    if profile.in_flight:
        return "busy"
    return "idle" if agents.linked is None else "ready"


def _shares(profile: Profile) -> Shares | None:
    seen = profile.first_token_seconds
    return {"p50": seen.quantile(0.5), "p95": seen.quantile(0.95)} if sum(seen.counts) else None


def _trouble(at: int, message: str) -> Trouble:
    return {"at": rfc3339(at), "message": message}


@endpoint("GET", "/plugins", "plugins", answer=PluginRows)
async def list_plugins(call: Call, _: Nothing) -> Any:
    """Show each plugin: how it fares, and what it brings."""
    hooks = call.services.hooks
    actions, routes = defaultdict(list), defaultdict(list)
    for action in hooks.actions.values():
        actions[action.plugin].append(action.name)
    for mounted in hooks.routes:
        routes[mounted.plugin].append(f"{mounted.route.method} {mounted.route.path}")
    rows = call.services.plugin_rows()
    return {"plugins": [_plugin(row, actions[row["name"]], routes[row["name"]]) for row in rows]}


def _plugin(row: Mapping[str, Any], actions: list[str], routes: list[str]) -> PluginRow:
    shown: PluginRow = {
        "name": row["name"],
        "status": row["status"],
        "version": row["version"],
        "source": row["source"],
        "description": row["about"],
        "trouble": row["trouble"],
        "errors": row["errors"],
        "blocked": row["blocked"],
        "hooks": row["hooks"],
        "actions": sorted(actions),
        "routes": routes,
    }
    if row["settings"] is not None:
        shown["settings"] = row["settings"]
    return shown


@endpoint("GET", "/configuration", "configuration", answer=Configuration)
async def show_configuration(call: Call, _: Nothing) -> Any:
    """Show the settings in force, secrets hidden, and where each was written."""
    return call.services.configuration()
