"""Stopped and resumed: the same weights to the bit, wherever a training was stopped and however."""

from __future__ import annotations

import io
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from architectures import EXPERTS
from conftest import ENVIRONMENT, ROOT, STORY, configure, digest, run_script
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_llm.config.training import TrainConfig
from custom_llm.data.dataset import TextDataset, WindowLoader
from custom_llm.model import GPTLanguageModel
from custom_llm.training.loop import Trainer

TEXT = STORY * 6
CPU = torch.device("cpu")


def make_trainer(architecture, **options):
    """A small training with dropout, and what it saves."""
    dataset = TextDataset(TEXT, 16)
    torch.manual_seed(0)
    six = dict(vocab_size=dataset.vocab_size, n_embd=16, n_head=2, n_layer=1, block_size=16, dropout=0.2)
    model = GPTLanguageModel({**six, **architecture})
    config = TrainConfig(**{"batch_size": 4, "learning_rate": 0.001, "max_epochs": 2, **options})
    saved = []

    def save(state):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        saved.append(torch.load(buffer, weights_only=True))

    return Trainer(model, WindowLoader(dataset, 4, None, 3), config, CPU, save=save), saved


@pytest.mark.parametrize("experts", ["dense", "aux_free"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(optimizer="adamw", schedule="wsd", warmup_steps=5),
        dict(total_batch_size="3 * 2**6", eval_interval=7),
        dict(max_iters=33, schedule="linear", min_lr=0.0, ema=0.9),
    ],
    ids=str,
)
def test_resumed_from_any_checkpoint(experts, options, capsys):
    architecture = EXPERTS[experts]
    whole, saved = make_trainer(architecture, ckpt_interval=1, **options)
    whole.run()
    printed = capsys.readouterr().out
    expected = {name: tensor.clone() for name, tensor in whole.model.state_dict().items()}
    assert len(saved) == whole.clock.steps + 1
    for state in saved[:: max(1, len(saved) // 6)]:
        torch.manual_seed(99)
        rest, _ = make_trainer(architecture, **options)
        for parameter in rest.model.parameters():
            parameter.data += 1.0
        rest.load_state_dict(state)
        rest.run()
        assert rest.clock.steps == whole.clock.steps
        for name, tensor in rest.model.state_dict().items():
            assert torch.equal(tensor, expected[name]), name
        with whole.step.averaged(), rest.step.averaged():
            assert all(map(torch.equal, rest.model.parameters(), whole.model.parameters()))
        assert printed.endswith(capsys.readouterr().out)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 7), st.integers(0, 30), st.integers(0, 3))
@settings(deadline=None)
def test_the_order_goes_on_where_it_was(n_tokens, batch_size, stride, n_batches, epochs):
    def make():
        return WindowLoader(TextDataset("x" * (n_tokens + 4), 4), batch_size, stride, seed=5)

    whole, rest = make(), make()
    for _ in range(epochs):
        list(whole)
    batches = iter(whole)
    n_read = sum(1 for _ in zip(range(n_batches), batches, strict=False))
    state = whole.sampler.state_dict(n_read * batch_size)
    left = [x.shape for x, _ in batches]
    order = list(whole.sampler)
    rest.sampler.load_state_dict(state)
    assert [x.shape for x, _ in rest] == left
    if n_read:
        assert list(rest.sampler) == order


def test_another_batch_size_goes_on_at_the_same_place():
    whole, saved = make_trainer({}, ckpt_interval=1)
    whole.run()
    rest, _ = make_trainer({})
    rest.loader = WindowLoader(TextDataset(TEXT, 16), 8, None, 3)
    rest.load_state_dict(saved[3])
    assert rest.state_dict()["sampler"]["read"] == saved[3]["sampler"]["read"] == 16


# In one precision: which one is faster is measured, so that two trainings might differ in it.
FLAGS = "--batch_size 4 --learning_rate 0.001 --max_epochs 6 --ckpt_interval 5 --precision float32".split()
FLAGS += ["--cache_dir", "cache"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "input.txt").write_text(STORY * 60, encoding="utf-8")
    configure(tmp_path, n_embd=32, n_head=4, n_layer=1, block_size=16, dropout=0.1)
    return tmp_path


def weights(folder: Path) -> str:
    return digest(folder / "trained_model.pth")


def stopped(folder: Path, number: int, wait, *flags: str) -> bool:
    """Train until `wait(process, checkpoint)` is over and send a signal; whether the training was still under way."""
    checkpoint = folder / "trained_model.checkpoint.pth"
    command = [sys.executable, ROOT / "train_llm.py", "--dataset_path", "input.txt", *FLAGS, *flags]
    command += ["--resume"] if checkpoint.exists() else []
    process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait(process, checkpoint)
    was_under_way = process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert b"Traceback" not in errors and b"error:" not in errors, errors
    for path in folder.glob("*.pth"):
        torch.load(path, weights_only=True)
    return was_under_way


def until_saved(process: subprocess.Popen, path: Path) -> None:
    """Wait for a new file, such as a checkpoint, or the end of the training."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns > before):
        time.sleep(0.005)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGTERM))]
)
def test_a_training_that_is_stopped_ends_as_if_it_was_not(folder, number):
    done = run_script("train_llm.py", "--dataset_path", "input.txt", *FLAGS, cwd=folder)
    assert done.status == 0, done.stderr
    expected = weights(folder)
    for path in folder.glob("trained_model*"):
        path.unlink()
    assert stopped(folder, number, until_saved)
    rest = run_script("train_llm.py", "--resume", "--cache_dir", "cache", cwd=folder)  # asks nothing
    assert rest.status == 0, rest.stderr
    assert weights(folder) == expected
    assert rest.stdout.splitlines()[-3:] == done.stdout.splitlines()[-3:]


@pytest.mark.slow
def test_killed_before_the_first_checkpoint(folder):
    """The options are there to begin anew with, and --resume says so."""
    options = folder / "trained_model.yaml"
    flags = ["--max_epochs", "500", "--ckpt_interval", "1000000"]
    assert stopped(folder, signal.SIGKILL, lambda process, _: until_saved(process, options), *flags)
    assert "max_epochs: 500" in options.read_text() and "precision: float32" in options.read_text()
    result = run_script("train_llm.py", "--resume", cwd=folder)
    assert result.status == 2 and result.stderr.count("\n") == 1
    assert "start without --resume" in result.stderr
    again = run_script("train_llm.py", "--config", options, "--max_epochs", "1", cwd=folder)
    assert again.status == 0, again.stderr


@pytest.mark.slow
def test_twenty_kills(folder):
    """At random moments: while Python starts, while the text is encoded, between and in the middle of checkpoints."""
    epochs = ["--max_epochs", "30", "--patience", "0"]
    done = run_script("train_llm.py", "--dataset_path", "input.txt", *FLAGS, *epochs, cwd=folder)
    expected = weights(folder)
    for path in folder.glob("trained_model*"):
        path.unlink()
    generator = random.Random(0)
    seconds = []  # that a start took here, and some checkpoints of some hundred

    def some_checkpoints(process: subprocess.Popen, checkpoint: Path) -> None:
        start = time.monotonic()
        for _ in range(generator.randint(1, 20)):
            until_saved(process, checkpoint)
        time.sleep(generator.uniform(0, 0.02))
        seconds.append(time.monotonic() - start)

    def any_time(process: subprocess.Popen, checkpoint: Path) -> None:
        time.sleep(generator.uniform(0, 2 * seconds[-1]))

    waits = 10 * [some_checkpoints, any_time]
    assert sum(stopped(folder, signal.SIGKILL, wait, *epochs) for wait in waits) >= 5
    rest = run_script("train_llm.py", "--resume", "--cache_dir", "cache", cwd=folder)
    assert rest.status == 0, rest.stderr
    assert weights(folder) == expected
    assert rest.stdout.splitlines()[-2:] == done.stdout.splitlines()[-2:]
    assert not list(folder.glob(".*.tmp*"))
