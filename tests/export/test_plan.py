"""What a model is said to cost, against what it really has, computes, keeps and weighs."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import llm_model
from custom_llm.common.errors import run
from custom_llm.config.layers import read_jsonl
from custom_llm.config.model import ModelConfig
from custom_llm.config.presets import PRESETS, complete
from custom_llm.config.training import TrainConfig
from custom_llm.export.pipeline import convert_to_gguf, export_to_hf
from custom_llm.export.plan import QUANT_TYPES, context_advice, figures, gguf_bytes, gguf_cache_bytes, plan_export
from custom_llm.model import GPTLanguageModel
from custom_llm.model.attention import Cache
from custom_llm.model.costs import BATCH_SIZE, FLOAT, HALF, costs_of
from custom_llm.model.files import SavedConfig, save_trained
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.training.optim.optimizers import make_optimizers

SIX = dict(vocab_size=90, n_embd=64, n_head=4, n_layer=3, block_size=48, dropout=0.0)


def example(name: str) -> dict:
    layers = read_jsonl((ROOT / "configs" / name).read_text(encoding="utf-8"))
    llama = dict(pos_emb="rope", norm="rms", bias=False)
    return dict(**{**SIX, "n_embd": 128, "n_layer": 6}, **llama, layer_configs=layers)


CONFIGS = {
    **{name: ModelConfig(**complete(SIX, name)) for name in PRESETS},
    "sines, tied, biased head": ModelConfig(**SIX, pos_emb="sin", tie_embeddings=True, head_bias=True),
    "grouped": ModelConfig(**complete({**SIX, "attn": "gqa", "n_kv_heads": 2}, "modern")),
    "one head of keys": ModelConfig(**SIX, attn="mqa"),
    "plain experts": ModelConfig(**SIX, moe=True, n_exp=4, n_act=2),
    "latent, not turned": ModelConfig(**SIX, attn="mla", q_latent_dim=0, kv_latent_dim=24),
    **{path.stem: ModelConfig(**example(path.name)) for path in sorted(ROOT.glob("configs/*.jsonl"))},
}
each = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def batch(config: ModelConfig, size: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(config.vocab_size, (size, config.block_size))


@each
def test_parameters(config):
    model = GPTLanguageModel(config)
    assert costs_of(config).n_parameters == sum(p.numel() for p in model.parameters())


@each
def test_active_parameters_are_those_a_token_passes_through(config):
    model = GPTLanguageModel(config).eval()
    model(torch.zeros(1, 1, dtype=torch.long))[0].square().sum().backward()
    active = 0
    for parameter in model.parameters():
        if parameter.dim() == 3:  # experts
            active += sum(expert.numel() for expert in parameter.grad if expert.any())
        else:
            active += parameter.numel()
    assert costs_of(config).n_active == active


@each
def test_flops(config):
    model = GPTLanguageModel(config).eval()
    x = batch(config, 2)
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    assert costs_of(config).flops * x.numel() == counter.get_total_flops()


@each
def test_cache(config):
    model = GPTLanguageModel(config).eval()
    cache = Cache(config.n_layer, config.block_size)
    with torch.no_grad():
        model(batch(config, 1), cache=cache)
    n_numbers = sum(tensor.numel() for layer in cache.layers for tensor in layer._tensors)
    assert costs_of(config).cache_bytes * config.block_size == HALF * n_numbers


@pytest.mark.parametrize("preset", PRESETS)
def test_llama_cpp_keeps_what_we_keep(preset):
    costs = costs_of(CONFIGS[preset])
    assert gguf_cache_bytes(plan_export(CONFIGS[preset]).shapes) == costs.cache_bytes


def test_padded_heads_are_kept_as_well():
    """Its narrow heads are as wide in the file as its widest."""
    costs, plan = costs_of(CONFIGS["narrow_to_wide"]), plan_export(CONFIGS["narrow_to_wide"])
    assert gguf_cache_bytes(plan.shapes) > costs.cache_bytes
    assert f"{gguf_cache_bytes(plan.shapes) / 1e3:.1f} kB for a token" in " ".join(figures(costs, plan))


@each
def test_optimizer(config):
    model = GPTLanguageModel(config)
    loss = model(*[batch(config, 2)] * 2)[1]
    (loss + model.balance_loss()).backward()
    kept = 0
    for optimizer in make_optimizers(model, TrainConfig(learning_rate=1e-3)):
        optimizer.step()
        kept += sum(x.nbytes for state in optimizer.state.values() for x in state.values() if x.dim())
    assert costs_of(config).optimizer_bytes == pytest.approx(kept, rel=0.01)


def kept_bytes(config: ModelConfig, size: int) -> int:
    """Bytes that a forward pass on `size` windows keeps for the backward pass."""
    model = GPTLanguageModel(config).train()
    own = {x.untyped_storage().data_ptr() for x in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    x = batch(config, size)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model(x, x)
    return sum(storage.nbytes() for place, storage in kept.items() if place not in own)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@each
def test_activations(config, dropout):
    config = ModelConfig(**{**config.to_dict(), "dropout": dropout})
    costs, size = costs_of(config), 4
    logits_and_gradients = 3 * FLOAT * size * config.block_size * config.vocab_size
    expected = kept_bytes(config, size) + logits_and_gradients
    assert costs.activation_bytes * size / BATCH_SIZE == pytest.approx(expected, rel=0.15)


EXPORTED = {
    **{name: complete({**SIX, "n_embd": 256}, name) for name in PRESETS},
    "rows of 96": {**SIX, "n_embd": 96},
    "many tokens": {**SIX, "n_embd": 256, "vocab_size": 5000},
    "many layers": complete({**SIX, "n_embd": 256, "n_head": 8, "n_layer": 9, "tie_embeddings": True}, "modern"),
    "8 routed experts": complete({**SIX, "n_embd": 256, "n_exp": 9}, "moe"),
}


@pytest.fixture(scope="module", params=EXPORTED.values(), ids=EXPORTED.keys())
def quantized(request, tmp_path_factory):
    """A model's configuration, and the sizes of its real files by type."""
    config = ModelConfig(**request.param)
    folder = tmp_path_factory.mktemp("quantized")
    tokenizer = CharTokenizer("".join(chr(0x100 + i) for i in range(config.vocab_size - 1)))
    torch.manual_seed(0)
    weights, about = folder / "trained_model.pth", folder / "model_config.pth"
    save_trained(weights, GPTLanguageModel(config).state_dict(), about, SavedConfig(config, tokenizer.to_dict()))
    directory = export_to_hf(str(weights), str(about), str(folder / "hf_model"))
    convert_to_gguf(directory, str(folder / "m.gguf"), ",".join(QUANT_TYPES), llama_cpp_path=None)
    return config, {name: (folder / f"m.gguf.{name}.gguf").stat().st_size for name in QUANT_TYPES}


@pytest.mark.parametrize("quant_type", QUANT_TYPES)
def test_sizes_of_files(quantized, quant_type):
    config, sizes = quantized
    assert gguf_bytes(plan_export(config).shapes, quant_type) == pytest.approx(sizes[quant_type], rel=0.02)


# --- what is printed --------------------------------------------------------------------------------------------------

ALL_SIX = "--vocab_size 90 --n_embd 64 --n_head 4 --n_layer 3 --block_size 48 --dropout 0"


@pytest.fixture
def step_1(tmp_path, monkeypatch, capsys):
    """Run step 1 in an empty folder: flags → (status, lines of stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    def call(flags: str) -> tuple[int, list[str], str]:
        status = run(llm_model.main, flags.split())
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err

    return call


@pytest.mark.parametrize("preset", PRESETS)
def test_the_plan_follows_the_number_of_parameters(step_1, preset):
    flags = f"{ALL_SIX} --vocab_size 400 --preset {preset}"
    status, lines, _ = step_1(flags)
    config = ModelConfig(**torch.load("model_config.pth", weights_only=True))
    costs = costs_of(config)
    assert status == 0
    assert lines[0] == f"Model initialized with {costs.n_parameters / 1e6:.2f}M parameters"
    assert lines[-1] == "next: python train_llm.py"
    lines = [line for line in lines[:-1] if not line.startswith("  context ")]
    assert [line.split("  ")[1] for line in lines[1:]] == ["size", "memory", "file", "vocabulary", "export"]
    assert not any(word in " ".join(lines[:-1]) for word in ("FLOP", "KV", "cache", "tensor", "float", "activation"))
    of_characters = costs_of(replace(config, vocab_size=100)).n_parameters
    assert lines[4].endswith(f"about 100, and the model {of_characters / 1e6:.2f}M")
    assert lines[-1] == f"  export      {plan_export(config).sentence}" and plan_export(config).exports
    assert all(len(line) <= 120 and line[13] == " " != line[14] for line in lines[1:-1])

    status, verbose, _ = step_1(f"{flags} --verbose")
    verbose = [line for line in verbose[:-1] if not line.startswith("  context ")]
    assert (status, verbose[0], verbose[-1]) == (0, lines[0], lines[-1])
    assert [line.split("  ")[1] for line in verbose[1:]] == [
        "parameters", "compute", "KV cache", "training", "GGUF", "export",
    ]  # fmt: skip
    assert all(len(line) <= 120 and line[13] == " " != line[14] for line in verbose[1:-1])


NOT_EXPORTED = "--non_linearity mish"


def test_a_model_that_does_not_export_is_told_so(step_1):
    status, lines, _ = step_1(f"{ALL_SIX} {NOT_EXPORTED}")
    assert status == 0
    assert lines[-2].startswith("  export      trains, but")
    assert not [line for line in lines if "GGUF " in line]


def test_require_export_refuses_it(step_1, tmp_path):
    status, lines, stderr = step_1(f"{ALL_SIX} {NOT_EXPORTED} --require_export")
    assert (status, lines) == (2, [])
    assert stderr.startswith("error: --require_export: it trains, but ") and "--non_linearity" in stderr
    assert not list(tmp_path.iterdir())
    assert step_1(f"{ALL_SIX} --require_export")[0] == 0


def test_a_model_larger_than_the_world_is_planned(step_1):
    sizes = "--vocab_size 10000000 --n_embd 65536 --n_head 512 --n_layer 512 --block_size 1048576 --dropout 0"
    status, lines, _ = step_1(sizes)
    assert status == 0 and lines[1].startswith("  size        223,145.3 times the smallest GPT-2")
    status, lines, _ = step_1(f"{sizes} --verbose")
    assert "27.77T" in lines[1] and "PB of tensors at batch_size 32" in lines[4]


def test_a_window_that_others_go_beyond_is_said_and_can_be_avoided():
    for config in (ModelConfig(block_size=128), ModelConfig(block_size=300), ModelConfig(block_size=1, pos_emb="sin")):
        said = context_advice(config)
        assert f"write worse past {config.block_size};" in said
        [rows] = re.findall(r"--block_size (\d+) or --pos_emb rope", said)
        assert plan_export(config).shapes["position_embd.weight"][0] == int(rows)
        assert not context_advice(ModelConfig(block_size=int(rows)))
        assert not context_advice(ModelConfig(block_size=config.block_size, pos_emb="rope"))
