"""One update of the weights: in any precision, in any number of parts."""

from __future__ import annotations

import time

import pytest
import torch
from architectures import ATTENTIONS, EXPERTS, tiny

from custom_llm.config import TrainConfig
from custom_llm.training.evaluate import held_out_loss
from custom_llm.training.fastest import use_fastest, use_fastest_settings
from custom_llm.training.precision import autocast, precisions_of
from custom_llm.training.step import Step

CPU = torch.device("cpu")


def windows(n: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch for a model of tests/architectures.py."""
    ids = torch.randint(23, (n, 17), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]


def make_step(architecture: dict | None = None, **options: object) -> Step:
    return Step(tiny(**(architecture or {})).train(), TrainConfig(**{"learning_rate": 0.01, **options}), CPU)


@pytest.mark.parametrize("experts", EXPERTS)
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("rest", [dict(), dict(pos_emb="rope", norm="rms", tie_embeddings=True)], ids=str)
def test_every_architecture_trains_in_bfloat16(experts, attention, rest):
    architecture = {**ATTENTIONS[attention], **EXPERTS[experts], **rest}
    losses = {}
    for precision in ("float32", "bfloat16"):
        step = make_step(architecture, precision=precision)
        update = step([windows()], 0.01)
        assert all(parameter.dtype == torch.float32 for parameter in step.model.parameters())
        with autocast(CPU, precision):
            losses[precision] = [
                (update.loss / update.n_tokens).item(),
                held_out_loss(step.model, torch.arange(23), 16, 23),
            ]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    assert losses["bfloat16"] != losses["float32"]


@pytest.mark.parametrize("experts", EXPERTS)
def test_choosing_settings_leaves_everything_else_as_it_is(experts, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
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


def test_another_setting_is_taken_for_a_clear_gain_only():
    seconds, used = {"first": 0.02, "little": 0.019, "much": 0.01}, []
    for others, gain, expected in (
        (["little"], 0.1, "first"),
        (["little", "much"], 0.1, "much"),
        (["much"], 0, "much"),
    ):
        assert use_fastest(lambda: time.sleep(seconds[used[-1]]), ["first", *others], used.append, gain) == expected
        assert used[-1] == expected


def test_a_device_without_bfloat16_does_not_try_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": False})
    assert precisions_of(CPU, "auto") == ["float32"]
    assert precisions_of(CPU, "bfloat16") == ["bfloat16"]
