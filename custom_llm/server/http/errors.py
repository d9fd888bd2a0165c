"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from custom_llm.common.errors import UserError
from custom_llm.common.text import SHOWN, clean, shown

INVALID = "invalid_request_error"
SERVER_ERROR = "server_error"
NOT_AN_OBJECT = "the body must be a JSON object, sent with Content-Type: application/json"


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self, status: int, message: str, *, kind: str = INVALID, param: str | None = None, code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """param: the field of the request that is wrong. code: a word for programs."""
        super().__init__(message)
        self.status, self.kind, self.param, self.code, self.headers = status, kind, param, code, headers

    def body(self) -> dict[str, Any]:
        """What the client reads."""
        param = None if self.param is None else clean(self.param)
        return {"error": {"message": clean(str(self)), "type": self.kind, "param": param, "code": self.code}}

    def response(self) -> Response:
        """The whole answer."""
        return JSONResponse(self.body(), self.status, self.headers)


def refused(param: str, message: str) -> ApiError:
    """The error for a field that has a wrong value."""
    return ApiError(400, f"{param} {message}", param=param)


def as_api_error(error: Exception) -> ApiError:
    """What the client is told of anything that went wrong; of bugs no more than that there was one."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UserError):  # of the engine, which names flags of the command line
        flags = re.findall(r"^--(\w+)", str(error))
        return ApiError(400, re.sub(r"--(\w+)", r"\1", str(error)), param=flags[0] if flags else None)
    return ApiError(500, "the server failed; its log says more", kind=SERVER_ERROR)


def add_handlers(app: FastAPI) -> None:
    """Let every error of `app` have the shape."""

    @app.exception_handler(Exception)
    @app.exception_handler(ApiError)
    @app.exception_handler(UserError)
    async def wrong(_: Request, error: Exception) -> Response:
        return as_api_error(error).response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        no_address = "there is no such address; those for programs begin with /v1"
        messages = {404: no_address, 405: f"not with {shown(request.method)[1:-1]}"}
        message = messages.get(error.status_code, str(error.detail))
        return ApiError(error.status_code, message, headers=error.headers).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return ApiError(400, f"the body is not JSON: {first['ctx']['error']}").response()
        place = first["loc"][1:]
        if not place:
            message = "a body is missing" if first["type"] == "missing" else NOT_AN_OBJECT
            return ApiError(400, message).response()
        where = ".".join(map(str, place))[: 2 * SHOWN]
        return ApiError(400, f"{where}: {first['msg']}", param=str(place[0])).response()
