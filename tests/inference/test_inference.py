"""Text from a GGUF: what a person sees of inference_gguf.py, on real (random) models written by the tests."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, run_script
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import write_gpt2

import inference_gguf
from custom_llm.common.errors import UserError
from custom_llm.common.text import as_read
from custom_llm.config.sampling import Sampling
from custom_llm.data import text as text_module
from custom_llm.export.gguf.quantize import quantize
from custom_llm.inference import write as writing
from custom_llm.inference.engine import Engine, choose_threads
from custom_llm.inference.generation import Generation
from custom_llm.inference.report import timings
from custom_llm.inference.settings import Settings, stop_string
from custom_llm.inference.text import Piece, StopStrings
from custom_llm.llamacpp import Context, Model, score_windows

ENGLISH = "abcdefghijklmnopqrstuvwxyz ABC.,\n"
BLOCK = 64
SCRIPT = str(ROOT / "inference_gguf.py")
MODEL_KEY = "tokenizer.ggml.model"
GREEDY = Sampling(temp=0)
FIGURES = r"{} tokens?, [\d,]+ tokens/s, first text after \d+\.\d\d s, peak memory [\d,]+ MB\n"
CUT = r"note: cut after {} tokens; --max_tokens {} lets it go on\n"
USE = r"CPU \d+ % of one core \(1 thread\).*\n"


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("english") / "english.gguf", ENGLISH, block_size=BLOCK)


@pytest.fixture(scope="module")
def engine(english: Path):
    with Engine(english) as engine:
        yield engine


def write(engine: Engine, query: str, max_tokens: int, sampling: Sampling = GREEDY, **options) -> str:
    return "".join(engine.generate(query, max_tokens, sampling, **options))


# The command line


def test_the_query_and_its_continuation_are_all_of_stdout(english, tmp_path):
    result = run_script(
        "inference_gguf.py", "--gguf_path", english, "--query", "the cat", "--max_tokens", "50", cwd=tmp_path
    )
    assert result.status == 0
    assert result.stdout.startswith("the cat")
    assert len(result.stdout) == len("the cat") + 50 + 1
    assert result.stdout.endswith("\n")
    assert re.fullmatch(CUT.format(50, 150) + FIGURES.format(50) + USE, result.stderr)
    longer = run_script(
        "inference_gguf.py", "--gguf_path", english, "--query", "the cat", "--max_tokens", "150", cwd=tmp_path
    )
    assert len(longer.stdout) == len("the cat") + 150 + 1


def test_same_seed_same_text_and_another_seed_another_text(english, tmp_path):
    flags = ("--gguf_path", english, "--query", "a", "--temp", "2", "--seed")
    one, again, other = (run_script("inference_gguf.py", *flags, seed, cwd=tmp_path) for seed in ("7", "7", "8"))
    assert one.stdout == again.stdout != other.stdout


def test_any_whole_number_is_a_seed(english, tmp_path):
    """As programs send it: of 64 bits, or -1, which is another one each time."""
    seeds = (2**53, 2**53 % (2**32 - 1), 2**32 - 1, 0, -(10**30), -1)
    lines = [json.dumps({"prompt": "a", "temp": 2, "seed": seed}) for seed in seeds]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    result = run_script(
        "inference_gguf.py", "--gguf_path", english, "--prompts", "prompts.jsonl", "--json", cwd=tmp_path
    )
    texts = [json.loads(line) for line in result.stdout.splitlines()]
    assert texts[0]["text"] == texts[1]["text"] and texts[2]["text"] == texts[3]["text"]
    assert [text["seed"] for text in texts[:4]] == [2097152, 2097152, 0, 0]
    assert len({text["text"] for text in texts}) == 4
    flags = ("--gguf_path", english, "--query", "a", "--temp", "2", "--json", "--seed")
    folded = json.loads(run_script("inference_gguf.py", *flags, str(2**53), cwd=tmp_path).stdout)
    assert folded["text"] == texts[0]["text"]
    assert Sampling(seed=-1).seed is None


def test_without_flags_the_newest_gguf_and_a_piped_query_are_used(tmp_path):
    for age, name in ((100, "model.gguf"), (0, "model.gguf.Q8_0.gguf"), (50, "other.gguf")):
        path = write_gpt2(tmp_path / name, ENGLISH)
        os.utime(path, (time.time() - age,) * 2)
    (tmp_path / ".hidden.gguf").write_bytes(b"half written")
    result = run_script("inference_gguf.py", "--temp", "0", cwd=tmp_path, stdin="the cat\n")
    given = run_script("inference_gguf.py", "--temp", "0", "--query", "the cat", cwd=tmp_path)
    assert result.status == 0
    assert result.stdout == given.stdout
    assert result.stderr.startswith("using model.gguf.Q8_0.gguf\n")


def test_waiting_for_a_pipe_is_no_loading(english, tmp_path):
    command = [sys.executable, SCRIPT, "--gguf_path", str(english), "--max_tokens", "5", "--stats"]
    start, pipe = time.perf_counter(), subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=tmp_path, text=True) as run:
        time.sleep(3)
        figures = run.communicate("the cat")[1]
    load = float(re.search(r"load time = +([\d.]+) ms", figures)[1]) / 1000
    assert load < time.perf_counter() - start - 1


def test_a_socket_is_a_pipe(english, tmp_path):
    """As what Node.js and ssh give a program for its stdin."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, SCRIPT, "--gguf_path", str(english), "--max_tokens", "5"]
    with ours, theirs, subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, cwd=tmp_path, text=True) as run:
        ours.sendall(b"the cat")
        ours.shutdown(socket.SHUT_WR)
        assert run.stdout.read().startswith("the cat")


def test_no_query_and_no_pipe_start_from_an_empty_page(english, tmp_path):
    command = [sys.executable, SCRIPT, "--gguf_path", str(english), "--max_tokens", "5"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, cwd=tmp_path, text=True)
    assert done.returncode == 0
    assert len(done.stdout) == 5 + 1
    assert "warning" not in done.stderr


def test_unknown_characters_are_named_and_left_out(english, tmp_path):
    flags = ("--gguf_path", english, "--temp", "0", "--max_tokens", "10", "--query")
    with_unknown = run_script("inference_gguf.py", *flags, "straße €ß", cwd=tmp_path)
    assert with_unknown.stdout.startswith("straße €ß")
    assert with_unknown.stderr.startswith("warning: not in the model's vocabulary, left out: 'ß', '€'\n")
    without = run_script("inference_gguf.py", *flags, "strae ", cwd=tmp_path)
    assert with_unknown.stdout.removeprefix("straße €ß") == without.stdout.removeprefix("strae ")

    nothing_left = run_script("inference_gguf.py", *flags, "€", cwd=tmp_path)
    empty = run_script("inference_gguf.py", *flags, "", cwd=tmp_path)
    assert "warning: nothing of the query is left; starting from an empty page\n" in nothing_left.stderr
    assert nothing_left.stdout == "€" + empty.stdout


def test_bytes_that_are_no_utf8_do_not_crash_the_query(english, tmp_path):
    command = [sys.executable, SCRIPT, "--gguf_path", str(english), "--max_tokens", "3", "--query", b"caf\xe9"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, encoding="utf-8")
    assert done.returncode == 0
    assert done.stdout.startswith("caf\N{REPLACEMENT CHARACTER}")


@given(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("\r\n\ufeff"), max_size=30
    ),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
)
@settings(deadline=None)
def test_a_text_is_read_as_a_training_reads_it(engine, text, encoding):
    data = text.encode(encoding)
    expected = "".join(text_module.clean(text_module.decode([data], "here"), "here"))
    assert as_read(data) == expected
    if encoding == "utf-8":
        assert engine.read(text) == engine.read(expected) and "\r" not in engine.read(text).text


@pytest.mark.parametrize(
    "written",
    [b"the cat\nsat\n", b"the cat\r\nsat\r\n", b"\xef\xbb\xbfthe cat\rsat", "the cat\r\nsat".encode("utf-16")],
)
def test_whoever_wrote_it_a_text_is_continued_alike(english, tmp_path, written):
    flags = ["--gguf_path", str(english), "--temp", "0", "--max_tokens", "9", "--json", "--logprobs", "0"]
    command = [sys.executable, SCRIPT, *flags]
    expected = run_script("inference_gguf.py", *flags, "--query", "the cat\nsat", cwd=tmp_path).stdout
    piped = subprocess.run(command, input=written, capture_output=True, cwd=tmp_path).stdout.decode()
    rates = re.compile(r'"tokens_per_second": [\d.]+|"seed": \d+')
    assert rates.sub("", piped) == rates.sub("", expected)
    assert json.loads(piped)["prompt"] == "the cat\nsat"


def test_a_notebook_and_a_program_without_a_console_have_no_stdin(english, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--gguf_path", str(english), "--max_tokens", "4", "--temp", "0"]
    closed = io.StringIO("")
    closed.close()
    for stdin in (sys.stdin, io.StringIO("x"), closed, None):  # pytest's own has no descriptor, as a notebook's
        monkeypatch.setattr(sys, "stdin", stdin)
        assert inference_gguf.main(flags) == 0
        assert len(capsys.readouterr().out) == 4 + 1
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert inference_gguf.main([*flags, "--logprobs", "1"]) == 0
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")
    assert inference_gguf.main([*flags, "--prompts", "prompts.txt"]) == 0


def test_a_new_line_to_stop_at_can_be_typed(english, tmp_path):
    flags = ("--gguf_path", english, "--query", "a", "--temp", "3", "--seed", "5", "--json", "--max_tokens", "300")
    whole = json.loads(run_script("inference_gguf.py", *flags, cwd=tmp_path).stdout)["text"]
    options = "stopped.yaml"
    cut = run_script("inference_gguf.py", *flags, "--stop", r"\n", "--save_config", options, cwd=tmp_path)
    assert json.loads(cut.stdout)["text"] == whole.partition("\n")[0] != whole
    again = json.loads(run_script("inference_gguf.py", "--config", options, cwd=tmp_path).stdout)
    assert again["text"] == whole.partition("\n")[0]
    assert [*map(stop_string, (r"\n", r"a\tb", r"\\n", r"\d", "\\"))] == ["\n", "a\tb", r"\n", r"\d", "\\"]


def test_an_ascii_locale_still_gets_utf8(tmp_path):
    path = write_gpt2(tmp_path / "chinese.gguf", "中文字")
    command = [sys.executable, SCRIPT, "--gguf_path", str(path), "--query", "中", "--max_tokens", "5"]
    environment = {**ENVIRONMENT, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0
    assert set(done.stdout.decode("utf-8")) <= set("中文字\n")


def test_a_reader_that_goes_away_ends_the_run_quietly(english, tmp_path):
    command = [sys.executable, SCRIPT, "--gguf_path", str(english), "--query", "abc", "--max_tokens", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as child:
        assert child.stdout.read(10).startswith(b"abc")
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 141


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to a child there")
def test_ctrl_c_ends_the_text_with_its_figures(english, tmp_path):
    command = [sys.executable, SCRIPT, "--gguf_path", str(english), "--query", "abc", "--max_tokens", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as child:
        child.stdout.read(10)
        child.send_signal(signal.SIGINT)
        stdout, stderr = child.communicate(timeout=20)
    assert child.returncode == 130
    assert stdout.endswith(b"\n")
    assert re.fullmatch(FIGURES.format(r"[\d,]+") + USE, stderr.decode())


def test_help_is_quick_and_loads_neither_torch_nor_llama_cpp(tmp_path):
    command = [sys.executable, "-X", "importtime", SCRIPT, "--help"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, text=True, check=True)
    assert time.perf_counter() - start < 2  # 0.1 s on an idle machine
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"torch", "llama_cpp", "numpy", "psutil", "GPUtil"}
    assert "--max_tokens N" in done.stdout


def test_the_log_file_tells_settings_figures_and_errors(english, tmp_path):
    run_script("inference_gguf.py", "--gguf_path", english, "--query", "ß", "--seed", "5", cwd=tmp_path)
    run_script("inference_gguf.py", "--gguf_path", "nothing.gguf", cwd=tmp_path)
    log = (tmp_path / "inference.log").read_text(encoding="utf-8")
    for part in ("INFO start:", "'seed': 5", "WARNING not in the", "100 tokens", "ERROR nothing.gguf: no such file"):
        assert part in log


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--max_tokens", "-1"), "argument --max_tokens: '-1' is not a whole number of at least 0"),
        (("--max_tokens", "1e3"), "argument --max_tokens: '1e3' is not a whole number of at least 0"),
        (("--temp", "nan"), "--temp nan is not a number from 0 to 100"),
        (("--temp", "inf"), "--temp inf is not a number from 0 to 100"),
        (("--top_p", "1.5"), "--top_p 1.5 is not a number from 0 to 1"),
        (("--min_p", "-0.1"), "--min_p -0.1 is not a number from 0 to 1"),
        (("--top_k", "99999999999"), "--top_k 99999999999 is not a whole number from 0 to 2147483647"),
        (("--repeat_penalty", "0"), "--repeat_penalty 0.0 is not a number from 0.01 to 100"),
        (("--seed", "x"), "--seed 'x' is not a whole number"),
        (("--threads", "0"), "argument --threads: '0' is not a whole number from 1 to 512"),
        (("--stop", ""), "argument --stop: empty, it would stop at once; give the text to stop at"),
        (("--tempo", "1"), "unrecognized arguments: --tempo 1"),
        (("--gguf_path", ""), "--gguf_path is empty; give a .gguf or .pth, or leave it out"),
    ],
)
def test_bad_flags_are_explained_in_one_line(flags, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        inference_gguf.main(["--query", "a", *flags])
    assert str(caught.value).startswith(message)


def test_a_folder_without_models_says_what_to_run(tmp_path):
    result = run_script("inference_gguf.py", cwd=tmp_path)
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr == ("error: no .gguf file in this folder; run convert_to_gguf.py first, or give --gguf_path\n")


def test_asking_for_a_gpu_that_the_build_lacks_warns_and_goes_on(english, tmp_path):
    result = run_script("inference_gguf.py", "--gguf_path", english, "--query", "a", "--use_gpu", cwd=tmp_path)
    assert result.status == 0
    warning = "warning: this build of llama-cpp-python has no GPU support; computing on the CPU\n"
    assert result.stderr.startswith(warning) != inference_gguf_has_gpu()


def inference_gguf_has_gpu() -> bool:
    from custom_llm.llamacpp import gpu_available

    return gpu_available()


def test_run_inference_returns_the_query_and_the_text(english, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = inference_gguf.run_inference(english, "the cat", 20, temp=0)
    assert text.startswith("the cat")
    assert len(text) == len("the cat") + 20
    with pytest.raises(UserError, match=r"^top_p 2 is not a number from 0 to 1$"):
        inference_gguf.run_inference(english, "the cat", top_p=2)


def test_resources_are_plain_numbers_and_no_gpu_is_an_empty_list(monkeypatch):
    use = inference_gguf.monitor_resources()
    assert 0 < use["memory_process"] <= use["memory_total"]
    assert use["memory_peak"] > 1e6
    assert 0 <= use["cpu_percent"] <= 100
    monkeypatch.setitem(sys.modules, "GPUtil", None)  # importing it now fails, as on Python 3.12
    assert inference_gguf.monitor_resources()["gpus"] == []


def test_peak_memory_is_not_that_of_the_program_that_started_this_one():
    """What getrusage reports goes through fork and exec; a notebook's gigabytes are not the model's."""
    held = b"x" * 300_000_000
    command = "from custom_llm.common.machine import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, cwd=ROOT, check=True, env=ENVIRONMENT)
    assert int(done.stdout) < len(held) / 3


# Files that are no models


def message_for(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        Model(path)
    return str(caught.value)


def test_files_that_are_no_models_are_explained(tmp_path):
    path = tmp_path / "x.gguf"
    assert message_for(path) == f"{path}: no such file; write one with convert_to_gguf.py"
    assert message_for(tmp_path) == f"{tmp_path}: a folder; give a .gguf file"
    path.touch()
    assert message_for(path) == f"{path}: an empty file; write it again with convert_to_gguf.py"
    path.write_text("GGML and other text")
    assert message_for(path) == f"{path}: not a GGUF file; give the .gguf that convert_to_gguf.py wrote"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_explained(english, tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(english.read_bytes())
    path.chmod(0)
    assert message_for(path) == f"{path}: permission denied; make it readable (chmod u+r {path})"


@pytest.mark.parametrize("share", [0.0001, 0.001, 0.01, 0.03, 0.5, 0.99])
def test_a_truncated_file_is_explained(english, tmp_path, share):
    path = tmp_path / "x.gguf"
    data = english.read_bytes()
    path.write_bytes(data[: max(4, int(share * len(data)))])
    message = message_for(path)
    assert message.startswith(f"{path}: not a model llama.cpp can read: ")
    assert message.endswith("; write it again with convert_to_gguf.py")


def test_a_damaged_file_that_makes_llama_cpp_abort_is_still_one_line(english, tmp_path):
    data = english.read_bytes()
    key = data.index(b"gpt2.block_count") + len(b"gpt2.block_count") + 4  # after the value's type
    (tmp_path / "x.gguf").write_bytes(data[:key] + bytes(4) + data[key + 4 :])
    result = run_script("inference_gguf.py", "--gguf_path", "x.gguf", "--query", "a", cwd=tmp_path)
    assert (result.status, result.stdout) == (2, "")
    assert re.fullmatch(r"error: llama\.cpp gave up: llama-model\.cpp:.*convert_to_gguf\.py\n", result.stderr)


def test_a_vocabulary_that_llama_cpp_would_die_of_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf.GGUFWriter, "add_tokenizer_model", lambda self, _: self.add_string(MODEL_KEY, "llama"))
    path = write_gpt2(tmp_path / "x.gguf", ENGLISH)
    assert message_for(path).startswith(f"{path}: its vocabulary cannot spell every text")


def test_a_file_that_is_cut_short_while_it_is_used_ends_nothing(english, tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(english.read_bytes())
    code = """
import sys
from custom_llm.inference.engine import Engine
with Engine(sys.argv[1]) as engine:
    open(sys.argv[1], "w").close()
    print(len("".join(engine.generate("a", 200))))
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr


def test_a_diverged_model_is_explained(tmp_path):
    path = write_gpt2(tmp_path / "x.gguf", ENGLISH, scale=float("nan"))
    with (
        Engine(path) as engine,
        pytest.raises(UserError, match=r"computes no numbers .* again with a smaller --learning_rate"),
    ):
        write(engine, "a", 1)


# The engine


@pytest.mark.parametrize("block_size", [1, 2, 64, 256])
def test_any_number_of_tokens_slides_the_window(tmp_path, block_size):
    path = write_gpt2(tmp_path / "x.gguf", ENGLISH, block_size=block_size)
    with Engine(path) as engine:
        assert engine.window == block_size
        assert len(write(engine, "the cat", 300)) == 300
        assert len(write(engine, "the cat. " * 100, 300)) == 300  # a query longer than the window


def test_the_window_holds_the_last_part_of_a_long_query(engine):
    tail = ("the quick brown fox jumps over the lazy dog. " * 3)[-BLOCK:]
    assert write(engine, "abc" * 100 + tail, 20) == write(engine, tail, 20)


def test_greedy_text_is_the_argmax_of_the_logits_of_each_window(english, engine):
    query, count = "the cat", 150
    tokens = engine.model.tokenize(query)
    text = write(engine, query, count)
    written = engine.model.tokenize(text)
    history, windows = list(tokens), []
    for token in written:
        windows.append(list(history))
        history.append(token)
        if len(history) > BLOCK:  # the window was full: its last half is read again
            history = history[-(BLOCK // 2) :]
    logits = score_windows(english, windows, f32_cache=False)
    for step, (row, token) in enumerate(zip(logits, written, strict=True)):
        last = row[-1]
        assert last[token] >= last.max() - 0.02, f"token {step}"


def test_score_windows_gives_each_window_alone(english):
    windows = [[1, 2, 3, 4], [5], [9, 8, 7, 6, 5] * 10, [1, 2]]
    scores = list(score_windows(english, windows))
    with Model(english) as model:
        assert [score.shape for score in scores] == [(len(window), model.n_vocab) for window in windows]
    assert all(score.dtype == np.float32 for score in scores)
    np.testing.assert_allclose(scores[0][:2], scores[3], atol=1e-4)


@pytest.mark.parametrize(
    ("quant_type", "words"), [("F32", "(guessed) F32"), ("Q8_0", "Q8_0"), ("Q4_K_M", "Q4_K - Medium")]
)
def test_the_card_has_the_whole_name_of_the_type(quant_type, words, english, tmp_path):
    path = english
    if quant_type != "F32":
        path = tmp_path / "small.gguf"
        quantize(english, path, quant_type, None)
    with Engine(path) as engine:
        assert engine.card().quantization == words


def test_a_position_the_table_does_not_have_is_refused_not_fatal(english):
    with Model(english) as model:
        assert model.learned_positions
        assert (model.block_size, model.n_ctx_train) == (BLOCK, 256)
        with pytest.raises(ValueError, match="257 > 256 rows"):
            Context(model, n_ctx=257, n_batch=8, n_threads=1)
        with Context(model, n_ctx=BLOCK, n_batch=8, n_threads=1) as context:
            context.decode([1] * BLOCK)
            with pytest.raises(ValueError, match="64 of 64 positions are taken"):
                context.decode([1])


@pytest.mark.parametrize("characters", ["中文字符测试", "ابجد هوز", "😀😃🚀🌍", "éèßñ€𝒳"])
def test_text_of_multi_byte_characters_arrives_whole(tmp_path, characters):
    path = write_gpt2(tmp_path / "x.gguf", characters)
    with Engine(path) as engine:
        pieces = list(engine.generate(characters, 100, Sampling(temp=2, seed=1)))
    assert len(pieces) == 100
    assert set(pieces) <= set(characters)


@given(query=st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_query_is_continued(engine, query):
    _, known, unknown = engine.read(query)
    assert set(known) <= set(ENGLISH) | set("<|endoftext|>")
    assert not set(unknown) & set(ENGLISH)
    assert len(write(engine, query, 5)) == 5


@given(query=st.text(alphabet=ENGLISH + "é中", max_size=100))
@settings(max_examples=50, deadline=None)
def test_exactly_the_unknown_characters_are_left_out(engine, query):
    _, known, unknown = engine.read(query)
    assert known == "".join(character for character in query if character in ENGLISH)
    assert set(unknown) == set(query) - set(ENGLISH)


def test_end_of_text_written_in_the_query_is_the_token(engine):
    query = "ab<|endoftext|>cß"
    assert engine.read(query)[1:] == ("ab<|endoftext|>c", ["ß"])
    assert engine.model.tokenize("<|endoftext|>") == [engine.model.eos]


def test_the_text_ends_at_the_end_of_text_token_unless_ignored(tmp_path):
    path = write_gpt2(tmp_path / "x.gguf", ENGLISH, end_bias=50.0)
    with Engine(path) as engine:
        text = engine.stream(engine.read("the cat").tokens, 100, GREEDY)
        assert [*text] == []
        ended = writing.write(engine, "the cat", Settings(GREEDY), lambda piece: None)
        assert writing.cut_off([ended], 100) is None
        assert text.statistics.generated_tokens == 0
        assert len(write(engine, "the cat", 100, ignore_eos=True)) == 100


def test_stop_strings_end_the_text_before_themselves(engine):
    sampling = Sampling(temp=1.5, seed=3)
    text = write(engine, "a", 200, sampling)
    for length in (1, 3, 10):
        stop = text[50 : 50 + length]
        assert write(engine, "a", 200, sampling, stop=[stop, "never seen"]) == text[: text.index(stop)]
    assert write(engine, "a", 200, sampling, stop=["QQ"]) == text
    last = text[-1]
    assert write(engine, "a", 200, sampling, stop=[last + "Q"]) == text  # what was held back still comes
    with pytest.raises(UserError, match="stop"):
        engine.generate("a", 5, stop=[""])


@given(st.text(alphabet="ab", max_size=30), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1))
@settings(deadline=None)
def test_stop_strings_cut_where_the_first_of_them_is_complete(text, stops):
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    seen = text[: min(ends)] if ends else text
    starts = [seen.find(stop) for stop in stops if stop in seen]
    expected = seen[: min(starts)] if starts else seen
    assert "".join(piece.text for piece in StopStrings(stops).cut(map(Piece, text))) == expected


def test_a_repeat_penalty_changes_the_text_and_zero_tokens_give_none(engine):
    plain = write(engine, "aaaa", 60)
    penalized = write(engine, "aaaa", 60, Sampling(temp=0, repeat_penalty=1.8))
    assert len(set(penalized)) > len(set(plain))
    assert write(engine, "aaaa", 0) == ""


def test_a_text_left_unfinished_does_not_outlive_its_engine(english):
    with Engine(english) as engine:
        text = engine.generate("abc", 100, GREEDY)
        next(text)
    with pytest.raises(ValueError, match="closed"):
        next(text)


def test_an_engine_writes_several_texts_by_turns(engine):
    """Each as it is written alone, with a seed and figures of its own; also where its tokens are scored in between."""
    sampling = Sampling(temp=1.5, seed=3, repeat_penalty=1.2)
    queries, lengths = ("the cat", "abc" * 50), (BLOCK + 40, 30)

    def begin(query: str, length: int, **changes) -> Generation:
        return engine.stream(engine.read(query).tokens, length, replace(sampling, **changes), ["zz"], n_top=1)

    alone = ["".join(piece.text for piece in begin(*each)) for each in zip(queries, lengths, strict=True)]
    texts = [begin(*each) for each in zip(queries, lengths, strict=True)]
    written = ["", ""]
    for _ in range(max(lengths)):
        for place, text in enumerate(texts):
            written[place] += next(text, Piece("")).text
        list(engine.score(engine.read("a dog").tokens))
    assert written == alone
    for text, query, length in zip(texts, queries, lengths, strict=True):
        assert (text.seed, text.finish_reason) == (3, "length")
        assert (text.statistics.prompt_tokens, text.statistics.generated_tokens) == (len(query), length)
    first, second = begin("a", 5, seed=None), begin("a", 5, seed=8)
    assert len([*second]) == 5 and first.seed != second.seed == 8
    assert (first.statistics.generated_tokens, second.statistics.generated_tokens) == (0, 5)
    assert len([*first]) == 5
    first.close()


def test_statistics_count_tokens_and_time(engine):
    text = engine.stream(engine.read("abc").tokens, 40, GREEDY)
    assert len([*text]) == 40
    statistics = text.statistics
    assert (statistics.prompt_tokens, statistics.generated_tokens) == (3, 40)
    assert 0 < statistics.first_text_seconds
    assert statistics.tokens_per_second == pytest.approx(40 / statistics.seconds)


def test_reading_a_long_query_counts(engine):
    """It is turned into tokens in longer than all else takes."""
    start = time.perf_counter()
    text = writing.write(engine, "the cat " * 100_000, Settings(GREEDY, 1), lambda piece: None)
    seconds = time.perf_counter() - start
    assert 0.8 * seconds < text.statistics.first_text_seconds <= seconds
    assert 0.8 * seconds < text.statistics.tokenize_seconds < text.statistics.first_text_seconds
    *_, total, _, _ = timings(text.statistics, load_seconds=0)
    assert float(re.search(r"total time = +([\d.]+) ms", total)[1]) > 800 * seconds


def test_tiny_models_get_one_thread_and_no_model_more_than_the_cores():
    assert choose_threads(800_000) == 1
    assert 1 <= choose_threads(10**10) <= (os.cpu_count() or 1)
