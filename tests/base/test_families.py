"""Every family: its logits are those of transformers, llama.cpp's of the export too, and it comes back bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from families import FAMILIES, VOCAB, WINDOW, make_family

from custom_llm.base.gguf import read_gguf
from custom_llm.base.huggingface import read_folder
from custom_llm.common.logits import log_softmax
from custom_llm.config.model import ModelConfig
from custom_llm.config.presets import PRESETS, complete
from custom_llm.export.gguf.architectures import choose_architecture
from custom_llm.export.gguf.quantize import quantize
from custom_llm.export.gguf.writer import write_gguf
from custom_llm.export.graph.graph import Graph
from custom_llm.export.huggingface.classes import in_directory
from custom_llm.export.huggingface.directory import write_hf_directory
from custom_llm.export.vocabulary import gguf_vocabulary
from custom_llm.llamacpp import score_windows
from custom_llm.model import GPTLanguageModel
from custom_llm.tokenizer.char import CharTokenizer

TOKENIZER = CharTokenizer.from_text("".join(chr(0x100 + i) for i in range(VOCAB - 1)))
IDS = np.random.default_rng(0).integers(VOCAB, size=WINDOW).tolist()


def load(config: ModelConfig, weights: dict[str, torch.Tensor]) -> GPTLanguageModel:
    model = GPTLanguageModel(config)
    model.load_state_dict(weights)
    return model.eval()


@torch.no_grad()
def logits(model: GPTLanguageModel) -> np.ndarray:
    return model(torch.tensor([IDS]))[0][0].numpy()


def kl(expected: np.ndarray, actual: np.ndarray) -> float:
    log_p, log_q = log_softmax(expected), log_softmax(actual)
    return float((np.exp(log_p) * (log_p - log_q)).sum(-1).mean())


def export(model: GPTLanguageModel, path: Path) -> None:
    architecture, prepared = choose_architecture(in_directory(Graph.of_model(model))[1])
    write_gguf(prepared, architecture, gguf_vocabulary(TOKENIZER), path, "a family")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_goes_in_and_out(name, tmp_path):
    stock = make_family(name, tmp_path)
    config, weights = read_folder(tmp_path)
    model = load(config, weights)
    with torch.no_grad():
        expected = stock(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(expected - logits(model)).max() < 1e-4

    path = tmp_path / "model.gguf"
    export(model, path)
    assert kl(expected, next(iter(score_windows(path, [IDS])))) < 1e-6

    back, restored, quantized = read_gguf(path)
    assert not quantized
    if name == "gemma3, scaled":  # whose factor of scores has become one of weights
        assert np.abs(expected - logits(load(back, restored))).max() < 1e-4
    else:
        assert all(torch.equal(restored[key], x) for key, x in weights.items())
        assert back.n_embd == config.n_embd and back.blocks == config.blocks

    model.train()
    _, loss = model(torch.tensor([IDS[:-1]]), torch.tensor([IDS[1:]]))
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("quant_type", ["F16", "Q8_0", "Q4_1"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_neox"])
def test_a_rounded_file_is_what_llama_cpp_computes(name, quant_type, tmp_path):
    make_family(name, tmp_path)
    whole, rounded = tmp_path / "model.gguf", tmp_path / "rounded.gguf"
    export(load(*read_folder(tmp_path)), whole)
    quantize(whole, rounded, quant_type, "")
    config, weights, quantized = read_gguf(rounded)
    assert quantized == ("" if quant_type == "F16" else quant_type)
    # llama.cpp rounds what it multiplies rounded weights by, too.
    [computed] = score_windows(rounded, [IDS])
    assert kl(logits(load(config, {key: x.float() for key, x in weights.items()})), computed) < 1e-4


@pytest.mark.parametrize("preset", PRESETS)
def test_an_export_of_ours_comes_back_bit_for_bit(preset, tmp_path):
    torch.manual_seed(0)
    sizes = dict(vocab_size=VOCAB, n_embd=64, n_head=4, n_layer=2, block_size=32)
    model = GPTLanguageModel(ModelConfig(**complete(sizes, preset, suggest=True))).eval()
    write_hf_directory(model, TOKENIZER, tmp_path)
    export(model, tmp_path / "model.gguf")
    for weights in (read_folder(tmp_path)[1], read_gguf(tmp_path / "model.gguf")[1]):
        state = model.state_dict()
        assert weights.keys() == state.keys()
        assert all(torch.equal(weights[key], x) for key, x in state.items())
