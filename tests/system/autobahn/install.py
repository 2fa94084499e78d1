"""Install Autobahn's test suite into `.wstest27` at the root of the checkout, once; print where `wstest` is.

It runs on Python 2.7 only, on purpose (its authors froze it there), and 20.21 is the last line of virtualenv that
still makes environments for that. Exit code 75 where there is no Python 2.7.
"""

import shutil
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parents[3] / ".wstest27"
NO_PYTHON = 75


def python27() -> str | None:
    """Return a Python 2.7 of pyenv or of the system; pyenv's shims stand in the path whether they work or not."""
    candidates = [shutil.which("python2.7")]
    if pyenv := shutil.which("pyenv"):
        prefix = subprocess.run([pyenv, "prefix", "2.7.18"], capture_output=True, text=True, check=False)
        candidates.insert(0, f"{prefix.stdout.strip()}/bin/python2.7")
    for program in filter(None, candidates):
        if (
            Path(program).exists()
            and not subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode
        ):
            return program
    return None


def install() -> Path:
    """Make what is missing; an installation that broke off leaves no `wstest` and is made anew."""
    wstest = HOME / "suite" / "bin" / "wstest"
    if wstest.exists():
        return wstest
    python = python27()
    if python is None:
        sys.exit(NO_PYTHON)
    shutil.rmtree(HOME, ignore_errors=True)
    maker, suite = HOME / "maker", HOME / "suite"
    for command in (
        [sys.executable, "-m", "venv", maker],
        [maker / "bin" / "pip", "install", "virtualenv<20.22"],
        [maker / "bin" / "virtualenv", "--python", python, suite],
        [suite / "bin" / "pip", "install", "autobahntestsuite==25.10.1"],
    ):
        subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)
    return wstest


if __name__ == "__main__":
    sys.stdout.write(f"{install()}\n")
