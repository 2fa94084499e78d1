"""What `check-config --print` and `config-schema` say is what the broker reads."""

import json
import re
from pathlib import Path

import attrs
import pytest
from ruamel.yaml import YAML

from broker.config import Settings, load
from broker.config.profiles import AcpProfile, Deadlines, EchoProfile
from broker.config.schema import descriptions, json_schema
from broker.config.show import as_data, as_yaml
from broker.extensions.loader import load as load_plugins

SAMPLE = Path(__file__).parents[2] / "config.yaml"
CLASSES = [Settings, AcpProfile, EchoProfile, Deadlines] + [
    field.type for field in attrs.fields(Settings) if isinstance(field.type, type) and attrs.has(field.type)
]


OFFERED = {file.stem for file in (SAMPLE.parent / "plugins").iterdir() if not file.stem.startswith("_")} - {"metrics"}


def test_the_sample_loads_and_shows_the_defaults():
    """But for the plugin that everybody wants, and an echo slow enough to be seen streaming."""
    settings = load(SAMPLE, {}, {}).settings
    assert list(settings.plugins) == ["metrics"]
    assert settings.agents == {"echo": EchoProfile(delay=0.04)}
    assert attrs.evolve(settings, plugins={}, agents=Settings().agents) == Settings()


def test_the_sample_names_every_setting():
    loaded = load(SAMPLE, {}, {})
    left_out = [line for line in as_yaml(loaded) if line.endswith("# default")]
    assert left_out == []


def test_what_is_commented_out_of_the_sample_is_right_and_shows_the_plugins_defaults(tmp_path: Path):
    text = SAMPLE.read_text()
    block = text[text.index("plugins: ") : text.index("\nlog:")].replace("metrics: {}", "metrics:")
    (tmp_path / "config.yaml").write_text(re.sub(r"^  # ", "  ", block, flags=re.MULTILINE))
    for name in ("access", "auth", "backend", "metrics"):
        (tmp_path / f"{name}.{'token' if name == 'metrics' else 'key'}").write_text(f"{name}-" + "0123456789" * 4)
    loaded = load(tmp_path / "config.yaml", {}, {})
    plugins = load_plugins(loaded.settings, loaded.file)
    assert plugins.problems == []
    shown = {record.name: record.settings for record in plugins.records if record.plugin is not None}
    assert shown.keys() == loaded.settings.plugins.keys() == {"metrics", *OFFERED}
    for name in ("rate_limit", "recovery", "alerts", "message_log"):
        assert shown[name] == type(shown[name])()
    assert attrs.evolve(shown["metrics"], token=None) == type(shown["metrics"])()
    made = type(shown["auth"])(mode="jwt", keys=shown["auth"].keys, api_keys=shown["auth"].api_keys)
    assert shown["auth"] == made


def test_what_is_printed_gives_the_same_settings_again(tmp_path: Path):
    first = load(SAMPLE, {"BROKER_LISTEN__ORIGINS": "https://a,https://b", "BROKER_SESSIONS__IDLE_AFTER": "90s"}, {})
    file = tmp_path / "again.yaml"
    file.write_text("\n".join(as_yaml(first)))
    again = load(file, {}, {})
    assert attrs.evolve(again.settings, plugins={}) == attrs.evolve(first.settings, plugins={})
    assert again.settings.plugins.keys() == first.settings.plugins.keys()
    assert YAML(typ="safe", pure=True).load(file) == as_data(first)


def test_each_printed_value_says_where_it_was_written():
    printed = list(as_yaml(load(None, {"BROKER_LISTEN__PORT": "1"}, {"listen.host": ("--host", "localhost")})))
    assert [line.split() for line in printed[1:4]] == [
        ["host:", "localhost", "#", "--host"],
        ["port:", "1", "#", "BROKER_LISTEN__PORT"],
        ["origins:", "[]", "#", "default"],
    ]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_setting_is_described(cls: type):
    assert sorted(descriptions(cls)) == sorted(field.name for field in attrs.fields(cls))


def test_the_schema_accepts_the_sample_and_refuses_mistakes():
    validators = pytest.importorskip("jsonschema")
    schema = json.loads(json.dumps(json_schema()))
    validators.Draft202012Validator.check_schema(schema)
    validator = validators.Draft202012Validator(schema)
    sample = YAML(typ="safe", pure=True).load(SAMPLE)
    assert list(validator.iter_errors(sample)) == []
    assert list(validator.iter_errors({"listen": {"port": "${PORT}"}, "log": None})) == []
    for wrong in (
        {"prot": 1},
        {"listen": {"port": 70000}},
        {"heartbeat": {"interval": 30}},
        {"limits": {"message_bytes": "1XB"}},
        {"agents": {"a": {"kind": "acp"}}},
        {"agents": {"a": {"kind": "nobody"}}},
        {"store": {"sync": "of"}},
    ):
        assert len(list(validator.iter_errors(wrong))) == 1, wrong


def test_the_schema_gives_defaults_as_they_are_written():
    definitions = json_schema()["$defs"]
    assert definitions["Heartbeat"]["properties"]["interval"]["default"] == "30s"
    assert definitions["Limits"]["properties"]["message_bytes"]["default"] == "1MiB"
    assert definitions["AcpProfile"]["required"] == ["kind", "command"]
