"""What goes wrong with the Messages API, and what a profile may say of it, through the real SDK."""

import json
import subprocess
import sys
from typing import Any

import pytest
from loguru import logger

from broker.agents.claude.api import Api
from broker.agents.port import Configuration
from broker.config.secret import Secret
from broker.messages import AgentEvent, TextDelta, TurnFailed, TurnSettled, TurnTaken


def text(events: list[AgentEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta) and not event.thought)


def failure(events: list[AgentEvent]) -> tuple[str, bool]:
    (failed,) = [event for event in events if isinstance(event, TurnFailed)]
    return failed.code, failed.retryable


# -- going wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["overload-once", "overload-in-stream", "cut-before-a-word"])
async def test_what_fails_before_the_first_word_is_tried_again(line: Any, stub: Any, prompt: str):
    talk = line()
    events = await talk.told(prompt)
    assert text(events) in {"at last", "whole"}
    assert [type(event) for event in events] == [TurnTaken, TextDelta, TurnSettled]
    assert (stub.tries, len(talk.pauses)) == (2, 1)


@pytest.mark.parametrize("prompt", ["error-after-a-word", "cut", "end-early", "nonsense", "numbers"])
async def test_what_fails_after_the_first_word_ends_the_turn(line: Any, stub: Any, prompt: str):
    events = await line().told(prompt)
    assert [type(event) for event in events] == [TurnTaken, TextDelta, TurnFailed]
    code = "overloaded" if prompt == "error-after-a-word" else "agent_unavailable"
    assert failure(events) == (code, True)
    assert stub.tries == 1


async def test_tries_are_counted_told_and_lie_ever_further_apart(line: Any, stub: Any):
    talk = line(retries=3)
    events = await talk.told("overload")
    assert events == [
        TurnFailed("t1", "overloaded", "The Messages API is overloaded: Overloaded. Tried 4 times.", retryable=True)
    ]
    assert stub.tries == 4
    assert len(talk.pauses) == 3
    for pause, most in zip(talk.pauses, (0.5, 1, 2), strict=True):
        assert 0.75 * most <= pause <= most


async def test_a_profile_may_have_it_tried_once_only(line: Any, stub: Any):
    talk = line(retries=0)
    assert failure(await talk.told("overload")) == ("overloaded", True)
    assert (stub.tries, talk.pauses) == (1, [])


async def test_the_wait_that_the_api_asks_for_is_kept(line: Any):
    talk = line(retries=1)
    assert failure(await talk.told("limit")) == ("rate_limited", True)
    assert talk.pauses == [3.0]


async def test_a_wait_that_is_too_long_is_left_to_the_person(line: Any, stub: Any):
    talk = line()
    (failed,) = await talk.told("limit-for-an-hour")
    assert (failed.code, failed.retryable, stub.tries) == ("rate_limited", True, 1)
    assert failed.message.endswith("It may be asked again in 3600 s.")


async def test_a_line_that_breaks_before_the_answer_is_tried_again(line: Any, stub: Any):
    talk = line()
    (failed,) = await talk.told("hang-up")
    assert failed.message == "The Messages API cannot be reached. Tried 3 times."
    assert (failure([failed]), stub.tries) == (("agent_unavailable", True), 3)


async def test_an_answer_of_another_kind_is_no_reply(line: Any):
    talk = line(retries=0)
    assert failure(await talk.told("html")) == ("agent_unavailable", True)


async def test_nobody_at_the_address_fails_the_turn(line: Any, unused_tcp_port: int):
    talk = line(base_url=f"http://127.0.0.1:{unused_tcp_port}", retries=1)
    (failed,) = await talk.told("hello")
    assert (failed.code, failed.retryable, len(talk.pauses)) == ("agent_unavailable", True, 1)


@pytest.mark.parametrize(
    ("status", "kind", "code", "words"),
    [
        (401, "authentication_error", "agent_unavailable", "The Messages API refuses this agent's key."),
        (403, "permission_error", "agent_unavailable", "The Messages API does not let this agent's key do that."),
        (400, "invalid_request_error", "invalid_message", "refuses the prompt: The key ******** may not."),
        (413, "request_too_large", "too_large", "larger than the Messages API allows: The key ******** may not."),
        (404, "not_found_error", "agent_unavailable", "does not know this agent's model: The key ******** may not."),
    ],
)
async def test_a_refusal_is_told_in_words_and_never_with_the_key(
    line: Any, stub: Any, status: int, kind: str, code: str, words: str
):
    logs: list[str] = []
    sink = logger.add(logs.append, level=0, format="{message} {exception}")
    try:
        (failed,) = await line().told(f"status {status} {kind}")
    finally:
        logger.remove(sink)
    assert (failed.code, failed.retryable, stub.tries) == (code, False, 1)
    assert failed.message.endswith(words)
    assert stub.key not in "".join([repr(failed), *logs])


# -- the profile -------------------------------------------------------------------------------------


async def test_nothing_of_the_brokers_environment_reaches_the_api(
    line: Any, stub: Any, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
):
    for name, value in {
        "ANTHROPIC_API_KEY": "leak-key",
        "ANTHROPIC_AUTH_TOKEN": "leak-token",
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{unused_tcp_port}/leak",
        "ANTHROPIC_CUSTOM_HEADERS": "X-Leak: leak-header\nAuthorization: Bearer leak-header",
        "ANTHROPIC_PROFILE": "leak-profile",
        "ANTHROPIC_LOG": "debug",
    }.items():
        monkeypatch.setenv(name, value)
    assert text(await line().told("hello")) == "hello "
    (headers,) = stub.headers
    assert "leak" not in json.dumps(headers)
    keys = {headers.get("X-Api-Key"), headers.get("Authorization", "").removeprefix("Bearer ")} - {None, ""}
    assert keys == {stub.key}


def test_without_an_address_the_apis_maker_is_asked_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1/leak")
    assert str(Api(Secret("key"), None)._client.base_url).rstrip("/") == "https://api.anthropic.com"


@pytest.mark.parametrize("key", ["", "two words", "line\n", "schlüssel"])
async def test_a_key_that_can_be_none_is_told_without_showing_it(line: Any, stub: Any, key: str):
    (failed,) = await line(api_key=Secret(key)).told("hello")
    assert failed == TurnFailed("t1", "agent_unavailable", "What is configured as this agent's key is none.")
    assert stub.tries == 0


async def test_without_the_sdk_a_turn_says_what_to_install_and_with_it_the_next_one_works(
    line: Any, monkeypatch: pytest.MonkeyPatch
):
    talk = line()
    with monkeypatch.context() as bare:
        bare.setitem(sys.modules, "anthropic", None)
        bare.delitem(sys.modules, "broker.agents.claude.api", raising=False)
        await talk.agent.start()
        (failed,) = await talk.told("hello")
    assert (failed.code, failed.retryable) == ("agent_unavailable", False)
    assert "install actor-broker[anthropic]" in failed.message
    assert text(await talk.told("hello", turn_id="t2")) == "hello "


def test_the_sdk_is_imported_for_a_profile_that_needs_it_alone():
    check = "import sys, broker.agents.claude.agent; sys.exit('anthropic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False, timeout=60).returncode == 0


async def test_the_key_is_in_no_repr(line: Any, stub: Any):
    talk = line()
    await talk.told("hello")
    assert stub.key not in repr(talk.agent)


async def test_there_are_no_modes_and_no_questions(line: Any):
    talk = line()
    refused: list[Any] = []
    talk.link.configure(Configuration(mode="fast"), refused.append)
    talk.link.answer_approval("t1", "key", "allow")
    assert [error.code for error in refused] == ["not_found"]
    assert talk.ear.rest() == []


async def test_the_capacity_is_the_profiles(line: Any):
    assert (line(capacity=3).agent.capacity, line().agent.capacity) == (3, None)
