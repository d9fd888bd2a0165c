"""The training loop: it learns, it is repeatable, it says what happens."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import math
import os
import pty
import random
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from architectures import EXPERTS, tiny
from conftest import ENVIRONMENT, ROOT, STORY, configure, run_script
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_llm.common.errors import UserError, run
from custom_llm.config.training import TrainConfig
from custom_llm.data.dataset import TextDataset, WindowLoader
from custom_llm.model import GPTLanguageModel
from custom_llm.model.files import load_model
from custom_llm.model.gpt import NOT_TRAINED_ON
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.load import load_tokenizer
from custom_llm.training.clock import Clock, learning_rate_at
from custom_llm.training.display import progress_words
from custom_llm.training.distributed.processes import Processes
from custom_llm.training.loop import Trainer, held_out_loss, train_model
from custom_llm.training.step import ExpertUse, Step, Update

TEXT = STORY * 20
CPU = torch.device("cpu")


def small_model(dataset: TextDataset, **architecture: object) -> GPTLanguageModel:
    torch.manual_seed(0)
    six = dict(n_embd=32, n_head=4, n_layer=2, block_size=dataset.block_size, dropout=0.1)
    return GPTLanguageModel(dict(vocab_size=dataset.vocab_size, **six, **architecture))


def train_once(architecture: dict[str, object] | None = None, **config: object) -> GPTLanguageModel:
    dataset = TextDataset(TEXT, 32)
    model = small_model(dataset, **(architecture or {}))
    return train_model(model, WindowLoader(dataset, 8, None, seed=3), dict(learning_rate=5e-4, **config), CPU)


def train_by_a_clock(minutes: float, seconds: float, before: float = 0.0, **options: object) -> Trainer:
    """A training whose clock goes on by so many seconds with each batch that is read, and before the first one."""
    time = [0.0]

    class Batches(list):
        def __iter__(self) -> Iterator:
            for batch in super().__iter__():
                time[0] += seconds
                yield batch

    processes = Processes()
    processes.now = lambda: time[0]
    x = torch.randint(23, (4, 16))
    config = TrainConfig(learning_rate=1e-3, minutes=minutes)
    trainer = Trainer(tiny(dropout=0.0), Batches([(x, x)] * 9), config, CPU, processes=processes, **options)
    time[0] += before
    trainer.run()
    return trainer


def test_a_small_text_is_memorised():
    dataset = TextDataset(TEXT, 32)
    model = train_once(max_epochs=40)
    assert held_out_loss(model, dataset.data) < 0.5, "guessing costs 3.4"


def test_the_same_seed_gives_the_same_weights():
    torch.set_num_threads(1)
    first, second = train_once(max_epochs=2), train_once(max_epochs=2)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_epochs_end_after_max_epochs_and_the_clock_ends_on_time(capsys):
    train_once(max_epochs=4)
    assert capsys.readouterr().out.count("Epoch ") == 4
    assert train_by_a_clock(minutes=1, seconds=0.5).clock.steps == 120
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 22, "about 20 lines however short the epochs are"


def test_a_training_makes_a_step_and_a_report_however_little_time_there_is(capsys):
    """What is timed before the first step may take longer than a short training."""
    lowest = []
    saving = dict(validate=lambda model: 1.0, on_lowest=lowest.append)
    trainer = train_by_a_clock(minutes=0.001, seconds=0.1, before=1000, **saving)
    assert (trainer.clock.steps, lowest) == (1, [trainer])
    assert capsys.readouterr().out.count("Epoch 1, Loss: ") == 1


@given(st.integers(2, 90), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_the_held_out_loss_is_the_mean_over_every_token(n_tokens, block_size):
    torch.manual_seed(n_tokens)
    model = GPTLanguageModel(dict(vocab_size=5, n_embd=8, n_head=2, n_layer=1, block_size=block_size, dropout=0.5))
    data = torch.randint(5, (n_tokens,))
    total = 0.0
    model.eval()
    for start in range(0, n_tokens - 1, block_size):
        x, y = data[start : min(start + block_size, n_tokens - 1)], data[start + 1 : start + block_size + 1]
        total += model(x[None], y[None])[1].item() * len(y)
    model.train()
    assert held_out_loss(model, data) == pytest.approx(total / (n_tokens - 1), abs=1e-5)
    assert model.training


def test_the_learning_rate_rises_and_falls():
    rates = [learning_rate_at(i / 1000, 0.01) for i in range(1001)]
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == pytest.approx(0.01) and rates[-1] == pytest.approx(0.001) and rates[0] > 0


@pytest.mark.parametrize("experts", [name for name in EXPERTS if name != "dense"])
def test_training_balances_the_experts_and_reports_them(experts, capsys):
    architecture = {"coeff": 0.1} if experts == "softmax" else {"gamma": 0.01}
    model = train_once(EXPERTS[experts] | architecture, max_epochs=8)
    lines = re.findall(r"Epoch \d/8, Loss: (\S+), Experts: busiest (\S+) × the mean, (\d+) of 12 idle\n",
                       capsys.readouterr().out)  # fmt: skip
    assert len(lines) == 8
    assert all(1 <= float(busiest) < 6 for _, busiest, _ in lines)
    assert float(lines[-1][1]) < 1.5 and lines[-1][2] == "0"
    assert float(lines[-1][0]) < float(lines[0][0]) - 0.5
    assert not any(mixture.load.any() for mixture in model.mixtures)
    if experts == "aux_free":
        assert all(mixture.selection_bias.any() for mixture in model.mixtures)


def test_the_reported_loss_is_that_of_the_text_alone(capsys):
    """A heavy balance loss pulls at the model, and is not in the figure."""
    train_once(EXPERTS["softmax"] | {"coeff": 100.0}, max_epochs=1)
    loss = float(re.search(r"Loss: ([\d.]+)", capsys.readouterr().out)[1])
    assert loss < 4, "guessing costs 3.4, and the balance loss of two layers 200"


def test_the_reported_loss_is_that_of_the_targets_and_all_tokens_are_read(capsys):
    torch.manual_seed(0)
    model, x = tiny(dropout=0.0), torch.randint(23, (5, 16))
    y = x.roll(-1, 1)
    y[1], y[2:, 4:] = NOT_TRAINED_ON, NOT_TRAINED_ON
    expected = model(x, y)[1].item()
    batches = [(x[:2], y[:2]), (x[2:], y[2:])]
    trainer = Trainer(model, batches, TrainConfig(learning_rate=1e-9, max_epochs=1), CPU)
    trainer.run()
    assert float(re.search(r"Loss: ([\d.]+)", capsys.readouterr().out)[1]) == pytest.approx(expected, abs=1e-4)
    assert trainer.clock.tokens == trainer.history.points[-1].tokens == 5 * 16


def test_reports_count_the_tokens_since_the_one_before():
    model = tiny(**EXPERTS["softmax"])
    loads = ExpertUse(model)
    first, second = model.mixtures
    for busy in (0, 1):
        first.load.copy_(torch.tensor([4, 1, 1, 1, 1, 4]))
        second.load.copy_(torch.tensor([2, 2, 2, 2, 2, 2 * busy]))
        loads.add()
    assert loads.pop() == ", Experts: busiest 2.00 × the mean, 0 of 12 idle"
    assert loads.pop() == "", "nothing was read since"
    first.load.copy_(torch.tensor([0, 0, 3, 1, 1, 1]))
    second.load.fill_(1)
    loads.add()
    assert loads.pop() == ", Experts: busiest 3.00 × the mean, 2 of 12 idle"


def test_the_model_at_its_lowest_held_out_loss_is_the_one_that_is_kept(tmp_path):
    """What is memorised of this text does not help with its end, which is the same backwards."""
    text = "the cat sat on the mat. " * 60 + "tam eht no tas tac eht. " * 8
    (tmp_path / "input.txt").write_text(text, encoding="utf-8")
    configure(tmp_path, n_embd=32, n_layer=1, block_size=16)
    flags = "--batch_size 4 --learning_rate 0.0003 --max_epochs 8 --ema 0 --precision float32".split()
    result = run_script("train_llm.py", *flags, "--patience", "0", cwd=tmp_path)
    assert result.status == 0, result.stderr
    losses = [float(loss) for loss in re.findall(r"Held-out: (\S+) ", result.stdout)]
    assert len(losses) == 8 and losses[-1] > min(losses)
    best = losses.index(min(losses))
    rose = rf"from step ([0-9]+) on, .* the loss rose from {min(losses):.4f} to {losses[-1]:.4f}, on its own it came to"
    said = re.search(rf"{rose} .* is the model of step \1, before that", result.stderr)
    rows = csv.DictReader((tmp_path / "trained_model.loss.csv").read_text().splitlines())
    (lowest,) = (row for row in rows if row["held_out"] and float(row["held_out"]) < min(losses) + 1e-4)
    assert (said[1], best + 1) == (lowest["step"], float(lowest["epoch"]))
    model, saved = load_model(tmp_path / "trained_model.pth", tmp_path / "model_config.pth")
    held_out = TextDataset(END_OF_TEXT + text, 16, load_tokenizer(saved.tokenizer)).split_off(0.1)
    assert held_out_loss(model, held_out) == pytest.approx(min(losses), abs=1e-3)

    stopped = run_script("train_llm.py", *flags, "--patience", "2", cwd=tmp_path)
    end = next(i for i in range(2, 8) if min(losses[i - 1 : i + 1]) >= min(losses[: i - 1]))
    assert [float(loss) for loss in re.findall(r"Held-out: (\S+) ", stopped.stdout)] == losses[: end + 1]
    assert "Generated text:" in stopped.stdout
    assert "--patience 2 ended it" in stopped.stderr and "ended it" not in result.stderr


def test_out_of_memory_is_a_sentence(capsys):
    def fill(argv: object) -> None:
        torch.empty(1 << 50)

    assert run(fill) == 2
    assert capsys.readouterr().err.startswith("error: not enough memory; choose a smaller model (--n_embd")
    failed = ImportError("libtorch_cpu.so: failed to map segment from shared object")  # torch itself does not fit
    assert run(lambda argv: (_ for _ in ()).throw(failed)) == 2
    assert capsys.readouterr().err.startswith("error: not enough memory; ")
    with pytest.raises(RuntimeError, match="a bug"):
        run(lambda argv: (_ for _ in ()).throw(RuntimeError("a bug")))


def test_a_loss_that_is_no_number_stops_the_training():
    dataset = TextDataset(TEXT, 32)
    model = small_model(dataset)
    with torch.no_grad():
        model.head.weight.fill_(math.inf)
    config = dict(learning_rate=0.02, max_epochs=1)
    with pytest.raises(UserError, match=r"--learning_rate 0.02: the loss became nan at step 1; try 0.002"):
        train_model(model, WindowLoader(dataset, 8, None, seed=3), config, CPU)


def test_a_training_that_diverged_goes_on_by_the_command_it_names(tmp_path):
    (tmp_path / "input.txt").write_text(TEXT, encoding="utf-8")
    configure(tmp_path, n_embd=32, n_layer=1, block_size=16)
    flags = "--dataset_path input.txt --batch_size 4 --max_iters 60 --learning_rate 10 --weight_decay 1"
    each = "--ckpt_interval 1 --eval_interval 1"
    failed = run_script("train_llm.py", *flags.split(), *each.split(), cwd=tmp_path)
    error = failed.stderr.splitlines()[-1]
    assert failed.status == 2 and error.startswith("error: --learning_rate 10.0: "), failed.stderr
    found = re.search(r"(?:nan|inf) at step \d+; try 1: python train_llm.py (.*) goes on from the best model", error)
    for name in ("trained_model.pth", "trained_model.checkpoint.pth"):
        assert not any(tensor.isnan().any() for tensor in tensors(torch.load(tmp_path / name, weights_only=True))), name
    rest = run_script("train_llm.py", *found[1].split(), cwd=tmp_path)
    assert rest.status == 0, rest.stderr


def tensors(value: object) -> Iterator[torch.Tensor]:
    """All tensors in dicts and lists."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


def test_bits_per_byte_do_not_depend_on_what_a_character_is(tmp_path):
    """Of a text of two-byte characters, half as many bits a byte as a character; `<|endoftext|>` is one byte."""
    text = "".join(random.Random(0).choices("абвг", k=4000))
    (tmp_path / "input.txt").write_text(text, encoding="utf-8")
    configure(tmp_path, n_embd=16, n_layer=1, block_size=16)
    result = run_script("train_llm.py", *"--batch_size 8 --learning_rate 0.001 --max_epochs 3".split(), cwd=tmp_path)
    assert result.status == 0, result.stderr
    held_out, bits = map(float, re.findall(r"Held-out: (\S+) \((\S+) bits per byte\)", result.stdout)[-1])
    assert bits == pytest.approx(held_out / math.log(2) / 2, abs=1e-3) == pytest.approx(1, abs=0.1)


@given(st.floats(0.0, 99.0), st.none() | st.floats(0.0, 99.0), st.integers(0, 200 * 10**9), st.integers(1, 10**9))
def test_the_words_of_progress_are_short(loss, held_out, memory, n_tokens):
    clock = Clock(TrainConfig(max_iters=10), 10)
    clock.add(n_tokens, 1)
    clock.load_state_dict({**clock.state_dict(), "seconds": 100.0})
    line = progress_words(loss, held_out, clock, memory, operations=1e6, peak=1e15)
    assert f"{memory / 1e9:.1f} GB" in line and "tokens/s" in line and "MFU" in line
    assert len(f"100% {line}, 100,000 s left") <= 100
    clock = Clock(TrainConfig(max_iters=10), 10, now=lambda: 0.0)  # has not moved since the beginning
    assert progress_words(loss, held_out, clock, memory, operations=1e6, peak=None).startswith(f"loss {loss:.3f}")


class AsOnAGpu:
    """A step that does not look at what became of it, which at one of them is no number."""

    def __init__(self, step: Step, diverges_at: int) -> None:
        self.step, self.device, self.diverges_at = step, SimpleNamespace(type="cuda"), diverges_at
        self.n_steps = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.step, name)

    def __call__(self, *args: object) -> Update:
        self.n_steps += 1
        update = self.step(*args)
        return replace(update, grad_norm=torch.tensor(math.nan)) if self.n_steps == self.diverges_at else update


def test_a_gpu_is_looked_at_before_anything_is_saved():
    """What `Step` does not look at on a GPU, a report or a checkpoint does."""
    saved = []
    dataset = TextDataset(TEXT, 32)
    config = TrainConfig(learning_rate=0.02, ckpt_interval=4, max_iters=20)
    trainer = Trainer(small_model(dataset), WindowLoader(dataset, 8, None, seed=3), config, CPU, save=saved.append)
    trainer.step = AsOnAGpu(trainer.step, diverges_at=7)
    with pytest.raises(UserError, match=r"the length of the gradient became nan at step 7; try 0.002"):
        trainer.run()
    assert [state["clock"]["steps"] for state in saved] == [4]


def test_averaged_weights_are_what_is_evaluated_and_kept():
    """The average is computed here step by step, from the weights that checkpoints have."""
    dataset = TextDataset(TEXT, 32)
    states, kept = [], []
    config = TrainConfig(learning_rate=3e-3, max_iters=12, ckpt_interval=1, eval_interval=12, ema=0.4)
    loader = WindowLoader(dataset, 8, None, seed=3)
    model = small_model(dataset)
    average = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    def validate(model):
        kept.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
        return 1.0

    def save(state):
        states.append({name: tensor.clone() for name, tensor in state["step"]["model"].items()})

    Trainer(model, loader, config, CPU, validate, save=save).run()
    for n, state in enumerate(states[:12], 1):
        decay = min(0.4, (1 + n) / (10 + n))
        average = {name: decay * old + (1 - decay) * state[name] for name, old in average.items()}
    assert len(kept) == 1
    for name, weight in kept[0].items():
        torch.testing.assert_close(weight, average[name])
        assert torch.equal(model.state_dict()[name], states[-1][name]), "training goes on with the weights themselves"


def test_progress_is_a_bar_at_a_terminal_and_lines_elsewhere(tmp_path):
    (tmp_path / "input.txt").write_text(TEXT, encoding="utf-8")
    configure(tmp_path, n_embd=32, n_layer=1, block_size=16)
    flags = ["--batch_size", "4", "--minutes", "0.02"]
    plain = run_script("train_llm.py", *flags, cwd=tmp_path)
    assert plain.status == 0 and "\r" not in plain.stderr and "\x1b" not in plain.stdout
    status, shown = run_at_terminal([sys.executable, ROOT / "train_llm.py", *flags], tmp_path)
    assert status == 0
    assert b"% |" in shown and b"tokens/s" in shown and b" GB" in shown


def run_at_terminal(command: list, folder: Path) -> tuple[int, bytes]:
    """Status, and what was written to stderr, which is a terminal."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # a new one has no columns
    child = subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=follower
    )
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # raised when the terminal's other end is closed
        while piece := os.read(leader, 4096):
            shown += piece
    os.close(leader)
    return child.wait(), shown
