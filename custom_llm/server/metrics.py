"""Figures for Prometheus, and what counts requests for them."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """What a server has done since it started."""

    def __init__(self, queue_length: Callable[[], int]) -> None:
        """queue_length: how many requests wait."""
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "custom_llm_requests", "Requests by address and status.", ["route", "status"], registry=registry
        )
        self._prompt_tokens = Counter("custom_llm_prompt_tokens", "Tokens of prompts.", registry=registry)
        self._generated_tokens = Counter("custom_llm_generated_tokens", "Tokens written.", registry=registry)
        self._seconds = Counter("custom_llm_engine_seconds", "Seconds spent on texts.", registry=registry)
        self._first_token = Histogram(
            "custom_llm_first_token_seconds",
            "Seconds from a request to its first text, waiting in the queue counted.",
            buckets=SECONDS,
            registry=registry,
        )
        queue = Gauge("custom_llm_queue_length", "Requests that wait for their turn.", registry=registry)
        queue.set_function(queue_length)

    def answered(self, route: str, status: int) -> None:
        self._requests.labels(route, str(status)).inc()

    def first_token(self, seconds: float) -> None:
        self._first_token.observe(seconds)

    def wrote(self, prompt_tokens: int, generated_tokens: int, seconds: float) -> None:
        self._prompt_tokens.inc(prompt_tokens)
        self._generated_tokens.inc(generated_tokens)
        self._seconds.inc(seconds)

    def as_text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)


class Counted:
    """Counts requests by address and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            route = scope.get("route")
            self.metrics.answered(getattr(route, "path", "other"), status)
