"""AdamW and Muon are torch's own, without its compiler."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from architectures import ATTENTIONS, EXPERTS, POSITIONS, tiny
from conftest import STORY, configure, run_script
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_llm.config.training import TrainConfig
from custom_llm.training.optim.adamw import AdamW
from custom_llm.training.optim.muon import Muon, momentum_at, orthogonalize
from custom_llm.training.optim.optimizers import make_optimizers


@pytest.mark.parametrize("settings", [dict(), dict(betas=(0.9, 0.95), eps=1e-6, weight_decay=0.0)], ids=str)
def test_adamw_is_pytorchs_own_to_the_bit(settings):
    torch.manual_seed(0)
    shapes = [(5, 7), (3, 4, 2), (33,), (1,)]
    ours = [torch.randn(shape, requires_grad=True) for shape in shapes]
    theirs = [parameter.detach().clone().requires_grad_() for parameter in ours]
    groups = [
        [dict(params=parameters[:2], weight_decay=0.3), dict(params=parameters[2:])] for parameters in (ours, theirs)
    ]
    mine = AdamW(groups[0], lr=0.01, **settings)
    optimizers = [mine, torch.optim.AdamW(groups[1], lr=0.01, fused=True, **settings)]
    for step in range(8):
        if step == 5:  # as after --resume
            state = copy.deepcopy(mine.state_dict())
            optimizers[0] = mine = AdamW(groups[0], lr=0.01, **settings)
            mine.load_state_dict(state)
        gradients = [torch.randn(shape) for shape in shapes]
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            for group in optimizer.param_groups:
                group["lr"] = 0.01 / (1 + step)
            optimizer.step()
            optimizer.zero_grad()
            assert all(parameter.grad is None for parameter in parameters)
        assert all(map(torch.equal, ours, theirs)), step


def test_a_training_does_not_import_torchs_compiler(tmp_path):
    """It takes longer than a short training."""
    (tmp_path / "input.txt").write_text(STORY * 10, encoding="utf-8")
    configure(tmp_path, n_embd=16, n_layer=1, block_size=16)
    flags = "--batch_size 8 --learning_rate 0.001 --max_iters 2 --dataset_path input.txt".split()
    result = run_script("train_llm.py", *flags, cwd=tmp_path, environment={"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.status == 0, result.stderr
    imported = {line.split("|")[2].strip() for line in result.stderr.splitlines() if line.count("|") == 2}
    assert "torch.nn" in imported and not imported & {"torch._dynamo", "torch._inductor", "sympy"}


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
        Muon([dict(params=ours)], lr=0.1, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.1 * wider, weight_decay=0.1 / wider, momentum=0.95, adjust_lr_fn="original"),
    ]
    for step in range(4):
        optimizers[1].param_groups[0]["momentum"] = momentum_at(100 * step, 0.95)
        optimizers[0].steps = 100 * step
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
        optimizer = Muon([dict(params=parameters)], lr=0.1)
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
