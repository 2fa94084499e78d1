"""`broker completion`, and how help lists the commands."""

import shutil
import subprocess
from collections.abc import Callable

import pytest

from broker.cli import COMMANDS, SECTIONS

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(broker: Run, shell: str) -> None:
    done = broker("completion", shell)
    assert done.returncode == 0
    assert f"_BROKER_COMPLETE={shell}_complete" in done.stdout
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=done.stdout, text=True, check=True, timeout=20)


def test_another_shell_is_a_usage_error(broker: Run) -> None:
    assert broker("completion", "tcsh").returncode == 2


@pytest.mark.parametrize(
    ("words", "found"), [("broker check", "checktoken"), ("broker init p", "plugin"), ("broker dev --po", "--port")]
)
def test_commands_and_flags_are_completed(broker: Run, words: str, found: str) -> None:
    asked = {"_BROKER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert f"plain,{found}" in broker(**asked).stdout.splitlines()


def test_help_lists_each_command_once() -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(COMMANDS)
