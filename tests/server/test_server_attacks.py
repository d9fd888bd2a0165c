"""What nobody should send to a server, sent to one: it answers with an error or not at all, and goes on."""

from __future__ import annotations

import contextlib
import json
import random
import shlex
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_process import Served, served
from tiny_gguf import write_gpt2

ENGLISH = "abcdefghijklmnopqrstuvwxyz ABC.,\n"
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
SECRET = b"root:"  # of /etc/passwd
MEMORY = 150e6  # bytes that attacks may add, mostly what Python keeps of the largest bodies


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    path = write_gpt2(tmp_path_factory.mktemp("attacked") / "english.gguf", ENGLISH, block_size=64)
    with served(path) as server:
        yield server
        assert server.process.poll() is None
        assert server.post(prompt="a", max_tokens=3, ignore_eos=True).json()["usage"]["completion_tokens"] == 3
        assert "Traceback" not in server.log.read_text()


@pytest.fixture(autouse=True)
def unharmed(server: Served):
    yield
    assert server.process.poll() is None
    assert server.post(prompt="a", max_tokens=1).status_code == 200


def check_error(response: httpx.Response, *statuses: int) -> None:
    """It has one of the statuses, and OpenAI's shape."""
    assert response.status_code in statuses, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert len(error["message"]) < 400
    assert "\n" not in error["message"]


# Bodies


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"1", b'"a"', b"{}}", b"\xff\xfe", b'{"prompt": "a",}', b"{'prompt': 'a'}",
        b'{"prompt": "\xff"}', b'{"seed": 1e999}', b'{"seed": NaN}', b'{"temperature": NaN}',
        b'{"temperature": Infinity}', b'{"temperature": -Infinity}', b'{"top_p": 1e999}',
        b'{"seed": ' + b"9" * 5000 + b"}", b'{"temperature": ' + b"9" * 400 + b"}", b'{"max_tokens": 1e300}',
        b'{"max_tokens": ' + b"9" * 4000 + b"}",
        b'{"n": ' + b"9" * 30 + b"}", b'{"logit_bias": {"1": NaN}}', b'{"logit_bias": {"-1": 1}}',
        b'{"logit_bias": {"' + b"1" * 5000 + b'": 1}}', b'{"logit_bias": {"1": ' + b"9" * 400 + b"}}",
        b'{"logit_bias": {"\\u0661": 1}}', b'{"prompt": [' + b"9" * 30 + b"]}", b'{"prompt": [-1]}',
        b'{"prompt": [true]}', b'{"prompt": [[]]}', b'{"prompt": [[["a"]]]}', b'{"prompt": [1, "a"]}',
        b'{"prompt": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", b"[" * 400_000, b'{"a":' * 100_000,
        b'{"x\\ud800": 1}', b'{"x": 1, "y": 2}', b'{"' + b"x" * 100_000 + b'": 1}', b'{"": 1}', b'{"\\u0000": 1}',
        b'{"model": "\\ud800"}', b'{"model": "../../../../etc/passwd"}', b'{"grammar": "root ::= \\u0000"}',
        b'{"grammar": "\\ud800"}', b'{"stop": {}}', b'{"stop": [1]}', b'{"stream": 1}', b'{"echo": "yes"}',
        b'{"stream": true, "stream_options": {"include_usage": 1}}', b'{"n": 0}', b'{"n": -1}', b'{"n": true}',
        b'{"max_tokens": -2}', b'{"logprobs": true}', b'{"logprobs": -1}', b'{"best_of": 2}', b'{"prompt": {}}',
        b'{"prompt": 5}', b'{"prompt": [null]}', b'{"n": 16, "max_tokens": 16384}', b'{"user": 1, "seed": "1"}',
    ],
    ids=lambda body: ascii(body[:30]),
)  # fmt: skip
def test_bodies_that_are_wrong(server, body):
    check_error(server.http.post(COMPLETIONS, content=body, headers=JSON), 400, 404)


@pytest.mark.parametrize(
    "body",
    [
        {}, {"messages": []}, {"messages": None}, {"messages": "a"}, {"messages": ["a"]}, {"messages": [{}]},
        {"messages": [{"role": "user"}]}, {"messages": [{"role": "tool", "content": "a"}]},
        {"messages": [{"role": "user", "content": None}]}, {"messages": [{"role": "user", "content": [1]}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        {"messages": [{"role": "user", "content": "a", "x": 1}]}, {"messages": [{"role": 5, "content": "a"}]},
        {"messages": [{"role": "user", "content": "a"}], "prompt": "a"},
        {"messages": [{"role": "user", "content": "a"}], "logprobs": 1},
        {"messages": [{"role": "user", "content": "a"}], "top_logprobs": 1},
        {"messages": [{"role": "user", "content": "a"}], "max_completion_tokens": -2},
    ],
    ids=lambda body: json.dumps(body)[:50],
)  # fmt: skip
def test_chats_that_are_wrong(server, body):
    check_error(server.http.post(CHAT, json=body), 400)


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_form_of_another_page_is_no_request(server, content_type):
    # What a browser sends across origins without asking first.
    headers = {"Content-Type": content_type} if content_type else {}
    check_error(server.http.post(COMPLETIONS, content=b'{"prompt": "a"}', headers=headers), 400)


NAMES = st.sampled_from(
    "prompt messages model max_tokens n stop stream stream_options logit_bias temperature top_k top_p min_p seed"
    " grammar ignore_eos echo best_of logprobs top_logprobs suffix tools user frequency_penalty".split()
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES | st.text(max_size=5), VALUES, max_size=5) | VALUES, st.sampled_from([COMPLETIONS, CHAT]))
def test_any_json_is_answered(server, body, path):
    response = server.http.post(path, content=json.dumps(body).encode(), headers=JSON)
    if response.status_code != 200:
        check_error(response, 400, 404)


# Sizes


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_ten_megabytes(server, chunked):
    body = json.dumps({"prompt": "a" * 10_000_000}).encode()
    content = iter([body[i : i + 65536] for i in range(0, len(body), 65536)]) if chunked else body
    check_error(server.http.post(COMPLETIONS, content=content, headers=JSON), 413)


def test_the_largest_prompts_take_no_memory_for_long(server):
    import psutil

    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    for _ in range(3):
        assert server.post(prompt="a" * 990_000, max_tokens=1).status_code == 200
        assert server.post(prompt="".join(map(chr, range(0x4E00, 0x8000))), max_tokens=1).status_code == 200
        assert server.post(prompt=[0] * 300_000, max_tokens=1).status_code == 200
        check_error(server.post(prompt="a" * 990_000, max_tokens=0, echo=True, logprobs=20), 400)
    assert process.memory_info().rss < before + MEMORY


def test_a_grammar_that_never_ends_is_not_begun(server):
    doubled = "root ::= a0 a0\n" + "".join(f"a{i} ::= a{i + 1} a{i + 1}\n" for i in range(30)) + 'a30 ::= "a"?'
    check_error(server.post(prompt="a", grammar=doubled), 400)


# HTTP


def post(body: bytes, *headers: str, path: str = COMPLETIONS, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /%2e%2e/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /..%2f..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /v1/models/..%2f..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /v1/models/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET //etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /page.html HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET http://localhost/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET file:///etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /health HTTP/1.0\r\n\r\n", 200),
        (b"DELETE /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /v1/completions HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"BREW /v1/completions HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n", 431),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 17_000 + b"\r\n\r\n", 431),  # at once
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 3000 + b"\r\n", 431),
        (b"GET /health?" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 16_000 + b"\r\n\r\n", 200),
        (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"X" * 4000 + b" /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\n X: folded\r\nbad header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 200),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"\x00" * 1000, 400),
        (post(b"{}", "Content-Length: -1"), 400),
        (post(b"{}", "Content-Length: 2", "Content-Length: 3"), 400),
        (post(b"{}", "Content-Length: 99999999999999999999"), 413),
        (post(b"{}", "Content-Length: " + "9" * 5000), 400),
        (post(b"zz\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), 400),
        (post(b"2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), 200),
        (post(b"2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked", "Content-Length: 2"), 400),
        (post(b"2\r\n{}\r\n0\r\n\r\n", "Content-Length: 2", "transfer-encoding: Chunked"), 400),
        (post(b"{}", "Transfer-Encoding: gzip"), 400),
        (post(b"{}", "Content-Length: 2", version="1.0"), 200),
        (post(b'{"prompt": "a"}', "Content-Length: 3"), 400),  # and what is left is no request
    ],
    ids=lambda value: ascii(value[:60]) if isinstance(value, bytes) else None,
)  # fmt: skip
def test_http_that_is_wrong(server, data, status):
    found, content_type, content = server.send(data)
    assert found == status, content[:300]
    assert SECRET not in content
    if status >= 400:
        assert content_type == "application/json"
        assert 0 < len(json.loads(content)["error"]["message"]) < 200


@pytest.mark.parametrize("headers", [("Content-Length: 2", "Transfer-Encoding: chunked"), ("X: " + "a" * 17_000,)])
def test_nothing_is_read_behind_a_head_that_leaves_its_end_open(server, headers):
    """What a proxy takes for the body of one request must not be the next one (RFC 9112, 6.3)."""
    with server.connect() as connection:
        connection.sendall(post(b"2\r\n{}\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", *headers))
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                answer += data
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer.lower()


def test_pipelined_requests_are_answered_in_order(server):
    get = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
    body = b'{"prompt": "a", "max_tokens": 5, "stream": true}'
    requests = get % b"/health" + post(body, f"Content-Length: {len(body)}") + get % b"/nothing"
    answer = b""
    with server.connect() as connection:
        connection.sendall(requests)
        while b"no such address" not in answer:
            answer += connection.recv(65536)
    assert answer.index(b'{"status":"ok"}') < answer.index(b"[DONE]") < answer.index(b"no such address")


def test_a_client_that_closes_its_half_frees_its_place(server):
    before = server.metric("custom_llm_generated_tokens_total")
    body = b'{"prompt": "a", "max_tokens": 16384, "ignore_eos": true}'
    with server.connect() as connection:
        connection.sendall(post(body, f"Content-Length: {len(body)}"))
        connection.shutdown(socket.SHUT_WR)
        assert server.post(prompt="a", max_tokens=1).status_code == 200
    assert server.metric("custom_llm_generated_tokens_total") < before + 16384


def test_bodies_that_never_come_and_connections_that_say_nothing_hold_nobody_up(server):
    connections = [server.connect() for _ in range(100)]
    try:
        for number, connection in enumerate(connections):
            if number % 3 == 1:
                connection.sendall(b"GET /hea")
            elif number % 3 == 2:
                connection.sendall(post(b'{"prompt', "Content-Length: 1000"))
        start = time.monotonic()
        assert server.post(prompt="a", max_tokens=1).status_code == 200
        assert time.monotonic() - start < 5
    finally:
        for connection in connections:
            connection.close()


def test_more_connections_than_allowed_are_told_so(server):
    connections = []
    try:
        refused = None
        for _ in range(600):
            connections.append(server.connect())
        for connection in reversed(connections):
            connection.settimeout(2)
            refused = connection.recv(1000)
            break
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert json.loads(refused.partition(b"\r\n\r\n")[2])["error"]["message"].startswith("too many connections")
    finally:
        for connection in connections:
            connection.close()
    deadline = time.monotonic() + 10
    while httpx.get(f"{server.url}/health").status_code != 200:
        assert time.monotonic() < deadline


def test_clients_that_hang_up_at_any_moment_leave_nothing_behind(server):
    def hang_up(number: int) -> None:
        generator = random.Random(number)
        body = {"n": generator.choice([1, 16]), "stream": generator.random() < 0.5, "max_tokens": 500}
        data = json.dumps({"prompt": "a" * 100, "ignore_eos": True, **body}).encode()
        data = post(data, f"Content-Length: {len(data)}")
        with server.connect() as connection:
            connection.sendall(data[: generator.choice([len(data), len(data), len(data) // 2])])
            time.sleep(generator.random() * 0.1)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(hang_up, range(200)))
    assert server.post(prompt="a", max_tokens=1).status_code == 200
    assert server.metric("custom_llm_queue_length") == 0


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_given_up_and_one_that_is_slow_is_not(server):
    """Of a text with alternatives, which no buffer holds, neither its events nor the whole."""
    with socket.socket() as silent, socket.socket() as slow, socket.socket() as slow_whole:
        for connection in (silent, slow, slow_whole):
            body = {"prompt": "a", "max_tokens": 16000, "ignore_eos": True, "logprobs": 20}
            body = json.dumps({**body, "stream": connection is not slow_whole}).encode()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            host, _, port = server.url.removeprefix("http://").rpartition(":")
            connection.connect((host, int(port)))
            connection.sendall(post(body, f"Content-Length: {len(body)}"))
        slow.recv(4096)
        slow_whole.recv(4096)  # comes with the last token
        end = time.monotonic() + 45
        while time.monotonic() < end:
            assert slow.recv(4096)
            assert slow_whole.recv(4096)
            time.sleep(0.2)
        rest = b""
        with contextlib.suppress(ConnectionResetError):
            while data := silent.recv(65536):
                rest = (rest + data)[-100:]
        assert not rest.endswith(b"[DONE]\n\n\r\n0\r\n\r\n")


@pytest.mark.slow
def test_headers_and_bodies_that_come_too_slowly_are_given_up(server):
    with server.connect() as slow_head, server.connect() as slow_body:
        slow_head.settimeout(60)
        slow_body.settimeout(60)
        slow_body.sendall(post(b"{", "Content-Length: 1000"))
        for byte in b"GET /health":
            slow_head.send(bytes([byte]))
            time.sleep(0.1)
        with contextlib.suppress(ConnectionResetError):
            assert slow_head.recv(1000) == b""
        assert b"408" in slow_body.recv(1000)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of open files")
@pytest.mark.parametrize(
    ("limit", "connections"), [("-n 256", (108, 108)), ("-S -n 256", (512, 128)), ("-n 60", (10, 10))]
)
def test_connections_leave_files_to_refuse_the_next(limit, connections):
    code = "from custom_llm.server.http.protocol import BACKLOG, MOST; print(MOST, BACKLOG)"
    command = f"ulimit {limit} && exec {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=True)
    assert tuple(map(int, done.stdout.split())) == connections


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of open files")
@pytest.mark.slow
def test_more_connections_than_files_are_refused_without_a_word_on_stderr(tmp_path):
    write_gpt2(tmp_path / "small.gguf", "ab")
    before = ("bash", "-c", 'ulimit -n 60 && exec "$@"', "-")
    with served(tmp_path / "small.gguf", before=before) as server:
        connections = [server.connect() for _ in range(100)]
        assert connections[-1].recv(12) == b"HTTP/1.1 503"
        for connection in connections:
            connection.close()
        deadline = time.monotonic() + 10
        while httpx.get(f"{server.url}/health").status_code != 200:
            assert time.monotonic() < deadline
        assert server.log.read_text() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of open files")
def test_too_few_files_are_one_line(tmp_path):
    command = f"ulimit -n 45 && exec {shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'serve_gguf.py'))}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: only 45 files may be open; start the server where `ulimit -n` is 680\n"
