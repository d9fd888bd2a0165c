"""Stopped and resumed: the same weights to the bit, wherever a training was stopped and however."""

from __future__ import annotations

import contextlib
import io
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from architectures import EXPERTS
from conftest import ENVIRONMENT, ROOT, STORY, configure, digest, run_script
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_model
from custom_llm.common.errors import run
from custom_llm.config.training import TrainConfig
from custom_llm.data.dataset import TextDataset, WindowLoader
from custom_llm.model import GPTLanguageModel
from custom_llm.model.archive import Label, label_of, to_bytes
from custom_llm.model.files import load_config, load_trained, save_trained
from custom_llm.training.checkpoint import form_of_state, misfit
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


def leaves(value, path=()):
    """Where the parts of a state are that have no parts."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, part in parts:
        yield from leaves(part, (*path, key))
    if not isinstance(value, (dict, list, tuple)):
        yield path, value


def with_part(value, path, part):
    """A copy in which a part is another one."""
    if not path:
        return part
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = with_part(value[path[0]], path[1:], part)
    return copied


def test_every_part_of_a_state_is_looked_at_before_it_is_used():
    trainer, saved = make_trainer(EXPERTS["aux_free"], eval_interval=7, ckpt_interval=9, max_iters=20)
    state = trainer.state_dict()
    trainer.run()
    form = form_of_state(trainer)
    assert misfit(state, form) is None, "before the first step"
    assert len(saved) > 2 and all(misfit(each, form, "trainer") is None for each in saved)
    state = saved[1]
    changed = 0
    for path, value in leaves(state):
        others = [[], {"a": 1}, b"x", torch.ones(2, 3, 4)]
        others += [] if path[-1] == 10 else ["x"]  # but for a sample, which is any text
        if isinstance(value, int):
            others += [-2, 1.5, 10**30, True]
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            others += [value * float("nan"), value[None], value.long(), value.to_sparse(), value.to("meta")]
        for other in others:
            changed += 1
            assert misfit(with_part(state, path, other), form, "trainer"), (path, other)
    assert changed > 300
    for part in state:
        without = {key: value for key, value in state.items() if key != part}
        assert misfit(without, form, "trainer") == misfit({**state, "more": 1}, form, "trainer") == "trainer"
        assert misfit({**state, part: None}, form, "trainer") == f"trainer.{part}"


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
    for path in folder.glob("[!.]*.pth"):  # but what was being written then
        torch.load(path, weights_only=True)
    return was_under_way


def until_saved(process: subprocess.Popen, path: Path) -> None:
    """Wait for a new file, such as a checkpoint, or the end of the training."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns > before):
        time.sleep(0.005)


def until_saved_behind_a_report(process: subprocess.Popen, path: Path) -> None:
    """Wait for a checkpoint with a best model, which is there in a file as well."""
    while process.poll() is None and not (path.parent / "trained_model.pth").exists():
        time.sleep(0.005)
    until_saved(process, path)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGTERM))]
)
def test_a_training_that_is_stopped_ends_as_if_it_was_not(folder, number):
    done = run_script("train_llm.py", "--dataset_path", "input.txt", *FLAGS, cwd=folder)
    assert done.status == 0, done.stderr
    expected = weights(folder)
    for path in folder.glob("trained_model*"):
        path.unlink()
    assert stopped(folder, number, until_saved_behind_a_report)
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


def trainer_state(checkpoint: Path) -> dict:
    return torch.load(checkpoint, weights_only=True)["trainer"]


TRAIN = [sys.executable, ROOT / "train_llm.py", "--dataset_path", "input.txt", *FLAGS, "--patience", "0"]


@contextlib.contextmanager
def training(folder: Path, *flags: str):
    """A training that has written its first checkpoint, and would last longer than the test."""
    checkpoint = folder / "trained_model.checkpoint.pth"
    checkpoint.unlink(missing_ok=True)
    command = [*TRAIN, "--max_epochs", "100000", *flags]
    with subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            until_saved(process, checkpoint)
            assert process.poll() is None, process.stderr.read()
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_of_two_trainings_in_one_folder_the_second_is_told_what_works(folder, monkeypatch, capsys):
    with training(folder) as process:
        monkeypatch.chdir(folder)
        six = "--vocab_size 9 --n_embd 16 --n_head 2 --n_layer 1 --block_size 16 --dropout 0".split()
        assert run(llm_model.main, six) == 2
        assert "error: model_config.pth is being written by train_llm.py (process" in capsys.readouterr().err
        refused = run_script("train_llm.py", *TRAIN[2:], cwd=folder)
        assert refused.status == 2
        told = refused.stderr
        assert told.startswith(f"error: model_config.pth is being written by train_llm.py (process {process.pid} on ")
        assert told.count("\n") == 1
        other = run_script("llm_model.py", "--config_path", re.search("llm_model.py --config_path ([^ ,]+),", told)[1],
                           *six, cwd=folder)  # fmt: skip
        assert other.status == 0, other.stderr
        names = re.search("train_llm.py (--.*)$", told)[1].split()
        other = run_script("train_llm.py", *TRAIN[2:], "--max_epochs", "1", *names, cwd=folder)
        assert other.status == 0, other.stderr
        assert process.poll() is None
    for model, config in (("trained_model.pth", "model_config.pth"), ("other_model.pth", "other_config.pth")):
        load_trained(folder / model, folder / config)
    assert not list(folder.glob(".other*")), "nothing is left of a lock"


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="the largest file of another process is Linux's")
def test_a_disk_that_is_full_for_a_while(folder):
    """Files of more than some bytes cannot be written then; the training goes on."""
    checkpoint = folder / "trained_model.checkpoint.pth"
    with training(folder) as process:
        psutil.Process(process.pid).rlimit(psutil.RLIMIT_FSIZE, (1000, psutil.RLIM_INFINITY))
        while "tries again" not in (line := process.stderr.readline()):
            assert process.poll() is None
        assert line.startswith("note: cannot write ") and line.count("file too large") == 1
        for path in folder.glob("[!.]*.pth"):  # but what was being written then
            torch.load(path, weights_only=True)
        steps = trainer_state(checkpoint)["clock"]["steps"]
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)  # the last checkpoint is tried for a while
        time.sleep(1.5)
        assert process.poll() is None
        psutil.Process(process.pid).rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 143 and "stopped; the best of what" in errors, errors
        assert "trained_model.checkpoint.pth is written now\n" in errors and errors.count("tries again") <= 3
    assert trainer_state(checkpoint)["clock"]["steps"] > steps
    load_trained(folder / "trained_model.pth", folder / "model_config.pth")


@pytest.mark.slow
def test_a_disk_that_stays_full_at_the_end(folder):
    """What was trained is lost to the last checkpoint only, and the way out works."""
    code = """if True:
        import sys, resource
        from custom_llm.training import resume
        resume.PATIENCE = 1.0
        from custom_llm.training.loop import Trainer
        run = Trainer.run
        def full_at_the_end(trainer, stops):
            write, steps = resume.write_bytes, 0
            def write_some(path, content):
                nonlocal steps
                steps += 1
                if steps > 2:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
                write(path, content)
            resume.write_bytes = write_some
            run(trainer)
        Trainer.run = full_at_the_end
        from custom_llm.common.errors import run as start
        import train_llm
        sys.exit(start(train_llm.main, sys.argv[1:]))
    """
    command = [sys.executable, "-c", code, "--dataset_path", "input.txt", *FLAGS]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    told = done.stderr.splitlines()[-1]
    assert told.startswith("error: cannot write ") and "; make room there, then " in told
    assert "waiting for room to write trained_model." in done.stderr
    flags = re.search(r"train_llm\.py (.*) goes on from the last checkpoint", told)[1].split()
    rest = run_script("train_llm.py", *flags, "--cache_dir", "cache", cwd=folder)
    assert rest.status == 0 and "Generated text:" in rest.stdout, rest.stderr


@pytest.mark.slow
def test_a_better_model_of_the_same_training_stays_until_there_is_a_better_one(folder):
    """As after a kill between a report and the next checkpoint."""

    def resume(epochs: int) -> str:
        flags = ["--resume", "--max_epochs", str(epochs), "--cache_dir", "cache"]
        done = run_script("train_llm.py", *flags, cwd=folder)
        assert done.status == 0, done.stderr
        return done.stdout.split("Generated text:\n")[1]

    model, config = folder / "trained_model.pth", folder / "model_config.pth"
    done = run_script("train_llm.py", *TRAIN[2:], "--max_epochs", "2", cwd=folder)
    assert done.status == 0, done.stderr
    saved = load_config(config)
    loss, step = 0.99 * saved.training.held_out_loss, saved.training.kept_step + 1
    better = {name: 1.01 * value for name, value in torch.load(model, weights_only=True).items()}
    training = replace(saved.training, held_out_loss=loss, kept_step=step)
    save_trained(model, better, config, replace(saved, training=training))
    text = resume(2)  # to where it is
    kept, about = torch.load(model, weights_only=True), load_config(config).training
    assert all(torch.equal(kept[name], better[name]) for name in better)
    assert (about.held_out_loss, about.kept_step) == (loss, step) and text.startswith(about.text)
    resume(3)
    about, lowest = load_config(config).training, trainer_state(folder / "trained_model.checkpoint.pth")["lowest"]
    assert (about.held_out_loss, about.kept_step) == (lowest["loss"], lowest["step"]) and lowest["loss"] < loss
    other = Label("weights", "another")
    model.write_bytes(to_bytes(better, other))  # of another training: it is kept, and that of the checkpoint written
    resume(3)
    (kept,) = folder.glob("trained_model.2*-????.pth")
    assert label_of(kept) == other and label_of(model).training not in ("", "another")
