"""What tests of the HTTP API share: a caller whose every answer is compared with what the API says of itself."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import attrs
import pytest
from jsonschema import Draft202012Validator
from yarl import URL

from broker.app import App
from broker.web.api.openapi import openapi


@attrs.define
class Answer:
    """What was answered."""

    status: int
    headers: Mapping[str, str]
    body: Any


def check(document: Mapping[str, Any], method: str, path: str, answer: Answer) -> None:
    """Compare an answer with the description of the API."""
    known = [one for one in document["paths"] if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", one), path)]
    if not known or method.lower() not in document["paths"][known[0]]:
        assert answer.status in {204, 403, 404, 405}, answer
        return
    responses = document["paths"][known[0]][method.lower()]["responses"]
    assert str(answer.status) in responses, answer
    (kind, media), *_ = responses[str(answer.status)]["content"].items()
    assert answer.headers["Content-Type"].partition(";")[0] == kind
    schema = {**media["schema"], "components": document["components"]}
    Draft202012Validator(schema).validate(answer.body)


Ask = Callable[..., Awaitable[Answer]]


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """Ask something of the API, such as "POST /rooms/lobby/events"; a body that is bytes is sent as it is."""
    async with aiohttp.ClientSession() as session:

        async def send(app: App, what: str, body: Any = None, who: str = "", **headers: str) -> Answer:
            method, _, path = what.partition(" ")
            url = f"http://127.0.0.1:{app.port}/api/v1{path}"
            if who:
                url += ("&" if "?" in path else "?") + who
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            if data is not None:
                fields.setdefault("Content-Type", "application/json")

            async with session.request(method, URL(url, encoded=True), data=data, headers=fields) as response:
                text = await response.read()
                answer = Answer(response.status, response.headers, json.loads(text) if text else None)
            if method != "HEAD":
                check(json.loads(openapi(app.services)), method, "/api/v1" + path.partition("?")[0], answer)
            return answer

        yield send
