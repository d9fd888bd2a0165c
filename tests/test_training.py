"""The training loop: it learns, it is repeatable, it says what happens."""

from __future__ import annotations

import contextlib
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
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from architectures import ATTENTIONS, EXPERTS, POSITIONS, tiny
from conftest import ENVIRONMENT, ROOT, STORY, run_script
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_llm.config import TrainConfig
from custom_llm.data.dataset import TextDataset, make_loader
from custom_llm.data.tokenizer import END_OF_TEXT, load_tokenizer
from custom_llm.errors import UserError, run
from custom_llm.model import GPTLanguageModel
from custom_llm.model.checkpoint import load_model
from custom_llm.training.clock import Clock
from custom_llm.training.display import words
from custom_llm.training.evaluate import held_out_loss
from custom_llm.training.loads import ExpertLoads
from custom_llm.training.muon import Muon, momentum_at, orthogonalize
from custom_llm.training.optimizer import make_optimizers
from custom_llm.training.schedule import learning_rate_at
from custom_llm.training.step import Update
from custom_llm.training.trainer import Trainer, train_model

TEXT = STORY * 20
CPU = torch.device("cpu")


def small_model(dataset: TextDataset, **architecture: object) -> GPTLanguageModel:
    torch.manual_seed(0)
    six = dict(n_embd=32, n_head=4, n_layer=2, block_size=dataset.block_size, dropout=0.1)
    return GPTLanguageModel(dict(vocab_size=dataset.vocab_size, **six, **architecture))


def train_once(architecture: dict[str, object] | None = None, **config: object) -> GPTLanguageModel:
    dataset = TextDataset(TEXT, 32)
    model = small_model(dataset, **(architecture or {}))
    return train_model(model, make_loader(dataset, 8, None, seed=3), dict(learning_rate=5e-4, **config), CPU)


def test_a_small_text_is_learnt_by_heart():
    dataset = TextDataset(TEXT, 32)
    model = train_once(max_epochs=40)
    assert held_out_loss(model, dataset.data, 32, dataset.vocab_size) < 0.5, "guessing costs 3.4"


def test_the_same_seed_gives_the_same_weights():
    torch.set_num_threads(1)
    first, second = train_once(max_epochs=2), train_once(max_epochs=2)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_epochs_end_after_max_epochs_and_the_clock_ends_on_time(capsys):
    train_once(max_epochs=4)
    assert capsys.readouterr().out.count("Epoch ") == 4
    start = time.monotonic()
    train_once(minutes=0.02)
    assert 1.2 <= time.monotonic() - start < 6
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 22, "about 20 lines however short the epochs are"


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
    assert held_out_loss(model, data, block_size, 5) == pytest.approx(total / (n_tokens - 1), abs=1e-5)
    assert model.training


def test_the_learning_rate_rises_and_falls():
    rates = [learning_rate_at(i / 1000, 0.01) for i in range(1001)]
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == pytest.approx(0.01) and rates[-1] == pytest.approx(0.001) and rates[0] > 0


@given(st.integers(1, 4), st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_orthogonalized_matrices_have_singular_values_near_1(n, rows, columns, seed):
    matrices = torch.randn(n, rows, columns, generator=torch.Generator().manual_seed(seed))
    values = torch.linalg.svdvals(orthogonalize(matrices))
    small = torch.linalg.svdvals(matrices) < 0.05 * matrices.norm(dim=(1, 2))[:, None]
    assert values.max() < 1.3
    assert values[~small].min() > 0.5  # what is next to nothing takes more steps
    alone = torch.cat([orthogonalize(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(orthogonalize(matrices), alone, atol=1e-2, rtol=0)  # steps of bfloat16


@pytest.mark.parametrize("shape", [(16, 16), (64, 16), (16, 64)])
def test_muon_is_pytorchs_own_in_a_batch(shape):
    """torch.optim.Muon does one matrix at a time, in bfloat16."""
    torch.manual_seed(0)
    ours = [torch.randn(shape, requires_grad=True) for _ in range(3)]
    theirs = [matrix.detach().clone().requires_grad_() for matrix in ours]
    wider = max(1, shape[1] / shape[0]) ** 0.5  # its rate grows with the rows over the columns only
    optimizers = [
        Muon(ours, lr=0.1, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.1 * wider, weight_decay=0.1 / wider, momentum=0.95, adjust_lr_fn="original"),
    ]
    for step in range(4):
        optimizers[1].param_groups[0]["momentum"] = momentum_at(100 * step, 0.95)
        optimizers[0].param_groups[0]["steps"] = 100 * step
        gradients = [torch.randn(shape) for _ in ours]
        for matrices, optimizer in zip((ours, theirs), optimizers, strict=True):
            for matrix, gradient in zip(matrices, gradients, strict=True):
                matrix.grad = gradient.clone()
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-2, rtol=0)


def test_muon_takes_each_expert_as_a_matrix_of_its_own():
    """A stack of three matrices, one of two, and one matrix of the same shape are six matrices."""
    torch.manual_seed(0)

    def in_stacks(six: torch.Tensor) -> list[torch.Tensor]:
        return [six[:3].clone(), six[3:5].clone(), six[5].clone()]

    def one_by_one(six: torch.Tensor) -> list[torch.Tensor]:
        return [matrix.clone() for matrix in six]

    start, gradients = torch.randn(6, 8, 24), torch.randn(4, 6, 8, 24)
    results = []
    for arrange in (in_stacks, one_by_one):
        parameters = [parameter.requires_grad_() for parameter in arrange(start)]
        optimizer = Muon(parameters, lr=0.1)
        for gradient in gradients:
            for parameter, its in zip(parameters, arrange(gradient), strict=True):
                parameter.grad = its
            optimizer.step()
        results.append(torch.cat([parameter.view(-1, 8, 24) for parameter in parameters]))
    assert not torch.isclose(results[0], start).all(-1).any()
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("experts", EXPERTS)
@pytest.mark.parametrize("pos_emb", POSITIONS)
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_parameter_has_one_optimizer(attention, pos_emb, experts):
    for tied in (False, True):
        model = tiny(pos_emb, tie_embeddings=tied, **ATTENTIONS[attention], **EXPERTS[experts])
        muon, adamw = make_optimizers(model, TrainConfig(learning_rate=1e-3))
        names = {parameter: name for name, parameter in model.named_parameters()}
        of_muon, of_adamw = ([names[p] for group in o.param_groups for p in group["params"]] for o in (muon, adamw))
        assert sorted(of_muon + of_adamw) == sorted(names.values())
        for name in names.values():
            matrix_inside = re.search(r"attn\.\w+\.weight|ffn\.(\d|shared\.\w+|gate|up|down)(\.weight)?$", name)
            assert (name in of_muon) == bool(matrix_inside and "norm" not in name), name


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


def test_reports_count_the_tokens_since_the_one_before():
    model = tiny(**EXPERTS["softmax"])
    loads = ExpertLoads(model)
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
    """What is learnt by heart from this text does not help with its end, which is the same backwards."""
    text = "the cat sat on the mat. " * 60 + "tam eht no tas tac eht. " * 8
    (tmp_path / "input.txt").write_text(text, encoding="utf-8")
    flags = ["--n_embd", "32", "--n_layer", "1", "--block_size", "16"]
    assert run_script("llm_model.py", *flags, cwd=tmp_path).status == 0
    flags = "--batch_size 4 --learning_rate 0.0003 --max_epochs 30 --ema 0".split()
    result = run_script("train_llm.py", *flags, "--patience", "0", cwd=tmp_path)
    assert result.status == 0, result.stderr
    losses = [float(loss) for loss in re.findall(r"Held-out: (\S+) ", result.stdout)]
    assert len(losses) == 30 and losses[-1] > min(losses)
    best = losses.index(min(losses))
    steps = re.search(rf"at its lowest held-out loss, {min(losses):.4f} at step (\d+) in epoch {best + 1}; after it, "
                      rf"learning by heart: {losses[-1]:.4f} at the end\n.*--dropout 0.2", result.stderr)  # fmt: skip
    assert steps and int(steps[1]) % (best + 1) == 0
    model, saved = load_model(tmp_path / "trained_model.pth", tmp_path / "model_config.pth")
    held_out = TextDataset(END_OF_TEXT + text, 16, load_tokenizer(saved.tokenizer)).split_off(0.1)
    assert held_out_loss(model, held_out, 16, model.config.vocab_size) == pytest.approx(min(losses), abs=1e-3)

    stopped = run_script("train_llm.py", *flags, "--patience", "2", cwd=tmp_path)
    end = next(i for i in range(2, 30) if min(losses[i - 1 : i + 1]) >= min(losses[: i - 1]))
    assert [float(loss) for loss in re.findall(r"Held-out: (\S+) ", stopped.stdout)] == losses[: end + 1]
    assert "Generated text:" in stopped.stdout
    assert "--patience 2 ended it" in stopped.stderr and "ended it" not in result.stderr


def test_out_of_memory_is_a_sentence(capsys):
    def fill(argv: object) -> None:
        torch.empty(1 << 50)

    assert run(fill) == 2
    assert capsys.readouterr().err.startswith("error: not enough memory; choose a smaller model (--n_embd")
    with pytest.raises(RuntimeError, match="a bug"):
        run(lambda argv: (_ for _ in ()).throw(RuntimeError("a bug")))


def test_a_loss_that_is_no_number_stops_the_training():
    dataset = TextDataset(TEXT, 32)
    model = small_model(dataset)
    with torch.no_grad():
        model.head.weight.fill_(math.inf)
    config = dict(learning_rate=0.02, max_epochs=1)
    with pytest.raises(UserError, match=r"--learning_rate 0.02: the loss became nan at step 1; try 0.002"):
        train_model(model, make_loader(dataset, 8, None, seed=3), config, CPU)


def test_a_training_that_diverged_goes_on_by_the_command_it_names(tmp_path):
    (tmp_path / "input.txt").write_text(TEXT, encoding="utf-8")
    assert run_script("llm_model.py", *"--n_embd 32 --n_layer 1 --block_size 16".split(), cwd=tmp_path).status == 0
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
    assert run_script("llm_model.py", *"--n_embd 16 --n_layer 1 --block_size 16".split(), cwd=tmp_path).status == 0
    result = run_script("train_llm.py", *"--batch_size 8 --learning_rate 0.001 --max_epochs 3".split(), cwd=tmp_path)
    assert result.status == 0, result.stderr
    held_out, bits = map(float, re.findall(r"Held-out: (\S+) \((\S+) bits per byte\)", result.stdout)[-1])
    assert bits == pytest.approx(held_out / math.log(2) / 2, abs=1e-3) == pytest.approx(1, abs=0.1)


@given(st.floats(0.0, 99.0), st.none() | st.floats(0.0, 99.0), st.integers(0, 200 * 10**9), st.integers(1, 10**9))
def test_the_words_of_progress_are_short(loss, held_out, memory, n_tokens):
    clock = Clock(TrainConfig(max_iters=10), 10)
    clock.add(n_tokens, 1)
    clock.load_state_dict({**clock.state_dict(), "seconds": 100.0})
    line = words(loss, held_out, clock, memory, operations=1e6, peak=1e15)
    assert f"{memory / 1e9:.1f} GB" in line and "tokens/s" in line and "MFU" in line
    assert len(f"100% {line}, 100,000 s left") <= 100
    clock = Clock(TrainConfig(max_iters=10), 10, now=lambda: 0.0)  # has not moved since the beginning
    assert words(loss, held_out, clock, memory, operations=1e6, peak=None).startswith(f"loss {loss:.3f}")


def test_a_gpu_is_looked_at_before_anything_is_saved():
    """What `Step` does not look at on a GPU, a report or a checkpoint does."""
    saved = []
    dataset = TextDataset(TEXT, 32)
    trainer = Trainer(small_model(dataset), make_loader(dataset, 8, None, seed=3), TrainConfig(learning_rate=0.02), CPU,
                      save=saved.append)  # fmt: skip
    trainer._updates.append((7, 0.02, Update(torch.tensor(1.0), 1, torch.tensor(math.nan))))
    with pytest.raises(UserError, match=r"the length of the gradient became nan at step 7; try 0.002"):
        trainer.run()
    assert not saved


def test_averaged_weights_are_what_is_evaluated_and_kept():
    """The average is computed here step by step, from the weights that checkpoints have."""
    dataset = TextDataset(TEXT, 32)
    states, kept = [], []
    config = TrainConfig(learning_rate=3e-3, max_iters=12, ckpt_interval=1, eval_interval=12, ema=0.4)
    loader = make_loader(dataset, 8, None, seed=3)
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
    assert run_script("llm_model.py", "--n_embd", "32", "--block_size", "16", cwd=tmp_path).status == 0
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
