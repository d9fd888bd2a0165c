"""One update of the weights: in any precision, in any number of parts."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from architectures import ATTENTIONS, EXPERTS, tiny, windows
from conftest import ENVIRONMENT, STORY, configure, run_script
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_llm.common.errors import UserError
from custom_llm.config.training import TrainConfig
from custom_llm.model.gpt import NOT_TRAINED_ON
from custom_llm.training.autotune import FEWEST_TOKENS, SECONDS, SHARE, use_fastest, use_fastest_settings
from custom_llm.training.loop import held_out_loss
from custom_llm.training.optim.optimizers import OPTIMIZERS
from custom_llm.training.speed import autocast, multiplies_bfloat16, precisions_of
from custom_llm.training.step import Step

CPU = torch.device("cpu")


def make_step(architecture: dict | None = None, **options: object) -> Step:
    return Step(tiny(**(architecture or {})).train(), TrainConfig(**{"learning_rate": 0.001, **options}), CPU)


@pytest.mark.parametrize("experts", EXPERTS)
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("rest", [dict(), dict(pos_emb="rope", norm="rms", tie_embeddings=True)], ids=str)
def test_every_architecture_trains_in_bfloat16(experts, attention, rest):
    architecture = {**ATTENTIONS[attention], **EXPERTS[experts], **rest}
    losses = {}
    for precision in ("float32", "bfloat16"):
        step = make_step(architecture, precision=precision)
        update = step([windows()], 0.001)
        assert all(parameter.dtype == torch.float32 for parameter in step.model.parameters())
        with autocast(CPU, precision):
            losses[precision] = [
                (update.loss / update.n_targets).item(),
                held_out_loss(step.model, torch.arange(23)),
            ]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    assert losses["bfloat16"] != losses["float32"]


@pytest.mark.parametrize("experts", EXPERTS)
def test_choosing_settings_leaves_everything_else_as_it_is(experts, monkeypatch):
    monkeypatch.setattr("custom_llm.training.speed.multiplies_bfloat16", lambda device: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    step = make_step({**EXPERTS[experts], "dropout": 0.3})
    model = step.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    use_fastest_settings(step, windows())
    assert step.precision in precisions_of(CPU, "auto") == ["float32", "bfloat16"]
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(mixture.load.any() for mixture in model.mixtures) and model.balance_loss() == 0


def test_another_setting_is_taken_for_a_clear_gain_only(monkeypatch):
    seconds, used = {"first": 0.02, "little": 0.019, "much": 0.01}, []
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def work() -> None:
        now[0] += seconds[used[-1]]

    for others, gain, expected in (
        (["little"], 0.1, "first"),
        (["little", "much"], 0.1, "much"),
        (["much"], 0, "much"),
    ):
        assert use_fastest(work, ["first", *others], used.append, gain)[0] == expected
        assert used[-1] == expected


@given(
    st.floats(1e-6, 5.0), st.lists(st.floats(0.1, 10.0), min_size=6, max_size=6).map(sorted), st.booleans(),
    st.floats(0.1, 10.0), st.none() | st.floats(0.01, 99.0), st.sampled_from([8, 64, 1024]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_choosing_takes_seconds_however_long_a_batch_takes(per_window, factors, idle, of_bfloat16, minutes, block_size):
    """A window takes so long, times a factor of the threads (all of them are best where the machine is idle)."""
    now, threads, worst = [0.0], [32], [0.0]
    of_threads = dict(zip((32, 16, 8, 4, 2, 1), factors if idle else factors[::-1], strict=True))
    step = make_step(precision="auto", batch_size=128, minutes=minutes)

    def rehearse(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        times = of_threads[threads[0]] * (of_bfloat16 if step.precision == "bfloat16" else 1)
        now[0] += len(batch[0]) * per_window * times
        worst[0] = max(worst[0], per_window * times * -(-FEWEST_TOKENS // block_size))

    step.rehearse = rehearse
    ids = torch.zeros(128, block_size, dtype=torch.long)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("custom_llm.training.speed.multiplies_bfloat16", lambda device: True)
        patch.setattr(torch, "get_num_threads", lambda: threads[0])
        patch.setattr(torch, "set_num_threads", lambda n: threads.__setitem__(0, n))
        patch.setattr("time.perf_counter", lambda: now[0])
        use_fastest_settings(step, (ids, ids))
    allowed = min(SECONDS, SHARE * 60 * (minutes or math.inf))
    assert now[0] <= 2 * allowed + 2 * (6 + 2 + 1) * worst[0], "each setting has two turns with the smallest part"
    assert of_threads[threads[0]] == pytest.approx(min(of_threads.values()))
    assert step.precision == ("bfloat16" if of_bfloat16 <= 0.9 else "float32")


@pytest.mark.parametrize("experts", EXPERTS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_activations_give_the_same_gradients(experts, dropout):
    results = []
    for act_recomp in (False, True):
        step = make_step({**EXPERTS[experts], "dropout": dropout}, act_recomp=act_recomp)
        kept = saved_bytes(lambda step=step: step.model(*windows())[1])
        torch.manual_seed(1)
        _, loss = step.model(*windows())
        (loss + step.model.balance_loss()).backward()
        counts = [mixture.load.tolist() for mixture in step.model.mixtures]
        results.append(
            (kept, [p.grad for p in step.model.parameters()], counts, torch.as_tensor(step.model.balance_loss()).item())
        )
    (kept, gradients, *rest), (kept_again, gradients_again, *rest_again) = results
    assert all(map(torch.equal, gradients, gradients_again))
    assert rest == rest_again, "tokens of experts and balance loss, counted once"
    assert kept_again < kept / 3


def saved_bytes(forward: Callable[[], torch.Tensor]) -> int:
    """What autograd keeps for the backward pass."""
    n_bytes = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal n_bytes
        n_bytes += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return n_bytes


@pytest.mark.parametrize("act_recomp", [False, True])
@pytest.mark.parametrize("experts", EXPERTS)
def test_parts_of_a_step_give_the_same_gradients(experts, act_recomp):
    """Three batches, the last one smaller, in parts of two or three windows and one."""
    balance = {"softmax": {"coeff": 0.0}, "aux_free": {"alpha": 0.0}}  # of the parts, not of the step
    architecture = EXPERTS[experts] | balance.get(experts, {})
    batches = [windows(5), windows(5, seed=1), windows(3, seed=2)]
    results = []
    for rows in (None, 2, 3):
        step = make_step(architecture, act_recomp=act_recomp, optimizer="adamw")
        step.rows = rows
        update = step(batches, 0.0)
        counts = sum(int(count.sum()) for count in step.expert_use.state_dict())
        results.append((update.n_targets, counts, update.loss.item(), update.grad_norm.item()))
    assert results[0][0] == 13 * 16
    assert results[1] == pytest.approx(results[0], rel=1e-5) and results[2] == pytest.approx(results[0], rel=1e-5)


@pytest.mark.parametrize("rows", [None, 2])
def test_only_targets_that_are_trained_on_count(rows):
    """The mean is over all of them, however they are spread over batches and windows; some have none."""
    x, y = windows(9)
    y = y.clone()
    y[0, 3:], y[2:4], y[8, ::2] = NOT_TRAINED_ON, NOT_TRAINED_ON, NOT_TRAINED_ON
    step = make_step({"dropout": 0.0}, optimizer="adamw", ema=0)
    expected = copy.deepcopy(step.model)
    _, loss = expected(x, y)
    loss.backward()
    step.rows = rows
    update = step([(x[:2], y[:2]), (x[2:4], y[2:4]), (x[4:], y[4:])], 0.0)
    assert update.n_targets == 9 * 16 - 13 - 32 - 8
    assert (update.loss / update.n_targets).item() == pytest.approx(loss.item(), rel=1e-5)
    norm = torch.nn.utils.get_total_norm([p.grad for p in expected.parameters()]).item()
    assert update.grad_norm.item() == pytest.approx(norm, rel=1e-5)
    nothing = step([(x[2:4], y[2:4])], 0.0)
    assert (nothing.n_targets, nothing.loss.item(), nothing.grad_norm.item()) == (0, 0, 0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_parameters_that_require_no_gradient_stay_as_they_are(optimizer):
    step = make_step(optimizer=optimizer)
    for parameter in [*step.model.blocks[0].parameters(), step.model.head.weight]:
        parameter.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    step = Step(step.model, step.config, CPU)
    trained = {name for name, parameter in step.model.named_parameters() if parameter.requires_grad}
    for seed in range(2):
        step([windows(8, seed)], 0.01)
    changed = {name for name, tensor in step.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == trained
    assert sum(len(each.state_dict()["state"]) for each in step.optimizers) == len(trained)
    with step.averaged():
        for name, tensor in step.model.state_dict().items():
            assert name in trained or torch.equal(tensor, before[name])


def test_memory_that_does_not_suffice_for_one_window(capfd):
    step = make_step()
    step.model.blocks[0].register_forward_hook(lambda *_: torch.empty(1 << 50))
    with pytest.raises(UserError, match="not enough memory for one window of 16 tokens; give --act_recomp, or conf"):
        step([windows(8), windows(3)], 0.001)
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "note: out of memory with 8 windows at once; going on with 4, and the same step in 3 parts",
        "note: out of memory with 4 windows at once; going on with 2, and the same step in 6 parts",
        "note: out of memory with 2 windows at once; going on with 1, and the same step in 11 parts",
    ]
    assert all(parameter.grad is None for parameter in step.model.parameters())


OUT_OF_MEMORY = """
import resource, sys, torch
from custom_llm.config.training import TrainConfig
from custom_llm.model import GPTLanguageModel
from custom_llm.training.step import Step

torch.set_num_threads(1)
model = GPTLanguageModel(dict(vocab_size=30_000, n_embd=16, n_head=2, n_layer=1, block_size=64, dropout=0.0)).train()
step = Step(model, TrainConfig(), torch.device("cpu"))
ids = torch.randint(30_000, (32, 65))
step.rehearse((ids[:2, :-1], ids[:2, 1:]))  # what a first step allocates for good
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
logits = 4 * 64 * 30_000  # bytes, for a window; with gradients and logarithms, some of them at once
resource.setrlimit(resource.RLIMIT_AS, (used + 50 * logits, resource.RLIM_INFINITY))
for _ in range(2):
    update = step([(ids[:, :-1], ids[:, 1:])], 0.001)
print(update.n_targets, step.rows)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_out_of_memory_halves_what_is_read_at_once():
    command = [sys.executable, "-c", OUT_OF_MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert done.returncode == 0, done.stderr
    n_tokens, rows = map(int, done.stdout.split())
    assert n_tokens == 32 * 64 and rows in (4, 8, 16)
    lines = done.stderr.splitlines()
    assert lines[0] == "note: out of memory with 32 windows at once; going on with 16, and the same step in 2 parts"
    assert len(lines) == {16: 1, 8: 2, 4: 3}[rows], "once for each halving"


def test_a_device_without_bfloat16_does_not_try_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": False})
    multiplies_bfloat16.cache_clear()  # it knows the real one
    try:
        assert precisions_of(CPU, "auto") == ["float32"]
        assert precisions_of(CPU, "bfloat16") == ["bfloat16"]
    finally:
        multiplies_bfloat16.cache_clear()


@pytest.mark.slow
def test_a_compiled_model_trains_as_it_would_otherwise(monkeypatch):
    losses, made, compile_ = {}, [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: made.append(model) or compile_(model))
    for is_compiled in (False, True):
        torch.manual_seed(0)
        step = make_step({"pos_emb": "rope", "norm": "rms"}, compile=is_compiled, batch_size=8)
        batches = [windows(8, seed) for seed in range(6)] + [windows(3)]
        losses[is_compiled] = [step([batch], 0.001).loss.item() for batch in batches]
        assert bool(made) == is_compiled
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)


@pytest.mark.slow
def test_what_cannot_be_compiled_is_a_sentence(tmp_path):
    (tmp_path / "input.txt").write_text(STORY * 20, encoding="utf-8")
    configure(tmp_path, n_embd=16, n_head=2, n_layer=1, block_size=16)
    flags = "--dataset_path input.txt --batch_size 4 --learning_rate 0.001 --max_epochs 1 --compile".split()
    environment = {"CXX": str(tmp_path / "missing"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = run_script("train_llm.py", *flags, cwd=tmp_path, environment=environment)
    assert done.status == 2 and not (tmp_path / "trained_model.pth").exists()
    assert "error: --compile: the model cannot be compiled here (" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("act_recomp", [False, True])
def test_trainings_in_bfloat16_end_as_low_as_in_float32(act_recomp):
    losses = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        architecture = dict(pos_emb="rope", norm="rms", non_linearity="swiglu", tie_embeddings=True)
        step = make_step(architecture, precision=precision, act_recomp=act_recomp, optimizer="adamw")
        for _ in range(60):
            update = step([windows()], 0.003)
        losses[precision] = (update.loss / update.n_targets).item()
        assert all(type(parameter) is torch.nn.Parameter for parameter in step.model.parameters())
    assert losses["float32"] < 1.5
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02, abs=0.01)


def test_the_gradient_in_bfloat16_points_where_that_of_float32_does():
    gradients = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        step = make_step(dict(pos_emb="rope", norm="rms", n_kv_heads=1, attn="gqa"), precision=precision)
        step._backward([windows()])
        gradients[precision] = torch.cat([p.grad.flatten() for p in step.model.parameters()])
    assert torch.cosine_similarity(*gradients.values(), dim=0) > 0.999
