"""Every combination of options trains, and exports as docs/architectures.md says, proven in llama.cpp and elsewhere."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from gguf import GGUFReader

from benchmarks.architectures import (
    ATTN,
    POS_EMB,
    SMALL,
    TOKENIZER,
    combinations,
    export,
    plan,
    random_model,
    table,
    train_a_step,
)
from custom_llm.config.layers import read_jsonl
from custom_llm.config.model import ModelConfig
from custom_llm.config.sampling import Sampling
from custom_llm.export.gguf.architectures import ARCHITECTURES
from custom_llm.export.graph.graph import Graph
from custom_llm.export.huggingface.classes import HF_CLASSES
from custom_llm.export.huggingface.directory import write_hf_directory
from custom_llm.export.pipeline import convert_to_gguf
from custom_llm.export.plan import plan_export
from custom_llm.export.proof import Reference
from custom_llm.inference.engine import Engine
from custom_llm.llamacpp import Model
from custom_llm.training.loop import train_model

ROPE = dict(pos_emb="rope", norm="rms", bias=False)
MODERN = dict(ROPE, non_linearity="swiglu")
GEMMA = dict(ROPE, non_linearity="geglu", norm_place="both", scale_embeddings=True, sliding_window=16)
EXPERTS = dict(moe=True, n_exp=6, n_act=2, up_dim=32)
LATENT = dict(attn="mla", q_latent_dim=40, kv_latent_dim=32, rope_head_dim=8)


# --- the table ------------------------------------------------------------------------------------------------------

FILE = (ROOT / "docs/architectures.md").read_text(encoding="utf-8")


def without_figures(line: str) -> str:
    """A line of the table without its KL values, which differ a little between machines."""
    return re.sub(r" · \d+e-\d+", "", line)


@pytest.fixture(scope="module")
def outcomes() -> dict:
    """What became of the combinations tested so far."""
    return {}


@pytest.mark.parametrize("attn", ATTN)
@pytest.mark.parametrize("pos_emb", POS_EMB)
def test_every_combination_trains_and_is_exported_as_promised(tmp_path, outcomes, pos_emb, attn):
    for key, values in combinations():
        if (key[0], key[-1]) != (pos_emb, attn):
            continue
        before, after = train_a_step(values)
        assert after < before, key
        outcome = outcomes[key] = export(random_model(values), tmp_path)
        assert (outcome.architecture, outcome.hf_class) == plan(values), key
        if outcome.architecture:
            assert outcome.parity.kl_clear <= 1e-6, key
            assert outcome.parity.top1_clear == 1.0, key
        if outcome.hf_class:
            assert outcome.hf_difference <= 1e-4, key


def test_the_document_shows_these_results(outcomes):
    lines = [without_figures(line) for line in table(outcomes)]
    assert "\n".join(lines).strip() in "\n".join(map(without_figures, FILE.splitlines()))
    exported = sum(outcome.architecture is not None for outcome in outcomes.values())
    assert f"{exported} of them ({exported / len(outcomes):.0%}) export to GGUF" in FILE
    assert all(float(kl) <= 1e-6 for kl in re.findall(r" · (\d+e-\d+)", FILE))


def test_the_document_names_every_architecture_and_class():
    for name in {item.name for item in (*ARCHITECTURES, *HF_CLASSES)}:
        assert f"`{name}`" in FILE


# --- beyond the table -----------------------------------------------------------------------------------------------


def layers(*blocks: dict) -> dict:
    return dict(ROPE, layer_configs=json.dumps(blocks), n_layer=len(blocks))


DENSE = dict(attn="mha", n_head=4, moe=False, up_dim=96, non_linearity="swiglu")
MIXTURE = dict(
    attn="gqa", n_head=4, n_kv_heads=2, moe=True, n_exp=6, n_shared=1, n_act=3, aux_free=True, alpha=1e-4, gamma=1e-3,
    up_dim=64, non_linearity="swiglu",
)  # fmt: skip
SOFTMAX = {**{k: v for k, v in MIXTURE.items() if k not in ("alpha", "gamma")}, "aux_free": False, "coeff": 0.01}
MLA = dict(DENSE, attn="mla", q_latent_dim=0, kv_latent_dim=32, rope_head_dim=8)

# what it shows → (options, architecture of llama.cpp, class of Hugging Face)
OTHERS = {
    "QK-norm": (dict(MODERN, qk_norm=True), "qwen3", "Qwen3ForCausalLM"),
    "QK-norm and LayerNorm": (dict(MODERN, qk_norm=True, norm="layer"), "qwen3", "Qwen3ForCausalLM"),
    "QK-norm and experts": (dict(MODERN, **EXPERTS, qk_norm=True), "qwen3moe", "Qwen3MoeForCausalLM"),
    "experts, none shared": (dict(MODERN, **EXPERTS), "llama", "MixtralForCausalLM"),
    "experts of SiLU, none shared": (dict(MODERN, **EXPERTS | dict(non_linearity="silu")), "llama", None),
    "one expert chosen": (dict(MODERN, **EXPERTS | dict(n_act=1)), "glm4moe", None),
    "one expert chosen, sigmoid": (
        dict(MODERN, **EXPERTS | dict(n_act=1), aux_free=True), "glm4moe", "Glm4MoeForCausalLM",
    ),
    "two shared experts": (
        dict(MODERN, **EXPERTS | dict(n_shared=2, n_act=4), aux_free=True), "glm4moe", "Glm4MoeForCausalLM",
    ),
    "tied embeddings": (dict(MODERN, tie_embeddings=True), "llama", "LlamaForCausalLM"),
    "tied embeddings and LayerNorm": (dict(MODERN, norm="layer", tie_embeddings=True), "llama", "LlamaForCausalLM"),
    "tied embeddings, GPT-2": (dict(tie_embeddings=True), "gpt2", "GPT2LMHeadModel"),
    "a gate of GELU": (dict(MODERN, non_linearity="geglu"), "spark2_5", "LlamaForCausalLM"),
    "a gate of GELU and biases in attention only": (
        dict(MODERN, non_linearity="geglu", attn="gqa", n_kv_heads=2, norm="layer"), "spark2_5", "LlamaForCausalLM",
    ),
    "a gate of ReLU": (dict(MODERN, non_linearity="reglu"), "llama", "LlamaForCausalLM"),
    "leaky ReLU": (dict(MODERN, non_linearity="leaky_relu"), "llama", "ArceeForCausalLM"),
    "leaky ReLU, GPT-2": (dict(non_linearity="leaky_relu"), "gpt2", "GPT2LMHeadModel"),
    "a bias on the output layer, GPT-2": (dict(head_bias=True), "gpt2", "GPT2LMHeadModel"),
    "a bias on the output layer, more tokens than width": (
        dict(head_bias=True, n_embd=32, norm="rms"), "gpt2", "GPT2LMHeadModel",
    ),
    "a bias on the output layer, RoPE": (dict(MODERN, head_bias=True), "phimoe", None),
    "biases and the narrowest heads": (dict(pos_emb="rope", non_linearity="swiglu", n_head=32), "phimoe", None),
    "a width of the feed-forward layer": (dict(up_dim=96), "gpt2", "GPT2LMHeadModel"),
    "queries not compressed": (dict(MODERN, **LATENT | dict(q_latent_dim=0)), "deepseek2", "DeepseekV3ForCausalLM"),
    "latent attention and experts of softmax": (dict(MODERN, **LATENT, **EXPERTS), "deepseek2", None),
    "activations that differ": (
        layers(DENSE, *(DENSE | dict(non_linearity=name) for name in ("relu2", "silu", "relu", "leaky_relu"))),
        "deci", None,
    ),
    "heads of three widths": (layers(*(DENSE | dict(n_head=n) for n in (8, 2, 4))), "deci", None),
    "heads of three widths, QK-norm": (
        layers(*(DENSE | dict(n_head=n) for n in (8, 2, 4))) | dict(qk_norm=True), "step35", None,
    ),
    "experts of other numbers and widths": (
        layers(MIXTURE, MIXTURE | dict(n_exp=4), MIXTURE | dict(n_exp=9, up_dim=32)), "step35", None,
    ),
    "experts of other numbers, one chosen by sigmoid": (
        layers(MIXTURE | dict(n_act=2), MIXTURE | dict(n_act=2, n_exp=4)), "step35", None,
    ),
    "dense layers among experts": (layers(MIXTURE, DENSE, MIXTURE), "step35", None),
    "dense layers before experts": (
        layers(DENSE | dict(attn="gqa", n_kv_heads=2), MIXTURE, MIXTURE), "glm4moe", "Glm4MoeForCausalLM",
    ),
    "dense layers of another gate before experts": (
        layers(DENSE | dict(attn="gqa", n_kv_heads=2, non_linearity="reglu"), MIXTURE), "glm4moe", None,
    ),
    "dense layers of another activation before experts": (
        layers(DENSE | dict(attn="gqa", n_kv_heads=2, non_linearity="silu"), MIXTURE), "step35", None,
    ),
    "widths of GELU and ReLU": (
        layers(DENSE | dict(non_linearity="gelu"), DENSE | dict(non_linearity="relu", up_dim=64)), "starcoder2", None,
    ),
    "26 layers, as DeepSeek-V2-Lite has": (dict(MODERN, **LATENT, n_layer=26), "deepseek2", "DeepseekV3ForCausalLM"),
    "27 layers, queries not compressed": (
        dict(MODERN, **LATENT | dict(q_latent_dim=0), n_layer=27), "deepseek2", "DeepseekV3ForCausalLM",
    ),
    "experts of an odd width": (dict(MODERN, **EXPERTS | dict(up_dim=33)), "llama", "MixtralForCausalLM"),
    "experts in an odd width": (
        dict(MODERN, **EXPERTS, n_embd=30, n_head=3, aux_free=True), "glm4moe", "Glm4MoeForCausalLM",
    ),
    "gates of ReLU in experts": (dict(MODERN, **EXPERTS | dict(non_linearity="reglu")), "llama", "MixtralForCausalLM"),
    "gates of ReLU in a deep model": (
        dict(MODERN, **LATENT | dict(non_linearity="reglu"), n_layer=32), "deepseek2", "DeepseekV3ForCausalLM",
    ),
    "latent attention of other widths": (layers(MLA, MLA | dict(up_dim=32)), "deepseek2", None),
}  # fmt: skip
for _file in sorted((ROOT / "configs").glob("*.jsonl")):
    _text = read_jsonl(_file.read_text(encoding="utf-8"))
    _expected = {
        "narrow_to_wide": ("deci", None),
        "dense_and_experts": ("step35", None),
        "latent_attention": ("deepseek2", "DeepseekV3ForCausalLM"),
    }[_file.stem]
    _options = dict(ROPE, n_embd=128, layer_configs=_text, n_layer=len(json.loads(_text)))
    OTHERS[f"configs/{_file.name}"] = (_options, *_expected)


@pytest.mark.parametrize(("options", "architecture", "hf_class"), OTHERS.values(), ids=OTHERS)
def test_other_models_are_proven_too(tmp_path, options, architecture, hf_class):
    outcome = export(random_model({**SMALL, **options}), tmp_path)
    assert (outcome.architecture, outcome.hf_class) == (architecture, hf_class)
    assert outcome.parity.kl_clear <= 1e-6 and outcome.parity.top1_clear == 1.0
    assert hf_class is None or outcome.hf_difference <= 1e-4
    assert (architecture, hf_class) == plan({**SMALL, **options})


# architecture → the options of a model that is carried by it
ONE_EACH = {
    "gpt2": {},
    "starcoder2": dict(pos_emb="rope"),
    "gptneox": dict(pos_emb="rope", parallel_residual=True, rotary_dim=4, non_linearity="gelu_erf"),
    "qwen2": dict(MODERN, qkv_bias=True),
    "olmo2": dict(MODERN, qk_norm=True, qk_norm_over="all", norm_place="after"),
    "gemma3": dict(GEMMA, qk_norm=True, full_every=2, rope_base_local=1000.0),
    "gemma2": dict(GEMMA, attn_softcap=20.0, logit_softcap=10.0, tie_embeddings=True),
    "phi3": dict(MODERN, rotary_dim=4),
    "arcee": dict(MODERN, non_linearity="relu2"),
    "llama": MODERN,
    "jais2": dict(pos_emb="rope", non_linearity="relu2"),
    "qwen3": dict(MODERN, qk_norm=True),
    "qwen3moe": dict(MODERN, **EXPERTS, qk_norm=True),
    "granitemoe": dict(MODERN, **EXPERTS | dict(n_shared=1, n_act=3)),
    "glm4moe": dict(MODERN, **EXPERTS, aux_free=True),
    "deepseek2": dict(MODERN, **LATENT),
    "spark2_5": dict(MODERN, non_linearity="geglu"),
    "deci": layers(DENSE, DENSE | dict(n_head=2, up_dim=64)),
    "step35": layers(MIXTURE, DENSE),
    "phimoe": dict(pos_emb="rope", non_linearity="swiglu"),
}


@pytest.mark.parametrize("architecture", dict.fromkeys(item.name for item in ARCHITECTURES))
def test_quantized_files_of_every_architecture_stay_near(tmp_path, architecture):
    model = random_model({**SMALL, **ONE_EACH[architecture]})
    write_hf_directory(model, TOKENIZER, tmp_path / "hf")
    reference = Reference(model, TOKENIZER, TOKENIZER.chars * 10)
    found = {}
    convert_to_gguf(
        str(tmp_path / "hf"), str(tmp_path / "model.gguf"), "Q8_0,F16", None,
        lambda path, quant_type, _: found.update({quant_type: reference.compare(path)}),
    )  # fmt: skip
    with Model(tmp_path / "model.gguf") as runtime:
        assert runtime.metadata("general.architecture") == architecture
        assert runtime.block_size == 64
    assert found["F32"].bounded("F32") <= 1e-6
    assert found["F16"].bounded("F16") <= 1e-5
    # Random weights are harder on it than trained ones, and experts are chosen the other way here and there.
    assert found["Q8_0"].kl <= (5e-2 if found["Q8_0"].has_experts else 5e-3)


# --- the other way of converting -------------------------------------------------------------------------------------


CONVERTED = {
    "gpt2 of RMSNorm": dict(norm="rms", non_linearity="relu", pos_emb="sin"),
    "llama": dict(MODERN, attn="gqa", n_kv_heads=2, bias=True, tie_embeddings=True),
    "deepseek2": dict(MODERN, **LATENT, **EXPERTS, aux_free=True),
    "deepseek2 of 26 layers": dict(MODERN, **LATENT, n_layer=26),
}
CONVERTED_SLOWLY = {
    "starcoder2": dict(pos_emb="rope"),
    "starcoder2 of RMSNorm": dict(pos_emb="rope", norm="rms", attn="gqa", n_kv_heads=2),
    "llama of SiLU": dict(MODERN, non_linearity="silu"),
    "arcee": ONE_EACH["arcee"],
    "jais2": ONE_EACH["jais2"],
    "qwen3": ONE_EACH["qwen3"],
    "qwen3 with biases": dict(MODERN, qk_norm=True, attn="mqa"),
    "mixtral": dict(MODERN, **EXPERTS),
    "mixtral of LayerNorm": dict(MODERN, **EXPERTS, norm="layer"),
    "qwen3moe": ONE_EACH["qwen3moe"],
    "granitemoe": ONE_EACH["granitemoe"],
    "granitemoe with biases": dict(MODERN, **EXPERTS | dict(n_shared=1, n_act=3), bias=True, attn="mqa"),
    "glm4moe": ONE_EACH["glm4moe"],
    "glm4moe with biases, one chosen": dict(MODERN, **EXPERTS | dict(n_act=1), aux_free=True, bias=True),
    "deepseek2, queries not compressed": dict(MODERN, **LATENT | dict(q_latent_dim=0)),
}


def same_both_ways(tmp_path: Path, options: dict) -> None:
    checkout = Path(os.environ.get("LLAMA_CPP", ROOT / "llama.cpp"))
    if not (checkout / "convert_hf_to_gguf.py").is_file():
        pytest.skip("no llama.cpp checkout here; `make test` brings one")
    write_hf_directory(random_model({**SMALL, **options}), TOKENIZER, tmp_path / "hf")
    readers = []
    for way, path in (("inside", None), ("outside", str(checkout))):
        (tmp_path / way).mkdir()
        convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / way / "model.gguf"), "Q8_0", path)
        readers.append(GGUFReader(tmp_path / way / "model.gguf"))
    inside, outside = ({t.name: (t.shape.tolist(), np.asarray(t.data).tobytes()) for t in r.tensors} for r in readers)
    assert inside == outside
    for key in set(readers[0].fields) & set(readers[1].fields):
        if not key.startswith(("GGUF", "general", "custom_llm.seal")):  # which is of all bytes of the file
            assert readers[0].get_field(key).contents() == readers[1].get_field(key).contents(), key


@pytest.mark.parametrize("options", CONVERTED.values(), ids=CONVERTED)
def test_llama_cpps_converter_writes_the_same_tensors(tmp_path, options):
    same_both_ways(tmp_path, options)


@pytest.mark.slow
@pytest.mark.parametrize("options", CONVERTED_SLOWLY.values(), ids=CONVERTED_SLOWLY)
def test_llama_cpps_converter_writes_the_same_tensors_of_other_classes(tmp_path, options):
    same_both_ways(tmp_path, options)


# --- what is said ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "exports to GGUF as `gpt2` (Hugging Face: GPT2LMHeadModel)"),
        (dict(MODERN, qk_norm=True), "exports to GGUF as `qwen3` (Hugging Face: Qwen3ForCausalLM)"),
        (
            dict(norm="rms", non_linearity="swiglu"),
            "trains, but llama.cpp has no graph for a table of positions, RMSNorm, biases and mha with swiglu; "
            "nearest that exports: --pos_emb rope",
        ),
        (
            dict(MODERN, non_linearity="mish"),
            "trains, but llama.cpp has no graph for RoPE, RMSNorm, no biases and mha with mish; "
            "nearest that exports: --non_linearity swiglu",
        ),
        (
            dict(MODERN, **LATENT, bias=True),
            "trains, but llama.cpp has no graph for RoPE, RMSNorm, biases and mla with swiglu; "
            "nearest that exports: --no_bias",
        ),
        (
            dict(attn="mla", q_latent_dim=40, kv_latent_dim=32, non_linearity="swiglu"),
            "trains, but llama.cpp has no graph for a table of positions, LayerNorm, biases and mla with swiglu; "
            "nearest that exports: --no_bias --pos_emb rope --rope_head_dim 8",
        ),
        (
            layers(DENSE, DENSE | dict(non_linearity="tanh")),
            "trains, but llama.cpp has no graph for RoPE, RMSNorm, no biases and mha with swiglu beside mha with tanh; "
            'nearest that exports: "non_linearity": "swiglu" in every layer',
        ),
        (  # an expert that is added takes a share of the softmax, and nothing divides by the sum of the one chosen
            layers(SOFTMAX | dict(n_act=2), SOFTMAX | dict(n_act=2, n_exp=4)),
            "trains, but llama.cpp has no graph for RoPE, RMSNorm, no biases and gqa with swiglu in 2 of 6 experts "
            "beside gqa with swiglu in 2 of 4 experts; nearest that exports: every layer like the first",
        ),
        (
            layers(DENSE | dict(non_linearity="geglu"), DENSE | dict(non_linearity="reglu")),
            "trains, but llama.cpp has no graph for RoPE, RMSNorm, no biases and mha with geglu beside mha with reglu; "
            'nearest that exports: "non_linearity": "swiglu" in every layer',
        ),
        (
            layers(MLA, DENSE),
            "trains, but llama.cpp has no graph for RoPE, RMSNorm, no biases and mla with swiglu beside mha with "
            "swiglu; nearest that exports: every layer like the first",
        ),
    ],
)
def test_one_sentence_says_what_becomes_of_a_model(options, sentence):
    assert plan_export(ModelConfig(**{**SMALL, **options})).sentence == sentence


def test_the_promised_shapes_are_those_of_the_file(tmp_path):
    for number, options in enumerate(ONE_EACH.values()):
        model = random_model({**SMALL, **options})
        write_hf_directory(model, TOKENIZER, tmp_path / f"hf{number}")
        convert_to_gguf(str(tmp_path / f"hf{number}"), str(tmp_path / f"{number}.gguf"), "F32", None)
        shapes = {t.name: tuple(map(int, t.shape[::-1])) for t in GGUFReader(tmp_path / f"{number}.gguf").tensors}
        assert plan_export(model.config).shapes == shapes


def test_a_plan_of_many_layers_is_not_waited_for():
    start = time.monotonic()
    blocks = [DENSE | dict(up_dim=32 + i, n_head=(2, 4)[i % 2], non_linearity="mish") for i in range(256)]
    assert "swiglu" in plan_export(ModelConfig(**{**SMALL, **layers(*blocks)})).sentence
    assert time.monotonic() - start < 5, "0.5 s; it was minutes"


def test_a_plan_of_a_huge_model_takes_no_memory():
    config = ModelConfig(**{**SMALL, **MODERN, "n_embd": 8192, "n_layer": 80, "n_head": 64, "vocab_size": 100_000})
    assert plan_export(config).architecture == "llama"
    assert sum(x.numel() for x in Graph.of_config(config).tensors.values() if not x.is_meta) == 0


# --- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, dict(MODERN, qk_norm=True), dict(MODERN, **LATENT), dict(MODERN, **EXPERTS, aux_free=True)],
    ids=["classic", "rope", "mla", "experts"],
)
def test_text_goes_on_past_the_context_as_in_pytorch(tmp_path, options):
    """Greedy text of PyTorch and of llama.cpp, three windows long, is the same."""
    text = "".join(TOKENIZER.chars[i * i % 37] for i in range(4000))
    data = torch.from_numpy(TOKENIZER.encode(text)).long()
    torch.manual_seed(0)
    model = random_model({**SMALL, **options, "block_size": 16})
    x = data[: 16 * 64].view(-1, 16)
    y = data[1 : 16 * 64 + 1].view(-1, 16)
    batches = [(x[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16)]
    train_model(model, batches, dict(learning_rate=3e-4, max_epochs=30), torch.device("cpu"))
    assert model.eval()(x, y)[1] < 0.3, "likeliest tokens are far from ties"
    write_hf_directory(model, TOKENIZER, tmp_path / "hf")
    convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / "model.gguf"), "F32", None)
    expected = model.generate(data[None, :5], 48, temperature=0)[0, 5:]
    with Engine(tmp_path / "model.gguf") as engine:
        pieces = engine.generate(TOKENIZER.decode(data[:5].tolist()), 48, Sampling(temp=0), ignore_eos=True)
        assert "".join(pieces) == TOKENIZER.decode(expected.tolist())
