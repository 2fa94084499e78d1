"""Logs: one line per record, nothing that steers a terminal, the standard library's included."""

import io
import json
import logging
import re
from collections.abc import Callable

import pykka
import pytest
from loguru import logger

from broker.logs import InterceptHandler, Limiter, configure, escape, limited

Configure = Callable[..., io.StringIO]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def logs() -> Configure:
    """Return a function that sends all logs to a buffer."""

    def start(
        level: str = "info", form: str = "json", stream: io.StringIO | None = None, **environ: str
    ) -> io.StringIO:
        out = stream or io.StringIO()
        configure(level, form, out, environ)  # type: ignore[arg-type]
        return out

    return start


def entries(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_each_record_is_one_line_of_json(logs: Configure):
    out = logs()
    logger.bind(conn="c1", session="s1", turn="t1", request="r1", other="x").info("closed: {}", "bye")
    logger.warning("second")
    first, second = entries(out)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(first.pop("time")))
    assert first == {
        "level": "info",
        "logger": __name__,
        "message": "closed: bye",
        "conn": "c1",
        "session": "s1",
        "turn": "t1",
        "request": "r1",
    }
    assert (second["level"], second["message"]) == ("warning", "second")
    assert "conn" not in second


def test_a_terminal_gets_readable_lines(logs: Configure):
    out = logs(form="auto", stream=Terminal())
    logger.bind(session="s1").info("opened")
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} \x1b\[32mINFO    \x1b\[0m \S+ session=s1: opened\n", out.getvalue())


@pytest.mark.parametrize(
    ("stream", "environ", "coloured"),
    [
        (Terminal, {}, True),
        (Terminal, {"NO_COLOR": "1"}, False),
        (Terminal, {"TERM": "dumb"}, False),
        (Terminal, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (io.StringIO, {}, False),
        (io.StringIO, {"FORCE_COLOR": "1"}, True),
    ],
)
def test_colour_is_for_terminals_unless_the_user_says_otherwise(
    logs: Configure, stream: type[io.StringIO], environ: dict[str, str], *, coloured: bool
):
    out = logs(form="text", stream=stream(), **environ)
    logger.error("x")
    assert ("\x1b[" in out.getvalue()) is coloured


def test_what_is_no_terminal_gets_json_by_default(logs: Configure):
    out = logs(form="auto")
    logger.info("x")
    assert entries(out)[0]["message"] == "x"


@pytest.mark.parametrize("form", ["text", "json"])
def test_user_text_cannot_forge_lines_or_steer_the_terminal(logs: Configure, form: str):
    out = logs(form=form)
    logger.bind(session="s\n1").info("said: {}", "a\r\nb\x1b[2J\u202ec\x9b\u2028d\ud800")
    (line,) = out.getvalue().splitlines()
    message = json.loads(line)["message"] if form == "json" else line
    assert message.endswith("said: a\\r\\nb\\e[2J\\u202ec\\u009b\\u2028d\\ud800")
    assert "s\\n1" in line.replace("\\\\", "\\")


def test_braces_and_percents_in_text_are_only_text(logs: Configure):
    out = logs()
    logger.info("said: {}", "{0.__class__} {missing} %s %(x)s <red>")
    logging.getLogger("x").warning("{0} <b>%s</b>", "{extra}")
    torn = logging.LogRecord("x", logging.WARNING, "x.py", 1, "%s %s and no more", ("one",), None)
    InterceptHandler().emit(torn)
    assert [entry["message"] for entry in entries(out)] == [
        "said: {0.__class__} {missing} %s %(x)s <red>",
        "{0} <b>{extra}</b>",
        "%s %s and no more",
    ]


def test_the_standard_librarys_logs_come_along_under_their_own_name_and_level(logs: Configure):
    out = logs(level="warning")
    logging.getLogger("aiohttp.server").warning("slow")
    logging.getLogger("pykka").info("not heard")
    logging.getLogger("asyncio").log(35, "odd level")
    assert [(entry["logger"], entry["level"], entry["message"]) for entry in entries(out)] == [
        ("aiohttp.server", "warning", "slow"),
        ("asyncio", "level 35", "odd level"),
    ]


@pytest.mark.parametrize(("level", "heard"), [("info", 0), ("debug", 1)])
def test_what_a_thread_s_actor_raises_to_its_asker_is_the_asker_s_to_log(logs: Configure, level: str, heard: int):
    class Breaks(pykka.ThreadingActor):
        def on_receive(self, message: object) -> object:
            raise LookupError(message)

    out = logs(level=level)
    ref = Breaks.start()
    try:
        with pytest.raises(LookupError):
            ref.ask("why")
    finally:
        ref.stop()
    assert sum("returned" in entry["message"] for entry in entries(out)) == heard


def test_configuring_again_does_not_double_a_line(logs: Configure):
    logs()
    out = logs(level="debug")
    logging.getLogger("aiohttp").debug("once")
    logger.debug("once")
    assert len(entries(out)) == 2
    assert sum(isinstance(handler, InterceptHandler) for handler in logging.getLogger().handlers) == 1


def test_a_record_below_the_level_is_left_out(logs: Configure):
    out = logs(level="error")
    logger.warning("no")
    logger.error("yes")
    assert [entry["message"] for entry in entries(out)] == ["yes"]


def fail() -> None:
    """Fail beside a secret in a local variable, with a text that imitates a log line."""
    token = "qZ-2retnuh"[::-1]
    raise ValueError(f"bad{token[:0]}\n12:00:00.000 INFO forged")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_stays_with_its_record_and_shows_no_variables(logs: Configure, form: str):
    out = logs(form=form)
    try:
        fail()
    except ValueError:
        logger.exception("failed")
    text = out.getvalue()
    assert "hunter2-Zq" not in text
    if form == "json":
        (entry,) = entries(out)
        assert str(entry["exception"]).startswith("Traceback (most recent call last):\n")
    else:
        assert all(line.startswith("    ") for line in text.splitlines()[1:])


def test_a_cause_that_repeats_is_heard_once_a_second_with_the_number_left_out():
    now = [10.0]
    limiter = Limiter(clock=lambda: now[0])
    assert [limiter.left_out("accept") for _ in range(4)] == [0, None, None, None]
    assert limiter.left_out("other") == 0
    now[0] = 10.9
    assert limiter.left_out("accept") is None
    now[0] = 11.0
    assert limiter.left_out("accept") == 4
    assert limiter.left_out("accept", seconds=5.0) is None
    now[0] = 12.5
    assert limiter.left_out("accept", seconds=5.0) == 1


def test_of_some_causes_more_lines_are_heard():
    now = [0.0]
    limiter = Limiter(clock=lambda: now[0])
    assert [limiter.left_out("came", lines=3) for _ in range(5)] == [0, 0, 0, None, None]
    now[0] = 1.0
    assert [limiter.left_out("came", lines=3) for _ in range(2)] == [2, 0]
    now[0] = 2.0
    assert limiter.left_out("came", lines=3) == 0


def test_the_limiter_remembers_a_bounded_number_of_causes():
    limiter = Limiter(clock=lambda: 0.0, causes=2)
    assert [limiter.left_out(key) for key in ("a", "b", "c", "b", "a")] == [0, 0, 0, None, 0]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_limited_line_is_heard_once_and_says_how_many_were_left_out(logs: Configure, form: str):
    out = logs(form=form)
    cause = object()
    for _ in range(3):
        limited(cause, seconds=0.0).warning("every time")
    for number in range(50):
        limited((cause, "rare"), seconds=3600.0).warning("once: {}", number)
    assert len(out.getvalue().splitlines()) == 4
    logger.bind(left_out=7).warning("again")
    last = out.getvalue().splitlines()[-1]
    assert last.endswith("again (7 more like this left out)") if form == "text" else json.loads(last)["left_out"] == 7


def test_what_is_left_out_reaches_the_sink_of_no_other_program():
    heard: list[str] = []
    sink = logger.add(heard.append, format="{message}")  # type: ignore[arg-type]
    cause = object()
    for number in range(3):
        limited(cause, seconds=3600.0).opt(exception=ValueError()).bind(conn="c").error("once: {}", number)
    logger.remove(sink)
    assert len(heard) == 1


def test_text_without_control_characters_is_left_alone():
    assert escape("Grüße, 你好 👋\ttab") == "Grüße, 你好 👋\ttab"
