"""What is refused when there is no room, and what never is (PROTOCOL P8)."""

import attrs
import pytest

from broker.errors import BrokerError
from broker.vitals.load import Load
from broker.web.actions import ACTIONS

ENDS = {"turn.cancel", "approval.answer", "session.close", "session.delete", "session.detach", "room.leave", "ping"}


@attrs.define
class House:
    """What a load looks at."""

    short: bool = False
    behind: bool = False

    def load(self) -> Load:
        return Load(lambda: self.short, lambda: self.behind, lambda session_id: session_id == "live")


def refused(load: Load, resource: str | None = None) -> set[str]:
    """Return the actions that are refused now, `connect` among them."""
    found = set()
    for action in {*ACTIONS, "connect"}:
        try:
            load.check(action, resource)
        except BrokerError as e:
            found.add((action, e.retryable, e.retry_after is not None))
    assert all(retryable and says_when for _, retryable, says_when in found)
    return {action for action, _, _ in found}


def test_with_room_nothing_is_refused() -> None:
    load = House().load()
    assert refused(load) == set()
    assert load.trouble() is None


def test_short_of_memory_nothing_new_is_taken_in() -> None:
    load = House(short=True).load()
    sessions = {"session.attach", "session.create", "session.open"}
    assert refused(load) == sessions | {"connect", "project.feedback", "room.join", "turn.start"}
    assert {"session.attach", "session.open"} & refused(load, "live") == set()
    assert load.trouble() == "The broker is short of memory."


def test_with_the_store_behind_nothing_new_is_written() -> None:
    load = House(behind=True).load()
    writes = {"room.publish", "session.configure", "session.create", "session.open", "session.share", "session.update"}
    assert refused(load) == writes | {"turn.drop", "turn.edit", "turn.start"}
    assert "session.open" not in refused(load, "live")
    assert load.trouble() == "The store is behind."


def test_before_the_end_nothing_is_begun() -> None:
    load = House().load()
    load.stopping = True
    assert refused(load) == {"session.create", "session.open", "turn.start"}
    assert refused(load, "live") == {"session.create", "turn.start"}
    with pytest.raises(BrokerError) as refusal:
        load.check("turn.start")
    assert refusal.value.code == "unavailable"


def test_what_ends_something_is_always_welcome() -> None:
    load = House(short=True, behind=True).load()
    load.stopping = True
    assert ACTIONS.keys() >= ENDS
    assert ENDS.isdisjoint(refused(load))
