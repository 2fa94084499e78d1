"""What the broker says of its own interfaces: OpenAPI for HTTP, AsyncAPI for sockets."""

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator, ValidationError
from openapi_spec_validator import validate

from broker.app import App
from broker.errors import ERRORS, CloseCode
from broker.web.actions import ACTIONS
from broker.web.api.asyncapi import asyncapi
from broker.web.api.endpoint import ENDPOINTS, PREFIX
from broker.web.api.openapi import openapi

REFERENCE = Path(__file__).parents[3] / "docs/reference.md"
Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]


@pytest.fixture
def http(app: App) -> Any:
    """The OpenAPI document."""
    return json.loads(openapi(app.services))


@pytest.fixture
def socket(app: App) -> Any:
    """The AsyncAPI document."""
    return json.loads(asyncapi(app.services))


def references(value: Any) -> Iterator[str]:
    """Yield all references in a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def follow(document: Any, reference: str) -> Any:
    for name in reference.removeprefix("#/").split("/"):
        document = document[name.replace("~1", "/").replace("~0", "~")]
    return document


def test_the_http_api_is_valid_openapi(http: Any) -> None:
    validate(http)
    assert http["openapi"] == "3.1.0"


def test_the_protocol_is_valid_asyncapi(socket: Any, node_tools: Path) -> None:
    """Judged by the schema that the standard's own authors publish."""
    schema = json.loads((node_tools / "@asyncapi/specs/schemas/3.0.0.json").read_text())
    judge = Draft7Validator(schema)
    assert [error.message for error in judge.iter_errors(socket)] == []
    socket["operations"]["sideways"] = {"action": "shout"}
    assert not judge.is_valid(socket)


def test_every_endpoint_is_described_once(http: Any) -> None:
    described = {(method.upper(), path) for path, item in http["paths"].items() for method in item}
    assert described == {(row.method, PREFIX + row.path) for row in ENDPOINTS}
    operations = [operation for item in http["paths"].values() for operation in item.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids)) == len(ENDPOINTS)
    assert all(operation["summary"].endswith(".") for operation in operations)
    tags = {tag for operation in operations for tag in operation["tags"]}
    assert tags == {tag["name"] for tag in http["tags"]}


def test_a_body_is_described_without_what_the_path_says(http: Any) -> None:
    turn = http["paths"]["/api/v1/sessions/{session_id}/turns"]["post"]
    schema = turn["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {"content", "client_msg_id", "if_busy", "metadata", "retry_of"}
    assert (schema["required"], schema["additionalProperties"]) == (["content"], False)
    assert [one["name"] for one in turn["parameters"]] == ["session_id", "Idempotency-Key"]
    assert set(turn["responses"]) >= {"202", "400", "401", "403", "404", "409", "413", "415", "422", "429", "503"}


async def test_a_token_is_asked_for_where_one_is_needed(start: Start, people: dict[str, Any], app: App) -> None:
    assert json.loads(openapi(app.services))["security"] == [{"bearer": []}, {}]
    guarded = await start(**people)
    assert json.loads(openapi(guarded.services))["security"] == [{"bearer": []}]


@pytest.mark.parametrize("name", ["http", "socket"])
def test_every_reference_leads_somewhere_and_every_schema_is_one(name: str, request: pytest.FixtureRequest) -> None:
    document = request.getfixturevalue(name)
    found = list(references(document))
    assert len(found) > 50
    for reference in found:
        assert isinstance(follow(document, reference), dict), reference
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


# -- sockets -----------------------------------------------------------------------------------------


def test_every_action_code_and_close_is_described(socket: Any) -> None:
    assert socket["asyncapi"] == "3.0.0"
    assert set(socket["operations"]) == {*ACTIONS, "notify"}
    assert [row["code"] for row in socket["x-error-codes"]] == list(ERRORS)
    channel = socket["channels"]["socket"]
    assert [row["code"] for row in channel["x-close-codes"]] == [int(code) for code in CloseCode]
    assert set(channel["messages"]) == set(socket["components"]["messages"])


def test_every_kind_of_record_and_message_is_described(socket: Any) -> None:
    """docs/reference.md is made from the code and has them all."""
    page = REFERENCE.read_text()
    records = re.findall(r"^\| `([a-z._]+)` \|", page.partition("\n## Records")[2].partition("\n## ")[0], re.MULTILINE)
    event = socket["components"]["messages"]["record"]["payload"]["properties"]["event"]
    assert set(event["anyOf"][0]["enum"]) == set(records)
    part = page.partition("\n## Messages of the broker")[2].partition("\n## ")[0]
    messages = socket["components"]["messages"].values()
    events = {message["payload"]["properties"].get("event", {}).get("const") for message in messages}
    told = set(re.findall(r'"notification","event":"([a-z._]+)"', part)) - set(records) - {"message"}
    assert told - events == set()
    assert "welcome" in told


def test_an_operation_has_what_the_standard_asks_for(socket: Any) -> None:
    for operation in socket["operations"].values():
        assert operation["action"] in {"send", "receive"}
        assert follow(socket, operation["channel"]["$ref"])["address"] == "/ws"
        for reference in operation["messages"]:
            assert reference["$ref"].startswith("#/channels/socket/messages/")


async def test_what_is_said_over_a_socket_is_as_described(app: App, dial: Dial, socket: Any) -> None:
    client = await dial(app.port)
    said: list[tuple[str, Any]] = []
    for action, payload in (
        ("session.create", {"session_id": "s"}),
        ("session.list", {}),
        ("turn.start", {"session_id": "s", "client_msg_id": "1", "content": "hello"}),
        ("room.join", {"room": "lobby"}),
        ("room.publish", {"room": "lobby", "data": 1}),
        ("room.history", {"room": "lobby"}),
        ("broadcast", {"a": 1}),
        ("send", {"to": {"connections": [client.welcome["connection_id"]]}, "data": 1}),
    ):
        check(socket, action, {"id": "1", "type": "request", "action": action, "payload": payload})
        said.append((f"{action}.response", await client.ask(action, payload)))
    said.append(("error", await client.ask("no.such")))
    said += [("record", record) for record in await client.records("turn.ended")]
    said += [(name, await client.event(event)) for name, event in NOTIFICATIONS.items()]
    for name, message in said:
        check(socket, name, message)
    with pytest.raises(ValidationError, match="'seq' is a required property"):
        check(socket, "record", {name: value for name, value in said[9][1].items() if name != "seq"})


NOTIFICATIONS = {"room.event": "room.event", "broadcast.notification": "broadcast", "message": "message"}


def check(document: Any, name: str, message: Any) -> None:
    """Compare a message with its description."""
    schema = {**document["components"]["messages"][name]["payload"], "components": document["components"]}
    Draft202012Validator(schema).validate(json.loads(json.dumps(message)))
