"""What `validation` refuses and where it says the mistake is, and that neither schemas nor messages make it slow."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import config
from broker.errors import BrokerError
from broker.extensions.loader import load
from broker.facade import Facade
from broker.hooks import Inbound, Peer, Stats
from broker.messages import Principal
from broker.plugins.validation import Schema
from broker.testing import ManualClock

MIB = 1 << 20
PUBLISH = {
    "type": "object",
    "properties": {
        "room": {"type": "string"},
        "data": {
            "type": "object",
            "properties": {"title": {"type": "string", "maxLength": 5}, "tags": {"items": {"enum": ["a", "b"]}}},
            "required": ["title"],
            "additionalProperties": False,
        },
    },
    "required": ["data"],
}


class Validated:
    """The plugin as the loader makes it."""

    def __init__(self, folder: Path, block: dict[str, Any]) -> None:
        self._file = folder / "config.yaml"
        loaded = self._read(block)
        self.plugins = load(loaded.settings, loaded.file)
        assert self.plugins.problems == []
        self.plugins.create(Facade(Stats(), ManualClock()))
        self.plugin: Any = self.plugins.instances[0]

    def _read(self, block: dict[str, Any]) -> config.Loaded:
        self._file.write_text(json.dumps({"plugins": {"validation": block}}, indent=1))
        return config.load(self._file, {}, {})

    def read_again(self, **block: Any) -> Any:
        """Return the settings as at SIGHUP."""
        return self.plugins.check(self._read(block).settings)["validation"]

    def take(
        self, payload: Any, action: str = "room.publish", protocol: str = "broker.v1.json", kind: str = "", **whole: Any
    ) -> None:
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        text = raw if protocol == "http" else json.dumps(whole).encode()
        peer = Peer("c1", Principal("ann"), "127.0.0.1", protocol)
        self.plugin.on_message(Inbound(peer, action, len(text), kind or action, raw, text))

    def refused(self, *args: Any, **kwargs: Any) -> BrokerError:
        with pytest.raises(BrokerError) as refused:
            self.take(*args, **kwargs)
        return refused.value


Make = Callable[..., Validated]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    return lambda **block: Validated(tmp_path, block)


# -- what is let in ---------------------------------------------------------------------------------

MISTAKES = [
    ({}, "$.payload", '"data" is a required property.', "#/required"),
    ({"data": 5}, "$.payload.data", 'It is not of type "object".', "#/properties/data/type"),
    ({"data": {}}, "$.payload.data", '"title" is a required property.', "#/properties/data/required"),
    (
        {"data": {"title": "x" * 100_000}},
        "$.payload",
        "It does not fit the schema.",
        "#",
    ),
    (
        {"data": {"title": "secret"}},
        "$.payload.data.title",
        "It is longer than 5 characters.",
        "#/properties/data/properties/title/maxLength",
    ),
    (
        {"data": {"title": "", "tags": ["a", "secret"]}},
        "$.payload.data.tags[1]",
        'It is not one of "a" or "b".',
        "#/properties/data/properties/tags/items/enum",
    ),
    (
        {"data": {"title": "", "e" * 1000: 1}},
        "$.payload.data." + "e" * 64,
        "There is no place for this.",
        "#/properties/data/additionalProperties",
    ),
]


@pytest.mark.parametrize(("payload", "field", "message", "pointer"), MISTAKES, ids=[row[3] for row in MISTAKES])
def test_what_does_not_fit_is_refused_with_its_place(
    made: Make, payload: Any, field: str, message: str, pointer: str
) -> None:
    refused = made(actions={"room.publish": PUBLISH}).refused(payload)
    hint = f"the schema of room.publish, {pointer}"
    assert (refused.code, refused.field, refused.message, refused.hint) == ("invalid_message", field, message, hint)
    assert "secret" not in str(refused.as_data())
    assert len(json.dumps(refused.as_data())) < 1000


def test_what_fits_passes_and_what_has_no_schema_too(made: Make) -> None:
    opened = made(actions={"room.publish": PUBLISH})
    opened.take({"room": "lobby", "data": {"title": "hello", "tags": ["a", "b", "a"]}})
    opened.take({"anything": 1}, "echo")


def test_others_are_refused_where_that_is_set(made: Make) -> None:
    opened = made(actions={"room.publish": PUBLISH, "ping": True}, others="refuse")
    opened.take({}, "ping")
    assert opened.refused({}, "echo").code == "forbidden"
    opened.take(b"", "", kind="")  # cannot be read, which is refused elsewhere


def test_the_types_of_another_format_are_looked_at_whole_and_their_action_too(made: Make) -> None:
    feedback = {"properties": {"id": {"type": "string"}, "data": {"minProperties": 1}}, "required": ["id"]}
    opened = made(
        types={"project.v1.json": {"user_feedback": feedback}},
        actions={"project.feedback": {"properties": {"data": {"maxProperties": 1}}}},
    )

    said = ("project.feedback", "project.v1.json", "user_feedback")
    opened.take({"data": {"a": 1}}, *said, id="1", data={"a": 1})
    assert opened.refused({"data": {"a": 1}}, *said, data={"a": 1}).field == "$"
    assert opened.refused({"data": {}}, *said, id="1", data={}).field == "$.data"
    assert opened.refused({"data": {"a": 1, "b": 2}}, *said, id="1", data={"a": 1, "b": 2}).field == "$.payload.data"
    opened.take({"data": {}}, "project.feedback")  # natively: no such type


def test_a_request_is_looked_at_by_the_schema_of_its_body_if_there_is_one(made: Make) -> None:
    opened = made(
        actions={"room.publish": {"required": ["room"]}, "room.history": {"required": ["room"]}},
        types={"http": {"room.publish": {"required": ["data"]}, "room.history": True}},
    )
    opened.take({"data": 1}, protocol="http")
    assert opened.refused({"room": 1}, protocol="http").field == "$"
    assert opened.refused(b"", protocol="http").code == "invalid_message"
    made(actions={"room.publish": {"type": "object"}}).take(b"", protocol="http")
    opened.take(b"", "room.history", "http")
    assert opened.refused({"data": 1}).hint == "the schema of room.publish, #/required"


@pytest.mark.parametrize("body", [b"{", b'"\\ud800"', b"\xff", b"[" * 100_000, b'{"a":1}x'])
def test_a_body_that_cannot_be_read_is_refused(made: Make, body: bytes) -> None:
    assert made(actions={"room.publish": {"type": "object"}}).refused(body, protocol="http").code == "invalid_json"


# -- places -----------------------------------------------------------------------------------------

RICH = {
    "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}, "a/b~": {"type": "string"}}}},
    "properties": {
        "list": {"prefixItems": [{"type": "string"}], "items": {"type": "integer"}},
        "both": {"allOf": [{"minLength": 2}, {"pattern": "^a"}]},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "tree": {"$ref": "#/$defs/node"},
        "when": {"format": "date-time"},
    },
    "patternProperties": {"^x-": {"type": "string"}},
    "additionalProperties": {"type": "integer"},
}
PLACES = [
    ({"list": [1]}, "$.list[0]", "/properties/list/prefixItems/0/type"),
    ({"list": ["a", 1, "b"]}, "$.list[2]", "/properties/list/items/type"),
    ({"both": "ba"}, "$.both", "/properties/both/allOf/1/pattern"),
    ({"either": 1}, "$.either", "/properties/either"),
    ({"tree": {"next": {"next": {"a/b~": 1}}}}, "$.tree.next.next.a/b~", "/$defs/node/properties/a~1b~0/type"),
    ({"when": "today"}, "$.when", "/properties/when/format"),
    ({"x-a": 1}, "$", ""),
]


@pytest.mark.parametrize(("value", "field", "pointer"), PLACES, ids=[row[1] for row in PLACES])
def test_the_place_is_found_through_every_kind_of_part(value: Any, field: str, pointer: str) -> None:
    with pytest.raises(BrokerError) as refused:
        Schema("it", RICH).check(json.dumps(value).encode(), "$")
    assert (refused.value.field, refused.value.hint) == (field, f"the schema of it, #{pointer}")


def test_a_place_far_down_is_cut() -> None:
    deep: Any = 1
    for _ in range(12):
        deep = {"n" * 60: deep}
    with pytest.raises(BrokerError) as refused:
        Schema("it", {"type": "object", "additionalProperties": {"$ref": "#"}}).check(json.dumps(deep).encode(), "$")
    assert refused.value.message == 'It is not of type "object".'
    assert len(refused.value.field or "") == 256


def test_lists_of_items_of_older_drafts_are_gone_through_too() -> None:
    draft7 = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{}], "additionalItems": {"type": "null"}}
    with pytest.raises(BrokerError) as refused:
        Schema("it", draft7).check(b"[1, 2]", "$")
    assert refused.value.field == "$[1]"


def refusal(schema: Schema, text: bytes) -> str | None:
    try:
        schema.check(text, "$")
    except BrokerError as e:
        return e.code
    return None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["list", "both", "either", "tree", "next", "a/b~", "x-a", "n"]), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_it_says_of_any_value_what_another_library_says(value: Any) -> None:
    schema = {**RICH, "properties": {**RICH["properties"], "when": True}}  # type: ignore[dict-item]  # it is a mapping
    assert refusal(Schema("it", schema), json.dumps(value).encode()) in {None, "invalid_message"}
    assert (refusal(Schema("it", schema), json.dumps(value).encode()) is None) == jsonschema.Draft202012Validator(
        schema
    ).is_valid(value)


# -- nothing makes it slow --------------------------------------------------------------------------

INTS = b"[" + b"1," * (MIB // 2 - 2) + b"1]"
EITHER = {"$defs": {"n": {"anyOf": [{"items": {"$ref": "#/$defs/n"}, "minItems": n, "type": "array"} for n in (1, 0)]}}}
SLOW: list[tuple[Any, bytes]] = [
    ({"pattern": "^(a+)+$"}, b'"' + b"a" * (MIB - 3) + b'!"'),
    ({"items": {"pattern": "^(a|a?)+b$"}}, b"[" + b'"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",' * 20_000 + b'""]'),
    ({"patternProperties": {"^(x+x+)+y$": False}}, json.dumps({"x" * 50 + str(n): 1 for n in range(10_000)}).encode()),
    ({"anyOf": [{"items": {"type": "string"}}, {"items": {"type": "object"}}]}, INTS),
    ({"anyOf": [{"items": {"type": "string"}}, {"items": {"type": "object"}}]}, b"[" + INTS[-32_766:]),
    ({**EITHER, "$ref": "#/$defs/n"}, b"[" * 60 + b"1" + b"]" * 60),
    ({"uniqueItems": True}, b"[" + b",".join(b'{"a":%d}' % n for n in range(80_000)) + b"]"),
    ({"contains": {"type": "string"}}, INTS),
    ({"$ref": "#"}, b"[" * 60 + b"]" * 60),
    ({"anyOf": [{"$ref": "#"}, {"type": "string"}]}, b"1"),
]


@pytest.mark.parametrize(("schema", "text"), SLOW, ids=range(len(SLOW)))
def test_no_message_makes_a_schema_slow(schema: Any, text: bytes) -> None:
    """The last but one of alternatives alone takes a list of all mistakes ten seconds."""
    compiled = Schema("it", schema)
    began = time.process_time()
    assert refusal(compiled, text) in {None, "invalid_message"}
    assert time.process_time() - began < 1.0


# -- settings ---------------------------------------------------------------------------------------


def test_a_schema_comes_from_a_file_too_and_is_read_again(
    made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "publish.json").write_text(json.dumps(PUBLISH))
    opened = made(actions={"room.publish": "publish.json"})
    assert opened.refused({}).field == "$.payload"
    before = opened.plugin.settings
    assert opened.read_again(actions={"room.publish": "publish.json"}) == before
    (tmp_path / "publish.json").write_text("true")
    after = opened.read_again(actions={"room.publish": "publish.json"})
    assert after != before, "so that it is taken over"
    assert opened.plugin.reload(after)
    opened.take({})


BAD = [
    ({"actions": {"room.publish": {"type": "strin"}}}, "actions.room.publish: /type:"),
    ({"actions": {"a": {"properties": {"b": {"maxLength": "x"}}}}}, "actions.a: /properties/b/maxLength:"),
    ({"actions": {"a": {"properties": {"b": {"requird": []}}}}}, "/properties/b/requird: no keyword; did you mean"),
    ({"actions": {"a": {"format": "emial"}}}, "Unknown format"),
    ({"actions": {"a": {"pattern": "(?=b)"}}}, "actions.a: /pattern:"),
    ({"actions": {"a": {"$ref": "http://127.0.0.1:9/a.json"}}}, "actions.a:"),
    ({"actions": {"a": {"$ref": "file:///etc/hostname"}}}, "actions.a:"),
    ({"actions": {"a": {"$ref": "other.json"}}}, "actions.a:"),
    ({"actions": {"a": {"$ref": "#/$defs/none"}}}, "does not exist"),
    ({"actions": {"a": {"$schema": "https://example.org/mine"}}}, "meta-schema"),
    ({"actions": {"a": 5}}, "actions.a:"),
    ({"actions": {"a": "none.json"}}, "none.json cannot be read"),
    ({"actions": {"a": "config.yaml"}}, "is not JSON"),
    ({"types": {"project.v1.json": {"ping": {"type": 5}}}}, "types.project.v1.json.ping: /type:"),
    ({"actions": {"a": {"type": 5}, "b": {"type": 6}}}, "actions.b"),
    ({"others": "maybe"}, "allow, refuse"),
]


@pytest.mark.parametrize(("block", "mistake"), BAD, ids=[row[1] for row in BAD])
def test_mistakes_are_told_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: dict[str, Any], mistake: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("# a comment\n" + json.dumps({"plugins": {"validation": block}}))
    loaded = config.load(tmp_path / "config.yaml", {}, {})
    told = "\n".join(f"{problem.path} {problem.message}" for problem in load(loaded.settings, loaded.file).problems)
    assert mistake in told
    assert "plugins.validation" in told


def test_no_file_is_read_that_a_schema_refers_to(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("true")
    with pytest.raises(ValueError, match=r"other\.json"):
        Schema("it", {"$ref": (tmp_path / "other.json").as_uri()})


def test_own_words_beside_the_keywords_are_let_be(made: Make) -> None:
    made(actions={"a": {"x-typ": 1, "properties": {"typ": True, "requird": True}, "description": "d", "vendor": 1}})
