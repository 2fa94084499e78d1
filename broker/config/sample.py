"""The configuration file that somebody begins with: every setting with its default, made from the classes."""

from collections.abc import Iterator
from functools import cache
from textwrap import wrap
from typing import Final, get_args

import attrs

from broker.config.load import take
from broker.config.profiles import AgentProfile, Deadlines
from broker.config.schema import descriptions
from broker.config.settings import Settings
from broker.config.show import leaves, written

__all__ = ["KEY_FILE", "SCHEMA_FILE", "sample"]

SCHEMA_FILE: Final = "config.schema.json"
KEY_FILE: Final = "auth.key"

_COLUMN: Final = 42
"""Where what is said of a setting begins."""
_WIDTH: Final = 120
_HEAD: Final = f"""\
# yaml-language-server: $schema={SCHEMA_FILE}
#
# The settings of a broker. Start it with: broker          Look first: broker check-config --print
#
# Every setting is here. What is commented out says its default; take the # away to change it.
# A flag beats the environment, which beats this file: listen.port is BROKER_LISTEN__PORT there.
#
#   30s 1h30m 200ms 7d    durations          ${{NAME}} ${{NAME:-default}}    a variable, inside text
#   64KiB 1MB 4096        sizes in bytes     !file path  !env NAME       a secret, never shown
#
# Editors that complain of !file and !env want to be told: yaml.customTags: ["!file scalar", "!env scalar"]
"""
_AGENTS: Final = """\
agents:                                   # Who answers. A session names one, or gets the default_agent.
  demo: {kind: demo}                      # shows what agents can do, without a model; take it out when you have one
"""
_EXAMPLES: Final = """\
  # claude:                               # an agent that speaks the Agent Client Protocol
  #   kind: acp
  #   command: [npx, -y, "@agentclientprotocol/claude-agent-acp"]
  #   env: {ANTHROPIC_API_KEY: !env ANTHROPIC_API_KEY}
  # shout: {kind: worker}                 # programs of yours that dial in; broker init agent shout writes one
"""
_DEFAULT_AGENT: Final = "demo"
_PLUGINS: Final = f"""\
plugins:                                  # A plugin is loaded if its name stands here: one that comes along, or yours.
  auth:                                   # everybody has to show a token: broker gentoken --user NAME
    mode: jwt
    keys: [{{algorithm: HS256, secret: !file {KEY_FILE}}}]
    # issuer: actor-broker
    # audience: actor-broker
  rate_limit: {{}}                          # what one connection, user and address may send
  metrics: {{}}                             # GET /metrics for Prometheus, on this machine
  alerts: {{}}                              # says on the console when something is wrong
  # access: {{url: https://backend.example.org/may, secret: !file access.key}}
  # recovery: {{}}                          # for turns that their agent cannot take
  # message_log: {{path: messages.log}}     # a line for each connection, message, answer, error and turn
"""


def sample() -> str:
    """Return the text of a configuration file that asks for tokens, made with the key beside it in `KEY_FILE`."""
    return "\n".join([_HEAD, *_blocks()])


def _blocks() -> Iterator[str]:
    said = descriptions(Settings)
    for field in attrs.fields(Settings):
        name, text = field.name, said[field.name]
        if name == "agents":
            yield _AGENTS + _EXAMPLES + "".join(f"{line}\n" for line in _kinds())
        elif name == "default_agent":
            yield _line(f"{name}: {_DEFAULT_AGENT}", text) + "\n"
        elif name == "plugins":
            yield _PLUGINS
        elif isinstance(field.type, type) and attrs.has(field.type):
            lines = (_line(f"  # {setting}", said) for setting, said in _settings(name, field.type))
            yield "\n".join([_line(f"{name}:", text), *lines, ""])
        else:
            yield _line(f"# {name}: {written(_defaults()[name,])}", text) + "\n"


def _settings(block: str, cls: type) -> Iterator[tuple[str, str]]:
    """Yield each setting of a block with its default, and what is said of it."""
    said, defaults = descriptions(cls), _defaults()
    for field in attrs.fields(cls):
        yield f"{field.name}: {written(defaults[block, field.name])}", said[field.name]


def _kinds() -> Iterator[str]:
    """Yield what each kind of agent can be told, and how long all of them may take."""
    yield "  #"
    for cls in get_args(AgentProfile):
        names = [field.name for field in attrs.fields(cls) if field.name not in {"kind", "deadlines"}]
        kind = descriptions(cls)["kind"].rstrip(".")
        yield _line(f"  # kind: {kind}", f"takes {', '.join(names)}")
    yield _line("  # deadlines:", "of each kind; 0 switches one off")
    defaults = _defaults()
    for field in attrs.fields(Deadlines):
        value = written(defaults["agents", "echo", "deadlines", field.name])
        yield _line(f"  #   {field.name}: {value}", descriptions(Deadlines)[field.name])


@cache
def _defaults() -> dict[tuple[str, ...], object]:
    return {leaf.names: leaf.value for leaf in leaves(take({}))}


def _line(setting: str, said: str) -> str:
    first, *more = wrap(said, _WIDTH - _COLUMN - 2)
    return "\n".join([f"{setting:<{_COLUMN - 1}} # {first}", *(f"{'':{_COLUMN}}# {text}" for text in more)])
