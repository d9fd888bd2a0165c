"""The tutorial's two classes: the stock GPT-2 of `transformers`, built from the six keys of `model_config.pth`.

What `export_to_hf` writes needs neither; it loads as plain GPT2LMHeadModel.
"""

from __future__ import annotations

from typing import Any

from transformers import GPT2Config, GPT2LMHeadModel

from custom_llm.config import ModelConfig
from custom_llm.export.gpt2 import hf_config, hf_tensors
from custom_llm.model import GPTLanguageModel


class GPTConfig(GPT2Config):
    """`GPTConfig(vocab_size, n_embd, n_head, n_layer, block_size, dropout)` as a GPT-2 configuration."""

    def __init__(self, *, block_size: int = 128, dropout: float = 0.1, **values: Any) -> None:
        keys = ("vocab_size", "n_embd", "n_head", "n_layer", "non_linearity")
        ours = {key: values.pop(key) for key in keys if key in values}
        config = ModelConfig(block_size=block_size, dropout=dropout, **ours)
        super().__init__(**{**hf_config(config, None), **values})


class GPTPreTrainedModel(GPT2LMHeadModel):
    """A GPT-2 of `transformers` that holds the weights of a `GPTLanguageModel`."""

    config_class = GPTConfig

    @classmethod
    def from_language_model(cls, model: GPTLanguageModel) -> GPTPreTrainedModel:
        """The same model as stock GPT-2. Raises UserError when GPT-2 cannot express it."""
        config = model.config.to_dict()
        wrapped = cls(GPTConfig(**{key: value for key, value in config.items() if key != "head_bias"}))
        wrapped.load_state_dict(hf_tensors(model.state_dict(), model.config))
        return wrapped.eval()
