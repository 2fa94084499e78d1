"""The pages and the JavaScript client: files of ours, read once, the same for everybody (PROTOCOL section 5)."""

import gzip
import hashlib
import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import hdrs, web
from aiohttp.web import ContentCoding

from broker.web.problems import Handler

__all__ = ["add_pages"]

_ADDRESSES: Final = {"console/index.html": "/", "chat/index.html": "/chat", "client.js": "/client.js"}
"""Files with an address of their own; every other one is below `/static/`, and the client there too.

The pages import the client from `/static/client.js`, a neighbour of theirs whatever prefix the broker stands under.
"""
_TYPES: Final = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}
_HEADERS: Final = {
    "Cache-Control": "no-cache",  # which is: ask whether it has changed
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}

_IMPORTED: Final = {**_HEADERS, "Access-Control-Allow-Origin": "*"}
"""For all but the pages themselves: a page of any origin may import a module, as its browser asks to be told so.

They are the same for everybody, so that nobody learns anything by it; what a module then asks of the broker is
judged by its page's origin, as ever.
"""
_NOT_AT_ALL: Final = re.compile(r"\s*q=0(\.0*)?\s*", re.IGNORECASE)


def add_pages(app: web.Application) -> None:
    """Add a route for each file."""
    for name, file in _files(files("broker.web").joinpath("static")):
        kind = _TYPES.get(name.rpartition(".")[2])
        if kind is None:
            continue
        handler = _serve(file.read_bytes(), kind)
        if name in _ADDRESSES:
            app.router.add_get(_ADDRESSES[name], handler)
        if not name.endswith("index.html"):
            app.router.add_get(f"/static/{name}", handler)


def _files(folder: Traversable, path: str = "") -> Iterator[tuple[str, Traversable]]:
    """Yield each file below a folder with its path in it."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{path}{entry.name}/")
        else:
            yield f"{path}{entry.name}", entry


def _serve(body: bytes, kind: str) -> Handler:
    charset = "utf-8" if kind.startswith("text/") else None
    tag = hashlib.sha256(body).hexdigest()[:16]
    packed = gzip.compress(body, mtime=0)
    fixed = _HEADERS if kind == _TYPES["html"] else _IMPORTED

    async def serve(request: web.Request) -> web.Response:
        if any(known.value == tag for known in request.if_none_match or ()):
            answer = web.Response(status=304, headers=fixed)
        elif _takes_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, "")):
            answer = web.Response(body=packed, content_type=kind, charset=charset, headers=fixed)
            answer.headers[hdrs.CONTENT_ENCODING] = ContentCoding.gzip.value
        else:
            answer = web.Response(body=body, content_type=kind, charset=charset, headers=fixed)
        answer.etag = tag
        return answer

    return serve


def _takes_gzip(accepted: str) -> bool:
    """Tell whether an Accept-Encoding names gzip, and not to refuse it (RFC 9110 section 12.5.3)."""
    items = (item.partition(";") for item in accepted.lower().split(","))
    weights = [weight for name, _, weight in items if name.strip() == ContentCoding.gzip.value]
    return bool(weights) and not _NOT_AT_ALL.fullmatch(weights[0])
