"""Where llama.cpp is not installed: a .pth is written from, served and evaluated all the same, in PyTorch alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT, Result, run_script
from pretrained_forms import FORMS, make
from server_process import served
from vocabularies import in_llama_cpp

from custom_llm.inference.torch_engine import TokenizerVocabulary
from custom_llm.llamacpp import MISSING, is_available
from custom_llm.tokenizer.bpe import BPETokenizer
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.tokenizer.pretrained import load_pretrained

WRITE = ("--query", "Mia found", "--seed", "5", "--max_tokens", "120", "--ignore_eos")
IN_PYTORCH = "--gguf_path trained_model.pth"


@pytest.fixture(scope="session")
def without(tmp_path_factory) -> dict[str, str]:
    """What makes a Python that cannot import llama_cpp."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['llama_cpp'] = None\n", encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT)))}


@pytest.fixture
def write(trained, without, tmp_path):
    """Runs step 4 beside a trained model."""

    def run(*flags: str, script: str = "inference_gguf.py", has_llama_cpp: bool = False, **options) -> Result:
        if not (tmp_path / "trained_model.pth").exists():
            for name in ("trained_model.pth", "model_config.pth"):
                (tmp_path / name).write_bytes((trained.folder / name).read_bytes())
        return run_script(script, *flags, cwd=tmp_path, environment={} if has_llama_cpp else without, **options)

    return run


def test_everything_can_be_imported(without):
    parts = ("inference", "llamacpp", "server", "commands")
    kept_out = ("llamacpp.bindings", "llamacpp.context", "llamacpp.model")
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for part in parts
        for path in (ROOT / "custom_llm" / part).rglob("*.py")
    ]
    names = [name for name in names if not name.endswith((*kept_out, "llamacpp.sampler", "__init__"))]
    code = f"import sys, {', '.join(names)}\nassert sys.modules['llama_cpp'] is None"
    subprocess.run([sys.executable, "-c", code], check=True, env={**ENVIRONMENT, **without})


@pytest.mark.skipif(not is_available(), reason="compares with llama.cpp")
def test_the_same_text_and_json_as_with_it(write):
    flags = (*WRITE, "--gguf_path", "trained_model.pth", "--repeat_penalty", "1.3", "--logprobs", "2")
    there, here = write(*flags, has_llama_cpp=True), write(*flags)
    assert (there.status, here.status) == (0, 0), here.stderr
    assert here.stdout == there.stdout and here.stdout.startswith("Mia found")
    there, here = write(*flags, "--json", has_llama_cpp=True), write(*flags, "--json")
    there, here = json.loads(there.stdout), json.loads(here.stdout)
    assert here.pop("tokens_per_second") > 0 < there.pop("tokens_per_second")
    assert here == there


def test_many_prompts_and_the_newest_file_are_those_of_the_weights(write, tmp_path):
    lines = 'Mia\n{"prompt": "She ran é", "temp": 0, "max_tokens": 5}\n'
    (tmp_path / "prompts.txt").write_text(lines, encoding="utf-8")
    result = write("--prompts", "prompts.txt", "--json", "--max_tokens", "9")
    assert result.status == 0, result.stderr
    assert [json.loads(line)["prompt"] for line in result.stdout.splitlines()] == ["Mia", "She ran é"]
    assert result.stderr.startswith(f"using trained_model.pth, since {MISSING}\n")
    assert "warning: prompts.txt, line 2: not in the model's vocabulary, left out: 'é'\n" in result.stderr


@pytest.mark.slow
def test_a_gguf_is_refused_in_a_line_and_a_grammar_followed(write, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for script in ("inference_gguf.py", "serve_gguf.py"):
        result = write("--gguf_path", "model.gguf", script=script)
        assert (result.status, result.stdout) == (2, "")
        assert result.stderr == f"error: {MISSING}; the trained weights need none of it: {IN_PYTORCH}\n"
    result = write(*WRITE[:-1], "--gguf_path", "trained_model.pth", "--grammar", 'root ::= " a" [a-z]{3} "."')
    assert result.status == 0 and re.fullmatch(r"Mia found a[a-z]{3}\.\n", result.stdout), result


@pytest.mark.slow
def test_the_weights_are_served(write, tmp_path, without):
    write("--max_tokens", "0")
    with served(tmp_path / "trained_model.pth", **without) as server:
        answer = server.post(prompt="Mia", max_tokens=7, seed=1, logprobs=1).json()
        refused = server.post(prompt="Mia", grammar="root ::= [a-z]")
    assert refused.status_code == 400
    (choice,) = answer["choices"]
    assert len(choice["logprobs"]["tokens"]) == answer["usage"]["completion_tokens"]


def test_the_weights_are_evaluated_and_files_are_left_out(write, tmp_path, trained):
    (tmp_path / "text.txt").write_text(trained.text[:2000], encoding="utf-8")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    flags = ("--text_path", "text.txt", "--samples", "2", "--sample_tokens", "20")
    result = write(*flags, script="evaluate_llm.py", timeout=300)
    assert result.status == 0, result.stderr
    assert "PyTorch" in result.stdout
    assert f"note: model.gguf: {MISSING}" in result.stderr
    result = write(*flags, "--model", "model.gguf", script="evaluate_llm.py")
    advice = "python evaluate_llm.py --model trained_model.pth needs none of it"
    assert (result.status, result.stderr) == (2, f"error: model.gguf: {MISSING}; {advice}\n")


@pytest.mark.skipif(not is_available(), reason="compares with llama.cpp")
@pytest.mark.parametrize("form", ["characters", "characters without an end", "bpe", *FORMS])
def test_a_tokenizer_shows_its_tokens_as_llama_cpp_does(form, tmp_path):
    if form in FORMS:
        tokenizer, _ = load_pretrained(str(make(form, tmp_path)))
    elif form == "bpe":
        tokenizer = BPETokenizer.train(["newer lower wider é"] * 9, 300)
    else:
        tokenizer = CharTokenizer("\n aé中😀<|end", end_of_text=form == "characters")
    ours = TokenizerVocabulary(tokenizer, Path("x.pth"))
    with in_llama_cpp(tokenizer, tmp_path) as theirs:
        assert (ours.n_vocab, ours.eos) == (theirs.n_vocab, theirs.eos)
        for token in range(ours.n_vocab):
            assert ours.token_bytes(token) == theirs.token_bytes(token), token
            assert ours.is_control(token) == theirs.is_control(token), token
            assert ours.ends_text(token) == theirs.ends_text(token), token
