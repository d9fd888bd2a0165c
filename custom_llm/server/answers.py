"""Answers in OpenAI's shapes, as a whole and as the chunks of a stream."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from custom_llm.inference.scores import Score, completion_logprobs, spelling
from custom_llm.inference.text import left_out
from custom_llm.server.writer import Part, Read


class Answer:
    """The choices of an answer as their parts come in; a subclass says how choices look."""

    prefix: str
    kind: str
    chunk_kind: str

    def __init__(self, model: str, has_scores: bool, is_stream: bool) -> None:
        self.has_scores, self.is_stream = has_scores, is_stream
        self._head = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._is_first = True
        self.read = Read(0, [])
        self.generated = 0  # tokens of the texts that are finished
        self._lengths: Counter[int] = Counter()  # of choices: characters so far

    def add(self, items: Iterable[Read | Part]) -> list[dict[str, Any]]:
        """What has come in, as choices: one for each text that went on."""
        parts: dict[int, list[Part]] = {}
        for item in items:
            if isinstance(item, Read):
                self.read = item
            else:
                parts.setdefault(item.index, []).append(item)
                self.generated += item.generated
        return [self.choice(index, parts[index]) for index in parts]

    def choice(self, index: int, parts: list[Part]) -> dict[str, Any]:
        """What has come in of one text."""
        raise NotImplementedError

    @property
    def usage(self) -> dict[str, int]:
        prompt, written = self.read.prompt_tokens, self.generated
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    def head(self) -> dict[str, Any]:
        unknown = self.read.unknown
        return {**self._head, **({"warning": left_out(unknown)} if unknown else {})}

    def whole(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """The answer to a request without `stream`."""
        return {**self.head(), "object": self.kind, "choices": choices, "usage": self.usage}

    def chunk(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> dict[str, Any]:
        """An event of a stream; the usage stands in the last one, which has no choices."""
        head = self.head() if self._is_first else self._head
        self._is_first = False
        return {**head, "object": self.chunk_kind, "choices": choices, "usage": usage}


class CompletionAnswer(Answer):
    """Of `/v1/completions`."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def choice(self, index: int, parts: list[Part]) -> dict[str, Any]:
        text, finish_reason = "".join(part.text for part in parts), parts[-1].finish_reason
        logprobs = completion_logprobs(parts, self._lengths[index]) if self.has_scores else None
        self._lengths[index] += len(text)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


class ChatAnswer(Answer):
    """Of `/v1/chat/completions`."""

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, parts: list[Part]) -> dict[str, Any]:
        scores = [_chat_score(score) for part in parts for score in part.scores]
        logprobs = {"content": scores, "refusal": None} if self.has_scores else None
        choice = {"index": index, "logprobs": logprobs, "finish_reason": parts[-1].finish_reason}
        text = "".join(part.text for part in parts)
        if not self.is_stream:
            return {**choice, "message": {"role": "assistant", "content": text, "refusal": None}}
        role = {} if index in self._lengths else {"role": "assistant"}  # in a text's first event
        self._lengths[index] += len(text)
        return {**choice, "delta": {**role, "content": text}}


def _chat_score(score: Score) -> dict[str, Any]:
    top = [_chat_token(data, logprob) for data, logprob in score.top]
    return {**_chat_token(score.spelled, score.logprob), "top_logprobs": top}


def _chat_token(data: bytes, logprob: float | None) -> dict[str, Any]:
    return {"token": spelling(data), "logprob": logprob, "bytes": list(data)}
