"""Files that somebody else could change are not run: every way to change one."""

import os
import re
from pathlib import Path

import pytest

from broker.extensions import trust

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="not root: no file can be given to another user")
NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of ours, with a file in it."""
    folder = tmp_path / "far" / "plugins"
    folder.mkdir(parents=True)
    for path in (tmp_path / "far", folder):
        path.chmod(0o755)
    (folder / "plugin.py").write_text("pass")
    (folder / "plugin.py").chmod(0o644)
    return folder


def test_what_is_ours_from_the_root_on_is_safe_and_read(folder: Path) -> None:
    trust.check(folder / "plugin.py")
    assert trust.read(folder / "plugin.py") == b"pass"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
@pytest.mark.parametrize("part", [".", "plugins", "plugins/plugin.py"])
def test_each_folder_on_the_way_counts_and_the_cure_is_named(part: str, mode: int, folder: Path) -> None:
    path = folder.parent / part
    path.chmod(mode)
    with pytest.raises(trust.Unsafe, match=f"{re.escape(str(path))} can be changed by others.*chmod go-w"):
        trust.check(folder / "plugin.py")
    path.chmod(0o755)
    trust.check(folder / "plugin.py")


def test_all_that_is_wrong_is_told_at_once_with_one_command(folder: Path) -> None:
    folder.chmod(0o777)
    (folder / "plugin.py").chmod(0o666)
    with pytest.raises(trust.Unsafe) as refused:
        trust.check(folder / "plugin.py")
    assert str(refused.value).endswith(f"to allow it: chmod go-w {folder} {folder}/plugin.py")


def test_a_sticky_folder_is_fine_on_the_way_but_not_around_the_file(folder: Path) -> None:
    folder.parent.chmod(0o1777)
    trust.check(folder / "plugin.py")
    folder.chmod(0o1777)
    with pytest.raises(trust.Unsafe):
        trust.check(folder / "plugin.py")


@AS_ROOT
@pytest.mark.parametrize("part", [".", "plugins", "plugins/plugin.py"])
def test_what_belongs_to_another_user_is_refused(part: str, folder: Path) -> None:
    os.chown(folder.parent / part, NOBODY, -1)
    with pytest.raises(trust.Unsafe, match=r"belongs to another user \(uid 65534\); to allow it: chown -h root"):
        trust.check(folder / "plugin.py")


@pytest.mark.parametrize("place", ["elsewhere", "hop"])
def test_a_link_is_as_safe_as_every_folder_it_leads_through(place: str, folder: Path, tmp_path: Path) -> None:
    for name in ("elsewhere", "hop"):
        (tmp_path / name).mkdir(mode=0o755)
    (tmp_path / "elsewhere" / "real.py").write_text("pass")
    (tmp_path / "hop" / "link.py").symlink_to("../elsewhere/real.py")
    (folder / "linked.py").symlink_to(tmp_path / "hop" / "link.py")
    trust.check(folder / "linked.py")
    (tmp_path / place).chmod(0o777)
    with pytest.raises(trust.Unsafe, match=f"{tmp_path}/{place} can be changed"):
        trust.check(folder / "linked.py")


@AS_ROOT
def test_a_link_that_belongs_to_another_user_is_refused(folder: Path) -> None:
    (folder / "linked.py").symlink_to("plugin.py")
    os.chown(folder / "linked.py", NOBODY, -1, follow_symlinks=False)
    with pytest.raises(trust.Unsafe, match=r"linked\.py belongs to another user"):
        trust.check(folder / "linked.py")


def test_links_in_circles_and_to_nothing_are_no_way_in(folder: Path) -> None:
    (folder / "a.py").symlink_to("b.py")
    (folder / "b.py").symlink_to("a.py")
    with pytest.raises(trust.Unsafe, match="a link without end"):
        trust.check(folder / "a.py")
    (folder / "c.py").symlink_to("nothing.py")
    with pytest.raises(FileNotFoundError):
        trust.check(folder / "c.py")


@pytest.mark.parametrize("part", ["pack/data.txt", "pack/inner", "pack/inner/deep.py"])
def test_everything_in_a_package_counts(part: str, folder: Path) -> None:
    (folder / "pack" / "inner").mkdir(parents=True, mode=0o755)
    for name in ("__init__.py", "data.txt", "inner/deep.py"):
        (folder / "pack" / name).touch(0o644)
    trust.check(folder / "pack")
    (folder / part).chmod(0o1777)
    with pytest.raises(trust.Unsafe, match=part):
        trust.check(folder / "pack")


def test_a_folder_linked_into_a_package_counts_with_its_way(folder: Path, tmp_path: Path) -> None:
    (folder / "pack").mkdir(mode=0o755)
    (tmp_path / "elsewhere").mkdir()
    (folder / "pack" / "inner").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o775)
    with pytest.raises(trust.Unsafe, match="elsewhere can be changed"):
        trust.check(folder / "pack")


def test_a_way_up_and_down_again_is_followed_as_the_system_does(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    trust.check(tmp_path / "link" / ".." / "plugins" / "plugin.py")
    assert trust.read(tmp_path / "link" / ".." / "plugins" / "plugin.py") == b"pass"
