"""What was attached, served to the page: `GET /attached/HASH`. The hash is the key, as unguessable as the content."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from multimodel.boards import Boards
from multimodel.errors import StoreError

from .parts import PLACE

PICTURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
HEADERS = {
    "Cache-Control": "private, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


def attached_route(boards: Boards) -> Route:
    """The route. Texts are served as plain text, whatever they hold; 404 where there is nothing of that hash."""

    async def answer(request: Request) -> Response:
        body = await asyncio.to_thread(_found, boards, request.path_params["hash"])
        if body is None:
            return PlainTextResponse("This is not there any more.", 404)
        kind = next((kind for begins, kind in PICTURES.items() if body.startswith(begins)), "text/plain; charset=utf-8")
        return Response(body, headers=HEADERS, media_type=kind)

    return Route(f"/{PLACE}/{{hash}}", answer)


def _found(boards: Boards, hash: str) -> bytes | None:
    try:
        return boards.store.blob(hash)
    except StoreError:
        return None
