"""Where plugins come from: files loaded by path, the same way for built-ins and drop-ins, and entry points."""

import importlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

import attrs

from broker.extensions import trust
from broker.hooks import Plugin

__all__ = ["GROUP", "Found", "find", "own_frames"]

GROUP: Final = "actor_broker.plugins"
"""The entry point group of installed packages."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_MODULES: Final = "broker_plugin_"
"""What the modules made of files are called, before the plugin's name."""


class _SourceLoader(SourceFileLoader):
    """Runs the file that is there, and neither reads nor leaves compiled code beside it."""

    def path_stats(self, path: Any) -> Any:
        raise OSError(f"no bytecode for {path}")


class _TrustedLoader(_SourceLoader):
    """Runs the very bytes of a drop-in that were found to be nobody else's."""

    def get_data(self, path: Any) -> bytes:
        return trust.read(Path(path))


class _Inside(MetaPathFinder):
    """Finds the modules inside of packages that were loaded by path, and has them loaded in the same way."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        package = sys.modules.get(fullname.rpartition(".")[0])
        if path is None or not fullname.startswith(_MODULES) or package is None or package.__spec__ is None:
            return None
        loader = type(package.__spec__.loader)
        if not issubclass(loader, _SourceLoader):
            return None
        inner = Path(next(iter(path)), fullname.rpartition(".")[2])
        return _spec(fullname, inner if inner.is_dir() else inner.with_suffix(".py"), loader)


sys.meta_path.insert(0, _Inside())


@attrs.frozen
class Found:
    """A plugin there is, whether it is to be loaded or not.

    Attributes:
        name: the file's stem, the package's name, the entry point's name, or what the class calls itself.
        source: where it was found; `given` for a class that a program has handed over.
        path: the file or the package's folder; None for an entry point and a class.
        entry_point: None for a file and a class.
        given: the class that was handed over.
        rival: another of the same name and source; which of them is meant cannot be known.
        hides: one of the same name whose place it takes.
    """

    name: str
    source: Literal["drop-in", "built-in", "entry point", "given"]
    path: Path | None = None
    entry_point: EntryPoint | None = None
    given: type[Plugin] | None = None
    rival: str | None = None
    hides: "Found | None" = None

    @property
    def location(self) -> str:
        """Where it is, for people."""
        if self.given:
            return f"{self.given.__module__}:{self.given.__qualname__}"
        return self.entry_point.value if self.entry_point else str(self.path)

    def load(self) -> type[Plugin]:
        """Run the plugin's code and return its class, named.

        Raises:
            Unsafe: others than its owner can change the file.
            Exception: whatever the code raised; `TypeError` and `ValueError` also if there is no one plugin in it.
        """
        if self.rival:
            raise ValueError(f"there are two of that name: {self.location} and {self.rival}")
        loaded = self._given_or_loaded()
        plugin = _only_plugin(loaded) if isinstance(loaded, ModuleType) else loaded
        if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
            raise TypeError(f"{self.location} is no subclass of broker.hooks.Plugin")
        if not attrs.has(plugin.Settings):
            raise TypeError(f"{plugin.__name__}.Settings must be an attrs class")
        if plugin.name not in {"", self.name}:
            raise ValueError(f"the plugin calls itself {plugin.name!r}, and its {self.source} {self.name!r}")
        plugin.name = self.name
        return plugin

    def _given_or_loaded(self) -> Any:
        if self.given or self.entry_point is None:
            return self.given or self._execute(self.path or Path())
        return self.entry_point.load()

    @property
    def version(self) -> str | None:
        """The version of the package that it was installed with."""
        return self.entry_point.dist.version if self.entry_point and self.entry_point.dist else None

    def _execute(self, path: Path) -> ModuleType:
        if self.source == "built-in":
            return _execute(self.name, path, _SourceLoader)
        trust.check(path)
        return _execute(self.name, path, _TrustedLoader)


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
    found = _over(_by_name(_entry_points()), _by_name(_in_folder(built_in, "built-in")))
    if plugins_dir is not None and plugins_dir.resolve() != built_in:
        found = _over(found, _by_name(_in_folder(plugins_dir.absolute(), "drop-in")))
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
    of_import = filename.startswith(("<frozen importlib", str(Path(importlib.__file__).parent)))
    return of_import or Path(filename).parent == ours or Path(filename) == ours.parent / "hooks" / "plugin.py"


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


def _over(below: dict[str, Found], above: dict[str, Found]) -> dict[str, Found]:
    """Lay plugins over others; one that hides another of its name says so."""
    return below | {name: attrs.evolve(found, hides=below.get(name)) for name, found in above.items()}


def _execute(name: str, path: Path, loader: "type[_SourceLoader]") -> ModuleType:
    module_name = f"{_MODULES}{name}"
    spec = _spec(module_name, path, loader)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
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


def _spec(module_name: str, path: Path, loader: "Callable[[str, str], _SourceLoader]") -> ModuleSpec | None:
    """Return how to load a file, or a folder as a package; None if there is none."""
    file = path / "__init__.py" if path.is_dir() else path
    if not file.is_file():
        return None
    inner = [str(path)] if path.is_dir() else None
    return spec_from_file_location(
        module_name, file, loader=loader(module_name, str(file)), submodule_search_locations=inner
    )


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
