"""Small models to start from, made as their own programs make them."""

from __future__ import annotations

from pathlib import Path

import torch
from pretrained_forms import make
from transformers import LlamaConfig, LlamaForCausalLM

from custom_llm.config.model import ModelConfig
from custom_llm.model import GPTLanguageModel
from custom_llm.model.files import SavedConfig, save_trained
from custom_llm.tokenizer.char import CharTokenizer

CARD = "---\nlicense: mit\nlanguage:\n- en\n- de\n---\n\n# A small llama\n"


def llama(folder: Path, form: str = "gpt-2", **changes: object) -> Path:
    """A Llama of transformers with random weights, saved with its tokenizer."""
    make(form, folder)
    from transformers import AutoTokenizer

    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    sizes |= dict(num_attention_heads=4, num_key_value_heads=2)
    vocab_size = len(AutoTokenizer.from_pretrained(folder))
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=vocab_size, max_position_embeddings=64, **{**sizes, **changes})
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder


def trained_pair(folder: Path, text: str = "abc", training: str = "one", block_size: int = 8) -> Path:
    """A trained_model.pth of ours and its model_config.pth, but for the learning."""
    tokenizer = CharTokenizer.from_text(text, end_of_text=True)
    architecture = ModelConfig(tokenizer.vocab_size, n_embd=8, n_head=2, n_layer=1, block_size=block_size, dropout=0.0)
    saved = SavedConfig(architecture, tokenizer.to_dict(), text[:100], training_id=training)
    weights = GPTLanguageModel(architecture).state_dict()
    save_trained(folder / "trained_model.pth", weights, folder / "model_config.pth", saved)
    return folder / "trained_model.pth"
