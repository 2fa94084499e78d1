"""Where plugins come from: files loaded by path, the same way for built-ins and drop-ins, and entry points."""

import importlib
import os
import re
import stat
import sys
import traceback
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

import attrs

from broker.hooks import Plugin

__all__ = ["GROUP", "Found", "Unsafe", "find", "own_frames"]

GROUP: Final = "actor_broker.plugins"
"""The entry point group of installed packages."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


class Unsafe(Exception):  # noqa: N818 - named after the state of the file
    """Somebody else could change the plugin's code, which runs with all the broker's rights."""


class _SourceLoader(SourceFileLoader):
    """Runs the file that is there, and neither reads nor leaves compiled code beside it."""

    def path_stats(self, path: Any) -> Any:
        raise OSError(f"no bytecode for {path}")


@attrs.frozen
class Found:
    """A plugin there is, whether it is to be loaded or not.

    Attributes:
        name: the file's stem, the package's name or the entry point's name.
        source: where it was found.
        path: the file or the package's folder; None for an entry point.
        entry_point: None for a file.
        rival: another of the same name and source; which of them is meant cannot be known.
    """

    name: str
    source: Literal["drop-in", "built-in", "entry point"]
    path: Path | None = None
    entry_point: EntryPoint | None = None
    rival: str | None = None

    @property
    def location(self) -> str:
        """Where it is, for people."""
        return self.entry_point.value if self.entry_point else str(self.path)

    def load(self) -> type[Plugin]:
        """Run the plugin's code and return its class, named.

        Raises:
            Unsafe: others than its owner can change the file.
            Exception: whatever the code raised; `TypeError` and `ValueError` also if there is no one plugin in it.
        """
        if self.rival:
            raise ValueError(f"there are two of that name: {self.location} and {self.rival}")
        if self.path and self.source == "drop-in":
            _refuse_unsafe(self.path)
        loaded = self.entry_point.load() if self.entry_point else _execute(self.name, self.path or Path())
        plugin = _only_plugin(loaded) if isinstance(loaded, ModuleType) else loaded
        if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
            raise TypeError(f"{self.location} is no subclass of broker.hooks.Plugin")
        if not attrs.has(plugin.Settings):
            raise TypeError(f"{plugin.__name__}.Settings must be an attrs class")
        if plugin.name not in {"", self.name}:
            raise ValueError(f"the plugin calls itself {plugin.name!r}, and its {self.source} {self.name!r}")
        plugin.name = self.name
        return plugin


def find(plugins_dir: Path | None) -> dict[str, Found]:
    """Return the plugins there are, by name, without running any of their code.

    A drop-in goes before a built-in of the same name; a built-in before an entry point, so that no package that
    happens to be installed takes its place.

    Args:
        plugins_dir: the folder of drop-ins; it need not exist.

    Raises:
        OSError: the folder is there but cannot be read.
    """
    built_in = _built_in_folder()
    found = _by_name(_entry_points()) | _by_name(_in_folder(built_in, "built-in"))
    if plugins_dir is not None and plugins_dir.resolve() != built_in:
        found |= _by_name(_in_folder(plugins_dir.resolve(), "drop-in"))
    return found


def own_frames(error: BaseException) -> str:
    """Return an error and where it was raised, without our frames and the import system's: the plugin's part of it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    lines = traceback.format_list(frames)
    # A syntax error shows its line in a form of its own, before its last line.
    lines += traceback.format_exception_only(error)[:-1] if isinstance(error, SyntaxError) else []
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    head = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{head}\n{''.join(lines)}".rstrip()


def _is_machinery(filename: str) -> bool:
    ours = Path(__file__).parent
    machinery = {ours / "plugin_files.py", ours / "plugin_loader.py", ours / "hooks.py"}
    of_import = filename.startswith(("<frozen importlib", str(Path(importlib.__file__).parent)))
    return of_import or Path(filename) in machinery


def _built_in_folder() -> Path:
    # Asked of the import system, which knows it in a wheel, an editable install and a checkout alike.
    spec = find_spec("broker.plugins")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the installation is broken: there is no broker.plugins")
    return Path(spec.submodule_search_locations[0]).resolve()


def _in_folder(folder: Path, source: Literal["drop-in", "built-in"]) -> Iterator[Found]:
    if not folder.exists():
        return
    for path in sorted(folder.iterdir()):
        is_plugin = path.suffix == ".py" if path.is_file() else (path / "__init__.py").is_file()
        if is_plugin and _NAME.fullmatch(path.stem):
            yield Found(path.stem, source, path)


def _entry_points() -> Iterator[Found]:
    for entry_point in entry_points(group=GROUP):
        yield Found(entry_point.name, "entry point", entry_point=entry_point)


def _by_name(all_found: Iterator[Found]) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for plugin in all_found:
        first = found.setdefault(plugin.name, plugin)
        if first.location != plugin.location:
            found[plugin.name] = attrs.evolve(first, rival=plugin.location)
    return found


def _refuse_unsafe(path: Path) -> None:
    for part in (path.parent, path, *(path.rglob("*") if path.is_dir() else ())):
        # What is mounted read-only, as Kubernetes does with its world-writable folders, nobody here can change.
        if part.stat().st_mode & _OTHERS and not os.statvfs(part).f_flag & os.ST_RDONLY:
            raise Unsafe(f"{part} can be changed by others than its owner; to allow it: chmod go-w {part}")


def _execute(name: str, path: Path) -> ModuleType:
    is_package = path.is_dir()
    file = path / "__init__.py" if is_package else path
    module_name = f"broker_plugin_{name}"
    spec = spec_from_file_location(
        module_name,
        file,
        loader=_SourceLoader(module_name, str(file)),
        submodule_search_locations=[str(path)] if is_package else None,
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {file}")
    _forget(module_name)
    module = module_from_spec(spec)
    # There before it runs: attrs and cattrs look annotations up in the module's namespace.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        _forget(module_name)
        raise
    return module


def _forget(module_name: str) -> None:
    for name in [name for name in sys.modules if name == module_name or name.startswith(f"{module_name}.")]:
        del sys.modules[name]


def _only_plugin(module: ModuleType) -> type[Plugin]:
    """Return the one public subclass of `Plugin` that the module, or a part of the package, defines."""
    classes = {
        name: thing
        for name, thing in vars(module).items()
        if isinstance(thing, type) and issubclass(thing, Plugin) and not name.startswith("_")
        if f"{thing.__module__}.".startswith(f"{module.__name__}.")
    }
    if len(classes) != 1:
        there = f"{len(classes)}: {', '.join(classes)}" if classes else "none"
        raise ValueError(f"a plugin's file defines one subclass of broker.hooks.Plugin; here are {there}")
    return next(iter(classes.values()))
