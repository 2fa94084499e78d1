"""What an endpoint is, and how a request becomes a call of one: the same way for all of them."""

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from inspect import getdoc, isawaitable
from typing import Any, Final

import attrs
import msgspec

from broker.actors.ref import LoopRef
from broker.actors.registry import Registry
from broker.errors import BrokerError
from broker.extensions.dispatch import Bound
from broker.hooks import Permission
from broker.messages import Principal
from broker.web.content import SAYS
from broker.web.services import ASK_SECONDS, Services, to_json

__all__ = ["ENDPOINTS", "PREFIX", "SCOPE", "Call", "Endpoint", "Nothing", "endpoint"]

PREFIX: Final = "/api/v1"
SCOPE: Final = "api"
"""What a backend has to have (PROTOCOL section 5)."""
_NAME: Final = re.compile(r"[.\[]")


@attrs.frozen(eq=False)
class Call:
    """One request that was let in and read.

    Attributes:
        services: the broker's parts.
        by: who asks.
        key: its Idempotency-Key, if it has one.
    """

    services: Services
    by: Principal
    key: str | None = None

    @property
    def sender(self) -> bytes:
        """JSON of who sends, for those that are told: a backend has no connection."""
        return to_json({"connection_id": None, "user": self.by.user})

    @property
    def registry(self) -> LoopRef[Registry]:
        """The registry."""
        return self.services.registry

    async def ask(self, message: Any) -> Any:
        """Return the registry's answer to a message; raises as `Services.ask_session`."""
        return await self.registry.ask(message, timeout=ASK_SECONDS)

    async def permit(self, operation: str, resource: str | None) -> None:
        """Ask the plugins whether this may be done.

        Raises:
            BrokerError: it may not.
        """
        await self.gate(self.services.hooks.permission, Permission(self.by, operation, resource))

    def administer(self) -> None:
        """Refuse who is no administrator.

        Raises:
            BrokerError: `forbidden`.
        """
        if "admin" not in self.by.scopes:
            raise BrokerError("forbidden", "This takes the scope admin.")

    async def passed(self, operation: str, resource: str | None, payload: Any) -> Any:
        """Return the payload with what the content gates let be said; raises as `permit`."""
        says, hooks = SAYS.get(operation), self.services.hooks
        if says is None or not hooks.content:
            return payload
        passed = says.passed(hooks.run_filters, self.by, operation, resource, payload)
        return await passed if isawaitable(passed) else passed

    async def gate(self, gates: tuple[Bound, ...], value: Any) -> None:
        """Ask the plugins' gates; raises as `permit`."""
        waiting = self.services.hooks.run_gates(gates, value)
        if waiting is not None:
            await waiting


Run = Callable[[Call, Any], Awaitable[Any]]


@attrs.define(eq=False, slots=False)
class Endpoint:
    """One row of the table.

    Attributes:
        method: GET, POST or DELETE.
        path: below `PREFIX`, with the names of parameters in braces.
        operation: what the plugins' permission gates are asked for.
        run: does it; takes the call and the payload, returns what to answer, as values or as JSON.
        payload: what it takes: a class whose fields come from the path, and from the query or else the body.
            `msgspec.Raw` for a body that may be any JSON.
        answer: the class of what it answers.
        status: of that answer.
        resource: the payload's attribute that names what it is about.
        errors: the codes it may be refused with, beside those that any may.
        fixed: fields of the payload that the path stands for.
        replayed: whether the same request with the same Idempotency-Key is given the same answer again.
        scope: what who asks has to have; None if it is enough to be somebody.
        public: whether it takes no token at all, since what it is sent says who asks.
    """

    method: str
    path: str
    operation: str
    run: Run
    payload: type
    answer: Any
    status: int
    resource: str | None
    errors: tuple[str, ...]
    fixed: Mapping[str, Any]
    replayed: bool
    scope: str | None
    public: bool

    @property
    def name(self) -> str:
        """How the description calls it."""
        return self.run.__name__.strip("_")

    @property
    def summary(self) -> str:
        """What it does, in a sentence."""
        return (getdoc(self.run) or "").partition("\n")[0]

    @property
    def description(self) -> str:
        """What else there is to say."""
        return (getdoc(self.run) or "").partition("\n")[2].strip()

    @property
    def keyed(self) -> bool:
        """Whether it takes an Idempotency-Key: whether it changes anything, and can be answered as before."""
        return self.method != "GET" and self.replayed

    @property
    def takes_body(self) -> bool:
        """Whether what it takes comes as a body."""
        return self.method == "POST"

    @cached_property
    def in_path(self) -> tuple[str, ...]:
        """The names of the parameters in the path."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names of what comes in the query, or else the body."""
        if self.payload is msgspec.Raw:
            return ()
        taken = {*self.in_path, *self.fixed}
        return tuple(field.name for field in attrs.fields(self.payload) if field.name not in taken)

    def about(self, payload: Any) -> str | None:
        """Return what a call is about, for the permission gates."""
        return None if self.resource is None else getattr(payload, self.resource)

    def placed(self, error: BrokerError) -> BrokerError:
        """Return the error with the field as it is called here: by its path in the body, else by its plain name."""
        if error.field is None or not error.field.startswith("$"):
            return error
        path = error.field.removeprefix("$").removeprefix(".payload").removeprefix(".")
        in_body = self.takes_body and _NAME.split(path, maxsplit=1)[0] not in self.in_path
        error.field = f"$.{path}".removesuffix(".") if in_body else path
        return error


ENDPOINTS: Final[list[Endpoint]] = []
"""All of them, in the order in which they are described."""


@attrs.frozen
class Nothing:
    """A payload without fields."""


def endpoint(
    method: str,
    path: str,
    operation: str,
    payload: type = Nothing,
    *,
    answer: Any,
    status: int = 200,
    resource: str | None = None,
    errors: tuple[str, ...] = (),
    fixed: Mapping[str, Any] | None = None,
    replayed: bool = True,
    scope: str | None = SCOPE,
    public: bool = False,
) -> Callable[[Run], Run]:
    """Enter a function into the table; the arguments are the attributes of `Endpoint`."""

    def enter(run: Run) -> Run:
        fields = (payload, answer, status, resource, errors, fixed or {}, replayed, scope, public)
        ENDPOINTS.append(Endpoint(method, path, operation, run, *fields))
        return run

    return enter
