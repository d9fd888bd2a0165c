"""evaluate_llm.py: the same text scored by PyTorch, transformers and llama.cpp, and what a person sees of it."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from architectures import tiny
from conftest import ENVIRONMENT, ROOT, Result, run_script
from tiny_gguf import write_gpt2

import evaluate_llm
from custom_llm.common.errors import UserError
from custom_llm.common.logits import windows
from custom_llm.data.cache import default_cache
from custom_llm.data.dataset import HELD_OUT, HELD_OUT_TOKENS, TextDataset
from custom_llm.data.sources import open_corpus
from custom_llm.data.stories.generate import generate_stories
from custom_llm.data.token_file import open_tokens
from custom_llm.evaluation.held_out import held_out_tenth, whole_text
from custom_llm.evaluation.metrics.quality import measure
from custom_llm.evaluation.models import open_scorer
from custom_llm.export.pipeline import convert_to_gguf, export_to_hf
from custom_llm.inference.engine import Engine
from custom_llm.llamacpp import MISSING
from custom_llm.model.files import SavedConfig, save_config, save_weights
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.bpe import BPETokenizer
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.tokenizer.load import find_recipe

STORIES = generate_stories()[:60_000]
MODERN = dict(
    pos_emb="rope", norm="rms", bias=False, attn="gqa", n_kv_heads=2, qk_norm=True, non_linearity="swiglu",
    tie_embeddings=True,
)  # fmt: skip
MODELS = {"classic": {}, "modern": MODERN, "byte pairs": {}}
FORMS = ("trained_model.pth", "hf_model", "model.gguf")


def make(folder: Path, name: str, **changes) -> Path:
    """A folder with a model of random weights in all its forms, and the text it might have been trained on."""
    tokenizer = BPETokenizer.train([STORIES], 300) if name == "byte pairs" else CharTokenizer.from_text(STORIES)
    small = dict(n_embd=32, n_head=4, n_layer=1, block_size=48)
    model = tiny(**{**small, **MODELS[name], **changes, "vocab_size": tokenizer.vocab_size}).eval()
    config, weights, directory, gguf = (folder / file for file in ("model_config.pth", *FORMS))
    save_config(config, SavedConfig(model.config, tokenizer.to_dict(), STORIES[:1000]))
    save_weights(weights, model)
    export_to_hf(str(weights), str(config), str(directory))
    convert_to_gguf(str(directory), str(gguf), "Q8_0", llama_cpp_path=None)
    (folder / "stories.txt").write_text(STORIES, encoding="utf-8")
    (folder / "trained_model.yaml").write_text("train_llm:\n  dataset_path: stories.txt\n")
    return folder


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("models"), request.param)


@pytest.fixture(scope="module")
def classic(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("classic"), "classic")


def evaluate(folder: Path, monkeypatch, capsys, *flags: object) -> tuple[str, dict]:
    """What main prints, and what it writes as JSON."""
    monkeypatch.chdir(folder)
    evaluate_llm.main([*map(str, flags), "--json", str(folder / "out.json")])
    return capsys.readouterr().out, json.loads((folder / "out.json").read_text(encoding="utf-8"))


# What is measured


def test_all_forms_of_a_model_agree_on_20_000_characters(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "text.txt").write_text(STORIES[:20_000], encoding="utf-8")
    flags = [word for form in FORMS for word in ("--model", folder / form)]
    _, found = evaluate(folder, monkeypatch, capsys, *flags, "--text_path", tmp_path / "text.txt")
    bits = [model["bits_per_byte"] for model in found["models"]]
    assert len(bits) == 3
    assert max(bits) - min(bits) <= 1e-4
    with open_scorer(str(folder / FORMS[0])) as scorer:
        first = scorer.encode(STORIES[:20_000])[:1]
        n_bytes = len(STORIES[:20_000].replace(END_OF_TEXT, "\n")) - scorer.n_bytes(first)
    assert {model["n_bytes"] for model in found["models"]} == {n_bytes}


def test_loss_and_accuracy_are_those_of_a_naive_computation(folder):
    scorer = open_scorer(str(folder / FORMS[0]))
    ids = scorer.encode(STORIES[:600])
    quality = measure("model", scorer.logprobs, ids, scorer.window, 1, lambda n: None)
    network = scorer.engine.torch_model.double()
    nats, n_top1 = 0.0, 0
    for inputs, targets in windows(ids, 48):
        for place, target in enumerate(targets):
            with torch.no_grad():
                logits = network(torch.tensor([inputs[: place + 1]]))[0][0, -1]
            nats -= F.log_softmax(logits, -1)[target].item()
            n_top1 += logits.argmax().item() == target
    assert quality.nats == pytest.approx(nats, rel=1e-5)
    assert (quality.tokens, quality.n_top1) == (len(ids) - 1, n_top1)
    assert quality.perplexity == pytest.approx(math.exp(nats / (len(ids) - 1)), rel=1e-4)


def test_the_loss_is_the_sum_of_what_the_engine_says_of_each_token(classic):
    with open_scorer(str(classic / "model.gguf")) as scorer, Engine(classic / "model.gguf") as engine:
        ids = scorer.encode(STORIES[:1000])
        quality = measure("model", scorer.logprobs, ids, scorer.window, 1)
        said = [score.logprob for score in engine.score(ids)]
    assert said[0] is None
    assert quality.nats == pytest.approx(-sum(said[1:]), abs=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_held_out_is_what_training_held_out(folder, form):
    """Of the weights by their token file, of the other forms by reading the text with their own tokenizer."""
    corpus = open_corpus(str(folder / "stories.txt"))
    with open_scorer(str(folder / form)) as scorer:
        text = held_out_tenth(scorer, corpus, default_cache())
        kind = "bpe" if scorer.n_vocab == 300 else "char"
        dataset = TextDataset.of_tokens(open_tokens(corpus, find_recipe(kind, 300), default_cache()), 48)
        expected = dataset.split_off(HELD_OUT, HELD_OUT_TOKENS)
        assert scorer.n_vocab == dataset.vocab_size
        assert text.ids == expected.tolist()
        training = "".join(text.training(lambda n: None))
    assert training.startswith("<|endoftext|>" + STORIES[:500])
    assert not training.endswith(STORIES[-500:])
    assert len(training) == pytest.approx(0.9 * len(STORIES), rel=0.01)


def test_an_end_of_text_counts_as_a_byte_and_characters_as_theirs(tmp_path):
    path = write_gpt2(tmp_path / "model.gguf", "aß字")
    with open_scorer(str(path)) as scorer:
        assert scorer.n_bytes(scorer.encode("aß字<|endoftext|>a")) == 1 + 2 + 3 + 1 + 1


def test_unknown_characters_are_named_and_do_not_count(classic, tmp_path):
    (tmp_path / "text.txt").write_text("The β cat\n")
    with open_scorer(str(classic / "model.gguf")) as scorer:
        text = whole_text(scorer, open_corpus(str(tmp_path / "text.txt")), 100)
        assert text.unknown == ["β"]
        assert scorer.text_of(text.ids) == "The  cat\n"


@pytest.mark.slow
def test_the_loss_is_the_sum_of_what_a_server_echoes(classic, tmp_path, monkeypatch, capsys):
    """So that programs that score texts through the server get the same figure."""
    (tmp_path / "text.txt").write_text(STORIES[:2000], encoding="utf-8")
    _, found = evaluate(classic, monkeypatch, capsys, "--model", "model.gguf", "--text_path", tmp_path / "text.txt")
    command = [sys.executable, str(ROOT / "serve_gguf.py"), "--gguf_path", "model.gguf", "--port", "0"]
    with subprocess.Popen(command, cwd=classic, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        try:
            address = next(url[0] for line in child.stdout if (url := re.search(r"http://[\d.:]+", line)))
            body = {"prompt": STORIES[:2000], "max_tokens": 0, "echo": True, "logprobs": 1}
            request = urllib.request.Request(
                f"{address}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as reply:
                said = json.load(reply)["choices"][0]["logprobs"]["token_logprobs"]
        finally:
            child.terminate()
    assert found["models"][0]["nats"] == pytest.approx(-sum(said[1:]), abs=1e-3)


# The command


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_report_that_is_ended_leaves_no_files(classic, tmp_path):
    flags = ["--model", str(classic / "trained_model.pth"), "--quantization_report", "Q8_0"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "evaluate_llm.py"), *flags], cwd=tmp_path, stdout=subprocess.DEVNULL,
        env={**ENVIRONMENT, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    while process.poll() is None and not list(tmp_path.glob("custom-llm-*/*")):
        time.sleep(0.01)
    process.terminate()
    assert process.wait(20) == 143
    assert not list(tmp_path.iterdir())


def test_everything_at_once_in_tables_json_and_markdown(classic, tmp_path):
    flags = "--max_tokens 400 --samples 3 --sample_tokens 80 --seed 1 --json out.json --markdown out.md"
    for file in ("trained_model.pth", "model_config.pth", "trained_model.yaml", "stories.txt", "model.gguf"):
        (tmp_path / file).write_bytes((classic / file).read_bytes())
    result = run_script("evaluate_llm.py", *flags.split(), "--quantization_report", "q8_0,Q4_K_M", cwd=tmp_path)
    assert result.status == 0, result.stderr
    assert "note: models: trained_model.pth, model.gguf\n" in result.stderr
    assert "note: trained_model.yaml says that stories.txt is what it was trained on\n" in result.stderr
    for part in ("bits per byte", "400 tokens (400 bytes) of the held-out end of stories.txt", "Take ", "longest copy"):
        assert part in result.stdout
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [model["model"] for model in found["models"]] == ["trained_model.pth", "model.gguf"]
    types = found["quantization"]["types"]
    assert [item["type"] for item in types] == ["F32", "Q8_0", "Q4_K_M"]
    assert types[0]["kl_mean"] < 1e-6 < types[1]["kl_mean"] < types[2]["kl_mean"]
    assert types[0]["agreement"] > types[2]["agreement"]
    assert types[0]["bytes"] > types[1]["bytes"] > types[2]["bytes"]
    assert "Q4_K_M needs rows of a multiple of 256" in types[2]["note"]
    assert all(item["tokens_per_second"] > 0 for item in types)
    assert len(found["written"]["texts"]) == 3
    assert found["written"]["sampling"]["seed"] == 1
    assert found["samples"]["of_people"]["copied"] >= 0.2  # the stories are of few plots
    assert (tmp_path / "quantization.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out.md").read_text(encoding="utf-8")
    assert page.count("\n## ") == 3
    assert "| trained_model.pth | PyTorch |" in page
    left = {path.name for path in tmp_path.iterdir()} - {"evaluation.log"}
    assert not [name for name in left if name.startswith(".") or "tmp" in name]


def test_a_picture_that_cannot_be_drawn_costs_no_figures(classic, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    flags = ("--quantization_report", "Q8_0", "--picture", tmp_path / "a.png", "--max_tokens", "200")
    out, found = evaluate(classic, monkeypatch, capsys, "--model", "trained_model.pth", *flags)
    assert "There is no picture of it: --picture needs matplotlib; pip install matplotlib.\n" in out
    assert [item["type"] for item in found["quantization"]["types"]] == ["F32", "Q8_0"]


def test_options_come_from_a_file_as_well(classic, tmp_path, monkeypatch, capsys):
    (tmp_path / "run.yaml").write_text(f"evaluate_llm:\n  model: [{classic}/model.gguf]\n  max_tokens: 50\n")
    out, found = evaluate(classic, monkeypatch, capsys, "--config", tmp_path / "run.yaml")
    assert [model["tokens"] for model in found["models"]] == [50]
    assert "llama.cpp, F32" in out


def test_the_same_seed_gives_the_same_texts_and_each_another(classic, monkeypatch, capsys):
    flags = "--model model.gguf --max_tokens 5 --samples 3 --sample_tokens 40 --prompt_tokens 0 --seed 7".split()
    one, two = (evaluate(classic, monkeypatch, capsys, *flags)[1]["written"]["texts"] for _ in range(2))
    assert one == two
    assert len({sample["text"] for sample in one}) == 3
    assert {sample["prompt"] for sample in one} == {""}


def test_samples_of_another_text_look_for_copies_in_that_of_the_training(classic, tmp_path, monkeypatch, capsys):
    (tmp_path / "other.txt").write_text(STORIES[1000:3000], encoding="utf-8")
    flags = ("--model", "model.gguf", "--text_path", tmp_path / "other.txt", "--max_tokens", 5, "--samples", 2)
    _, found = evaluate(classic, monkeypatch, capsys, *flags, "--sample_tokens", 120, "--seed", 1)
    assert found["samples"]["of_people"]["copied"] == 1.0
    assert found["samples"]["of_people"]["longest_copy"] in STORIES
    assert found["samples"]["of_model"]["copied"] == 0.0


def test_texts_too_short_to_hold_a_copy_have_no_share_of_copies(classic, monkeypatch, capsys):
    flags = "--model model.gguf --max_tokens 5 --samples 2 --sample_tokens 40".split()
    out, found = evaluate(classic, monkeypatch, capsys, *flags)
    assert found["samples"]["of_model"]["copied"] is None
    assert re.search(r"^held-out text .* – +0 characters$", out, re.MULTILINE)


def test_help_imports_neither_torch_nor_llama_cpp(tmp_path):
    command = [sys.executable, "-X", "importtime", str(ROOT / "evaluate_llm.py"), "--help"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, text=True, check=True, env=ENVIRONMENT)
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "llama_cpp", "numpy", "transformers", "matplotlib"}
    assert "--quantization_report TYPES" in done.stdout


# Where llama.cpp is not installed


def evaluate_without_llama_cpp(folder: Path, tmp_path: Path, *flags: object) -> Result:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['llama_cpp'] = None\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    return run_script("evaluate_llm.py", *map(str, flags), cwd=folder, environment={"PYTHONPATH": path})


@pytest.mark.slow
def test_weights_and_directory_are_scored_without_llama_cpp(classic, tmp_path, monkeypatch, capsys):
    flags = ("--max_tokens", 300, "--samples", 2, "--sample_tokens", 60, "--seed", 1)
    json_path, png = tmp_path / "without.json", tmp_path / "a.png"
    done = evaluate_without_llama_cpp(classic, tmp_path, *flags, "--json", json_path)
    assert done.status == 0, done.stderr
    assert f"note: model.gguf, model.gguf.Q8_0.gguf: {MISSING}, so .gguf files are left out\n" in done.stderr
    found = json.loads(json_path.read_text(encoding="utf-8"))
    assert [model["computed_by"] for model in found["models"]] == ["PyTorch", "Hugging Face, GPT2LMHeadModel"]
    _, expected = evaluate(classic, monkeypatch, capsys, *flags)
    assert [model["nats"] for model in found["models"]] == [model["nats"] for model in expected["models"][:2]]
    assert found["written"] == expected["written"]
    for refused, reason in (
        (("--quantization_report", "Q8_0", "--picture", png), "--quantization_report compares files that llama.cpp"),
        (("--judge", "model.gguf"), "--judge model.gguf runs in llama.cpp"),
        (("--model", "model.gguf"), "model.gguf"),
    ):
        done = evaluate_without_llama_cpp(classic, tmp_path, *refused, "--max_tokens", 50)
        assert (done.status, done.stdout) == (2, "")
        assert done.stderr.splitlines()[-1].startswith(f"error: {reason}")
        assert MISSING in done.stderr.splitlines()[-1]


# What goes wrong


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--model nothing.pth", "model_config.pth: no such file"),
        ("--model nothing.gguf", "nothing.gguf: no such file"),
        ("--model classic/model.gguf --text_path nothing.txt", "nothing.txt: no such file"),
        ("--model classic/model.gguf --text_path empty.txt", "empty.txt is empty"),
        ("--model classic/model.gguf --text_path greek.txt", "greek.txt: classic/model.gguf knows none of its char"),
        ("--model classic/model.gguf --text_path one.txt", "one.txt: a single token is no text to evaluate on"),
        ("--model classic/model.gguf --model other.gguf", "the vocabulary of other.gguf has 4 tokens and that of"),
        ("--model classic/model.gguf --model turned.gguf", "turned.gguf reads the text as other tokens than classic"),
        ("--model no_window", "no_window: transformers cannot load it (block_size is 0)"),
        ("--model no_end", "no_end: config.json and tokenizer.json do not belong together"),
        ("--model many_layers", "many_layers: transformers cannot load it (1000000 layers, and 1 in its custom_llm)"),
        ("--model nested", "nested/tokenizer.json: maximum recursion depth exceeded"),
        ("--model deeper", "deeper/config.json: maximum recursion depth exceeded"),
        ("--model foreign", "foreign/config.json: not a model this program exported"),
        ("--model broken.gguf", "broken.gguf: not a model llama.cpp can read"),
        ("--model stories.txt", "stories.txt: not a GGUF file"),
        (
            "--model classic/trained_model.pth --config_path classic/stories.txt",
            "classic/stories.txt is damaged or not",
        ),
        ("--model other.gguf", "there is no trained_model.yaml that names the text of the training"),
        ("", "there is no trained_model.pth, no hf_model/ and no .gguf in this folder"),
        ("--quantization_report Q9_9", "--quantization_report Q9_9: no such type"),
        ("--quantization_report IQ2_S", "--quantization_report IQ2_S needs an import"),
        ("--model classic/model.gguf --quantization_report Q8_0", "--quantization_report is made of PyTorch's weights"),
        ("--model classic/hf_model --samples 1", "texts are written by a .pth or a .gguf"),
        ("--model classic/model.gguf --samples 1 --prompt_tokens 99999", "--prompt_tokens 99999: the text has 5"),
        ("--model classic/model.gguf --samples 1 --grammar x", "--grammar cannot be read"),
        ("--json nowhere/out.json", "nowhere/out.json: the folder nowhere does not exist"),
        ("--json x --markdown x", "--json and --markdown are both x"),
        ("--markdown stories.txt --text_path stories.txt", "--text_path and --markdown are both stories.txt"),
        ("--json stories.txt --dataset_path stories.txt", "--dataset_path and --json are both stories.txt"),
        ("--json model.gguf", "model.gguf is the name of a model"),
        ("--quantization_report Q8_0 --picture a.svg", "--picture a.svg is written as PNG; give a name that ends in"),
        ("--max_tokens 0", "argument --max_tokens: '0' is not a whole number of at least 1"),
        ("--judge nobody", "--judge nobody: no such file, and no address"),
        ("--judge classic/model.gguf", "--judge classic/model.gguf cannot write grades, since its vocabulary has no"),
        ("--judge=", "--judge : no such file, and no address"),
        ("--judge ftp://x", "--judge 'ftp://x' is no address"),
        ("--judge x --samples 0", "--judge has nothing to grade with --samples 0"),
    ],
)
def test_mistakes_are_one_line(flags, message, classic, tmp_path, monkeypatch):
    (tmp_path / "classic").symlink_to(classic)
    (tmp_path / "stories.txt").write_text(STORIES)
    for name, text in (("empty", ""), ("greek", "βλα"), ("one", "a")):
        (tmp_path / f"{name}.txt").write_text(text)
    write_gpt2(tmp_path / "other.gguf", "abc")
    characters = [*sorted(set(STORIES.replace(END_OF_TEXT, "")) - {"e"}), "ß"]
    write_gpt2(tmp_path / "turned.gguf", "".join(characters))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    for name, old, new in (
        ("no_window", '"block_size": 48', '"block_size": 0'),
        ("no_end", '_id": 55', '_id": 99'),
        ("many_layers", '"n_layer": 1,', '"n_layer": 1000000,'),
    ):
        shutil.copytree(classic / "hf_model", tmp_path / name)
        config = (tmp_path / name / "config.json").read_text()
        assert old in config
        (tmp_path / name / "config.json").write_text(config.replace(old, new))
        (tmp_path / name / "SHA256SUMS").unlink()
    for name, file in (("nested", "tokenizer.json"), ("deeper", "config.json")):
        shutil.copytree(classic / "hf_model", tmp_path / name)
        (tmp_path / name / file).write_text("[" * 100_000)
        (tmp_path / name / "SHA256SUMS").unlink()
    if not flags.startswith("--model"):
        for name in ("other.gguf", "turned.gguf", "broken.gguf"):
            (tmp_path / name).unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        evaluate_llm.main(flags.split())
    assert re.sub(r"\s+", " ", str(caught.value)).startswith(message)
    assert not list(tmp_path.glob("*.json"))


def test_a_model_without_a_vocabulary_is_left_out_where_its_file_has_one(classic, tmp_path):
    config = torch.load(classic / "model_config.pth", weights_only=True)
    del config["tokenizer"]
    torch.save(config, tmp_path / "model_config.pth")
    shutil.copy(classic / "trained_model.pth", tmp_path)
    (tmp_path / "letters.txt").write_text("a ")
    flags = ("--text_path", "letters.txt")
    nothing = run_script("evaluate_llm.py", *flags, cwd=tmp_path)
    assert nothing.status == 2
    assert nothing.stderr.endswith(
        "error: none of the models in this folder can be evaluated; name another with --model\n"
    )
    shutil.copy(classic / "model.gguf", tmp_path)
    result = run_script("evaluate_llm.py", *flags, cwd=tmp_path)
    assert result.status == 0
    assert "note: model_config.pth holds no vocabulary" in result.stderr
    assert result.stdout.endswith("\n1 token (1 byte) of letters.txt\n")


def test_a_model_that_computes_nan_says_so(classic):
    with open_scorer(str(classic / "model.gguf")) as scorer:

        def nan(texts):
            for part in scorer.logprobs(texts):
                yield np.full_like(part, np.nan)

        with pytest.raises(UserError, match=r"m\.gguf: the model computes nan"):
            measure("m.gguf", nan, scorer.encode("a text"), 8, 1)
