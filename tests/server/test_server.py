"""serve_gguf.py as its clients see it: the official openai package and httpx, against a process with a real model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from conftest import ENVIRONMENT, ROOT, run_script
from server_process import SECONDS, Served, served
from tiny_gguf import END_OF_TEXT, write_gpt2

from custom_llm.config.sampling import MAX_SEED, Sampling
from custom_llm.inference.engine import Engine

ENGLISH = "abcdefghijklmnopqrstuvwxyz ABC.,\nß"
BLOCK = 64
KEY = "a-secret"
LONG = {"prompt": "a", "max_tokens": 16384, "ignore_eos": True}  # some seconds


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("served") / "english.gguf", ENGLISH, block_size=BLOCK)


@pytest.fixture(scope="module")
def server(english: Path):
    with served(english, "--grammars") as server:
        yield server


@pytest.fixture(scope="module")
def strict(english: Path, tmp_path_factory: pytest.TempPathFactory):
    """A server that asks for a key, lets one request wait, and takes small bodies."""
    path = tmp_path_factory.mktemp("strict") / "english.gguf"
    path.write_bytes(english.read_bytes())
    flags = ("--queue", "1", "--max_body", "3000", "--max_tokens", "50000", "--cors_origin", "https://app.example")
    with served(path, *flags, CUSTOM_LLM_API_KEY=KEY) as server:
        server.http.headers["Authorization"] = f"Bearer {KEY}"
        yield server


@pytest.fixture(scope="module")
def client(server: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def engine(english: Path):
    with Engine(english) as engine:
        yield engine


def write(engine: Engine, prompt: str, max_tokens: int, stop=(), ignore_eos: bool = False, **sampling) -> str:
    return "".join(engine.generate(prompt, max_tokens, Sampling(**sampling), stop, ignore_eos))


# Texts


def test_a_completion_is_what_the_engine_writes(client, engine):
    completion = client.completions.create(model="english.gguf", prompt="the cat", max_tokens=40, seed=3)
    assert completion.choices[0].text == write(engine, "the cat", 40, seed=3)
    assert completion.choices[0].finish_reason == "length"
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 40, 47)


def test_a_stream_is_the_same_text_in_pieces(client, engine):
    options = {"include_usage": True}
    stream = client.completions.create(
        model="english.gguf", prompt="a", max_tokens=3000, seed=4, stream=True, stream_options=options
    )
    chunks = list(stream)
    *pieces, last = chunks
    assert "".join(chunk.choices[0].text for chunk in pieces) == write(engine, "a", 3000, seed=4)
    assert len(pieces) > 3
    assert [chunk.choices[0].finish_reason for chunk in pieces] == [None] * (len(pieces) - 1) + ["length"]
    assert (last.choices, last.usage.completion_tokens) == ([], 3000)


def test_sampling_settings_are_the_engines(server, engine):
    settings = {"top_k": 3, "top_p": 0.9, "min_p": 0.1, "repeat_penalty": 1.2, "frequency_penalty": 0.5, "seed": 9}
    answer = server.post(prompt="the", max_tokens=60, temperature=1.5, presence_penalty=-0.5, **settings).json()
    assert answer["choices"][0]["text"] == write(engine, "the", 60, temp=1.5, presence_penalty=-0.5, **settings)


def test_what_is_left_out_or_null_is_the_default(server, engine):
    for body in ({"seed": 1}, {"seed": 1, "temperature": None, "n": None, "stop": None, "logit_bias": None}):
        answer = server.post(**body).json()
        assert answer["choices"][0]["text"] == write(engine, "", 16, seed=1)


def test_each_of_n_texts_has_the_next_seed(client, engine):
    completion = client.completions.create(model="english.gguf", prompt=["a", "the"], max_tokens=9, n=2, seed=MAX_SEED)
    expected = [write(engine, prompt, 9, seed=seed) for prompt in ("a", "the") for seed in (MAX_SEED, 0)]
    assert [choice.text for choice in completion.choices] == expected
    assert [choice.index for choice in completion.choices] == [0, 1, 2, 3]
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (4, 36)

    texts = [""] * 4
    stream = client.completions.create(
        model="english.gguf", prompt=["a", "the"], max_tokens=9, n=2, seed=MAX_SEED, stream=True
    )
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == expected


def test_tokens_are_a_prompt_too(server, engine):
    tokens = engine.read("the cat").tokens
    for prompt in (tokens, [tokens], ["the cat"]):
        answer = server.post(prompt=prompt, max_tokens=20, seed=2).json()
        assert answer["choices"][0]["text"] == write(engine, "the cat", 20, seed=2)


def test_a_text_ends_before_a_stop_string_and_at_the_end_of_a_document(server, engine, tmp_path):
    whole = write(engine, "a", 200, seed=5)
    stop = whole[50:52]
    answer = server.post(prompt="a", max_tokens=200, seed=5, stop=["never", stop]).json()["choices"][0]
    assert (answer["text"], answer["finish_reason"]) == (whole[: whole.index(stop)], "stop")

    end = engine.model.eos
    at_once = server.post(prompt="a", logit_bias={str(end): 100}).json()
    assert (at_once["choices"][0]["text"], at_once["choices"][0]["finish_reason"]) == ("", "stop")
    assert at_once["usage"]["completion_tokens"] == 0
    on = server.post(prompt="a", max_tokens=5, ignore_eos=True, logit_bias={str(end): 100}).json()
    assert on["usage"]["completion_tokens"] == 5


def test_a_grammar_is_kept_to(server):
    answer = server.post(prompt="a", max_tokens=50, grammar='root ::= "yes" | "no"').json()["choices"][0]
    assert answer["text"] in ("yes", "no")
    assert answer["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("root ::= (", "grammar cannot be read"),
        ('root ::= "a"{5,2}', "grammar: in {5,2} the second number is smaller than the first"),
        ('root ::= root "a" | "a"', "grammar: the rule root begins with itself"),
        ('root ::= ("a"*)*', "grammar: what may be nothing is repeated"),
        ("root ::= " + "(" * 3000 + '"a"' + ")" * 3000, "grammar has too many parentheses"),
        ('root ::= "é"', "grammar: nothing that the vocabulary can spell fits it here"),
        ("root ::= a0\n" + "".join(f"a{i} ::= a{i + 1} a{i + 1}\n" for i in range(30)) + 'a30 ::= "a"', None),
    ],
    ids=lambda text: str(text)[:30],
)
def test_no_grammar_takes_the_server_with_it(server, grammar, message):
    """Neither its time nor its memory: llama.cpp read some of these for ever."""
    import psutil

    answer = server.post(prompt="a", max_tokens=5, grammar=grammar)
    if message is not None:
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith(message)
        assert answer.json()["error"]["param"] == "grammar"
    assert psutil.Process(server.process.pid).memory_info().rss < 500e6
    assert server.post(prompt="a", max_tokens=1).status_code == 200


def test_unknown_characters_are_left_out_and_named(server, engine):
    body = b'{"prompt": "a\\u20ac\\ud83d\\u2603", "max_tokens": 5, "seed": 1}'
    headers = {"Content-Type": "application/json"}
    answer = server.http.post("/v1/completions", content=body, headers=headers).json()
    assert answer["choices"][0]["text"] == write(engine, "a", 5, seed=1)
    assert answer["warning"] == "not in the model's vocabulary, left out: '€', '\N{REPLACEMENT CHARACTER}', '☃'"
    assert answer["usage"]["prompt_tokens"] == 1


def test_a_prompt_longer_than_the_window_slides(server, engine):
    prompt = "the cat sat. " * 100
    answer = server.post(prompt=prompt, max_tokens=100, seed=1).json()
    assert answer["choices"][0]["text"] == write(engine, prompt, 100, seed=1)
    assert answer["usage"]["prompt_tokens"] == len(prompt)


# How likely tokens were


@pytest.mark.parametrize("text", ["the cat", "the cat sat on ßßß. " * 20, END_OF_TEXT + "abc" + END_OF_TEXT, "a", ""])
def test_echoed_log_probabilities_are_the_engines(client, engine, text):
    completion = client.completions.create(model="english.gguf", prompt=text, max_tokens=0, echo=True, logprobs=3)
    choice = completion.choices[0]
    scores = list(engine.score(engine.read(text).tokens, 3))
    assert choice.text == text
    assert choice.logprobs.token_logprobs == pytest.approx([score.logprob for score in scores], abs=1e-9)
    assert "".join(choice.logprobs.tokens) == text
    for token, offset in zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True):
        assert text.startswith(token, offset)
    if text:
        assert choice.logprobs.token_logprobs[0] is choice.logprobs.top_logprobs[0] is None
    for token, logprob, top in list(
        zip(choice.logprobs.tokens, choice.logprobs.token_logprobs, choice.logprobs.top_logprobs, strict=True)
    )[1:]:
        assert top[token] == logprob
        assert 3 <= len(top) <= 4
    expected = -sum(score.logprob for score in scores[1:])
    assert -sum(choice.logprobs.token_logprobs[1:]) == pytest.approx(expected, abs=1e-6)
    assert completion.usage.completion_tokens == 0


def test_log_probabilities_of_a_stream_are_those_of_the_whole(server):
    body = {"prompt": "the ß", "max_tokens": 500, "echo": True, "logprobs": 1, "seed": 1, "stop": ["zq", "qz"]}
    whole = server.post(**body).json()["choices"][0]
    joined = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    text = ""
    for chunk in events(server, "/v1/completions", **body):
        choice = chunk["choices"][0]
        text += choice["text"]
        for name in joined:
            joined[name] += choice["logprobs"][name]
    assert text == whole["text"]
    assert joined == whole["logprobs"]
    assert "".join(joined["tokens"]) == text


def test_tokens_that_are_parts_of_characters_are_shown_as_bytes(tmp_path):
    # Tokens of the vocabulary are whole characters here; parts come from a vocabulary of bytes.
    from custom_llm.inference.scores import Score, spelling
    from custom_llm.inference.text import whole_characters
    from custom_llm.server.answers import CompletionAnswer
    from custom_llm.server.writer import Part

    assert (spelling(b"\xe2\x82"), spelling("€".encode())) == ("bytes:\\xe2\\x82", "€")
    answer = CompletionAnswer("m", has_scores=True, is_stream=False)
    halves = (Score(0, b"a\xe2", -1.0), Score(1, b"\x82\xacb", -2.0), Score(2, b"c", -3.0))
    pieces = whole_characters((score.spelled, score) for score in halves)
    (choice,) = answer.add([Part(0, "xy"), *(Part(0, *piece) for piece in pieces)])
    assert choice["text"] == "xya€bc" and choice["logprobs"]["text_offset"] == [2, 3, 5]


# Chat


def test_a_chat_goes_on_with_the_last_message(client, engine):
    parts = [{"type": "text", "text": "sat"}, {"type": "text", "text": " down"}]
    chat = client.chat.completions.create(
        model="english.gguf",
        messages=[{"role": "system", "content": "the cat"}, {"role": "user", "content": parts}],
        max_completion_tokens=30,
        seed=6,
        logprobs=True,
        top_logprobs=2,
    )
    choice = chat.choices[0]
    assert choice.message.content == write(engine, "the cat\nsat down", 30, seed=6)
    assert choice.message.role == "assistant"
    assert len(choice.logprobs.content) == 30
    first = choice.logprobs.content[0]
    assert len(first.top_logprobs) == 2
    assert first.bytes == list(first.token.encode())
    assert all(token.logprob <= 0 for token in choice.logprobs.content)


def test_a_streamed_chat_begins_with_the_role(client, engine):
    stream = client.chat.completions.create(
        model="english.gguf", messages=[{"role": "user", "content": "a"}], max_tokens=200, seed=1, stream=True, n=2
    )
    texts, roles = ["", ""], [[], []]
    for chunk in stream:
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        roles[choice.index].append(choice.delta.role)
    assert texts == [write(engine, "a", 200, seed=seed) for seed in (1, 2)]
    assert all(found[0] == "assistant" and set(found[1:]) <= {None} for found in roles)


# Other addresses


def test_the_model_and_its_card(client, server):
    (model,) = client.models.list()
    assert model.id == client.models.retrieve("english.gguf").id == "english.gguf"
    assert model.card["architecture"] == "gpt2"
    assert model.card["context"] == BLOCK
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    assert server.http.get("/health").json() == {"status": "ok"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_can_be_asked_for(tmp_path):
    path = write_gpt2(tmp_path / os.fsdecode(b"m\xff.gguf"), ENGLISH)
    with served(path, shown="m?.gguf") as server:
        (model,) = server.http.get("/v1/models").json()["data"]
        assert model["id"] == "m\ufffd.gguf"
        assert server.post(model=model["id"], prompt="a").status_code == 200


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/v1/models", "/v1/models/english.gguf", "/nothing"])
def test_head_is_answered_as_get_without_the_content(server, path):
    head, get = server.http.head(path), server.http.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_the_page_may_talk_to_its_own_server_only(server):
    page = server.http.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    scripts = policy.partition("script-src ")[2].partition(";")[0]
    assert "unsafe" not in scripts


def test_metrics_count(server):
    before = server.metric("custom_llm_generated_tokens_total"), server.metric("custom_llm_prompt_tokens_total")
    server.post(prompt="the cat", max_tokens=11, ignore_eos=True)
    server.post(prompt=5)
    assert server.metric("custom_llm_generated_tokens_total") == before[0] + 11
    assert server.metric("custom_llm_prompt_tokens_total") == before[1] + 7
    assert server.metric('custom_llm_requests_total{route="/v1/completions",status="400"}') >= 1
    assert server.metric("custom_llm_first_token_seconds_count") >= 1
    assert server.metric("custom_llm_queue_length") == 0


# Errors


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("x", 1, "Unrecognized request argument supplied: x"),
        ("suffix", "z", "suffix is not supported by this server"),
        ("best_of", 3, "best_of is only supported if it is equal to n"),
        ("model", "other", "there is no model 'other' here, only 'english.gguf'"),
        ("temperature", 101, "temperature 101 is not a number from 0 to 100"),
        ("seed", 1.5, "seed 1.5 is not a whole number"),
        ("top_k", -2, "top_k -2 is not a whole number from 0 to 2147483647"),
        ("max_tokens", 20_000, "max_tokens is too large: over all texts it would be 20,000 tokens"),
        ("n", 17, "n: Input should be less than or equal to 16"),
        ("logprobs", 21, "logprobs: Input should be less than or equal to 20"),
        ("stop", [""], "stop has a string that is empty or longer than 256 characters"),
        ("stop", ["a"] * 17, "stop has more than 16 strings"),
        ("logit_bias", {"999": 1}, "logit_bias has a token that is not in the vocabulary; there are 0 to 34"),
        ("logit_bias", {"a": 1}, "logit_bias has the key 'a', which is not a token's id"),
        ("prompt", [999], "prompt has a token that is not in the vocabulary; there are 0 to 34"),
        ("prompt", [], "prompt is not a string, an array of token ids, or an array of such prompts"),
        ("prompt", ["a"] * 257, "prompt has more than 256 prompts"),
        ("stream_options", {}, "stream_options is only for stream: true"),
        ("grammar", "a" * 9000, "grammar is longer than 8,192 characters"),
    ],
)
def test_a_wrong_field_is_named(server, field, value, message):
    response = server.post(**{field: value})
    assert response.status_code == (404 if field == "model" else 400)
    error = response.json()["error"]
    assert error["message"].startswith(message)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == field


@pytest.mark.parametrize("field", ["user", "metadata", "store", "service_tier"])
def test_fields_that_change_no_text_are_taken(server, field):
    assert server.post(**{field: "x"}).status_code == 200


def test_what_a_chat_cannot_do_is_refused_and_its_defaults_are_not(server):
    chat = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
    defaults = {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "modalities": ["text"]}
    assert server.http.post("/v1/chat/completions", json={**chat, **defaults}).status_code == 200
    for field, value in (("tools", [{}]), ("response_format", {"type": "json_object"}), ("functions", [1])):
        response = server.http.post("/v1/chat/completions", json={**chat, field: value})
        assert response.json()["error"]["message"] == f"{field} is not supported by this server"
    image = [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]
    messages = [{"role": "user", "content": image}]
    assert server.http.post("/v1/chat/completions", json={"messages": messages}).status_code == 400


@pytest.mark.parametrize(
    ("wrong", "advice", "right"),
    [
        ({"stream_options": {}}, "is only for stream: true", {"stream_options": {}, "stream": True}),
        ({"best_of": 3}, "is only supported if it is equal to n", {"best_of": 3, "n": 3}),
        ({"max_tokens": 20_000}, "-1: as many as that", {"max_tokens": -1, "logit_bias": {"34": 100}}),
        ({"model": "x"}, "only 'english.gguf'", {"model": "english.gguf"}),
        ({"grammar": "root ::= [a", "ignore_eos": True}, "give one of them", {"ignore_eos": True}),
        ({"messages": [{"role": "user", "content": "a"}], "top_logprobs": 1}, "is only for logprobs: true",
         {"messages": [{"role": "user", "content": "a"}], "top_logprobs": 1, "logprobs": True}),
        ({"messages": [{"role": "user", "content": ["a"]}]}, 'such as {"type": "text", "text": "…"}',
         {"messages": [{"role": "user", "content": [{"type": "text", "text": "…"}]}]}),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_what_an_error_advises_works(server, wrong, advice, right):
    path = "/v1/chat/completions" if "messages" in wrong else "/v1/completions"
    refused = server.http.post(path, json=wrong)
    assert 400 <= refused.status_code < 500
    assert advice in refused.json()["error"]["message"]
    assert server.http.post(path, json=right).status_code == 200


def test_what_another_server_is_said_to_take_it_takes(server, strict):
    """The flags that errors name: --grammars, --max_body; the header and the names that they name."""
    for body, flag in (({"grammar": 'root ::= "a"'}, "--grammars"), ({"prompt": "a" * 4000}, "--max_body")):
        assert flag in strict.post(**body).json()["error"]["message"]
        assert server.post(**body).status_code == 200
    asked = httpx.get(f"{strict.url}/v1/models").json()["error"]["message"]
    name, value = asked.removeprefix("an API key is needed: ").split(": ")
    assert httpx.get(f"{strict.url}/v1/models", headers={name: value.replace("KEY", KEY)}).status_code == 200
    names = server.http.get("/health", headers={"Host": "x"}).json()["error"]["message"]
    for host in re.findall(r"[\w.\[\]:]+", names.removeprefix("this server answers to ").removesuffix(" only")):
        assert server.http.get("/health", headers={"Host": host}).status_code == 200


def test_errors_are_the_clients_exceptions(client, strict):
    with pytest.raises(openai.BadRequestError, match="Unrecognized request argument supplied: x"):
        client.completions.create(model="english.gguf", prompt="a", extra_body={"x": 1})
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
        client.completions.create(model="gpt", prompt="a")
    with pytest.raises(openai.AuthenticationError, match="wrong API key"):
        openai.OpenAI(base_url=f"{strict.url}/v1", api_key="wrong", max_retries=0).models.list()
    assert openai.OpenAI(base_url=f"{strict.url}/v1", api_key=KEY).models.list().data[0].id == "english.gguf"
    with pytest.raises(openai.APIStatusError) as caught:
        openai.OpenAI(base_url=f"{strict.url}/v1", api_key=KEY, max_retries=0).completions.create(
            model="english.gguf", prompt="a" * 5000
        )
    assert caught.value.status_code == 413


def test_an_error_within_a_stream_is_an_event(server):
    # "b" fits the grammar's first letter, then nothing of the vocabulary does.
    found = list(events(server, "/v1/completions", prompt="a", grammar='root ::= "b" "é"', max_tokens=9))
    assert found[0]["choices"][0]["text"] == "b" if "choices" in found[0] else True
    assert "nothing that the vocabulary can spell" in found[-1]["error"]["message"]


# Keys and origins


def test_all_but_the_page_and_health_need_the_key(strict):
    with httpx.Client(base_url=strict.url) as nobody:
        assert [nobody.get(path).status_code for path in ("/", "/health")] == [200, 200]
        for path in ("/metrics", "/v1/models", "/v1/models/english.gguf", "/nothing"):
            response = nobody.get(path)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "invalid_api_key"
        assert nobody.post("/v1/completions", json={}).status_code == 401
        for value in (KEY, f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer", "Bearer \xe9"):
            assert nobody.get("/metrics", headers=[(b"Authorization", value.encode("latin-1"))]).status_code == 401
    assert strict.http.get("/metrics").status_code == 200


def test_pages_of_elsewhere_read_nothing_unless_allowed(server, strict):
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    for one, allowed in ((server, False), (strict, True)):
        asked = one.http.options("/v1/completions", headers=preflight)
        read = one.http.get("/v1/models", headers={"Origin": "https://app.example"})
        other = one.http.get("/v1/models", headers={"Origin": "https://other.example"})
        name = "access-control-allow-origin"
        assert (name in asked.headers, name in read.headers, name in other.headers) == (allowed, allowed, False)


def test_only_the_names_of_this_computer_are_answered(server):
    port = server.url.rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example"):
        assert server.http.get("/v1/models", headers={"Host": host}).status_code == 403
    for host in ("localhost", f"LOCALHOST:{port}", "127.0.0.1:1", "[::1]:80"):
        assert server.http.get("/v1/models", headers={"Host": host}).status_code == 200


# Many at once


def test_thirty_two_clients_get_their_own_texts(server, engine):
    def ask(seed: int) -> list[str]:
        with httpx.Client(base_url=server.url, timeout=SECONDS) as client:
            body = {"prompt": "the", "max_tokens": 20, "seed": seed}
            return [client.post("/v1/completions", json=body).json()["choices"][0]["text"] for _ in range(3)]

    with ThreadPoolExecutor(32) as pool:
        texts = list(pool.map(ask, range(32)))
    assert texts == [[write(engine, "the", 20, seed=seed)] * 3 for seed in range(32)]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_place(server, stream):
    before = server.metric("custom_llm_generated_tokens_total")
    body = json.dumps({**LONG, "stream": stream}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with server.connect() as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        if stream:
            connection.recv(1)
        else:
            time.sleep(0.2)
    server.post(prompt="a", max_tokens=1, ignore_eos=True)
    assert server.metric("custom_llm_generated_tokens_total") < before + LONG["max_tokens"]


def test_a_full_queue_refuses_and_a_waiting_client_that_hangs_up_leaves_it(strict):
    with (
        strict.http.stream("POST", "/v1/completions", json={**LONG, "max_tokens": 50_000, "stream": True}) as running,
        ThreadPoolExecutor(1) as pool,
    ):
        lines = running.iter_lines()  # which closes the response when it is forgotten
        next(lines)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{strict.url}/v1/completions", json={}, headers=strict.http.headers, timeout=0.3)
        deadline = time.monotonic() + SECONDS
        while strict.metric("custom_llm_queue_length"):
            assert time.monotonic() < deadline
        waiting = pool.submit(strict.post, prompt="a")
        while not strict.metric("custom_llm_queue_length"):
            assert time.monotonic() < deadline
        refused = strict.post(prompt="a")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "queue_full"
        with pytest.raises(openai.RateLimitError):
            openai.OpenAI(base_url=f"{strict.url}/v1", api_key=KEY, max_retries=0).completions.create(
                model="english.gguf", prompt="a"
            )
        running.close()
        assert waiting.result(SECONDS).status_code == 200


def test_one_text_of_many_does_not_keep_others_waiting(server):
    with ThreadPoolExecutor(1) as pool:
        many = pool.submit(server.post, prompt="a", n=16, max_tokens=1000, ignore_eos=True)
        time.sleep(0.2)
        assert server.post(prompt="a").status_code == 200
        assert not many.done()
        assert len(many.result(SECONDS).json()["choices"]) == 16


@pytest.mark.slow
def test_load_none_lost_none_mixed_up(server, engine):
    def ask(seed: int) -> list[str]:
        with httpx.Client(base_url=server.url, timeout=None) as client:
            body = {"prompt": "the", "max_tokens": 50, "seed": seed, "stream": True}
            return ["".join(c["choices"][0]["text"] for c in read_events(client, body)) for _ in range(20)]

    with ThreadPoolExecutor(32) as pool:
        texts = list(pool.map(ask, range(32)))
    assert texts == [[write(engine, "the", 50, seed=seed)] * 20 for seed in range(32)]


def read_events(client: httpx.Client, body: dict, path: str = "/v1/completions"):
    with client.stream("POST", path, json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    found = [line.removeprefix("data: ") for line in lines]
    if found[-1] == "[DONE]":
        found.pop()
    else:
        assert "error" in found[-1]
    return [json.loads(event) for event in found]


def events(server: Served, path: str, **body):
    return read_events(server.http, {**body, "stream": True}, path)


# Start and end


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--host", "0.0.0.0"), "--host 0.0.0.0 can be reached from other computers: set CUSTOM_LLM_API_KEY"),
        (("--host", "::"), "--host :: can be reached from other computers"),
        (("--host", ""), "--host : no such address"),
        (("--host", "no such host"), "--host no such host: no such address"),
        (
            ("--host", "203.0.113.1"),
            "--host 203.0.113.1 --port 0: cannot assign requested address; give 127.0.0.1, or an address of this",
        ),
        (("--port", "65536"), "argument --port: '65536' is not a whole number from 0 to 65535"),
        (("--gguf_path", "missing.gguf"), "missing.gguf: no such file"),
        (("--gguf_path", ""), "--gguf_path is empty; give a .gguf or .pth, or leave it out"),
        (("--api_key", "ä"), "--api_key has characters that no HTTP header can hold; take another, such as "),
        (("--api_key", ""), "--api_key is empty, and would let everybody in; give it a key, or leave it out"),
        (("--queue", "0"), "argument --queue: '0' is not a whole number from 1"),
        (("--cors_origin", "https://a.example/"), "--cors_origin https://a.example/ is no origin; give one such as"),
    ],
)
def test_a_start_that_cannot_be_is_one_line(english, tmp_path, flags, message):
    result = run_script("serve_gguf.py", "--gguf_path", english, "--port", "0", *flags, cwd=tmp_path)
    assert result.status == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of open files")
def test_a_server_starts_as_the_errors_of_others_advise(english):
    """With the key, the origin, the port and the number of files that they name."""

    def error(*flags: str) -> str:
        return run_script("serve_gguf.py", *flags, cwd=english.parent).stderr

    key = re.search("such as ([!-~]+)", error("--api_key", "ä"))[1]
    origin = re.search("such as ([^ ,]+)", error("--cors_origin", "their.address/path"))[1]
    limited = ("bash", "-c", 'ulimit -n 680 && exec "$@"', "-")  # test_server_attacks.py has that error
    flags = ("--host", "0.0.0.0", "--api_key", key, "--cors_origin", origin)
    with served(english, *flags, before=limited) as server:
        headers = {"Origin": origin, "Authorization": f"Bearer {key}"}
        assert server.http.get("/v1/models", headers=headers).headers["access-control-allow-origin"] == origin


def test_a_port_that_is_taken_is_one_line(server, english, tmp_path):
    port = server.url.rpartition(":")[2]
    result = run_script("serve_gguf.py", "--gguf_path", english, "--port", port, cwd=tmp_path)
    assert result.status == 2
    assert result.stderr == (
        f"error: --host 127.0.0.1 --port {port}: address already in use; give another --port (0: any that is free)\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)])
def test_it_ends_at_once_with_requests_under_way(english, tmp_path, number):
    (tmp_path / "run.yaml").write_text("serve_gguf:\n  port: 0\n  queue: 9\n")
    command = [sys.executable, str(ROOT / "serve_gguf.py"), "--config", "run.yaml"]
    (tmp_path / "newest.gguf").write_bytes(english.read_bytes())
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        url = process.stdout.readline().split(" on ")[1].split()[0]
        with httpx.stream("POST", f"{url}/v1/completions", json={**LONG, "stream": True}) as running:
            lines = running.iter_lines()
            next(lines)
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(httpx.post, f"{url}/v1/completions", json={}, timeout=SECONDS)
                while "custom_llm_queue_length 1.0" not in httpx.get(f"{url}/metrics").text:
                    time.sleep(0.05)
                process.send_signal(number)
                start = time.monotonic()
                assert "the server is ending" in list(lines)[-2]
                assert waiting.result().status_code == 503
            assert process.wait(SECONDS) == 0
            assert time.monotonic() - start < 5
        assert process.stderr.read() == "using newest.gguf\n"


def test_a_missing_package_is_one_line(english, tmp_path):
    (tmp_path / "fastapi.py").write_text("raise ImportError('no', name='fastapi')")
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    result = run_script("serve_gguf.py", "--gguf_path", english, cwd=tmp_path, environment=environment)
    assert result.status == 2
    assert result.stderr == "error: fastapi is missing: pip install -r requirements-serve.txt\n"


# docs/serving.md


def test_the_lines_of_the_documentation_work_as_written(server):
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8").replace("http://127.0.0.1:8000", server.url)
    lines = [line for line in text.splitlines() if line.startswith("curl ")]
    assert len(lines) == 6
    for line in lines:
        done = subprocess.run(["bash", "-c", f"{line} --silent --fail-with-body"], capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stdout)
    (example,) = re.findall("```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 0
