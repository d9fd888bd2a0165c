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
        self._registry = CollectorRegistry()
        here = {"registry": self._registry}
        self.requests = Counter("custom_llm_requests", "Requests by address and status.", ["route", "status"], **here)
        self.prompt_tokens = Counter("custom_llm_prompt_tokens", "Tokens of prompts.", **here)
        self.generated_tokens = Counter("custom_llm_generated_tokens", "Tokens written.", **here)
        self.seconds = Counter("custom_llm_engine_seconds", "Seconds spent on texts.", **here)
        in_words = "Seconds from a request to its first text, waiting in the queue counted."
        self.first_token = Histogram("custom_llm_first_token_seconds", in_words, buckets=SECONDS, **here)
        queue = Gauge("custom_llm_queue_length", "Requests that wait for their turn.", **here)
        queue.set_function(queue_length)

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
            self.metrics.requests.labels(getattr(route, "path", "other"), str(status)).inc()
