"""A judge over HTTP that misbehaves in every way, one in a GGUF file, and what can be read in any answer."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import write_gpt2

import evaluate_llm
from custom_llm.common.errors import UserError
from custom_llm.evaluation import judges
from custom_llm.evaluation.judges import AddressJudge, open_file_judge
from custom_llm.evaluation.metrics.grades import QUALITIES, Grades, NoAnswer, fill, grade, parse_grades, read_prompt
from custom_llm.evaluation.run import grades_table

GOOD = '{"grammar": 8, "creativity": 7, "consistency": 9, "age": "D"}'
OUT_OF_RANGE = '{"grammar": 11, "creativity": 0, "consistency": -3, "age": "Z"}'
GRADES = Grades(8, 7, 9, "D")
SECONDS = 0.5  # for an answer, in tests of those that never come


class Misbehaving(BaseHTTPRequestHandler):
    """Does what the first part of its path says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply(200, {"data": [{"id": "the-judge"}]})

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.seen.append((body, dict(self.headers)))
        how = self.path.split("/")[1]
        first = len(server.seen) == 1
        if how == "busy" and len(server.seen) < 3:
            self.reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.01"})
        elif how == "drops" and first:
            self.close_connection = True
        elif how == "particular" and "max_tokens" in body:
            self.reply(400, {"error": {"message": "Unsupported parameter: 'max_tokens'"}})
        elif how.isdigit():
            self.reply(int(how), {"error": {"message": f"that\nis {how}"}}, {"Location": "http://127.0.0.1:1/"})
        elif how == "slow":
            self.begin({"Content-Length": "1000"})
            self.dribble()
        elif how == "endless":
            self.begin({})
            self.dribble()
        elif how == "headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            self.dribble()
        elif how in ANSWERS:
            self.begin({"Content-Length": str(len(ANSWERS[how])), "Content-Type": "text/plain; charset=utf-7"})
            self.wfile.write(ANSWERS[how])
        else:
            self.reply(200, {"choices": [{"message": {"content": GOOD}}]})

    def reply(self, status: int, values: object, headers: dict | None = None) -> None:
        content = json.dumps(values).encode()
        self.begin({"Content-Length": str(len(content)), **(headers or {})}, status)
        self.wfile.write(content)

    def begin(self, headers: dict, status: int = 200) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def dribble(self) -> None:
        self.close_connection = True
        try:
            while True:
                self.wfile.write(b" ")
                time.sleep(0.05)
        except OSError:
            pass

    def log_message(self, *_: object) -> None: ...


def content(value: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": value}}]}).encode()


# path → a body
ANSWERS = {
    "good": content(GOOD),
    "latin": content("x").replace(b"x", b"Gr\xfc\xdfe. Grammar: 8/10, creativity: 7/10, consistency: 9/10. Age: D"),
    "huge": content("a very long answer " * 300_000 + GOOD),
    "text": b"Grammar: 8",
    "nothing": b"",
    "no_choices": b'{"choices": []}',
    "odd": b'[{"choices": 3}]',
    "null": content(None),
    "list": content([{"type": "text"}]),
    "blank": content("  "),
    "deep": b"[" * 200_000,
    "refusal": content("I'm sorry, but I can't grade this."),
    "out_of_range": content(OUT_OF_RANGE),
}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(judges, "FIRST_WAIT", 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving)
    server.daemon_threads, server.seen = True, []
    server.handle_error = lambda *_: None  # of clients that went away
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def url(server, how: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{how}"


def grades_of(server, how: str, **options) -> Grades:
    options = {"model": None, "key": None, "seconds": 5.0, **options}
    asked = AddressJudge(url(server, how), **options)
    return grade(lambda beginning, continuation: asked.ask(beginning + continuation), [("One day ", "it rained.")])[0]


# Over HTTP


@pytest.mark.parametrize("how", ["v1", "good", "busy", "drops", "particular", "latin"])
def test_a_judge_that_answers_in_the_end_is_read(server, how):
    assert grades_of(server, how) == GRADES


def test_what_is_sent_is_what_openai_takes(server):
    grades_of(server, "v1", key="sk-1")
    ((body, headers),) = server.seen
    assert body["model"] == "the-judge"
    assert body["messages"] == [{"role": "user", "content": "One day it rained."}]
    assert headers["Authorization"] == "Bearer sk-1"


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("500", "no answer: status 500: that is 500"),
        ("400", "no answer: status 400: that is 400"),
        ("text", "no answer: an answer without a text"),
        ("nothing", "no answer: an answer without a text"),
        ("no_choices", "no answer: an answer without a text"),
        ("odd", "no answer: an answer without a text"),
        ("null", "no answer: an answer without a text"),
        ("list", "no answer: an answer without a text"),
        ("blank", "no answer: an answer without a text"),
        ("deep", "no answer: an answer without a text"),
        ("huge", "no answer: an answer without a text"),
        ("refusal", "no grade in \"I'm sorry, but I can't grade this.\""),
        ("out_of_range", f"no grade in {OUT_OF_RANGE!r}"),
    ],
)
def test_an_answer_that_is_none_is_missing(server, how, problem):
    assert grades_of(server, how) == Grades(problem=problem)


@pytest.mark.parametrize("how", ["slow", "endless", "headers"])
def test_an_answer_that_never_ends_is_given_up(server, how, monkeypatch):
    monkeypatch.setattr(judges, "ATTEMPTS", 2)
    start = time.monotonic()
    found = grades_of(server, how, seconds=SECONDS, model="m")
    assert found.problem == "no answer: more than 0.5 s"
    assert time.monotonic() - start < 2 * SECONDS + 2


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("401", "refuses: status 401: that is 401; give a key with --judge_key or in OPENAI_API_KEY"),
        ("404", "model m: status 404: that is 404"),
        ("302", "model m: status 302: that is 302"),
    ],
)
def test_an_address_that_is_no_judge_ends_the_evaluation(server, how, message):
    with pytest.raises(UserError) as caught:
        grades_of(server, how, model="m")
    assert str(caught.value).endswith(message)
    assert len(server.seen) == 1  # a redirect is not followed


@pytest.mark.parametrize(
    ("address", "key", "message"),
    [
        ("http://127.0.0.1:1/v1", None, r"refused.*; start the judge, or name another address"),
        ("http://nowhere.invalid/v1", None, "start the judge, or name another address"),
        ("http://", None, "is no address"),
        ("http://[::1", None, "Invalid IPv6 URL"),
        ("http://127.0.0.1:99999/v1", None, "Port out of range"),
        ("http://127.0.0.1:1/v1", "a\nb", "--judge_key has characters that no key has"),
    ],
)
def test_no_judge_is_one_line(address, key, message, monkeypatch):
    monkeypatch.setattr(judges, "FIRST_WAIT", 0.01)
    with pytest.raises(UserError, match=message):
        AddressJudge(address, None, key, 1.0)


def test_graded_from_the_command_line(server, tmp_path, monkeypatch, capsys):
    """One of two texts of the model gets no answer; that is said, and the rest is counted."""
    write_gpt2(tmp_path / "model.gguf", "abcdefgh .\n")
    (tmp_path / "text.txt").write_text("abc def. gab\n" * 40)
    (tmp_path / "prompt.txt").write_text("Begin {beginning}, go on {continuation}!")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-2")
    flags = "--model model.gguf --text_path text.txt --max_tokens 5 --sample_tokens 20 --json out.json --judge_prompt"
    evaluate_llm.main([*flags.split(), "prompt.txt", "--judge", url(server, "v1"), "--samples", "2"])
    body, headers = server.seen[0]
    found = json.loads((tmp_path / "out.json").read_text())
    text = found["written"]["texts"][0]
    assert body["messages"][0]["content"] == f"Begin {text['prompt']}, go on {text['text']}!"
    assert headers["Authorization"] == "Bearer sk-2"
    assert len(server.seen) == 4
    assert found["judge"]["of_model"]["means"] == dict(zip(QUALITIES, (8, 7, 9), strict=True))
    assert "model.gguf         8.0         7.0          9.0  8-9       6 of 6" in capsys.readouterr().out


def test_missing_grades_are_reported():
    table = grades_table("judge", [("m", [GRADES, Grades(grammar=6), Grades(problem="no answer: status 500: oh")])])
    assert table.rows == [["m", "7.0", "7.0", "9.0", "8-9", "4 of 9"]]
    assert table.lines[1:] == ["No answer: status 500: oh"]
    nothing = grades_table("judge", [("m", [Grades()])])
    assert nothing.rows == [["m", "–", "–", "–", "–", "0 of 3"]]


# In a file


def test_a_local_judge_can_always_be_read(tmp_path):
    characters = "".join(map(chr, range(32, 127))) + "\n"
    ask = open_file_judge(str(write_gpt2(tmp_path / "judge.gguf", characters, block_size=2048)))
    prompt = read_prompt(None)
    texts = [("Once ", "upon a time."), ("A cat", " sat on a mat."), ("x" * 3000, "y")]
    grades = grade(lambda beginning, continuation: ask(fill(prompt, beginning, continuation)), texts)
    assert all(None not in (item.grammar, item.creativity, item.consistency, item.age) for item in grades[:2])
    assert "reads 2,048 with its answer" in grades[2].problem


# Prompts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Grade {beginning}", r"has no \{continuation\} in it"),
        (b"\xff\xff", "is not a file of UTF-8 text"),
        (b"{beginning}{continuation}" + b"x" * 70_000, "longer than 65,536 characters"),
    ],
)
def test_bad_prompts_are_one_line(content, message, tmp_path):
    (tmp_path / "prompt.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_prompt(tmp_path / "prompt.txt")


def test_a_text_cannot_reach_into_the_prompt():
    prompt = "{beginning}|{continuation}"
    assert fill(prompt, "{continuation}", "\\1 {beginning}") == "{continuation}|\\1 {beginning}"
    assert all(place in read_prompt(None) for place in ("{beginning}", "{continuation}"))


@pytest.mark.parametrize("path", ["nothing.txt", "/", "/dev/zero", "a\0b"])
def test_prompts_that_are_no_files_are_one_line(path):
    with pytest.raises(UserError, match="--judge_prompt"):
        read_prompt(path)


# Reading answers


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (GOOD, GRADES),
        (f"Sure!\n```json\n{GOOD}\n```\nHave a nice day {{}}", GRADES),
        (f'<think>maybe {{"grammar": 1}}</think>{GOOD}', GRADES),
        ('{"Grammar": "8/10", "Creativity": "seven", "CONSISTENCY": 9.0, "age group": "D: 8-9"}', GRADES),
        ("Grammar: 8/10\nCreativity: 7/10\nConsistency: 9/10\nAge group: D (8-9)", GRADES),
        ("**Grammar**: **8** / 10\n**Creativity:** 7\n- Consistency - 9 out of 10\nAge: 8-9 years", GRADES),
        ("Grammar (1-10): 8. Creativity on a scale from 1 to 10: 7. Consistency is a nine. age: d", GRADES),
        ("| grammar | 8 |\n| creativity | 7 |\n| consistency | 9 |\n| age | D |", GRADES),
        ("First grammar: 2, then again: grammar: 8; creativity: 7; consistency: 9; age group is D", GRADES),
        ("The grammar, of which there is none in 7 lines, is bad.", Grades()),
        ("Grammar: 80/100, creativity: 4/5, consistency: 90%", Grades()),
        ("Grammar: 0, creativity: 11, consistency: -5", Grades()),
        ("Grammar: 8.5, creativity: 7,5, consistency: ten", Grades(8.5, 7.5, 10)),
        ("Grammar: 1e5, creativity: 7th, consistency: 10.0.1", Grades()),
        ('{"grammar": true, "creativity": null, "consistency": [9], "age": {"a": 1}}', Grades()),
        ('{"grammar": NaN, "creativity": Infinity, "consistency": 1e999}', Grades()),
        ("I'm sorry, I can't help with that.", Grades()),
        ("", Grades()),
        ("{" * 100_000, Grades()),
        ('{"grammar": ' + "[" * 100_000, Grades()),
        ('{"grammar": ' + "9" * 10_000 + "}", Grades()),
        ("grammar " * 20_000, Grades()),
        ("x" * 5_000_000 + GOOD, GRADES),
        ("Grammar: " + " " * 100_000 + "8", Grades()),
    ],
)
def test_grades_are_read_or_missing(answer, expected):
    start = time.monotonic()
    assert parse_grades(answer) == expected
    assert time.monotonic() - start < 2


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.text(max_size=20)
        | st.sampled_from([*QUALITIES, '"', "{", "}", ":", "8", "/10", "10", " out of ", "age", "B", "[", "-", "ten"]),
        max_size=30,
    ).map("".join)
)
def test_no_answer_is_too_odd_to_be_read(answer):
    found = parse_grades(answer)
    for name in QUALITIES:
        value = getattr(found, name)
        assert value is None or 1 <= value <= 10
    assert found.age in {None, *"ABCDEF"}


@given(st.tuples(*[st.integers(-20, 120)] * 3), st.sampled_from(["{}", "{}/10", "{} out of 10", "**{}**"]))
def test_whole_numbers_from_1_to_10_are_read_and_others_are_not(values, form):
    prose = ". ".join(f"{name.title()}: {form.format(value)}" for name, value in zip(QUALITIES, values, strict=True))
    found = parse_grades(prose)
    expected = [value if 1 <= value <= 10 else None for value in values]
    assert [getattr(found, name) for name in QUALITIES] == expected
    assert parse_grades(json.dumps(dict(zip(QUALITIES, values, strict=True)))) == found


def test_only_a_missing_answer_is_survived():
    def broken(beginning: str, continuation: str) -> str:
        raise NoAnswer("none today")

    assert grade(broken, [("a", "b")]) == [Grades(problem="no answer: none today")]
