"""What programs send that were written for other servers, and how they read: fast, slowly, in a page, not at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types import completion_create_params
from openai.types.chat import chat_completion_message_param as params
from openai.types.chat import completion_create_params as chat_create_params
from server_process import SECONDS, Served, served
from tiny_gguf import write_gpt2

from custom_llm.config.sampling import MAX_SEED, Sampling
from custom_llm.inference.engine import Engine
from custom_llm.server.channel import Channel
from custom_llm.server.http.errors import ApiError
from custom_llm.server.scheduler import MAX_PAUSED, Job, Worker

ENGLISH = "abcdefghijklmnopqrstuvwxyz ABC.,\nßT"
ORIGIN = "https://app.example"
CHAT = "/v1/chat/completions"
OFTEN = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("served") / "english.gguf", ENGLISH)


@pytest.fixture(scope="module")
def server(english: Path):
    with served(english, "--grammars", "--cors_origin", ORIGIN) as server:
        yield server


@pytest.fixture(scope="module")
def engine(english: Path):
    with Engine(english) as engine:
        yield engine


def write(engine: Engine, prompt: str, max_tokens: int, **sampling: Any) -> str:
    return "".join(engine.generate(prompt, max_tokens, Sampling(**sampling)))


def chat(server: Served, messages: Any, **body: Any) -> httpx.Response:
    return server.http.post(CHAT, json={"messages": messages, "max_tokens": 9, "seed": 1, **body})


def text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    return choice["text"] if "text" in choice else choice["message"]["content"]


# Answers that come back


def test_a_null_in_a_message_is_what_was_not_given(server, engine):
    expected = write(engine, "Tom\n saw\nBen", 9, seed=1)
    answer = {"role": "assistant", "content": " saw"}
    nothing = {"refusal": None, "tool_calls": None, "audio": None, "function_call": None, "annotations": []}
    for answered in ({"refusal": None}, {"tool_calls": []}, {"name": "Eva"}, {"annotations": [{"x": 1}]}, nothing):
        messages = [
            {"role": "user", "content": "Tom", "name": None},
            {**answer, **answered},
            {"role": "user", "content": [{"type": "text", "text": "Ben", "prompt_cache_breakpoint": None}]},
        ]
        assert text_of(chat(server, messages)) == expected
    refused = {"role": "assistant", "content": None, "refusal": " saw"}
    parts = {"role": "assistant", "content": [{"type": "refusal", "refusal": " saw"}]}
    for answer in (refused, parts):
        messages = [{"role": "user", "content": "Tom"}, answer, {"role": "user", "content": "Ben"}]
        assert text_of(chat(server, messages)) == expected
    messages = [{"role": "user", "content": "Tom"}, {"role": "assistant", "content": None}]
    assert text_of(chat(server, messages)) == write(engine, "Tom", 9, seed=1)


def test_an_answer_is_a_message_of_the_next_request(server):
    """As the openai package has it, with its nulls and without, and as JSON that was put together from a stream."""
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    body: dict[str, Any] = {"model": "english.gguf", "max_tokens": 5, "logprobs": True}
    for form in ("object", "nulls", "stream"):
        messages: list[Any] = [{"role": "user", "content": "Tom"}]
        for _ in range(3):
            if form == "stream":
                chunks = client.chat.completions.create(messages=messages, stream=True, **body)
                deltas = [chunk.choices[0].delta.model_dump() for chunk in chunks]
                content = "".join(delta["content"] for delta in deltas)
                messages += [{**deltas[-1], "role": "assistant", "content": content}]
            else:
                message = client.chat.completions.create(messages=messages, **body).choices[0].message
                messages += [message if form == "object" else message.model_dump()]
            messages += [{"role": "user", "content": "Ben"}]
        assert len(messages) == 7


@OFTEN
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0, 100), "logprobs": st.booleans(), "n": st.integers(1, 3), "seed": st.integers(),
            "max_tokens": st.integers(0, 20), "stop": st.text(ENGLISH, min_size=1, max_size=2), "top_k": st.just(-1),
        },
    )
)  # fmt: skip
def test_any_answer_may_be_a_message(server, body):
    messages = [{"role": "user", "content": "Tom"}]
    answer = chat(server, messages, **body)
    assert answer.status_code == 200, answer.text
    messages += [choice["message"] for choice in answer.json()["choices"]]
    assert chat(server, [*messages, {"role": "user", "content": "Ben"}]).status_code == 200


@OFTEN
@given(
    content=st.text(ENGLISH, max_size=8), absent=st.sets(st.sampled_from(sorted(
        set(get_type_hints(params.ChatCompletionAssistantMessageParam)) - {"role", "content"}
    ))), role=st.sampled_from(["user", "assistant", "system", "developer"]), as_parts=st.booleans(),
)  # fmt: skip
def test_whatever_is_null_counts_as_little_as_what_is_left_out(server, content, absent, role, as_parts):
    plain = {"role": role, "content": content}
    given = [{"type": "text", "text": content, "image_url": None}] if as_parts else content
    with_nulls = {"role": role, "content": given, **dict.fromkeys(absent)}
    found = chat(server, [with_nulls], stop=None, stream_options=None, response_format={"type": "text", "schema": None})
    assert text_of(found) == text_of(chat(server, [plain]))


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("a", "messages.1 is not an object with role and content"),
        ({"content": "a"}, "messages.1.role is not one of system, developer, user, assistant"),
        ({"role": "tool", "content": "a"}, "messages.1.role is not one of system, developer, user, assistant"),
        ({"role": "user"}, "messages.1.content is missing"),
        ({"role": "user", "content": None}, "messages.1.content is missing"),
        ({"role": "user", "content": 1}, "messages.1.content is neither a text nor an array of parts"),
        ({"role": "user", "content": ["a"]},
         'messages.1.content.0 is no part such as {"type": "text", "text": "…"}'),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]},
         "messages.1.content.1 is of type 'image_url'; this server reads text only"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages.1.content.0.text is not a text"),
        ({"role": "user", "content": "a", "x": 1}, "messages.1.x is not a field of a message"),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]},
         "messages.1.tool_calls is not supported by this server, whose models write text only"),
    ],
)  # fmt: skip
def test_a_message_that_cannot_be_read_is_told_in_plain_words(server, message, error):
    response = chat(server, [{"role": "user", "content": "a"}, message])
    assert response.status_code == 400
    assert response.json()["error"]["message"] == error
    assert response.json()["error"]["param"] == "messages"


@pytest.mark.parametrize(
    ("path", "types"),
    [
        ("/v1/completions", completion_create_params.CompletionCreateParamsStreaming),
        (CHAT, chat_create_params.CompletionCreateParamsStreaming),
    ],
)
def test_every_field_that_openais_package_can_send_is_known(server, path, types):
    required = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1} if path == CHAT else {"max_tokens": 1}
    fields = get_type_hints(types)
    assert len(fields) > 15
    for name in fields:
        response = server.http.post(path, json={**required, name: object.__name__})
        assert "Unrecognized" not in response.text, name
    assert server.http.post(path, json={**dict.fromkeys(fields), **required}).status_code == 200


# Line ends and byte-order marks


@pytest.mark.parametrize(
    "text", ["\ufeffTom\nsaw\n", "Tom\r\nsaw\r\n", "Tom\rsaw\r", "\ufeffTom\r\nsaw\r\n"], ids=ascii
)
def test_a_text_is_read_as_in_training(server, text):
    body = {"max_tokens": 9, "seed": 1, "logprobs": 1, "echo": True}
    expected = server.post(prompt="Tom\nsaw\n", **body).json()["choices"]
    found = server.post(prompt=text, **body).json()
    assert found["choices"] == expected
    assert "warning" not in found
    said = [{"role": "user", "content": text}, {"role": "assistant", "content": [{"type": "text", "text": text}]}]
    assert text_of(chat(server, said)) == text_of(server.post(prompt="Tom\nsaw\n\nTom\nsaw\n", max_tokens=9, seed=1))


# Numbers


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ({"seed": 2**32 - 1}, {"seed": 0}),
        ({"seed": 2**53}, {"seed": 2**53 % (MAX_SEED + 1)}),
        ({"seed": -2}, {"seed": MAX_SEED - 1}),
        ({"seed": 10**400}, {"seed": 10**400 % (MAX_SEED + 1)}),
        ({"seed": 5.0}, {"seed": 5}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"top_k": 3.0}, {"top_k": 3}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"n": 1.0, "max_tokens": 20.0}, {"max_tokens": 20}),
        ({"logit_bias": {"3": None, "4": 5}}, {"logit_bias": {"4": 5.0}}),
        ({"frequency_penalty": 0, "presence_penalty": 0, "repeat_penalty": 1}, {}),
    ],
    ids=lambda body: str(body)[:30],
)
def test_a_number_as_clients_write_it_is_the_one_they_mean(server, sent, meant):
    usual = {"prompt": "a", "max_tokens": 20, "seed": 1, "temperature": 2}
    assert text_of(server.post(**{**usual, **sent})) == text_of(server.post(**{**usual, **meant}))


def test_a_seed_of_minus_one_is_another_each_time(server):
    texts = {text_of(server.post(prompt="a", max_tokens=30, seed=-1, temperature=2)) for _ in range(3)}
    assert len(texts) == 3


def test_as_many_tokens_as_there_may_be(english):
    with served(english, "--max_tokens", "100") as server:
        for body, n_tokens in (
            ({}, 100), ({"n": 3}, 99), ({"prompt": ["a", "b"]}, 100), ({"echo": True, "logprobs": 0}, 97),
        ):  # fmt: skip
            answer = server.post(**{"prompt": "Tom", **body}, max_tokens=-1, ignore_eos=True)
            assert answer.json()["usage"]["completion_tokens"] == n_tokens
            assert answer.json()["choices"][0]["finish_reason"] == "length"
        for limits in ((-1, None), (-1, -1), (None, -1), (-1, 7), (7, 2**31)):
            body = dict(zip(("max_tokens", "max_completion_tokens"), limits, strict=True))
            answer = chat(server, [{"role": "user", "content": "a"}], ignore_eos=True, **body)
            assert answer.json()["usage"]["completion_tokens"] == (7 if 7 in limits else 100)
        for n_tokens in (101, 2**31 - 1, 2**63, 10**4000):
            error = server.post(max_tokens=n_tokens).json()["error"]
            assert error["param"] == "max_tokens"
            assert len(error["message"]) < 200


# In a page of another origin


def test_a_page_that_may_ask_may_send_the_headers_that_its_client_has(server):
    """The openai package asks for leave to send these in a browser."""
    wanted = "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-runtime"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": wanted}
    for origin, allowed in ((ORIGIN, True), ("https://other.example", False), ("null", False)):
        answer = server.http.options(CHAT, headers={"Origin": origin, **asked})
        assert (answer.headers.get("access-control-allow-origin") == origin) == allowed
        assert answer.status_code == (200 if allowed else 400)
        if allowed:
            granted = answer.headers["access-control-allow-headers"].replace(" ", "").split(",")
            assert set(wanted.split(",")) <= set(granted)
            assert "POST" in answer.headers["access-control-allow-methods"]
    local = {"Origin": ORIGIN, **asked, "Access-Control-Request-Private-Network": "true"}
    assert server.http.options(CHAT, headers=local).headers["access-control-allow-private-network"] == "true"


# Clients that read slowly, or not at all


def ask(server: Served, buffer: int, **body: Any) -> socket.socket:
    """A connection that has asked for a text and takes no more of the answer than `buffer` bytes."""
    data = json.dumps(body).encode()
    connection = socket.socket()
    connection.settimeout(SECONDS)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    connection.connect((host, int(port)))
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def test_clients_that_do_not_read_keep_nobody_waiting(server):
    body = {"prompt": "a", "max_tokens": 16000, "ignore_eos": True, "stream": True, "logprobs": 20, "seed": 3}
    with contextlib.ExitStack() as unread:
        for _ in range(6):
            unread.enter_context(ask(server, 4096, **body))
        time.sleep(0.2)
        # Within SECONDS; all six texts take longer, and it was 71 s when each client was waited for.
        assert server.post(prompt="a", max_tokens=5).status_code == 200
    deadline = time.monotonic() + SECONDS
    while server.metric("custom_llm_queue_length"):
        assert time.monotonic() < deadline


def test_of_too_many_texts_that_are_not_read_the_first_are_given_up():
    async def main() -> list[list[int] | int]:
        worker = Worker(limit=100)
        jobs = [
            Job(iter([(number for number in range(50))]), Channel(4, lambda _: 1), lambda _: None)
            for _ in range(MAX_PAUSED + 3)
        ]
        for job in jobs:
            worker.submit(job)
        worker.start()
        while len(worker):
            await asyncio.sleep(0.01)
        found = [await read(worker, job) for job in jobs]
        assert worker.stop(SECONDS)
        return found

    async def read(worker: Worker, job: Job) -> list[int] | int:
        numbers = []
        try:
            while items := await job.channel.take():
                worker.resume(job)
                numbers += items
        except ApiError as error:
            return error.status
        return numbers

    assert asyncio.run(main()) == [408] * 3 + [list(range(50))] * MAX_PAUSED


@pytest.mark.parametrize("echo", [False, True])
def test_a_text_that_is_read_slowly_is_the_same_text(server, echo):
    """Others are written in between, and it goes on where it was, also between the windows of a prompt."""
    body = {"max_tokens": 2500, "ignore_eos": True, "logprobs": 20, "seed": 4, "prompt": "Tom "}
    if echo:
        body.update(prompt="Tom saw Ben. " * 200, max_tokens=3, echo=True)
    whole = server.post(**body).json()["choices"][0]
    before = server.metric("custom_llm_generated_tokens_total")
    with ask(server, 4096, stream=True, **body) as connection:
        for _ in range(3):
            assert server.post(prompt="another", max_tokens=5, ignore_eos=True).status_code == 200
            time.sleep(0.1)
        assert server.metric("custom_llm_generated_tokens_total") == before + 15  # it is not written to its end
        answer = HTTPResponse(connection)
        answer.begin()
        lines = answer.read().decode().split("\n\n")
    *events, done, _ = [line.removeprefix("data: ") for line in lines]
    choices = [json.loads(event)["choices"][0] for event in events]
    assert done == "[DONE]"
    assert "".join(choice["text"] for choice in choices) == whole["text"]
    logprobs = [value for choice in choices for value in choice["logprobs"]["token_logprobs"]]
    assert logprobs == pytest.approx(whole["logprobs"]["token_logprobs"], abs=1e-4)


# The file and the terminal


def test_a_model_that_is_written_over_while_it_is_served(tmp_path):
    path = write_gpt2(tmp_path / "small.gguf", ENGLISH)
    with served(path) as server:
        before = text_of(server.post(prompt="a", max_tokens=30, seed=1))
        with path.open("r+b") as file:
            file.truncate(1000)
        assert text_of(server.post(prompt="a", max_tokens=30, seed=1)) == before
