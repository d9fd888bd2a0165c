"""Many prompts, and what is told of a text: JSON, log-probabilities, timings; through the command line."""

from __future__ import annotations

import codecs
import json
import math
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ENVIRONMENT, ROOT, STORY, run_script, train
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import write_gpt2

import inference_gguf
from custom_llm.common.errors import UserError, run
from custom_llm.config.presets import PRESETS
from custom_llm.config.sampling import Sampling
from custom_llm.inference.batch import read_requests
from custom_llm.inference.engine import Engine
from custom_llm.inference.open import open_engine
from custom_llm.inference.scores import Score, completion_logprobs, logprob_table
from custom_llm.inference.settings import Settings
from custom_llm.inference.text import whole_characters

ENGLISH = "abcdefghijklmnopqrstuvwxyz ABC.,\n"


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("english") / "english.gguf", ENGLISH)


@pytest.fixture
def call(english, tmp_path, monkeypatch, capsys):
    """Run inference_gguf.py in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*flags: object, gguf_path: Path = english) -> SimpleNamespace:
        status = run(inference_gguf.main, ["--gguf_path", str(gguf_path), *map(str, flags)])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return call


def write_lines(*lines: str | bytes) -> None:
    Path("prompts.jsonl").write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines))


# A file of prompts

LINES = (
    '{"prompt": "the cat", "max_tokens": 5, "temp": 0}',
    "",
    "the dog",
    '"a \\"b\\"\\n"',
    '{"prompt": "", "seed": 7, "temp": 2.5, "stop": ["q", "z"], "top_k": null}',
    "[1] is no prompt"[4:],
)


def test_each_line_is_continued_as_it_says(call, english):
    write_lines(*LINES)
    result = call("--prompts", "prompts.jsonl", "--json", "--max_tokens", "20", "--temp", "0", "--seed", "3")
    assert result.status == 0
    texts = [json.loads(line) for line in result.out.splitlines()]
    assert [text["prompt"] for text in texts] == ["the cat", "the dog", 'a "b"\n', "", "is no prompt"]
    assert [text["seed"] for text in texts] == [3, 3, 3, 7, 3]
    keys = {"prompt", "text", "tokens", "finish_reason", "seed", "tokens_per_second"}
    assert all(set(text) == keys for text in texts)
    with Engine(english) as engine:
        greedy, wild = Sampling(temp=0), Sampling(temp=2.5, seed=7)
        wanted = ["".join(engine.generate("the cat", 5, greedy)), "".join(engine.generate("the dog", 20, greedy))]
        assert [text["text"] for text in texts[:2]] == wanted
        assert texts[3]["text"] == "".join(engine.generate("", 20, wild, ["q", "z"]))
    assert texts[0]["tokens"] == 5 and texts[0]["finish_reason"] == "length"
    warning, figures, _ = result.err.splitlines()
    assert warning == "warning: prompts.jsonl, line 4: not in the model's vocabulary, left out: '\"'"
    assert re.match(r"\d+ tokens, [\d,]+ tokens/s, ", figures), "of all of them together"


def test_without_json_texts_stand_apart(call):
    write_lines("the cat", "the dog")
    result = call("--prompts", "prompts.jsonl", "--max_tokens", "0")
    assert result.out == "--- 1 of 2 ---\nthe cat\n--- 2 of 2 ---\nthe dog\n"
    write_lines("the cat")
    assert call("--prompts", "prompts.jsonl", "--max_tokens", "0").out == "the cat\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"', "not JSON (Expecting ',' delimiter, column 15)"),
        ('"a" said b', "not JSON (Extra data, column 5)"),
        ("[1, 2]", "a list; give an object with a prompt, or a text in quotes"),
        ("{}", "there is no prompt; beside it there may be temp, top_k"),
        ('{"prompt": 3}', "prompt 3 is not a text"),
        ('{"prompt": "a", "temperature": 1}', "there is no setting temperature; there are temp, "),
        ('{"prompt": "a", "temp": "1"}', "temp '1' is not a number"),
        ('{"prompt": "a", "temp": NaN}', "temp nan is not a number from 0 to 100"),
        ('{"prompt": "a", "top_k": 1.5}', "top_k 1.5 is not a whole number"),
        ('{"prompt": "a", "max_tokens": true}', "max_tokens True is not a whole number of at least 0"),
        ('{"prompt": "a", "stop": ""}', "stop: an empty string would stop at once"),
        ('{"prompt": "a", "stop": [1]}', "stop [1] is not a text, nor a list of texts"),
        ('{"prompt": "a", "seed": ' + "9" * 5000 + "}", "not JSON that can be read: a number is too long"),
        ("[" * 100_000, "not JSON that can be read"),
        ('{"prompt": "a", "grammar": "root ::= ("}', "--grammar cannot be read"),
        (b"caf\xe9", "not UTF-8 (byte 4)"),
    ],
)
def test_a_bad_line_is_named_before_anything_is_written(call, line, message):
    write_lines("the cat", "", line)
    result = call("--prompts", "prompts.jsonl")
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"error: prompts.jsonl, line 3: {message}"), result.err
    assert result.err.count("\n") == 1


LINE = st.binary(max_size=80) | (st.text(max_size=80) | st.text(max_size=20).map(json.dumps)).map(str.encode)


@given(LINE)
@settings(deadline=None)
def test_no_line_ends_in_a_traceback(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "prompts.jsonl"
    path.write_bytes(content)
    try:
        requests = read_requests(str(path), Settings())
    except UserError as error:
        assert "prompts.jsonl" in str(error)
    else:
        assert all(isinstance(request.prompt, str) for request in requests)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--prompts no.jsonl", "--prompts no.jsonl: no such file or directory; give"),
        ("--prompts .", "--prompts .: is a directory; give"),
        ("--prompts empty.jsonl", "--prompts empty.jsonl holds no prompts; write one on each line"),
        ("--prompts empty.jsonl --query a", "--query and --prompts are both given; give one of them"),
        (
            "--prompts empty.jsonl --save_config x.yaml",
            "--save_config is about one text, which it repeats",
        ),
        ("--query a --grammar_file no.gbnf", "--grammar_file no.gbnf: no such file or directory; give"),
        ("--query a --grammar x --grammar_file y", "--grammar and --grammar_file are both given"),
        ("--query a --grammar x --ignore_eos", "--grammar ends where the text fits it, and --ignore_eos"),
        ("--query a --logprobs -1", "argument --logprobs: '-1' is not a whole number from 0 to 100"),
        ("--query a --config_path model_config.pth", "--config_path is for a .pth; a GGUF file holds its own"),
        ("--query a --gguf_path no.pth", "model_config.pth: no such file"),
        ("--query a --gguf_path x.pth", "model_config.pth: no such file, but x.pth needs its configuration; name it"),
        ("--query a --gguf_path no.pth --n_gpu_layers 1", "--n_gpu_layers is for GGUF files; --use_gpu puts"),
    ],
)
def test_flags_that_do_not_fit_are_one_line(call, flags, message):
    Path("empty.jsonl").write_text("\n \r\n")
    Path("x.pth").touch()
    result = call(*flags.split())
    assert (result.status, result.out) == (2, "")
    assert message in result.err and result.err.count("\n") == 1, result.err


@pytest.mark.parametrize(
    ("wrong", "words", "right"),
    [
        ("--prompts brace.txt", "is written in quotes, as JSON", "--prompts quoted.txt"),
        ("--prompts list.txt", "give an object with a prompt", "--prompts object.txt"),
        ("--prompts empty.txt", "write one on each line", "--prompts plain.txt"),
        ("--prompts plain.txt --query a", "give one of them", "--prompts plain.txt"),
        ("--prompts plain.txt --save_config x.yaml", "give --query", "--query a --save_config x.yaml"),
        ("--query a --stop", "see inference_gguf.py --help", "--help"),
        ("--query a --max_tokens 0x", "is not a whole number of at least 0", "--query a --max_tokens 0"),
        ("--query a --grammar x --ignore_eos", "give one of them", "--query a --ignore_eos"),
        ("--query a --config_path x.pth", "a GGUF file holds its own", "--query a"),
    ],
)
def test_what_an_error_advises_works(call, wrong, words, right):
    lines = {
        "brace": "{hello",
        "quoted": '"{hello"',
        "list": '["a"]',
        "object": '{"prompt": "a"}',
        "plain": "a\nb",
        "empty": "",
    }
    for name, text in lines.items():
        Path(f"{name}.txt").write_text(text)
    result = call(*wrong.split())
    assert result.status == 2 and words in result.err
    if right == "--help":
        with pytest.raises(SystemExit, match="0"):
            call(right)
    else:
        assert call(*right.split()).status == 0


def test_texts_that_were_cut_are_counted(call):
    write_lines("a", '{"prompt": "b", "max_tokens": 0}', '{"prompt": "c", "max_tokens": 2}')
    said = "note: 2 of 3 texts were cut at their max_tokens; --max_tokens 9 lets them go on\n"
    assert said in call("--prompts", "prompts.jsonl", "--max_tokens", "3").err
    assert "cut" not in call("--prompts", "prompts.jsonl", "--max_tokens", "3", "--json").err


def test_ctrl_c_ends_a_batch_with_what_was_written(english, tmp_path):
    lines = ['{"prompt": "a", "max_tokens": 3}', '{"prompt": "b", "max_tokens": 100000000}', '{"prompt": "c"}']
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    command = [sys.executable, ROOT / "inference_gguf.py", "--gguf_path", english, "--prompts", "prompts.jsonl"]
    with subprocess.Popen([*command, "--json"], stdout=-1, stderr=-1, cwd=tmp_path, env=ENVIRONMENT) as child:
        first = child.stdout.readline()
        time.sleep(0.2)  # into the second text
        child.send_signal(signal.SIGINT)
        rest, _ = child.communicate(timeout=20)
    assert child.returncode == 130
    assert json.loads(first)["finish_reason"] == "length"
    (second,) = rest.splitlines()
    assert json.loads(second)["finish_reason"] == "interrupted"


# What is told of a text


def test_json_of_one_query_with_log_probabilities(call):
    result = call("--query", "the cat", "--json", "--logprobs", "3", "--seed", "1", "--max_tokens", "10")
    about = json.loads(result.out)
    logprobs = about["logprobs"]
    assert "".join(logprobs["tokens"]) == about["text"] and about["tokens"] == 10
    assert logprobs["text_offset"] == list(range(10))
    each = (logprobs[key] for key in ("tokens", "token_logprobs", "top_logprobs"))
    for token, logprob, top in zip(*each, strict=True):
        likeliest = [*top.values()][:3]
        assert likeliest == sorted(likeliest, reverse=True) and likeliest[-1] >= min(top.values())
        assert len(top) == 3 + (logprob < likeliest[-1]) and logprob == top[token] <= 0
        assert sum(map(math.exp, top.values())) < 1 + 1e-6


@pytest.mark.parametrize("form", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_from_other_systems_are_read_alike(call, form):
    flags = ("--prompts", "prompts.txt", "--grammar_file", "list.gbnf", "--temp", "0", "--max_tokens", "5")
    results = []
    for end, encoding in (("\n", "utf-8"), ("\r\n", form), ("\r", form)):
        Path("list.gbnf").write_bytes(f'root ::= two{end}two ::= [a-z] "{end}" [a-z]{end}'.encode(encoding))
        Path("prompts.txt").write_bytes(f"the cat{end}{end}the dog".encode(encoding))
        results.append(call(*flags))
    assert re.fullmatch(r"--- 1 of 2 ---\nthe cat[a-z]\n[a-z]\n--- 2 of 2 ---\nthe dog[a-z]\n[a-z]\n", results[0].out)
    assert results[0].out == results[1].out == results[2].out


MARKS = ("<|user|>", "<|bot|>")


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has control tokens beside the end of a text, and tokens that are no whole characters."""
    path = tmp_path_factory.mktemp("marked") / "marked.gguf"
    return write_gpt2(path, "abc é", controls=MARKS, byte_tokens=True)


def test_control_tokens_are_written_and_read_and_stopped_at(call, marked):
    flags = ("--query", "<|user|>a", "--temp", "6", "--top_k", "0", "--top_p", "1", "--min_p", "0", "--seed", "3")
    flags = (*flags, "--max_tokens", "2000", "--json", "--logprobs", "0")
    text = json.loads(call(*flags, gguf_path=marked).out)
    logprobs = text["logprobs"]
    assert all(text["text"].count(mark) == logprobs["tokens"].count(mark) > 1 for mark in MARKS)
    assert "<|endoftext|>" not in text["text"] and "\ufffd" in text["text"]
    ends = [*logprobs["text_offset"][1:], len(text["text"])]
    for token, start, end in zip(logprobs["tokens"], logprobs["text_offset"], ends, strict=True):
        assert text["text"][start:end] == token or token.startswith("bytes:")
    with Engine(marked) as engine:
        marks = [engine.model.tokenize(mark)[0] for mark in MARKS]
        read = [token for token in engine.read(text["text"]).tokens if token in marks]
        assert [engine.model.spell([token]).decode() for token in read] == [
            token for token in logprobs["tokens"] if token in MARKS
        ]
    stopped = json.loads(call(*flags, "--stop", "<|bot|>", gguf_path=marked).out)
    assert stopped["text"] == text["text"].partition("<|bot|>")[0] and stopped["finish_reason"] == "stop"
    assert stopped["logprobs"]["text_offset"] == logprobs["text_offset"][: stopped["tokens"] - 1]


def test_log_probabilities_as_a_table(call):
    result = call("--query", "the cat", "--logprobs", "--seed", "1", "--max_tokens", "4")
    table = result.err.splitlines()[:5]
    assert re.fullmatch(r"token +logprob  likeliest", table[0])
    for row, character in zip(table[1:], result.out.removeprefix("the cat")[:4], strict=True):
        assert row.startswith(f"{character!r} ")
        assert len(re.findall(r"-\d+\.\d{3}", row)) == 1 + 5
    assert len({re.search(r"\.\d{3}", row).start() for row in table[1:]}) == 1, "the points stand below each other"


def test_offsets_count_characters_where_tokens_are_bytes():
    spelled = [b"a", "é".encode()[:1], "é".encode()[1:], b"b", "中文".encode()]
    scores = [Score(i, each, -1.0, ((each, -1.0),)) for i, each in enumerate(spelled)]
    logprobs = completion_logprobs(whole_characters(zip(spelled, scores, strict=True)))
    assert logprobs["tokens"] == ["a", "bytes:\\xc3", "bytes:\\xa9", "b", "中文"]
    assert logprobs["text_offset"] == [0, 1, 1, 2, 3]
    table = logprob_table([Score(0, "中".encode(), -1.5), Score(1, b"ab", None)])
    assert table == ["token  logprob", "'中'    -1.500", "'ab'         -"]
    assert logprob_table([]) == ["token  logprob"]


@given(st.lists(st.sampled_from([*map(bytes, ([0xFF], [0x80], [0xE2], [0xC3], [0xF0, 0x9F]))]) | st.binary(max_size=5)))
@settings(max_examples=300, deadline=None)
def test_offsets_point_at_the_character_in_which_a_token_begins(tokens):
    """Also where bytes are no characters, each of which is shown as U+FFFD."""
    pieces = [*whole_characters((token, Score(i, token, -1.0)) for i, token in enumerate(tokens))]
    data, invalid = b"".join(tokens), {}

    def replace(error: UnicodeDecodeError) -> tuple[str, int]:
        invalid[error.start] = error.end - error.start
        return "\ufffd", error.end

    codecs.register_error("remember", replace)
    text = data.decode("utf-8", "remember")
    assert "".join(piece.text for piece in pieces) == text == data.decode("utf-8", "replace")
    begins = [0]  # byte at which each character begins
    for character in text:
        begins.append(begins[-1] + invalid.get(begins[-1], len(character.encode())))
    offsets, place = completion_logprobs(pieces)["text_offset"], 0
    assert len(offsets) == len(tokens)
    for token, offset in zip(tokens, offsets, strict=True):
        if token:
            assert begins[offset] <= place < begins[offset + 1]
        place += len(token)


def test_timings_take_the_place_of_the_figures(call):
    result = call("--query", "the cat " * 20, "--stats", "--max_tokens", "10")
    rate = r" +[\d.]+ ms / +{} tokens \([\d.]+ ms per token, [\d,]+ tokens/s\)"
    lines = [
        r"note: cut after 10 tokens; --max_tokens 30 lets it go on",
        r" +load time = +[\d.]+ ms",
        r"prompt eval time =" + rate.format(64),
        r" +eval time =" + rate.format(10),
        r" +total time = +[\d.]+ ms / +74 tokens",
        r" +peak memory = +[\d,]+ MB",
        r"the last 64 of the prompt's 160 tokens count",
    ]
    assert re.fullmatch("".join(f"{line}\n" for line in lines), result.err), result.err


def test_a_grammar_in_a_file_is_followed(call):
    Path("list.gbnf").write_text('root ::= item item\nitem ::= [A-C] [a-z]{3,5} ".\\n"\n')
    flags = ("--grammar_file", "list.gbnf", "--query", "", "--max_tokens", "50", "--temp", "1.5", "--json")
    for seed in range(3):
        about = json.loads(call(*flags, "--seed", seed).out)
        assert re.fullmatch(r"([A-C][a-z]{3,5}\.\n){2}", about["text"])
        assert about["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("", "is empty"),
        ("root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000, "too many parentheses in each other"),
        ('root ::= root "a"', "begins with itself"),
        ("root ::= [a-", "cannot be read"),
    ],
)
def test_a_bad_grammar_is_refused_before_anything_is_written(call, grammar, reason):
    result = call("--query", "the cat", "--grammar", grammar)
    assert (result.status, result.out) == (2, "")
    assert re.fullmatch(rf"error: --grammar.*{reason}.*\n", result.err)


def test_a_grammar_that_cannot_be_spelled_ends_the_line_that_was_begun(call):
    result = call("--query", "the cat", "--grammar", 'root ::= "ab" "ß"', "--seed", "1")
    assert (result.status, result.out) == (2, "the catab\n")
    assert "nothing that the vocabulary can spell" in result.err
    write_lines("the dog", '{"prompt": "the cat", "grammar": "root ::= [X]"}')
    result = call("--prompts", "prompts.jsonl", "--json", "--max_tokens", "3")
    assert result.status == 2 and len(result.out.splitlines()) == 1
    assert result.err.startswith("error: prompts.jsonl, line 2: --grammar: nothing that the vocabulary can spell")


# The weights themselves


@pytest.mark.slow
def test_pytorch_writes_what_its_gguf_writes(call, tmp_path):
    """The same seed, the same text, and log-probabilities that agree to 1e-3, sliding the window, too."""
    train(tmp_path, STORY * 80, **PRESETS["modern"])  # no GELU, which is a table of float16 in llama.cpp
    done = run_script("convert_to_gguf.py", "--llama_cpp_path", "none", "--quant_type", "F32", cwd=tmp_path)
    assert done.status == 0, done.stderr
    flags = ("--query", "Mia found", "--max_tokens", "300", "--seed", "5", "--ignore_eos", "--json", "--logprobs", "2")
    first = json.loads(call(*flags, gguf_path=Path("model.gguf")).out)
    second = json.loads(call(*flags, gguf_path=Path("trained_model.pth")).out)
    assert first["text"] == second["text"] and first["tokens"] == second["tokens"] == 300
    assert first["logprobs"]["token_logprobs"] == pytest.approx(second["logprobs"]["token_logprobs"], abs=1e-3)
    cards = []
    for path in ("model.gguf", "trained_model.pth"):
        with open_engine(path, warn=print) as engine:
            cards.append(replace(engine.card(), name=""))
    assert cards[0] == cards[1]
    Path("model_config.pth").rename("other.pth")
    third = json.loads(call(*flags, "--config_path", "other.pth", gguf_path=Path("trained_model.pth")).out)
    assert third["text"] == first["text"]


def test_running_a_gguf_imports_no_torch(english, tmp_path):
    flags = ["--gguf_path", str(english), "--query", "a", "--json", "--logprobs", "--stats"]
    code = (
        "import sys, inference_gguf as i; from custom_llm.inference import chat, console, batch; "
        f"i.main({flags}); sys.exit(bool({{'torch', 'prompt_toolkit', 'tokenizers'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, stdout=-3).returncode == 0
