"""What stands before the routes: who may ask, from where, and how much at once."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from custom_llm.server.http.errors import ApiError

BODY_SECONDS = 30
MAX_HEADERS = 16384  # bytes, the request's line counted
OPEN = ("/", "/health")  # need no key


class Guard:
    """Answers requests in which `check` finds an error."""

    def __init__(self, app: ASGIApp, check: Callable[[Scope], ApiError | None]) -> None:
        self.app, self.check = app, check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self.check(scope) if scope["type"] == "http" else None
        await (self.app if error is None else error.response())(scope, receive, send)


def check_host(hosts: Collection[str], scope: Scope) -> ApiError | None:
    """Refuse names that are not this computer's.

    A page of elsewhere can let its own name point to 127.0.0.1 and would then be of the same origin (DNS rebinding).
    """
    host = Headers(scope=scope).get("host", "")
    if not host or re.sub(r":\d*$", "", host).lower() in hosts:
        return None
    return ApiError(403, f"this server answers to {', '.join(sorted(hosts))} only", code="wrong_host")


def check_head(scope: Scope) -> ApiError | None:
    """Refuse heads that are too large, and those that leave it open where the request ends.

    h11 counts what comes in pieces only. A proxy that goes by Content-Length where we go by Transfer-Encoding would
    take what one client sent for the request of another (RFC 9112, 6.3).
    """
    fields = [scope["raw_path"], scope["query_string"], *(name + value for name, value in scope["headers"])]
    if sum(len(field) + 4 for field in fields) > MAX_HEADERS:
        return headers_too_large()
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
        message = "Content-Length and Transfer-Encoding exclude each other; send one of them"
        return ApiError(400, message, headers={"Connection": "close"})
    return None


def headers_too_large() -> ApiError:
    return ApiError(431, f"the headers are larger than {MAX_HEADERS:,} bytes", headers={"Connection": "close"})


def check_key(key: bytes, scope: Scope) -> ApiError | None:
    """Ask for `Authorization: Bearer KEY`."""
    kind, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
    is_right = secrets.compare_digest(given.strip().encode("latin-1"), key)  # in constant time
    if scope["path"] in OPEN or (kind.lower() == "bearer" and is_right):
        return None
    message = "wrong API key" if given else "an API key is needed: Authorization: Bearer KEY"
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


class BodyGuard:
    """Reads the body before the routes do, up to a size and a time."""

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self.app, self.max_body = app, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(self._read(Request(scope, receive)), BODY_SECONDS)
        except ClientDisconnect:
            return
        except (ApiError, asyncio.TimeoutError) as error:
            if not isinstance(error, ApiError):
                error = ApiError(408, f"the body did not come within {BODY_SECONDS} s", headers={"Connection": "close"})
            await error.response()(scope, receive, send)
            return
        is_read = False

        async def replay() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    async def _read(self, request: Request) -> bytes:
        message = f"the body is larger than {self.max_body:,} bytes (--max_body)"
        too_large = ApiError(413, message, code="body_too_large")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self.max_body:
            raise too_large
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.max_body:
                raise too_large
        return bytes(body)
