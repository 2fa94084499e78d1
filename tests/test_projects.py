"""What is kept of the statuses of projects: the last of each, and no more than fits."""

from broker import projects
from broker.agents.port import News
from broker.projects import ALL_STATUSES, LONGEST_STATUS, Statuses


def news(project: str, size: int = 1) -> News:
    return News(project, "project_status_change", 1, b"null", b"1" * size, 0)


def test_the_last_status_of_each_project_is_kept_until_it_is_taken() -> None:
    kept: Statuses[News] = Statuses()
    for project, size in (("p1", 1), ("p2", 2), ("p1", 3)):
        kept.put(news(project, size))
    assert (list(kept), len(kept), kept.get("p1")) == (["p1", "p2"], 2, news("p1", 3))
    assert (kept.pop("p1"), kept.pop("p1"), kept.get("p1")) == (news("p1", 3), None, None)


def test_a_status_that_is_too_long_leaves_none_rather_than_an_old_one() -> None:
    kept: Statuses[News] = Statuses()
    kept.put(news("p1"))
    kept.put(news("p1", LONGEST_STATUS + 1))
    assert list(kept) == []
    kept.put(news("p1", LONGEST_STATUS))
    assert list(kept) == ["p1"]


def test_all_of_them_have_a_bound_and_make_room_when_they_go() -> None:
    kept: Statuses[News] = Statuses()
    most = ALL_STATUSES // (LONGEST_STATUS + projects._BESIDE)
    for number in range(most + 10):
        kept.put(news(f"p{number}", LONGEST_STATUS))
    assert len(kept) == most
    kept.put(news("p0", LONGEST_STATUS))  # in place of its last one
    kept.pop("p1")
    kept.put(news("late", LONGEST_STATUS))
    assert (len(kept), "p0" in kept, "late" in kept) == (most, True, True)
