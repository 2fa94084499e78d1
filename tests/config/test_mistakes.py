"""Every mistake of a configuration is told at its place, all of them at once (PROTOCOL section 7)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from broker.config import ConfigErrors, Loaded, load

KINDS = "echo, demo, acp, websocket, worker, anthropic"

EXPOSED = (
    "reachable from other machines, and nobody has to show a token; "
    "load an auth plugin that asks for one, or set listen.insecure: true"
)

Mistakes = Callable[..., list[str]]


@pytest.fixture
def mistakes(tmp_path: Path):
    """Return a function that loads YAML text as config.yaml and gives the problems as `line:column: path: message`."""

    def load_text(text: str | bytes, environ: dict[str, str] | None = None) -> list[str]:
        file = tmp_path / "config.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigErrors) as caught:
            load(file, environ or {}, {})
        return [problem.render().splitlines()[0].removeprefix(f"{file}:").lstrip() for problem in caught.value.problems]

    return load_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # keys
        ("listen:\n  prot: 8765", "2:3: listen.prot: unknown setting; did you mean 'port'?"),
        ("port: 80", "1:1: port: unknown setting; did you mean 'listen.port'?"),
        ("zebra: 80", "1:1: zebra: unknown setting"),
        ("log: {level: info}\nlog: {level: debug}", "2:1: log: written twice, first in line 1"),
        ("listen: {port: 1, port: 2}", "1:19: listen.port: written twice, first in line 1"),
        ("log:\n  <<: {level: info}", "2:3: log: a key must be text; merge keys (<<) are not read"),
        ("? [a, b]\n: 1", "1:3: a key must be text; merge keys (<<) are not read"),
        # types
        ('listen: {port: "abc"}', "1:16: listen.port: expected a whole number, got text"),
        ("listen: {port: 80.9}", "1:16: listen.port: expected a whole number, got a number"),
        ('listen: {port: "3000"}', "1:16: listen.port: expected a whole number, got text"),
        ("listen: {port: true}", "1:16: listen.port: expected a whole number, got true or false"),
        ("listen:\n  port:\n", "2:3: listen.port: expected a whole number, got nothing"),
        ("listen: {port: 70000}", "1:16: listen.port: expected a whole number of at most 65535"),
        ("listen: {port: -1}", "1:16: listen.port: expected a whole number of at least 0"),
        ("listen: {max_connections: 0}", "1:27: listen.max_connections: expected a whole number of at least 1"),
        ('listen: {insecure: "false"}', "1:20: listen.insecure: expected true or false, got text"),
        ("listen: {insecure: no}", "1:20: listen.insecure: expected true or false, got text"),
        ("listen: {host: 127}", "1:16: listen.host: expected text, got a whole number; put it in quotes"),
        ('listen: {host: ""}', "1:16: listen.host: must not be empty"),
        ("listen: 3000", "1:9: listen: expected a block of settings, got a whole number"),
        ("log: [info]", "1:6: log: expected a block of settings, got a list"),
        ("- listen", "1:1: expected a block of settings, got a list"),
        ("listen", "1:1: expected a block of settings, got text"),
        ("agents: {a: 1}", "1:13: agents.a: expected a block of settings, got a whole number"),
        ("plugins: [metrics]", "1:10: plugins: expected a block of settings, got a list"),
        ("plugins: {metrics: true}", "1:20: plugins.metrics: expected a block of settings, got true or false"),
        # choices
        (
            "log: {level: inof}",
            ("1:14: log.level: expected one of: trace, debug, info, warning, error, critical; did you mean 'info'?"),
        ),
        ("store: {sync: false}", "1:15: store.sync: expected one of: full, normal, off"),
        ("runtime: {loop: trio}", "1:17: runtime.loop: expected one of: auto, uvloop, asyncio"),
        # units
        ("heartbeat: {interval: 30}", "1:23: heartbeat.interval: a duration needs a unit; write 30s"),
        ('heartbeat: {interval: "30"}', "1:23: heartbeat.interval: a duration needs a unit; write 30s"),
        ("heartbeat: {interval: 30 s}", "1:23: heartbeat.interval: expected a duration such as 30s, 1h30m or 200ms"),
        (
            "heartbeat: {interval: 30m1h}",
            "1:23: heartbeat.interval: expected each unit once, the largest first, such as 1h30m",
        ),
        ("heartbeat: {timeout: 0}", "1:22: heartbeat.timeout: expected a duration of more than 0"),
        ("sessions: {keep: -1s}", "1:18: sessions.keep: expected a duration such as 30s, 1h30m or 200ms"),
        ("sessions: {keep: 999999999999d}", "1:18: sessions.keep: too large"),
        (
            "limits: {message_bytes: 1XB}",
            "1:25: limits.message_bytes: expected a size in bytes, such as 1MiB, 64KiB or 4096",
        ),
        ("limits: {message_bytes: 10}", "1:25: limits.message_bytes: expected a size of at least 1KiB"),
        ("limits: {message_bytes: 1.5B}", "1:25: limits.message_bytes: expected a whole number of bytes"),
        # forms
        (
            'listen: {origins: ["*"]}',
            "1:20: listen.origins[0]: list each origin exactly, such as https://chat.example.org",
        ),
        (
            'listen: {origins: ["https://a.example", "https://b.example/"]}',
            "1:41: listen.origins[1]: expected https://host or https://host:port in lower case, without a path",
        ),
        (
            'listen: {origins: ["https://a.example:443"]}',
            "1:20: listen.origins[0]: browsers leave the port 443 out; write https://a.example",
        ),
        ('listen: {origins: "https://a.example"}', "1:19: listen.origins: expected a list, got text"),
        (
            "listen: {trusted_proxies: [10.0.0.1/8]}",
            "1:28: listen.trusted_proxies[0]: expected an address or a network such as 10.0.0.0/8",
        ),
        ("store: {url: 'mysql://db'}", "1:14: store.url: expected sqlite:///FILE, sqlite:////ABSOLUTE/FILE or memory:"),
        # agents
        ("agents: {echo: {delay: 1s}}", f"1:16: agents.echo.kind: missing; one of: {KINDS}"),
        (
            "agents: {echo: {kind: ehco}}",
            f"1:23: agents.echo.kind: unknown kind; known are: {KINDS}; did you mean 'echo'?",
        ),
        ("agents: {echo: {kind: acp}}", "1:10: agents.echo.command: missing"),
        ("agents: {echo: {kind: acp, command: claude --acp}}", "1:37: agents.echo.command: expected a list, got text"),
        ("agents: {echo: {kind: acp, command: []}}", "1:37: agents.echo.command: must not be empty"),
        ('agents: {echo: {kind: acp, command: [""]}}', "1:38: agents.echo.command[0]: must not be empty"),
        ("agents: {echo: {kind: echo, command: [a]}}", "1:29: agents.echo.command: unknown setting"),
        (
            "agents:\n  echo:\n    kind: echo\n    deadlines: {ilde: 3s}",
            "4:17: agents.echo.deadlines.ilde: unknown setting; did you mean 'idle'?",
        ),
        (
            'agents: {echo: {kind: echo}, "a b": {kind: echo}}',
            "1:30: agents.a b: as a name: expected letters, digits, dots, dashes and underscores",
        ),
        # between settings
        ("default_agent: ehco", "1:16: default_agent: there is no agent 'ehco'; known are: echo; did you mean 'echo'?"),
        (
            "log: {}\nagents: {claude: {kind: acp, command: [a]}}",
            "2:1: default_agent: there is no agent 'echo'; known are: claude",
        ),
        ("heartbeat: {interval: 5s}", "1:13: heartbeat.timeout: must be less than heartbeat.interval"),
        (
            "limits: {outbox_bytes: 64KiB}",
            "1:24: limits.outbox_bytes: must be at least limits.message_bytes, or the largest message never fits",
        ),
        ("listen: {host: 0.0.0.0}", "1:16: listen.host: " + EXPOSED),
        ("plugins: {auth: {mode: none}}\nlisten: {host: '::'}", "2:16: listen.host: " + EXPOSED),
        # YAML itself
        ("listen: {port: 1", "1:17: while parsing a flow mapping: expected ',' or '}', but got '<stream end>'"),
        ("listen: port: 1", "1:13: mapping values are not allowed here"),
        (
            "listen:\n\tport: 1",
            "2:1: while scanning for the next token: found character '\\t' that cannot start any token",
        ),
        ("log: {}\n---\nlog: {}", "2:1: expected a single document in the stream: but found another document"),
        ("default_agent: *nobody", "1:16: found undefined alias 'nobody'"),
        ("a: !!int x", "1:4: a: not a value that can be read"),
        ("log: \x01", "1:6: a character that YAML does not allow"),
        ("log: !color red", "1:6: log: unknown tag !color; known are !file and !env"),
        # filling in
        (
            "default_agent: ${AGENT}",
            "1:16: default_agent: the variable AGENT is not set; set it, or write ${AGENT:-default}",
        ),
        (
            "default_agent: ${9}",
            "1:16: default_agent: write ${NAME} or ${NAME:-default}, or $${ for the characters themselves",
        ),
        ("default_agent: !env AGENT", "1:16: default_agent: the variable AGENT is not set"),
        (
            "default_agent: !file nowhere",
            "1:16: default_agent: the file nowhere cannot be read: No such file or directory",
        ),
    ],
)
def test_a_mistake_is_told_at_its_place(mistakes: Mistakes, text: str, expected: str):
    assert expected in mistakes(text)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(mistakes: Mistakes):
    text = "heartbeat: {interval: 5s}\nlisten:\n  prot: 1\n  port: x\n  host: 0.0.0.0\nlog: 3\nlog: 4\na: ${NO}\n"
    assert [line.split(" ")[0] for line in mistakes(text, {"BROKER_LOG__LEVEL": "x", "BROKER_X": "1"})] == [
        "BROKER_X:",
        "1:13:",
        "3:3:",
        "4:9:",
        "5:9:",
        "6:6:",
        "7:1:",
        "8:1:",
        "8:4:",
    ]


def test_a_rule_between_settings_is_not_judged_on_a_broken_one(mistakes: Mistakes):
    assert mistakes("agents: {claude: {kind: acp, command: 3}}\ndefault_agent: [claude]") == [
        "1:39: agents.claude.command: expected a list, got a whole number",
        "2:16: default_agent: expected text, got a list",
    ]
    assert mistakes("agents: {claude: {kind: echo}}\ndefault_agent: [claude]") == [
        "2:16: default_agent: expected text, got a list",
    ]


def test_a_setting_that_is_not_whole_without_its_mistake_hides_no_other(mistakes: Mistakes):
    text = "listen: {prot: 1, host: 0.0.0.0}\nagents: {claude: {kind: acp, command: claude}}\n"
    assert [line.split(" ")[0] for line in mistakes(text)] == ["1:10:", "1:25:", "2:39:"]


def test_the_line_and_carets_are_shown_under_the_message(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("listen:\n  host: localhost\n  prot: 8765  # the port\n")
    with pytest.raises(ConfigErrors) as caught:
        load(file, {}, {})
    assert str(caught.value).splitlines()[1:] == ["    prot: 8765  # the port", "    ^^^^"]


def test_the_caret_of_a_value_is_under_the_value_even_in_a_very_long_line(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("listen: {origins: [" + "'https://a.example', " * 200 + "], port: seven}")
    with pytest.raises(ConfigErrors) as caught:
        load(file, {}, {})
    _, line, carets = str(caught.value).splitlines()
    assert len(line) < 200
    assert line[carets.index("^") : carets.index("^") + len(carets.strip())] == "seven"


def test_a_file_that_is_not_there_says_what_to_do(tmp_path: Path):
    with pytest.raises(ConfigErrors, match=r"there is no such file; name one with --config FILE"):
        load(tmp_path / "none.yaml", {}, {})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: 1\nb: \xff\n", "2:1: not UTF-8 text"),
        (b"# " + b"x" * (1 << 20), "larger than 1 MiB; that is no configuration"),
        (b"[" * 700, "cannot be read as YAML; it may be nested too deeply"),
        (b"listen: &a [*a]", "1:9: nested too deeply, or an alias that holds itself"),
    ],
    ids=["encoding", "size", "depth", "cycle"],
)
def test_what_is_no_configuration_is_refused(mistakes: Mistakes, content: bytes, expected: str):
    assert expected in mistakes(content)


def test_aliases_cannot_multiply_without_end(mistakes: Mistakes):
    levels = "".join(f"- &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 9))
    (told,) = mistakes("- &l0 [1, 2, 3]\n" + levels)
    assert told.endswith("more than 10000 values, aliases counted at each use")


def test_a_folder_is_no_file(tmp_path: Path):
    with pytest.raises(ConfigErrors, match="cannot be read: Is a directory"):
        load(tmp_path, {}, {})


def test_anchors_may_be_used(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("agents: {echo: &base {kind: echo, delay: 1s}, other: *base}")
    loaded: Loaded = load(file, {}, {})
    assert loaded.settings.agents["echo"] == loaded.settings.agents["other"]
