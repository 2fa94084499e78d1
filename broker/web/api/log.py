"""The newest lines of the log, over HTTP."""

from typing import Annotated, Any, Literal, TypedDict

import attrs
from msgspec import Meta

from broker.protocol.payloads import Limit
from broker.web.api.answers import Time
from broker.web.api.endpoint import Call, endpoint


@attrs.define
class LinesWanted:
    """Which lines: those after the last that is known, else the newest."""

    after: Annotated[int, Meta(ge=0)] | None = None
    level: Literal["trace", "debug", "info", "warning", "error", "critical"] = "trace"
    contains: Annotated[str, Meta(max_length=200)] = ""
    limit: Limit = 200


class LogLine(TypedDict):
    """A line of the log; `extra` has the ids that it is about, and the traceback if it has one."""

    n: int
    at: Time
    level: str
    message: str
    logger: str
    extra: dict[str, Any]


class LogLines(TypedDict):
    """Lines, oldest first; `next` is what to ask after then, `left_out` how many are not there any more."""

    lines: list[LogLine]
    next: int
    left_out: int


@endpoint("GET", "/log", "log", LinesWanted, answer=LogLines)
async def read_log(call: Call, wanted: LinesWanted) -> Any:
    """Read the newest lines of the log, as they are written; this takes the scope `admin`.

    They are kept in memory: the newest 1000 of at most 1 MiB. Asked for with `after`, those that have come since, so
    that the log can be followed.
    """
    call.administer()
    return call.services.journal.read(wanted.after, wanted.level, wanted.contains, wanted.limit)
