"""A flag beats the environment, which beats the file, which beats the default (PROTOCOL section 7)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.config import AcpProfile, ConfigErrors, EchoProfile, Loaded, Settings, load

Flags = dict[str, tuple[str, object]]
Load = Callable[..., Loaded]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """Return a function that loads YAML text under an environment and flags."""

    def load_text(text: str = "", environ: dict[str, str] | None = None, flags: Flags | None = None) -> Loaded:
        file = tmp_path / "config.yaml"
        file.write_text(text)
        return load(file, environ or {}, flags or {})

    return load_text


def test_without_anything_the_defaults_hold():
    assert load(None, {"PATH": "/bin"}, {}).settings == Settings()


def test_an_empty_file_means_the_defaults(loaded: Load):
    assert loaded("# nothing yet\n").settings == Settings()


def test_an_empty_block_means_its_defaults(loaded: Load):
    assert loaded("listen:\nlog:\nplugins:\n").settings == Settings()


def test_each_layer_beats_the_one_below(loaded: Load):
    text = "listen: {port: 1, host: localhost}"
    environ = {"BROKER_LISTEN__PORT": "2"}
    assert loaded(text).settings.listen.port == 1
    assert loaded(text, environ).settings.listen.port == 2
    both = loaded(text, environ, {"listen.port": ("--port", "3")})
    assert (both.settings.listen.port, both.settings.listen.host) == (3, "localhost")


def test_every_value_knows_where_it_came_from(loaded: Load, tmp_path: Path):
    flags: Flags = {"log.level": ("--log-level", "debug")}
    origins = loaded("listen:\n  port: 1\n  origins: []", {"BROKER_STORE__SYNC": "off"}, flags).origins
    assert origins == {
        "listen.port": f"{tmp_path}/config.yaml:2",
        "listen.origins": f"{tmp_path}/config.yaml:3",
        "store.sync": "BROKER_STORE__SYNC",
        "log.level": "--log-level",
    }


@pytest.mark.parametrize(
    ("variable", "value", "path", "expected"),
    [
        ("BROKER_LISTEN__ORIGINS", "https://a, https://b", "listen.origins", ("https://a", "https://b")),
        ("BROKER_LISTEN__ORIGINS", "", "listen.origins", ()),
        ("BROKER_LISTEN__COMPRESSION", "true", "listen.compression", True),
        ("BROKER_LIMITS__MESSAGE_BYTES", "512KiB", "limits.message_bytes", 512 * 1024),
        ("BROKER_LIMITS__MESSAGE_BYTES", "65536", "limits.message_bytes", 65536),
        ("BROKER_SESSIONS__KEEP", "0", "sessions.keep", 0.0),
        ("BROKER_PLUGINS_DIR", "3", "plugins_dir", "3"),
        ("BROKER_STORE__SYNC", "off", "store.sync", "off"),
        ("BROKER_LOG", "{level: debug}", "log.level", "debug"),
    ],
)
def test_a_variable_means_what_its_setting_can_be(variable: str, value: str, path: str, expected: object):
    setting: Any = load(None, {variable: value}, {}).settings
    for name in path.split("."):
        setting = getattr(setting, name)
    assert setting == expected


def test_variables_reach_into_agents_and_plugins_by_name(loaded: Load):
    text = "agents: {Cl-aude: {kind: acp, command: [a]}}\ndefault_agent: Cl-aude\nplugins: {metrics: {}}"
    settings = loaded(
        text,
        {
            "BROKER_AGENTS__CL_AUDE__DEADLINES__IDLE": "7m",
            "BROKER_AGENTS__CL_AUDE__ENV__HOME_DIR": "007",
            "BROKER_AGENTS__OTHER": "{kind: echo}",
            "BROKER_PLUGINS__METRICS__A__B": "1",
            "BROKER_PLUGINS__SHOUT": "{}",
        },
    ).settings
    claude = settings.agents["Cl-aude"]
    assert isinstance(claude, AcpProfile)
    assert (claude.deadlines.idle, claude.command, claude.env) == (420.0, ("a",), {"HOME_DIR": "007"})
    assert settings.agents["other"] == EchoProfile()
    assert settings.plugins["metrics"].plain() == {"a": {"b": "1"}}
    assert settings.plugins["shout"].plain() == {}


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("localhost:80", "localhost", 80), ("[::1]:8080", "::1", 8080), (":9000", "127.0.0.1", 9000)],
)
def test_one_variable_sets_host_and_port_together(address: str, host: str, port: int):
    listen = load(None, {"WEBSOCKET_ADDR": address}, {}).settings.listen
    assert (listen.host, listen.port) == (host, port)


def test_the_precise_variable_beats_the_short_one():
    environ = {"WEBSOCKET_ADDR": "localhost:80", "BROKER_LISTEN__PORT": "81"}
    assert load(None, environ, {}).settings.listen.port == 81


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("BROKER_LISTN__PORT", "1", "BROKER_LISTN__PORT: unknown variable; did you mean 'BROKER_LISTEN__PORT'?"),
        ("BROKER_PORT", "1", "BROKER_PORT: unknown variable; did you mean 'BROKER_LISTEN__PORT'?"),
        ("BROKER_QWERTZUIOP", "1", "BROKER_QWERTZUIOP: unknown variable"),
        ("BROKER_LISTEN__PORT", "x", "BROKER_LISTEN__PORT: listen.port: expected a whole number, got text"),
        (
            "BROKER_LISTEN__PORT__X",
            "1",
            "BROKER_LISTEN__PORT__X: unknown variable; did you mean 'BROKER_LISTEN__PORT'?",
        ),
        ("BROKER_LOG", "loud", "BROKER_LOG: log: expected a block of settings, got text"),
        ("WEBSOCKET_ADDR", "80", "WEBSOCKET_ADDR: listen: expected host:port, such as 127.0.0.1:3000"),
        ("BROKER_LISTEN__HOST", "0.0.0.0", "BROKER_LISTEN__HOST: listen.host: reachable from other machines"),
    ],
)
def test_a_mistake_in_a_variable_names_the_variable(variable: str, value: str, expected: str):
    with pytest.raises(ConfigErrors) as caught:
        load(None, {variable: value}, {})
    assert str(caught.value).startswith(expected)
    assert len(caught.value.problems) == 1


def test_a_mistake_in_a_flag_names_the_flag():
    with pytest.raises(ConfigErrors, match=r"^--port: listen\.port: expected a whole number of at most 65535$"):
        load(None, {}, {"listen.port": ("--port", "99999")})


def test_what_kubernetes_sets_beside_a_service_called_broker_is_let_be():
    environ = {
        "BROKER_CONFIG": "elsewhere.yaml",
        "BROKER_PORT": "tcp://10.0.0.1:3000",
        "BROKER_PORT_3000_TCP": "tcp://10.0.0.1:3000",
        "BROKER_PORT_3000_TCP_ADDR": "10.0.0.1",
        "BROKER_SERVICE_HOST": "10.0.0.1",
        "BROKER_SERVICE_PORT_WS": "3000",
    }
    assert load(None, environ, {}).settings == Settings()


def test_variables_are_filled_in_inside_strings_and_take_the_type_of_the_setting(loaded: Load):
    text = (
        "listen:\n  port: ${PORT:-3100}\n  host: '${HOST}'\n"
        "agents: {echo: {kind: acp, command: ['${BIN:-/usr/bin}/agent', '$${HOME}', '$HOME', '${EMPTY:-}']}}"
    )
    with pytest.raises(ConfigErrors, match=r"command\[3\]: must not be empty"):
        loaded(text, {"HOST": "localhost"})
    settings = loaded(text, {"HOST": "localhost", "EMPTY": "x", "PORT": ""}).settings
    assert (settings.listen.port, settings.listen.host) == (3100, "localhost")
    echo = settings.agents["echo"]
    assert isinstance(echo, AcpProfile)
    assert echo.command == ("/usr/bin/agent", "${HOME}", "$HOME", "x")


def test_a_token_that_looks_like_a_number_stays_text(loaded: Load):
    assert loaded("plugins_dir: ${DIR}", {"DIR": "12345"}).settings.plugins_dir == "12345"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_loopback_needs_no_token(host: str):
    assert load(None, {"BROKER_LISTEN__HOST": host}, {}).settings.listen.host == host


@pytest.mark.parametrize("text", ["listen: {insecure: true}", "plugins: {auth: {mode: token}}"])
def test_other_machines_are_served_if_tokens_are_asked_for_or_the_operator_insists(loaded: Load, text: str):
    assert loaded(text, {"WEBSOCKET_ADDR": "0.0.0.0:3000"}).settings.listen.host == "0.0.0.0"
