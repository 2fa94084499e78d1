"""Real plugin files in real folders, named by a real configuration file."""

import asyncio
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from broker import config
from broker.extensions.listing import detail, table
from broker.extensions.loader import Plugins, describe, load
from broker.extensions.record import Status
from broker.extensions.trust import Unsafe
from broker.hooks import Stats

PLAIN = """
    from broker.hooks import Plugin

    class Plain(Plugin):
        version = "1.2"

        def on_message(self, message):
            pass
"""

BUILT_IN = {
    path.stem: "disabled"
    for path in (Path(__file__).parents[2] / "plugins").iterdir()
    if path.suffix == ".py" or (path / "__init__.py").exists()
    if not path.stem.startswith("_")
}
"""The plugins that come with the broker, as they are where none is named."""

Write = Callable[..., Path]
Load = Callable[..., Plugins]


class Lone:
    """A broker with counters and nobody connected."""

    def __init__(self) -> None:
        self.version = "1"
        self.stats = Stats()
        self.told: list[str] = []


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a plugin's file into the folder of drop-ins."""
    (tmp_path / "plugins").mkdir(mode=0o755)

    def write(name: str, source: str, mode: int = 0o644) -> Path:
        path = tmp_path / "plugins" / name
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.write_text(dedent(source))
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def load_yaml(tmp_path: Path) -> Load:
    """Write a configuration file beside that folder, and load the plugins it names."""

    def load_yaml(text: str) -> Plugins:
        file = tmp_path / "config.yaml"
        file.write_text(dedent(text))
        loaded = config.load(file, {}, {})
        return load(loaded.settings, loaded.file)

    return load_yaml


def rendered(plugins: Plugins, tmp_path: Path) -> str:
    """Return what an operator would read, with the folder of the test left out."""
    return config.ConfigErrors(plugins.problems).render().replace(f"{tmp_path}/", "")


def statuses(plugins: Plugins) -> dict[str, str]:
    return {record.name: str(record.status) for record in plugins.records}


# -- finding -------------------------------------------------------------------------------------


def test_only_what_the_configuration_names_is_run(write: Write, load_yaml: Load) -> None:
    write("plain.py", PLAIN)
    write("bomb.py", "raise SystemExit('run')")
    plugins = load_yaml("plugins: {plain: {}}")
    assert statuses(plugins) == {**BUILT_IN, "plain": "enabled", "bomb": "disabled"}
    assert not plugins.problems


def test_without_the_block_nothing_is_loaded(write: Write, load_yaml: Load) -> None:
    write("plain.py", PLAIN)
    assert set(statuses(load_yaml("log: {level: info}")).values()) == {"disabled"}


def test_built_ins_are_found_without_a_folder_of_drop_ins(load_yaml: Load) -> None:
    plugins = load_yaml("plugins: {metrics: {}}\nplugins_dir: nowhere")
    assert statuses(plugins) == {**BUILT_IN, "metrics": "enabled"}
    assert {record.found.source for record in plugins.records if record.found} == {"built-in"}


def test_plugins_are_called_in_the_order_of_the_configuration(write: Write, load_yaml: Load) -> None:
    for name in ("alpha", "beta", "gamma"):
        write(f"{name}.py", PLAIN)
    plugins = load_yaml("plugins:\n  gamma: {}\n  alpha: {}\n  beta:\n")
    plugins.create(Lone())  # type: ignore[arg-type]
    assert [plugin.name for plugin in plugins.instances] == ["gamma", "alpha", "beta"]


def test_files_that_are_no_plugins_are_left_alone(write: Write, load_yaml: Load) -> None:
    for name in ("_private.py", "notes.txt", "old.bak.py", ".hidden.py", "empty/readme.py", "__pycache__/plain.py"):
        write(name, PLAIN)
    assert statuses(load_yaml("{}")) == BUILT_IN


def test_the_folder_of_the_built_ins_is_not_read_twice(tmp_path: Path, load_yaml: Load) -> None:
    built_in = load_yaml("{}").records[0].found
    assert built_in is not None
    assert built_in.path is not None
    (tmp_path / "plugins").symlink_to(built_in.path.parent)
    found = load_yaml("{}").records[0].found
    assert found is not None
    assert found.source == "built-in"


def test_a_drop_in_takes_the_place_of_a_built_in(write: Write, load_yaml: Load) -> None:
    path = write("metrics.py", PLAIN)
    record = load_yaml("plugins: {metrics: {}}").records[0]
    assert record.found is not None
    assert (record.found.source, record.found.path) == ("drop-in", path)
    assert record.as_row()["hides"] == "built-in"


def test_an_absolute_folder_may_be_anywhere_and_null_means_none(tmp_path: Path, write: Write, load_yaml: Load) -> None:
    write("plain.py", PLAIN)
    (tmp_path / "plugins").rename(tmp_path / "elsewhere")
    assert "plain" in statuses(load_yaml(f"plugins_dir: {tmp_path}/elsewhere"))
    (tmp_path / "elsewhere").rename(tmp_path / "plugins")
    assert "plain" not in statuses(load_yaml("plugins_dir: null"))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Install a package that offers `plain` by an entry point."""

    def install(name: str, entry_point: str) -> None:
        site = tmp_path / "site"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[actor_broker.plugins]\n{entry_point}\n")
        (site / f"{name}.py").write_text(dedent(PLAIN))
        monkeypatch.syspath_prepend(str(site))

    return install


def test_a_module_inside_a_package_leaves_no_compiled_code_either(
    tmp_path: Path, write: Write, load_yaml: Load
) -> None:
    write("pack/__init__.py", "from .inner.deep import Plain as Packed\nfrom broker.hooks import Plugin")
    (tmp_path / "plugins/pack/inner").mkdir(mode=0o755)
    write("pack/inner/__init__.py", "")
    write("pack/inner/deep.py", PLAIN)
    assert load_yaml("plugins: {pack: {}}").records[0].status == Status.ENABLED
    assert not list((tmp_path / "plugins").rglob("__pycache__"))
    write("pack/inner/deep.py", PLAIN.replace("1.2", "1.3"))
    assert load_yaml("plugins: {pack: {}}").records[0].as_row()["version"] == "1.3"


def test_an_inner_module_that_is_imported_late_is_looked_at_when_it_is(
    tmp_path: Path, write: Write, load_yaml: Load
) -> None:
    write(
        "pack/__init__.py",
        PLAIN + "\n        def actions(self):\n            from . import inner\n            return {}\n",
    )
    inner = write("pack/inner.py", "")
    plugins = load_yaml("plugins: {pack: {}}")
    plugins.create(Lone())  # type: ignore[arg-type]
    inner.chmod(0o666)
    with pytest.raises(Unsafe, match="chmod go-w"):
        plugins.instances[0].actions()


@pytest.mark.parametrize("target", ["offer", "offer:Plain"])
def test_an_installed_package_offers_a_module_or_a_class(
    target: str, install: Callable[[str, str], None], load_yaml: Load
) -> None:
    install("offer", f"plain = {target}")
    record = load_yaml("plugins: {plain: {}}").records[0]
    assert record.status == Status.ENABLED
    assert record.as_row()["source"] == "entry point"
    assert record.as_row()["location"] == target


def test_an_installed_package_never_takes_the_place_of_a_built_in(
    install: Callable[[str, str], None], load_yaml: Load
) -> None:
    install("offer", "metrics = offer:Plain")
    assert load_yaml("plugins: {metrics: {}}").records[0].as_row()["source"] == "built-in"


def test_two_of_one_name_are_an_error_only_if_it_is_named(tmp_path: Path, write: Write, load_yaml: Load) -> None:
    write("plain.py", PLAIN)
    write("plain/__init__.py", PLAIN)
    assert not load_yaml("{}").problems
    plugins = load_yaml("plugins: {plain: {}}")
    assert plugins.records[0].status == Status.LOAD_ERROR
    assert "there are two of that name: plugins/plain and plugins/plain.py" in rendered(plugins, tmp_path)


# -- loading -------------------------------------------------------------------------------------


def test_a_package_may_import_its_own_modules(write: Write, load_yaml: Load) -> None:
    write("pack/__init__.py", "from .inner import Plain as Packed\nfrom broker.hooks import Plugin")
    write("pack/inner.py", PLAIN)
    record = load_yaml("plugins: {pack: {}}").records[0]
    assert record.status == Status.ENABLED
    assert record.plugin is not None
    assert record.plugin.name == "pack"


def test_annotations_may_be_postponed(write: Write, load_yaml: Load) -> None:
    write(
        "late.py",
        """
        from __future__ import annotations
        import attrs
        from broker.hooks import Duration, Peer, Plugin

        class Late(Plugin):
            @attrs.frozen
            class Settings:
                pause: Duration = 1.0

            def actions(self):
                return {"pause": self.answer}

            def answer(self, peer: Peer, payload: dict[str, int]) -> float:
                return self.settings.pause
        """,
    )
    plugins = load_yaml("plugins: {late: {pause: 1m}}")
    assert not plugins.problems
    assert plugins.records[0].settings.pause == 60.0


def test_nothing_compiled_is_left_beside_a_file(tmp_path: Path, write: Write, load_yaml: Load) -> None:
    write("plain.py", PLAIN)
    load_yaml("plugins: {plain: {}}")
    assert [path.name for path in (tmp_path / "plugins").iterdir()] == ["plain.py"]


def test_an_unknown_name_is_a_mistake_at_its_place_with_a_suggestion(
    tmp_path: Path, write: Write, load_yaml: Load
) -> None:
    write("plain.py", PLAIN)
    plugins = load_yaml("plugins:\n  metrisc: {}\n")
    assert plugins.records[0].status == Status.NOT_FOUND
    assert rendered(plugins, tmp_path) == (
        "config.yaml:2:3: plugins.metrisc: not found: there is no such plugin; there are: "
        f"{', '.join(sorted([*BUILT_IN, 'plain']))}; did you mean 'metrics'?\n"
        "    metrisc: {}\n"
        "    ^^^^^^^"
    )


def test_mistakes_in_settings_are_all_told_at_their_places(tmp_path: Path, write: Write, load_yaml: Load) -> None:
    write(
        "set.py",
        """
        import attrs
        from broker.hooks import Count, Duration, Plugin

        class Set(Plugin):
            @attrs.frozen
            class Settings:
                pause: Duration
                count: Count = 1
        """,
    )
    plugins = load_yaml("plugins:\n  set: {pause: 5, cuont: 1}\n")
    assert plugins.records[0].status == Status.SETTINGS_ERROR
    assert re.findall(r"config.yaml:.*", rendered(plugins, tmp_path)) == [
        "config.yaml:2:16: plugins.set.pause: a duration needs a unit; write 5s",
        "config.yaml:2:19: plugins.set.cuont: unknown setting; did you mean 'count'?",
    ]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (
            "import nowhere_at_all",
            (
                "ModuleNotFoundError: No module named 'nowhere_at_all'\n"
                '  File "plugins/bad.py", line 1, in <module>\n    import nowhere_at_all\n'
            ),
        ),
        ("x = (", "SyntaxError: '(' was never closed\n  File \"plugins/bad.py\", line 1\n    x = (\n        ^\n"),
        (
            "def f():\n  1 / 0\nf()",
            (
                'ZeroDivisionError: division by zero\n  File "plugins/bad.py", line 3, in <module>\n    f()\n'
                '  File "plugins/bad.py", line 2, in f\n    1 / 0\n'
            ),
        ),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = 1", "a plugin's file defines one subclass of broker.hooks.Plugin; here are none"),
        ("from broker.hooks import Plugin", "here are none"),
        (
            "from broker.hooks import Plugin\nclass A(Plugin): pass\nclass B(Plugin): pass",
            "here are 2: A, B",
        ),
        (
            "from broker.hooks import Plugin\nclass A(Plugin):\n  name = 'other'",
            "the plugin calls itself 'other', and its drop-in 'bad'",
        ),
        (
            "from broker.hooks import Plugin\nclass A(Plugin):\n  Settings = dict",
            "A.Settings must be an attrs class",
        ),
        (
            "from broker.hooks import Plugin\nclass A(Plugin):\n  def on_mesage(self, m): pass",
            (
                "TypeError: on_mesage is no hook; did you mean on_message?\n"
                '  File "plugins/bad.py", line 2, in <module>\n    class A(Plugin):\n'
            ),
        ),
    ],
)
def test_a_file_that_cannot_be_loaded_says_why_in_its_own_frames(
    source: str, error: str, tmp_path: Path, write: Write, load_yaml: Load
) -> None:
    write("bad.py", source)
    write("plain.py", PLAIN)
    plugins = load_yaml("plugins: {bad: {}, plain: {}}")
    text = rendered(plugins, tmp_path)
    assert (plugins.records[0].status, plugins.records[1].status) == (Status.LOAD_ERROR, Status.ENABLED)
    assert text.startswith("config.yaml:1:11: plugins.bad: load error: ")
    assert error in text
    assert "importlib" not in text
    assert "plugin_files.py" not in text


def test_a_file_that_was_mended_is_loaded_anew(write: Write, load_yaml: Load) -> None:
    write("plain.py", "1 / 0")
    assert load_yaml("plugins: {plain: {}}").records[0].status == Status.LOAD_ERROR
    write("plain.py", PLAIN)
    assert load_yaml("plugins: {plain: {}}").records[0].status == Status.ENABLED
    write("plain.py", PLAIN.replace("1.2", "1.3"))
    assert load_yaml("plugins: {plain: {}}").records[0].as_row()["version"] == "1.3"


@pytest.mark.parametrize("mode", [stat.S_IWGRP, stat.S_IWOTH])
@pytest.mark.parametrize("part", ["plugins", "plugins/pack", "plugins/pack/inner.py"])
def test_a_file_or_folder_that_others_may_write_is_refused_and_not_run(
    part: str, mode: int, tmp_path: Path, write: Write, load_yaml: Load
) -> None:
    write("pack/__init__.py", "raise SystemExit('run')")
    write("pack/inner.py", "")
    path = tmp_path / part
    path.chmod(stat.S_IMODE(path.stat().st_mode) | mode)
    plugins = load_yaml("plugins: {pack: {}}")
    assert plugins.records[0].status == Status.UNSAFE
    assert f"chmod go-w {part}" in rendered(plugins, tmp_path)


def test_a_folder_that_others_may_write_keeps_no_built_in_from_loading(tmp_path: Path, load_yaml: Load) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins").chmod(0o777)
    assert not load_yaml("plugins: {metrics: {}}").problems


# -- life ----------------------------------------------------------------------------------------

LIVING = """
    import asyncio
    from broker.hooks import Plugin

    class Living(Plugin):
        async def start(self):
            self.broker.told.append(f"{self.name} starts")

        async def stop(self):
            self.broker.told.append(f"{self.name} stops")
"""


def test_a_plugin_that_cannot_be_made_is_a_problem(tmp_path: Path, write: Write, load_yaml: Load) -> None:
    write("plain.py", PLAIN + "\n        def __init__(self, settings, broker):\n            1 / 0\n")
    plugins = load_yaml("plugins: {plain: {}}")
    plugins.create(Lone())  # type: ignore[arg-type]
    assert plugins.records[0].status == Status.START_ERROR
    assert plugins.instances == ()
    assert "plugins.plain: start error: ZeroDivisionError: division by zero\n" in rendered(plugins, tmp_path)


async def test_plugins_stop_in_reverse_and_only_those_that_started(
    tmp_path: Path, write: Write, load_yaml: Load
) -> None:
    write("one.py", LIVING)
    write("two.py", LIVING.replace('self.broker.told.append(f"{self.name} starts")', "raise OSError('no disk')"))
    write("three.py", LIVING)
    plugins, broker = load_yaml("plugins: {one: {}, two: {}, three: {}}"), Lone()
    plugins.create(broker)  # type: ignore[arg-type]
    await plugins.start()
    assert statuses(plugins) == {**BUILT_IN, "one": "enabled", "two": "start error", "three": "enabled"}
    assert "OSError: no disk" in rendered(plugins, tmp_path)
    await plugins.stop()
    await plugins.stop()
    assert broker.told == ["one starts", "three starts", "three stops", "one stops"]


async def test_a_start_or_stop_that_hangs_is_cut_off(tmp_path: Path, write: Write, load_yaml: Load) -> None:
    hang = "await asyncio.Event().wait()"
    write("slow.py", LIVING.replace('self.broker.told.append(f"{self.name} starts")', hang))
    write("stuck.py", LIVING.replace('self.broker.told.append(f"{self.name} stops")', hang))
    write("last.py", LIVING)
    plugins, broker = load_yaml("plugins: {slow: {}, last: {}, stuck: {}}"), Lone()
    plugins.create(broker)  # type: ignore[arg-type]
    await plugins.start(timeout=0.01)
    assert "start error: TimeoutError: it took longer than 0.01 s" in rendered(plugins, tmp_path)
    await asyncio.wait_for(plugins.stop(timeout=0.01), 5)
    assert broker.told == ["last starts", "stuck starts", "last stops"]


# -- reload --------------------------------------------------------------------------------------

WILLING = """
    import attrs
    from broker.hooks import Count, Duration, Plugin, Secret

    class Willing(Plugin):
        @attrs.frozen
        class Settings:
            answer: str = "yes"
            pause: Duration = 1.0
            password: Secret = Secret("")

        def reload(self, settings):
            self.broker.told.append(settings)
            if settings.answer == "fall":
                self.settings = settings
                raise SystemExit("no")
            if settings.answer == "mumble":
                return self.mumble()
            return settings.answer == "yes"

        async def mumble(self):
            return True
"""

Reload = Callable[[str], list[str]]


@pytest.fixture
def running(tmp_path: Path, write: Write, load_yaml: Load) -> tuple[Plugins, Lone, Reload]:
    """Two plugins of the same making that run, their broker, and a way to give them another file."""
    write("one.py", WILLING)
    write("two.py", WILLING)
    (tmp_path / "key").write_text("first")
    plugins, broker = load_yaml("plugins: {one: {password: !file key}, two: {}}"), Lone()
    plugins.create(broker)  # type: ignore[arg-type]
    assert not plugins.problems

    def reload(text: str) -> list[str]:
        (tmp_path / "config.yaml").write_text(text)
        settings = config.load(tmp_path / "config.yaml", {}, {}).settings
        return plugins.reload(settings.plugins, plugins.check(settings))

    return plugins, broker, reload


def test_each_changed_plugin_is_given_its_new_settings_and_the_others_are_left_alone(
    running: tuple[Plugins, Lone, Reload],
) -> None:
    plugins, broker, reload = running
    assert reload("plugins: {one: {password: !file key}, two: {pause: 5s}}") == []
    assert [settings.pause for settings in broker.told] == [5.0]  # type: ignore[attr-defined]
    assert [plugin.settings.pause for plugin in plugins.instances] == [1.0, 5.0]
    assert reload("plugins: {one: {password: !file key}, two: {pause: 5s}}") == []
    assert len(broker.told) == 1


def test_a_secret_s_file_that_changed_counts_although_the_configuration_is_the_same(
    tmp_path: Path, running: tuple[Plugins, Lone, Reload]
) -> None:
    plugins, _, reload = running
    (tmp_path / "key").write_text("second")
    assert reload("plugins: {one: {password: !file key}, two: {}}") == []
    assert plugins.instances[0].settings.password.reveal() == "second"


@pytest.mark.parametrize("answer", ["no", "fall", "mumble"])
def test_a_plugin_that_does_not_take_its_settings_keeps_the_old_ones_and_is_named(
    answer: str, running: tuple[Plugins, Lone, Reload]
) -> None:
    plugins, _, reload = running
    text = f"plugins: {{one: {{answer: {answer}, password: !file key}}, two: {{pause: 5s}}}}"
    assert reload(text) == ["plugins.one"]
    assert [plugin.settings.answer for plugin in plugins.instances] == ["yes", "yes"]
    assert plugins.instances[1].settings.pause == 5.0
    assert reload(text) == ["plugins.one"], "it is asked again, and named again, until it is restarted"


def test_with_one_mistake_anywhere_nothing_is_handed_over(
    tmp_path: Path, running: tuple[Plugins, Lone, Reload]
) -> None:
    _, broker, reload = running
    with pytest.raises(config.ConfigErrors) as refused:
        reload("plugins:\n  one: {pause: 5s}\n  two: {pause: 5, answr: no}\n  twoo: {}\n")
    assert broker.told == []
    there = ", ".join(sorted([*BUILT_IN, "one", "two"]))
    unknown = f"not found: there is no such plugin; there are: {there}; did you mean 'two'?"
    assert [line for line in refused.value.render().splitlines() if "config.yaml" in line] == [
        f"{tmp_path}/config.yaml:3:16: plugins.two.pause: a duration needs a unit; write 5s",
        f"{tmp_path}/config.yaml:3:19: plugins.two.answr: unknown setting; did you mean 'answer'?",
        f"{tmp_path}/config.yaml:4:3: plugins.twoo: {unknown}",
    ]


@pytest.mark.parametrize(
    ("text", "waiting"),
    [
        ("plugins: {one: {password: !file key}}", ["plugins.two"]),
        ("plugins: {one: {password: !file key}, two: {}, metrics: {}}", ["plugins.metrics"]),
        ("plugins: {two: {}, one: {password: !file key}}", ["the order of plugins"]),
    ],
)
def test_plugins_that_come_go_or_change_places_need_a_restart(
    text: str, waiting: list[str], running: tuple[Plugins, Lone, Reload]
) -> None:
    assert running[2](text) == waiting


# -- broker plugins ------------------------------------------------------------------------------


def test_the_table_shows_what_there_is_and_how_it_fared(tmp_path: Path, write: Write) -> None:
    write("plain.py", PLAIN)
    write("bad.py", "1 / 0")
    file = tmp_path / "config.yaml"
    file.write_text("plugins: {plain: {}, bad: {}}")
    rows = {row["name"]: row for row in describe(config.load(file, {}, {}))}
    assert rows["plain"] == {
        "name": "plain",
        "status": "enabled",
        "version": "1.2",
        "source": "drop-in",
        "location": str(tmp_path / "plugins" / "plain.py"),
        "hides": None,
        "about": None,
        "hooks": ["on_message"],
        "settings": {},
        "error": None,
    }
    assert rows["bad"]["status"] == "load error"
    assert "ZeroDivisionError" in rows["bad"]["error"]
    assert rows["metrics"]["status"] == "disabled"
    assert rows["metrics"]["location"].endswith(f"{os.sep}metrics.py")


def test_settings_are_shown_as_they_are_written_and_secrets_never(tmp_path: Path, write: Write) -> None:
    write("willing.py", WILLING)
    (tmp_path / "key").write_text("hunter2")
    file = tmp_path / "config.yaml"
    file.write_text("plugins: {willing: {password: !file key, pause: 90s}}")
    (row,) = [row for row in describe(config.load(file, {}, {})) if row["name"] == "willing"]
    assert row["settings"] == {"answer": "yes", "pause": "1m30s", "password": "********"}
    assert "hunter2" not in detail(row) + table([row], 80)


def test_the_rows_of_a_running_broker_say_how_each_fares(write: Write, load_yaml: Load) -> None:
    write("plain.py", PLAIN)
    plugins, stats = load_yaml("plugins: {plain: {}}"), Stats()
    stats.plugin_errors["plain"] += 3
    stats.blocked["plain"] += 1
    row = plugins.rows(stats, {"plain": "no disk"})[0]
    assert (row["name"], row["started"], row["errors"], row["blocked"], row["trouble"]) == (
        "plain",
        False,
        3,
        1,
        "no disk",
    )
