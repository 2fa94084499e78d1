"""Processes that an earlier broker left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.agents.acp import orphans
from broker.agents.acp.environment import MARK
from broker.agents.acp.orphans import reap
from broker.messages import TextDelta

LEAVER = """
import os, signal
here, there = os.pipe()  # ends once the grandchild runs its program
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "60"])
    os.close(there)
    signal.pause()
os.close(there)
os.read(here, 1)
print("up", flush=True)
signal.pause()
"""


@pytest.fixture
def leave() -> Iterator[Callable[[str], "subprocess.Popen[bytes]"]]:
    """Start a process with a mark, a child that left its session, and a grandchild that runs another program."""
    left = []

    def start(mark: str) -> "subprocess.Popen[bytes]":
        command = (sys.executable, "-S", "-E", "-c", LEAVER)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env={MARK: mark, "PATH": os.environ["PATH"]}, start_new_session=True
        )
        left.append((process, mark))
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process

    yield start
    for process, mark in left:
        reap(mark)
        process.wait(10)
        process.stdout.close()


def test_all_that_carry_the_mark_are_gone_wherever_they_went(leave: Callable[[str], Any], tmp_path: Path):
    mark = str(tmp_path)
    process = leave(mark)
    assert reap(mark) == 3
    assert process.wait(10) == -signal.SIGKILL
    assert process.stdout.read() == b""  # nobody holds the other end
    assert reap(mark) == 0


def test_those_of_another_broker_are_left_alone(leave: Callable[[str], Any], tmp_path: Path):
    process = leave(f"{tmp_path}/mine")
    assert reap(f"{tmp_path}/min") == 0
    assert reap(f"{tmp_path}/mine2") == 0
    assert process.poll() is None


def test_who_asks_survives_even_with_the_mark(tmp_path: Path):
    code = f"from broker.agents.acp.orphans import reap; print(reap({str(tmp_path)!r}))"
    environment = os.environ | {MARK: str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, timeout=30)
    assert done.stdout == b"0\n"


def test_without_a_proc_nothing_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(orphans, "_PROC", tmp_path / "nowhere")
    assert reap("any") == 0


async def test_an_agent_carries_the_mark_of_its_broker(line: Callable[..., Any], tmp_path: Path):
    agent = line(mark=str(tmp_path))
    agent.ask("silent")
    await agent.ear.until(TextDelta)
    assert reap(str(tmp_path)) == 1
    assert "SIGKILL" in (await agent.ear.until())[-1].reason
