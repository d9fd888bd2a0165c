"""What stands before the routes: who may ask, from where, and how much at once."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from custom_llm.server.http.errors import ApiError

BODY_SECONDS = 30
OPEN = ("/", "/health")  # need no key


class HostGuard:
    """Refuses names that are not this computer's.

    A page of elsewhere can let its own name point to 127.0.0.1 and would then be of the same origin (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self.app, self.hosts = app, set(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "")
        name = re.sub(r":\d*$", "", host).lower()
        if scope["type"] == "http" and host and name not in self.hosts:
            error = ApiError(403, f"this server answers to {', '.join(sorted(self.hosts))} only", code="wrong_host")
            await error.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)


class KeyGuard:
    """Asks for `Authorization: Bearer KEY`."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self.key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            kind, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
            is_right = secrets.compare_digest(given.strip().encode("latin-1"), self.key)  # in constant time
            if kind.lower() != "bearer" or not is_right:
                message = "wrong API key" if given else "an API key is needed: Authorization: Bearer KEY"
                error = ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
                await error.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)


class BodyGuard:
    """Reads the body before the routes do, up to a size and a time."""

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self.app, self.max_body = app, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(self._read(scope, receive), BODY_SECONDS)
        except (ApiError, asyncio.TimeoutError) as error:
            if not isinstance(error, ApiError):
                error = ApiError(408, f"the body did not come within {BODY_SECONDS} s", headers={"Connection": "close"})
            await error.response()(scope, receive, send)
            return
        if body is None:  # the client has gone
            return
        is_read = False

        async def replay() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        message = f"the body is larger than {self.max_body:,} bytes (--max_body)"
        too_large = ApiError(413, message, code="body_too_large")
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self.max_body:
            raise too_large
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self.max_body:
                raise too_large
            if not message.get("more_body", False):
                return bytes(body)
