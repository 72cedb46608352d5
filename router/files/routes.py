"""The routes of files, as OpenAI's clients call them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import dropwhile
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router.asgi.body import read_body
from router.asgi.deadline import until
from router.asgi.endpoint import requester_of
from router.asgi.errors import FilesOff, json_response
from router.asgi.threads import in_thread_if_large
from router.config import RouterConfig
from router.files.file_id import FileId
from router.files.store import FileStore, StoredFile
from router.files.upload import Upload, read_upload
from vlm.errors import InvalidRequest

Json = dict[str, Any]
Check = Callable[[bytes, str], object]

MAX_PAGE = 10_000
"""Files in one page of a list: OpenAI's number, and its default."""

SAFE_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "private, no-store"}
"""Of a content: a browser neither takes it for something else nor keeps it beyond its deletion."""


class FileRoutes:
    """Answers what concerns files.

    Args:
        store: Where they are; None where this server keeps none.
        config: The router's settings.
        check: Raises ``InvalidImage`` for bytes that are not an image within the limits; also takes the field's path.
    """

    def __init__(self, store: FileStore | None, config: RouterConfig, check: Check) -> None:
        self._store = store
        self._config = config
        self._check = check

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/v1/files", self._in_time(self.upload), methods=["POST"], name="upload_file"),
            Route("/v1/files", self._in_time(self.list), methods=["GET"], name="list_files"),
            Route("/v1/files/{id}", self._in_time(self.retrieve), methods=["GET"], name="retrieve_file"),
            Route("/v1/files/{id}", self._in_time(self.delete), methods=["DELETE"], name="delete_file"),
            Route("/v1/files/{id}/content", self._in_time(self.content), methods=["GET"], name="file_content"),
        ]

    async def upload(self, request: Request) -> Response:
        """``POST /v1/files``."""
        store, owner = self._on(), requester_of(request.scope).owner
        body = await read_body(request.scope, request.receive, self._config.max_body_bytes)
        content_type = request.headers.get("content-type", "")
        upload = await in_thread_if_large(len(body), self._read, content_type, body)
        del body  # the upload has its own bytes, and waits for the store
        stored = await store.add(owner, upload)
        ignored = {"x_gigarouter": {"ignored": list(upload.ignored)}} if upload.ignored else {}
        return json_response({**file_json(stored), **ignored})

    async def list(self, request: Request) -> Response:
        """``GET /v1/files``, page by page."""
        store, owner = self._on(), requester_of(request.scope).owner
        asked = request.query_params
        limit, order = _limit(asked.get("limit")), _order(asked.get("order"))
        oldest_first = _of_purpose(await store.ids(owner), asked.get("purpose"))
        ids = _behind(asked.get("after"), oldest_first if order == "asc" else oldest_first[::-1], order)
        data = [file_json(one) for one in await store.files(owner, ids[:limit])]
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        page = {"object": "list", "data": data, "has_more": len(ids) > limit, "first_id": first, "last_id": last}
        return json_response(page)

    async def retrieve(self, request: Request) -> Response:
        """``GET /v1/files/{id}``."""
        stored = await self._on().file(requester_of(request.scope).owner, request.path_params["id"])
        return json_response(file_json(stored))

    async def delete(self, request: Request) -> Response:
        """``DELETE /v1/files/{id}``."""
        asked = request.path_params["id"]
        await self._on().delete(requester_of(request.scope).owner, asked)
        return json_response({"id": asked, "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        """``GET /v1/files/{id}/content``."""
        requester, asked = requester_of(request.scope), request.path_params["id"]
        stored = await self._on().file(requester.owner, asked)
        data = await self._on().read(requester.owner, asked, requester.hold)
        name = quote(stored.filename, safe="")
        headers = {**SAFE_HEADERS, "content-disposition": f"attachment; filename*=UTF-8''{name}"}
        return Response(data, headers=headers, media_type="application/octet-stream")

    def _on(self) -> FileStore:
        if self._store is None:
            raise FilesOff("This server keeps no files; send the image within the request.")
        return self._store

    def _read(self, content_type: str, body: bytes) -> Upload:
        upload = read_upload(content_type, body, self._config)
        self._check(upload.content, "file")
        return upload

    def _in_time(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def within_time(request: Request) -> Response:
            deadline = asyncio.get_running_loop().time() + self._config.request_timeout_s
            return await until(deadline, answer(request))

        return within_time


def file_json(stored: StoredFile) -> Json:
    """A file as OpenAI's ``FileObject``."""
    return {
        "id": str(stored.id),
        "object": "file",
        "bytes": stored.id.size,
        "created_at": stored.id.created_s,
        "expires_at": stored.id.expires_s,
        "filename": stored.filename,
        "purpose": stored.id.purpose,
        "status": "processed",
        "status_details": None,
    }


def _limit(text: str | None) -> int:
    if text is None:
        return MAX_PAGE
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= MAX_PAGE):
        raise InvalidRequest(f"limit: must be a whole number from 1 to {MAX_PAGE}.", "limit", "invalid_value")
    return int(text)


def _of_purpose(ids: Sequence[FileId], purpose: str | None) -> Sequence[FileId]:
    """Those of one purpose; a purpose that no file can have has none."""
    return [one for one in ids if one.purpose == purpose] if purpose else ids


def _order(text: str | None) -> str:
    if text not in (None, "asc", "desc"):
        raise InvalidRequest("order: must be asc or desc.", "order", "invalid_value")
    return text or "desc"


def _behind(after: str | None, ids: Sequence[FileId], order: str) -> Sequence[FileId]:
    """What comes behind a file in the list, whether or not that file is still there."""
    if after is None:
        return ids
    if FileId.parse(after) is None:
        raise InvalidRequest("after: must be the id of a file.", "after", "invalid_value")
    is_before = str.__le__ if order == "asc" else str.__ge__
    return [*dropwhile(lambda one: is_before(str(one), after), ids)]
