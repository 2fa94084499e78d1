"""The newest lines of the log, kept within bounds and read in pieces."""

import json
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import msgspec
import pytest
from loguru import logger

from broker.vitals.journal import UNKEPT, Journal

Open = Callable[..., Journal]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Make journals that are closed in the end."""
    made: list[Journal] = []

    def make(level: str = "info", **bounds: int) -> Journal:
        journal = Journal(**bounds)
        journal.open(level)
        made.append(journal)
        return journal

    yield make
    for journal in made:
        journal.close()


def read(
    journal: Journal, after: int | None = None, level: str = "trace", contains: str = "", limit: int = 100
) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(msgspec.json.encode(journal.read(after, level, contains, limit)))
    return found


def texts(found: dict[str, Any]) -> list[str]:
    return [line["message"] for line in found["lines"]]


def test_a_line_says_what_the_written_one_does(opened: Open) -> None:
    journal = opened()
    try:
        raise ValueError("no good")  # noqa: TRY301 - what is logged is the traceback
    except ValueError as e:
        logger.opt(exception=e).bind(conn="c1", session="s1").error("it {} broke", "\x1b[31m")
    (line,) = read(journal)["lines"]
    assert (line["n"], line["level"], line["message"], line["logger"]) == (1, "error", "it \\e[31m broke", __name__)
    assert (line["extra"]["conn"], line["extra"]["session"]) == ("c1", "s1")
    assert "ValueError: no good" in line["extra"]["exception"]
    assert line["at"].endswith("Z")


def test_a_text_is_looked_for_in_what_a_line_says_and_not_in_its_json(opened: Open) -> None:
    journal = opened()
    logger.bind(conn="C-1").info('said "No" \\ and left')
    for part in ('"no"', "\\ AND", "c-1", "test_journal"):
        assert len(read(journal, contains=part)["lines"]) == 1
    for part in ("level", '"message":', "extra"):
        assert read(journal, contains=part)["lines"] == []


def test_levels_and_texts_are_looked_for(opened: Open) -> None:
    journal = opened("debug")
    logger.debug("one Apple")
    logger.info("two")
    logger.bind(turn="t-Apple").warning("three")
    logger.trace("never")
    assert texts(read(journal)) == ["one Apple", "two", "three"]
    assert texts(read(journal, level="info")) == ["two", "three"]
    assert texts(read(journal, contains="aPPle")) == ["one Apple", "three"]
    journal.open("warning")
    logger.info("four")
    logger.warning("five")
    assert texts(read(journal, after=3)) == ["five"]


def test_who_follows_gets_each_line_once_and_hears_of_those_that_are_gone(opened: Open) -> None:
    journal = opened(lines=5)
    for number in range(3):
        logger.info("{}", number)
    first = read(journal, limit=2)
    assert (texts(first), first["next"]) == (["1", "2"], 3)
    assert read(journal, after=3) == {"lines": [], "next": 3, "left_out": 0}
    for number in range(3, 12):
        logger.info("{}", number)
    missed = read(journal, after=3, limit=3)
    assert (texts(missed), missed["left_out"], missed["next"]) == (["7", "8", "9"], 4, 10)
    rest = read(journal, after=missed["next"], limit=3)
    assert (texts(rest), rest["left_out"], rest["next"]) == (["10", "11"], 0, 12)
    assert texts(read(journal, after=900)) == ["7", "8", "9", "10", "11"]  # of an earlier run of the broker


def test_long_lines_push_out_more_of_the_others(opened: Open) -> None:
    journal = opened(size=10_000)
    logger.info("short")
    for letter in "abc":
        logger.info(letter * 100_000)
    (line,) = read(journal)["lines"]
    assert set(line["message"]) == {"c"}
    assert len(line["message"]) < 10_000


def test_what_reads_the_log_leaves_no_line_in_it(opened: Open) -> None:
    journal = opened()
    logger.bind(**{UNKEPT: True}).info("GET /api/v1/log 200")
    logger.info("something else")
    assert texts(read(journal)) == ["something else"]


def test_lines_of_other_threads_are_numbered_without_a_gap(opened: Open) -> None:
    journal = opened(lines=400)
    threads = [Thread(target=lambda: [logger.info("{}", number) for number in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line["n"] for line in read(journal, limit=1000)["lines"]] == list(range(1, 401))


def test_after_the_log_was_set_up_anew_it_is_opened_again_and_closed_without_complaint(opened: Open) -> None:
    journal = opened()
    logger.remove(journal._sink)
    logger.info("unheard")
    journal.open("info")
    logger.info("heard")
    journal.close()
    journal.close()
    logger.info("unheard too")
    assert texts(read(journal)) == ["heard"]
