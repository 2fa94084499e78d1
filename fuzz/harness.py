"""What the fuzzers have in common: which code is watched for new ground, and for how long.

Imported only by a fuzzer that runs (atheris; Linux, `pip install -e .[fuzz]`): the rules themselves are replayed by
the tests without it.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from inspect import isclass, isfunction
from pathlib import Path
from types import FunctionType, ModuleType

import atheris

__all__ = ["fuzz"]


def fuzz(check: Callable[[bytes], None], *modules: ModuleType, corpus: Path, most: int) -> None:
    """Try inputs for a while; those that reach something new are kept in `--corpus`.

    Args:
        check: tries one input; whatever it raises is a find.
        modules: where new ground is looked for.
        corpus: where to begin, unless the command line says otherwise.
        most: bytes of the longest input.
    """
    parser = argparse.ArgumentParser(description=sys.modules[check.__module__].__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, default=corpus, help="read, and written to; default %(default)s")
    arguments = parser.parse_args()
    for function in _functions(*modules):
        atheris.instrument_func(function)
    options = [f"-max_total_time={arguments.seconds}", f"-max_len={most}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(arguments.corpus)], check)
    atheris.Fuzz()


def _functions(*modules: ModuleType) -> Iterator[FunctionType]:
    """Yield all functions and methods that are written in these modules."""
    for module in modules:
        for value in vars(module).values():
            if isfunction(value) and value.__module__ == module.__name__:
                yield value
            elif isclass(value) and value.__module__ == module.__name__:
                yield from filter(isfunction, vars(value).values())
