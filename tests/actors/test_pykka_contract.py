"""What loop.py, ref.py and futures.py rely on inside pykka: a test for each private name, so that an upgrade fails."""

import inspect
import logging
import threading
import weakref
from typing import Any

import pykka
import pytest
from pykka._envelope import Envelope
from pykka._introspection import get_attr_directly
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop


class Plain(pykka.ThreadingActor):
    """An actor as pykka means it."""

    def __init__(self) -> None:
        super().__init__()
        self.word = "hello"

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Exception):
            raise message
        return message


def test_envelope_has_slots_for_a_message_and_where_its_answer_goes_and_nothing_else() -> None:
    envelope = Envelope("message", reply_to=None)
    assert (envelope.message, envelope.reply_to) == ("message", None)
    assert sorted(Envelope.__slots__) == ["message", "reply_to"]


def test_actor_stop_is_a_class_without_arguments() -> None:
    assert isinstance(_ActorStop(), _ActorStop)


def test_get_attr_directly_walks_a_path() -> None:
    assert get_attr_directly(Plain, ("on_receive", "__name__")) == "on_receive"


def test_proxy_messages_name_a_path_and_take_arguments_or_a_value() -> None:
    call = ProxyCall(attr_path=("a", "b"), args=(1,), kwargs={"c": 2})
    assert (call.attr_path, call.args, call.kwargs) == (("a", "b"), (1,), {"c": 2})
    assert ProxyGetAttr(attr_path=("a",)).attr_path == ("a",)
    assert ProxySetAttr(attr_path=("a",), value=1).value == 1


def test_handle_receive_serves_proxy_messages_and_gives_the_rest_to_on_receive() -> None:
    actor = Plain()
    assert actor._handle_receive("message") == "message"
    assert actor._handle_receive(ProxyGetAttr(attr_path=("word",))) == "hello"
    actor._handle_receive(ProxySetAttr(attr_path=("word",), value="bye"))
    assert actor.word == "bye"


def test_handle_receive_stops_the_actor_on_actor_stop_through_stop() -> None:
    actor = Plain()
    pykka.ActorRegistry.register(actor.actor_ref)  # noqa: TID251 - as pykka's own `start` does
    actor._handle_receive(_ActorStop())
    assert actor.actor_stopped.is_set()


def test_actor_stop_method_sends_actor_stop_by_its_own_reference() -> None:
    told: list[Any] = []
    actor = Plain()
    actor._actor_ref = type("Ref", (), {"tell": lambda self, message: told.append(message)})()  # type: ignore[assignment]
    actor.stop()
    assert [type(message) for message in told] == [_ActorStop]


def test_actor_loop_setup_runs_on_start_and_hands_its_failure_to_handle_failure() -> None:
    class Broken(Plain):
        def on_start(self) -> None:
            raise LookupError("no start")

    failures: list[Any] = []
    actor = Broken()
    actor._handle_failure = lambda *exc_info: failures.append(exc_info)  # type: ignore[method-assign]
    actor._actor_loop_setup()
    assert failures[0][0] is LookupError


def test_handle_failure_takes_what_exc_info_gives() -> None:
    parameters = list(inspect.signature(pykka.Actor._handle_failure).parameters)
    assert parameters == ["self", "exception_type", "exception_value", "traceback"]


@pytest.mark.parametrize("name", ["_create_actor_inbox", "_create_future", "_start_actor_loop"])
def test_the_extension_points_are_abstract_so_that_a_new_kind_of_actor_has_to_bring_them(name: str) -> None:
    assert name in pykka.Actor.__abstractmethods__


def test_actor_init_makes_nothing_beyond_what_a_loop_actor_makes_itself() -> None:
    assert set(vars(Plain())) == {"actor_urn", "actor_inbox", "actor_stopped", "_actor_ref", "word"}


def test_actor_ref_is_a_property_over_the_private_reference() -> None:
    actor = Plain()
    actor._actor_ref = "another"  # type: ignore[assignment]
    assert actor.actor_ref == "another"  # type: ignore[comparison-overlap]


def test_actor_ref_copies_these_and_no_others_from_its_actor() -> None:
    actor = Plain()
    ref: pykka.ActorRef[Plain] = pykka.ActorRef(actor)
    assert set(vars(ref)) == {"_actor_weakref", "actor_class", "actor_urn", "actor_inbox", "actor_stopped"}
    assert isinstance(ref._actor_weakref, weakref.ref)
    assert ref.actor_stopped is actor.actor_stopped


def test_a_reference_asks_its_flag_whether_the_actor_is_alive() -> None:
    ref: pykka.ActorRef[Plain] = pykka.ActorRef(Plain())
    assert ref.is_alive()
    ref.actor_stopped = threading.Event()
    ref.actor_stopped.set()
    assert not ref.is_alive()


def test_the_actor_module_logs_to_the_logger_pykka() -> None:
    assert pykka._actor.logger is logging.getLogger("pykka")


def test_a_future_s_own_methods_take_these_arguments() -> None:
    assert list(inspect.signature(pykka.Future.__init__).parameters) == ["self"]
    assert list(inspect.signature(pykka.Future.set).parameters) == ["self", "value"]
    assert list(inspect.signature(pykka.Future.set_exception).parameters) == ["self", "exc_info"]


def test_a_threading_actor_answers_what_is_put_into_its_inbox_as_an_envelope() -> None:
    ref = Plain.start()
    good: pykka.ThreadingFuture[Any] = pykka.ThreadingFuture()
    bad: pykka.ThreadingFuture[Any] = pykka.ThreadingFuture()
    ref.actor_inbox.put(Envelope("question", reply_to=good))
    ref.actor_inbox.put(Envelope(LookupError("no"), reply_to=bad))
    assert good.get(timeout=5) == "question"
    with pytest.raises(LookupError):
        bad.get(timeout=5)
    ref.stop(timeout=5)


def test_a_threading_actor_answers_with_set_and_set_exception_without_arguments_of_other_kinds() -> None:
    answered: list[Any] = []
    done = threading.Event()

    class Reply:
        def set(self, value: Any = None, /) -> None:
            answered.append(value)

        def set_exception(self, exc_info: Any = None, /) -> None:
            answered.append(exc_info)
            done.set()

    ref = Plain.start()
    ref.actor_inbox.put(Envelope("question", reply_to=Reply()))  # type: ignore[arg-type]
    ref.actor_inbox.put(Envelope(LookupError("no"), reply_to=Reply()))  # type: ignore[arg-type]
    assert done.wait(5)
    assert answered == ["question", None]
    ref.stop(timeout=5)
