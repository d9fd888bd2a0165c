"""Datasets by name, from `--dataset` to the finished file: a folder, a hub on this machine, and no hub at all."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT, configure, digest, run_script
from hub_server import Hub
from pretrained_forms import make
from test_hub import STORIES, write_stories

from custom_llm.data import choose
from custom_llm.data.hub.rows import Unavailable
from custom_llm.tokenizer.pretrained import load_pretrained

MODEL = dict(n_embd=32, n_head=4, n_layer=2, block_size=32, dropout=0.0, vocab_size=300)
# In one precision: which one is faster is measured, so that two trainings might differ in it.
TRAINING = "--max_epochs 1 --batch_size 8 --learning_rate 0.0005 --precision float32 --cache_dir cache".split()
NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_XET": "1"}


@pytest.fixture
def folder(tmp_path):
    """A place to work in, with a model that is not trained yet."""
    configure(tmp_path, **MODEL)
    return tmp_path


def check_training(folder: Path, *flags: str, **environment: str) -> str:
    """Step 2; what it had to say beside its output."""
    trained = run_script("train_llm.py", *flags, *TRAINING, cwd=folder, environment=environment)
    assert trained.status == 0, trained.stderr
    return trained.stderr


def check_road(folder: Path, *training: str, **environment: str) -> str:
    """The same of steps 2 to 4."""
    notes = check_training(folder, *training, **environment)
    converted = run_script("convert_to_gguf.py", "--quant_type", "Q8_0", "--llama_cpp_path", "none", cwd=folder)
    assert (converted.status, converted.stderr) == (0, "")
    said = run_script("inference_gguf.py", "--query", "Story 狐", "--max_tokens", "9", "--ignore_eos", cwd=folder)
    assert said.stdout.startswith("Story 狐")
    return notes


def load(folder: Path):
    return load_pretrained(str(folder))[0]


@pytest.mark.parametrize("how", [pytest.param("--stream", marks=pytest.mark.slow), "--no_stream"])
def test_a_local_copy_of_tinystories_is_trained_on(folder, how):
    write_stories(folder / "stories")
    notes = check_training(folder, "--dataset", "hf:./stories", how, HF_HOME=str(folder / "home"), USE_TORCH="0")
    assert "reading the dataset hf:./stories\n" in notes
    (text,) = (folder / "cache/datasets").glob("*.txt")
    assert text.read_text(encoding="utf-8") == "<|endoftext|>".join(STORIES)


@pytest.mark.slow
def test_a_dataset_of_the_hub_is_trained_on_and_again_without_the_hub(folder, tmp_path):
    write_stories(tmp_path / "hub/datasets/roneneldan/TinyStories")
    flags = ["--dataset", "tinystories", "--max_tokens", "5000", "--tokenizer", "bpe", "--vocab_size", "300"]
    with Hub(tmp_path / "hub") as hub:
        environment = {**hub.environment(tmp_path / "home"), "USE_TORCH": "0"}
        check_training(folder, *flags, **environment)
    first = digest(folder / "trained_model.pth")
    again = run_script("train_llm.py", *flags, *TRAINING, cwd=folder, environment={**environment, **NOWHERE})
    assert again.status == 0, again.stderr
    assert "note: tinystories: http://127.0.0.1:9 cannot be reached" in again.stderr
    assert "using the copy of" in again.stderr
    assert digest(folder / "trained_model.pth") == first


@pytest.mark.parametrize(
    "form", ["gpt-2", *(pytest.param(form, marks=pytest.mark.slow) for form in ("llama-3", "qwen2"))]
)
def test_a_pretrained_tokenizer_of_the_hub_goes_all_the_way(folder, tmp_path, form):
    make(form, tmp_path / "hub/models/owner" / form)
    (folder / "input.txt").write_text("<|endoftext|>".join(STORIES), encoding="utf-8")
    flags = ["--dataset", "input.txt", "--tokenizer", f"owner/{form}"]
    with Hub(tmp_path / "hub") as hub:
        notes = check_road(folder, *flags, **hub.environment(tmp_path / "home"))
    assert f"that of owner/{form}" in notes
    # The exported folder is a tokenizer to train another model with, and gives the same ids.
    ids = [
        tokenizer.encode(STORIES[0]).tolist()
        for tokenizer in map(load, (tmp_path / "hub/models/owner" / form, folder / "hf_model"))
    ]
    assert ids[0] == ids[1]


def test_without_the_hub_training_goes_on_only_if_that_was_asked_for(folder):
    flags = ["--dataset", "c4", "--max_chars", "20000", *TRAINING]
    environment = {**NOWHERE, "HF_HOME": str(folder / "home"), "USE_TORCH": "0"}
    before = (folder / "model_config.pth").read_bytes()
    refused = run_script("train_llm.py", *flags, cwd=folder, environment=environment)
    assert refused.status == 2
    assert "error: c4: http://127.0.0.1:9 cannot be reached" in refused.stderr
    assert refused.stderr.endswith("or --fallback for the bundled stories\n")
    assert (folder / "model_config.pth").read_bytes() == before
    assert not (folder / "trained_model.pth").exists()
    done = run_script("train_llm.py", *flags, "--fallback", cwd=folder, environment=environment)
    assert done.status == 0, done.stderr
    assert "TRAINING ON THE BUNDLED STORIES INSTEAD" in done.stderr
    assert (folder / "trained_model.pth").exists()


def test_only_who_can_fall_back_is_told_to(tmp_path, monkeypatch):
    def closed(*args, **kwargs):
        raise Unavailable("c4", "the hub is closed")

    monkeypatch.setattr(choose, "fetch", closed)
    for fallback, advised in ((None, False), (lambda: False, True)):
        with pytest.raises(Unavailable, match="c4: the hub is closed; try again later, or give a local") as caught:
            choose.choose_corpus("c4", tmp_path, fallback=fallback)
        assert ("--fallback" in str(caught.value)) == advised


@pytest.mark.slow
def test_without_the_hub_a_tokenizer_is_learnt_from_the_text_if_that_was_asked_for(folder):
    """As configs/tinystories.yaml with --fallback, where neither can be had."""
    flags = ["--dataset", "tinystories", "--max_chars", "20000", "--tokenizer", "gpt2", "--inspect", "--cache_dir", "c"]
    environment = {**NOWHERE, "HF_HOME": str(folder / "home"), "USE_TORCH": "0"}
    (folder / "input.txt").write_text(STORIES[0], encoding="utf-8")
    text = ["--dataset", "input.txt", *flags[2:]]
    refused = run_script("train_llm.py", *text, cwd=folder, environment=environment)
    assert refused.status == 2
    assert refused.stderr.endswith("take char or bpe, or add --fallback for byte pairs learnt from the text\n")
    for words in (text, flags):
        done = run_script("train_llm.py", *words, "--fallback", cwd=folder, environment=environment)
        assert done.status == 0, done.stderr
        warning = "WARNING: the tokenizer gpt2 cannot be had. LEARNING BYTE PAIRS FROM THE TEXT INSTEAD.\n"
        assert warning in done.stderr
        assert ("BUNDLED STORIES INSTEAD" in done.stderr) == (words is flags)


@pytest.mark.parametrize(("answer", "status"), [("yes", 0), ("no", 2), pytest.param("", 2, marks=pytest.mark.slow)])
def test_at_a_terminal_it_is_asked(folder, answer, status):
    main, other = pty.openpty()
    os.write(main, f"{answer}\n".encode())
    command = [sys.executable, ROOT / "train_llm.py", "--dataset", "c4", "--max_chars", "20000", "--inspect"]
    environment = {**ENVIRONMENT, **NOWHERE, "HF_HOME": str(folder / "home"), "USE_TORCH": "0"}
    done = subprocess.run(
        [*command, "--cache_dir", "cache"], cwd=folder, env=environment, stdin=other, stdout=subprocess.PIPE,
        stderr=other, timeout=60,
    )  # fmt: skip
    said = os.read(main, 10_000).decode()
    os.close(main), os.close(other)
    assert done.returncode == status, said
    assert "Train on the bundled stories instead? (yes or no)" in done.stdout.decode()
    assert ("BUNDLED STORIES INSTEAD" in said) == (status == 0)
