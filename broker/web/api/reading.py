"""From a request to an endpoint's payload: path, query and body in one value of the class that the socket decodes.

What cannot be understood is refused rather than passed over, since a program that sends it was written for something
else than what happens.
"""

import re
from collections.abc import Collection, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, Final

import attrs
import msgspec
from aiohttp import web
from msgspec.inspect import IntType, UnionType, type_info
from multidict import MultiMapping

from broker.errors import BrokerError
from broker.protocol.edge import UNREADABLE, check_depth, invalid, is_utf8, unreadable
from broker.web.api.endpoint import Endpoint
from broker.web.problems import with_status

__all__ = ["body_of", "read_body", "read_query"]

_DIGITS: Final = re.compile(r"[0-9]{1,100}", re.ASCII)
_read_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_any: Final = msgspec.json.Decoder(msgspec.Raw).decode


async def body_of(request: web.Request, most: int) -> bytes:
    """Return a request's body, which is JSON or empty.

    Args:
        request: the request.
        most: bytes it may have.

    Raises:
        BrokerError: it is something else, or too large.
    """
    if request.body_exists and request.content_type != "application/json":
        # Asked for also because a page of another origin cannot send it without a preflight.
        refusal = BrokerError("invalid_message", "Send application/json.", field="Content-Type")
        raise with_status(refusal, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    if (request.charset or "utf-8").lower() not in {"utf-8", "utf8", "us-ascii"}:
        refusal = BrokerError("invalid_message", "JSON is UTF-8.", field="Content-Type")
        raise with_status(refusal, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    if (request.content_length or 0) > most:
        raise BrokerError("too_large", f"A body may have {most} bytes.")
    text = await request.read()
    if len(text) > most:
        raise BrokerError("too_large", f"A body may have {most} bytes.")
    return text


def read_query(row: Endpoint, path: Mapping[str, str], query: MultiMapping[str]) -> Any:
    """Return the payload of a request without a body; parameters that the endpoint does not know are passed over.

    Raises:
        BrokerError: `invalid_message`, naming the parameter.
    """
    values: dict[str, Any] = {**path, **row.fixed}
    numbers = _numbers(row.payload)
    for name in row.fields:
        given = query.getall(name, [])
        if len(given) > 1:
            raise BrokerError("invalid_message", "It is there more than once.", field=name)
        if given:
            values[name] = int(given[0]) if name in numbers and _DIGITS.fullmatch(given[0]) else given[0]
    try:
        return msgspec.convert(values, row.payload)
    except msgspec.ValidationError as e:
        raise invalid(e) from None


def read_body(row: Endpoint, path: Mapping[str, str], text: bytes) -> Any:
    """Return the payload of a request with a body.

    Raises:
        BrokerError: `invalid_json` or `invalid_message`, naming the field by its path in the body.
    """
    try:
        if not is_utf8(text):
            raise BrokerError("invalid_json", "The body is not UTF-8.")
        if row.payload is msgspec.Raw:
            payload: Any = _read_any(text)
        else:
            payload = _read_fields(row, path, text)
    except UNREADABLE as e:
        raise unreadable(e, "body") from None
    check_depth(text)
    return payload


def _read_fields(row: Endpoint, path: Mapping[str, str], text: bytes) -> Any:
    given = _read_object(text or b"{}")
    _check_known(given, row.fields, "$")
    for field in attrs.fields(row.payload):
        if field.name in given and attrs.has(field.type):
            known = [inner.name for inner in attrs.fields(field.type)]
            _check_known(_read_inner(given[field.name], field.name), known, f"$.{field.name}")
    values = {**given, **path, **row.fixed}
    return msgspec.json.decode(msgspec.json.encode(values), type=row.payload)


def _read_inner(given: msgspec.Raw, name: str) -> dict[str, msgspec.Raw]:
    try:
        return _read_object(given)
    except msgspec.ValidationError as e:
        raise invalid(e, f"$.{name}") from None


def _check_known(given: Mapping[str, Any], known: Collection[str], root: str) -> None:
    for name in given:
        if name not in known:
            hint = f"there are: {', '.join(known)}" if known else "it takes none"
            raise BrokerError("invalid_message", "There is no such field.", field=f"{root}.{name[:64]}", hint=hint)


@cache
def _numbers(payload: type) -> frozenset[str]:
    """Return the names of a payload's fields that are whole numbers."""
    infos = {field.name: type_info(field.type) for field in attrs.fields(payload)}
    kinds = {name: info.types if isinstance(info, UnionType) else (info,) for name, info in infos.items()}
    return frozenset(name for name, some in kinds.items() if any(isinstance(kind, IntType) for kind in some))
