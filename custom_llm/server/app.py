"""The addresses, and the page: one that may do nothing but talk to its own server."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.middleware.cors import CORSMiddleware

from custom_llm.common.text import clean, shown
from custom_llm.inference.engine import Engine
from custom_llm.server.answers import Answer, ChatAnswer, CompletionAnswer
from custom_llm.server.http.errors import ApiError, add_handlers, refused
from custom_llm.server.http.guards import BodyGuard, Guard, check_head, check_host, check_key
from custom_llm.server.metrics import CONTENT_TYPE, Counted, Metrics
from custom_llm.server.scheduler import Worker
from custom_llm.server.schemas import ChatRequest, CompletionRequest
from custom_llm.server.streaming import Replies
from custom_llm.server.writer import Writer

PAGE = Path(__file__).with_name("page.html")
SCRIPT = re.compile(r"<script\b[^>]*>(.*?)</script>", re.DOTALL)


def make_app(
    engine: Engine, worker: Worker, *, max_body: int, max_tokens: int, grammars: bool, api_key: str | None,
    hosts: Collection[str], cors_origins: Sequence[str],
) -> FastAPI:  # fmt: skip
    """The application; `worker` is the only one that computes with the engine.

    max_body: bytes of a request. max_tokens: that a request may have written or scored, over all of its texts.
    grammars: whether requests may have one; a few lines of GBNF can take seconds for each token. hosts: names that the
    server may be called by; none: any. cors_origins: whose pages may read answers, beside the server's own.
    """
    metrics = Metrics(lambda: len(worker))
    path = engine.model.path
    model = {
        "id": clean(path.name),
        "object": "model",
        "created": int(path.stat().st_mtime),
        "owned_by": "custom-llm-scripts",
        "card": asdict(engine.card()),
    }
    replies = Replies(Writer(engine, metrics, max_tokens), worker, metrics)
    page = load_page()
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    add_handlers(app)
    address = partial(app.api_route, methods=["GET", "HEAD"])

    @address("/")
    async def playground() -> Response:
        return page

    @address("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @address("/metrics")
    async def figures() -> Response:
        return Response(metrics.as_text(), media_type=CONTENT_TYPE)

    @address("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @address("/v1/models/{name}")
    async def model_by_name(name: str) -> dict[str, Any]:
        _check_model(name, model["id"])
        return model

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await answer(request, body, CompletionAnswer)

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        return await answer(request, body, ChatAnswer)

    async def answer(request: Request, body: CompletionRequest | ChatRequest, kind: type[Answer]) -> Response:
        task = body.as_task()
        _check_model(body.model, model["id"])
        if body.grammar is not None and not grammars:
            raise refused("grammar", "is not taken by this server; started with --grammars, it takes them")
        answer = kind(model["id"], task.n_top is not None, bool(body.stream))
        if not body.stream:
            return await replies.whole(request, task, answer)
        include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        return await replies.stream(request, task, answer, include_usage)

    # The last added is the first that a request meets.
    app.add_middleware(BodyGuard, max_body=max_body)
    if api_key is not None:
        app.add_middleware(Guard, check=partial(check_key, api_key.encode()))
    if cors_origins:
        # Any headers: clients have their own, as openai's X-Stainless-OS. Who may ask is a matter of origins.
        app.add_middleware(
            CORSMiddleware, allow_origins=cors_origins, allow_methods=["GET", "POST"], allow_headers=["*"],
            allow_private_network=True, expose_headers=["Retry-After"],
        )  # fmt: skip
    if hosts:
        app.add_middleware(Guard, check=partial(check_host, hosts))
    app.add_middleware(Guard, check=check_head)
    app.add_middleware(Counted, metrics=metrics)
    return app


def load_page() -> HTMLResponse:
    """The page, with headers that allow its own scripts, by their hashes, and its style, and nothing from elsewhere."""
    text = PAGE.read_text(encoding="utf-8")
    hashes = [hashlib.sha256(script.encode()).digest() for script in SCRIPT.findall(text)]
    scripts = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes) or "'none'"
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return HTMLResponse(text, headers=headers)


def _check_model(asked: str | None, there_is: str) -> None:
    if asked not in (None, there_is):
        message = f"there is no model {shown(asked)} here, only {there_is!r}"
        raise ApiError(404, message, param="model", code="model_not_found")
