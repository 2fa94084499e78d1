"""Directories, on file systems that answer and on one that does not."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.agents.acp import folders
from broker.agents.acp.folders import Folders
from broker.testing import until


class Dead:
    """A file system that answers nothing until it is let go; how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.let_go = threading.Event()

    def isdir(self, path: str) -> bool:
        self.asked += 1
        self.let_go.wait()
        return True


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dead]:
    dead = Dead()
    monkeypatch.setattr(os.path, "isdir", dead.isdir)
    yield dead
    dead.let_go.set()


async def test_a_directory_is_there_and_a_file_is_none(tmp_path: Path):
    (tmp_path / "file").touch()
    looks = Folders()
    assert [await looks.holds(str(path)) for path in (tmp_path, tmp_path / "file")] == [True, False]


async def test_one_that_nothing_is_heard_of_is_not_there_and_costs_one_thread(dead: Dead):
    looks = Folders()
    assert [await looks.holds("/far", 0.01) for _ in range(3)] == [False] * 3
    assert dead.asked == 1
    dead.let_go.set()
    assert await looks.holds("/far", 30)


async def test_a_link_is_closed_whatever_the_file_system_does(line: Callable[..., Any], dead: Dead):
    agent = line()
    agent.ask("chunks 1")
    await until(lambda: dead.asked)
    async with asyncio.timeout(30):
        await agent.link.close()
    assert not dead.let_go.is_set()


async def test_a_turn_in_a_directory_that_nothing_is_heard_of_fails(
    line: Callable[..., Any], dead: Dead, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(folders.Folders.holds, "__defaults__", (0.01,))
    agent = line()
    agent.ask("chunks 1")
    (failed,) = await agent.ear.turn()
    assert failed.code == "workspace_not_found"
