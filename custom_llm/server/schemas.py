"""What a request may say, in OpenAI's words and llama.cpp's."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from custom_llm.cli.fields import check_value
from custom_llm.common.text import shown
from custom_llm.config.sampling import Sampling
from custom_llm.server.http.errors import ApiError, refused
from custom_llm.server.messages import given, message_text
from custom_llm.server.writer import Task

DEFAULT_TOKENS = 16  # OpenAI's
DEFAULT_CHAT_TOKENS = 256  # a base model does not know when an answer is over
UNLIMITED = -1  # max_tokens: as many as the server computes for a request
OFF = {("top_k", -1): 0}  # as other servers spell it
MAX_TEXTS = 16  # n
MAX_PROMPTS = 256
MAX_TOP = 20  # logprobs and top_logprobs
MAX_STOPS, MAX_STOP_LENGTH = 16, 256
MAX_BIASES, MAX_BIAS = 1024, 100
MAX_GRAMMAR_LENGTH = 8192
# Fields of Sampling by their names in a request.
SAMPLING = {{"temp": "temperature"}.get(item.name, item.name): item for item in fields(Sampling)}


class StreamOptions(BaseModel):
    """include_usage: count the tokens at the end of a stream."""

    model_config = ConfigDict(strict=True, extra="ignore")
    include_usage: bool | None = None


class TextRequest(BaseModel):
    """What both addresses take. null means the default everywhere."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
    # Fields that change no text, and those that would but are not supported: name → what it may be nevertheless.
    harmless: ClassVar[set[str]] = {
        "metadata", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier",
        "service_tier", "store", "user",
    }  # fmt: skip
    unsupported: ClassVar[dict[str, tuple]] = {}

    model: str | None = None
    max_tokens: int | None = Field(None, ge=UNLIMITED, le=2**63 - 1)
    n: int | None = Field(None, ge=1, le=MAX_TEXTS)
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: dict[int, float] | None = None

    temperature: Any = None
    top_k: Any = None
    top_p: Any = None
    min_p: Any = None
    repeat_penalty: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    seed: Any = None
    grammar: Any = None
    ignore_eos: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        body = {name: whole_number(value) for name, value in given(body).items()}
        for name in body.keys() - cls.model_fields.keys() - cls.harmless:
            if name not in cls.unsupported:  # in OpenAI's words
                raise ApiError(400, f"Unrecognized request argument supplied: {shown(name)[1:-1]}", param=name[:40])
            if given(body[name]) not in cls.unsupported[name]:
                raise refused(name, "is not supported by this server")
        return {name: value for name, value in body.items() if name in cls.model_fields}

    @field_validator(*SAMPLING, mode="plain")
    @classmethod
    def _check_sampling(cls, value: Any, info: Any) -> Any:
        name, item = info.field_name, SAMPLING[info.field_name]
        value = OFF.get((name, value), value) if isinstance(value, int) else value
        try:
            check_value(item, value)
        except ValueError as error:
            raise refused(name, str(error).removeprefix(f"{item.name} ")) from None
        if name == "grammar" and len(value) > MAX_GRAMMAR_LENGTH:
            raise refused(name, f"is longer than {MAX_GRAMMAR_LENGTH:,} characters")
        return value

    @field_validator("stop", mode="plain")
    @classmethod
    def _check_stop(cls, value: Any) -> list[str]:
        stops = [value] if isinstance(value, str) else value
        if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
            raise refused("stop", "is neither a string nor an array of strings")
        if len(stops) > MAX_STOPS:
            raise refused("stop", f"has more than {MAX_STOPS} strings")
        if not all(0 < len(stop) <= MAX_STOP_LENGTH for stop in stops):
            raise refused("stop", f"has a string that is empty or longer than {MAX_STOP_LENGTH} characters")
        return stops

    @field_validator("logit_bias", mode="plain")
    @classmethod
    def _check_logit_bias(cls, value: Any) -> dict[int, float] | None:
        value = given(value)
        if not isinstance(value, dict) or len(value) > MAX_BIASES:
            raise refused("logit_bias", f"is not an object of at most {MAX_BIASES:,} tokens and numbers")
        for token, bias in value.items():
            if not (token.isdecimal() and token.isascii() and len(token) < 10):
                raise refused("logit_bias", f"has the key {shown(token)}, which is not a token's id")
            is_number = isinstance(bias, (int, float)) and not isinstance(bias, bool)
            if not is_number or not -MAX_BIAS <= bias <= MAX_BIAS:
                raise refused("logit_bias", f"of {token} is not a number from -{MAX_BIAS} to {MAX_BIAS}")
        return {int(token): float(bias) for token, bias in value.items()}

    @model_validator(mode="after")
    def _check_stream_options(self) -> TextRequest:
        if self.stream_options is not None and not self.stream:
            raise refused("stream_options", "is only for stream: true")
        return self

    def task(self, prompts: list[str | list[int]], max_tokens: int, n_top: int | None, echo: bool = False) -> Task:
        """What is asked of the engine: its defaults, and what was given."""
        sampling = {item.name: value for name, item in SAMPLING.items() if (value := getattr(self, name)) is not None}
        return Task(
            prompts=prompts,
            n=self.n or 1,
            max_tokens=None if max_tokens == UNLIMITED else max_tokens,
            sampling=Sampling(**sampling),
            stop=self.stop or (),
            ignore_eos=bool(self.ignore_eos),
            logit_bias=self.logit_bias,
            n_top=n_top,
            echo=echo,
        )


class CompletionRequest(TextRequest):
    """`POST /v1/completions`."""

    unsupported: ClassVar[dict[str, tuple]] = {"suffix": ("",)}

    prompt: list[str | list[int]] = Field([""], validate_default=True)
    echo: bool | None = None
    best_of: int | None = None
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP)

    @field_validator("prompt", mode="plain")
    @classmethod
    def _check_prompt(cls, value: Any) -> list[str | list[int]]:
        """One form for a text, ids of tokens, or several of them."""
        prompts = value if isinstance(value, list) and not _is_ids(value) else [value]
        if not prompts or not all(isinstance(prompt, str) or _is_ids(prompt) for prompt in prompts):
            raise refused("prompt", "is not a string, an array of token ids, or an array of such prompts")
        if len(prompts) > MAX_PROMPTS:
            raise refused("prompt", f"has more than {MAX_PROMPTS} prompts")
        return prompts

    @model_validator(mode="after")
    def _check_best_of(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise refused("best_of", "is only supported if it is equal to n")
        return self

    def as_task(self) -> Task:
        max_tokens = DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens
        return self.task(self.prompt, max_tokens, self.logprobs, bool(self.echo))


class ChatRequest(TextRequest):
    """`POST /v1/chat/completions`."""

    unsupported: ClassVar[dict[str, tuple]] = {
        "audio": (),
        "function_call": ("none",),
        "functions": ([],),
        "modalities": (["text"],),
        "moderation": (),
        "prediction": (),
        "reasoning_effort": ("none",),
        "response_format": ({"type": "text"},),
        "tool_choice": ("none", "auto"),
        "tools": ([],),
        "verbosity": ("medium",),
        "web_search_options": (),
    }
    harmless: ClassVar[set[str]] = TextRequest.harmless | {"parallel_tool_calls"}

    messages: list[str]
    max_completion_tokens: int | None = Field(None, ge=UNLIMITED, le=2**63 - 1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP)

    @field_validator("messages", mode="plain")
    @classmethod
    def _check_messages(cls, value: Any) -> list[str]:
        """The texts of the messages."""
        if not isinstance(value, list) or not value:
            raise refused("messages", "is not an array of messages")
        texts = [message_text(message, f"messages.{place}") for place, message in enumerate(value)]
        return [text for text in texts if text is not None]

    @model_validator(mode="after")
    def _check_logprobs(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise refused("top_logprobs", "is only for logprobs: true")
        return self

    def as_task(self) -> Task:
        """The plain template of a model that knows no roles: the contents, a line each, of which the last goes on."""
        asked = [n for n in (self.max_completion_tokens, self.max_tokens) if n is not None]
        max_tokens = min((n for n in asked if n != UNLIMITED), default=UNLIMITED) if asked else DEFAULT_CHAT_TOKENS
        n_top = self.top_logprobs or 0 if self.logprobs else None
        return self.task(["\n".join(self.messages)], max_tokens, n_top)


def whole_number(value: Any) -> Any:
    """1.0 as 1, as some programs write whole numbers; all else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_ids(value: Any) -> bool:
    """A list of token ids; whether the vocabulary has them is not known here."""
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)
