"""The tutorial's two classes: the stock GPT-2 of `transformers`, built from the six keys of `model_config.pth`.

What `export_to_hf` writes needs neither; it loads as plain GPT2LMHeadModel.
"""

from __future__ import annotations

from typing import Any

from transformers import GPT2Config, GPT2LMHeadModel

from custom_llm.common.errors import UserError
from custom_llm.config.model import ModelConfig
from custom_llm.export.graph.graph import Graph
from custom_llm.export.graph.tensor_names import rename
from custom_llm.export.huggingface.classes import BY_NAME
from custom_llm.export.huggingface.directory import hf_config
from custom_llm.model import GPTLanguageModel

GPT2 = BY_NAME["GPT2LMHeadModel"]


class GPTConfig(GPT2Config):
    """`GPTConfig(vocab_size, n_embd, n_head, n_layer, block_size, dropout)` as a GPT-2 configuration."""

    def __init__(self, *, block_size: int = 128, dropout: float = 0.1, **values: Any) -> None:
        keys = ("vocab_size", "n_embd", "n_head", "n_layer", "non_linearity")
        ours = {key: values.pop(key) for key in keys if key in values}
        config = ModelConfig(block_size=block_size, dropout=dropout, **ours)
        super().__init__(**{**hf_config(_as_gpt2(Graph.of_config(config)).s, GPT2, None), **values})


class GPTPreTrainedModel(GPT2LMHeadModel):
    """A GPT-2 of `transformers` that holds the weights of a `GPTLanguageModel`."""

    config_class = GPTConfig

    @classmethod
    def from_language_model(cls, model: GPTLanguageModel) -> GPTPreTrainedModel:
        """The same model as stock GPT-2. Raises UserError when GPT-2 cannot express it."""
        graph = _as_gpt2(Graph.of_model(model))
        wrapped = cls(GPTConfig(**hf_config(graph.s, GPT2, None)))
        wrapped.load_state_dict(rename(graph.tensors, graph.s, GPT2.names))
        return wrapped.eval()


def _as_gpt2(graph: Graph) -> Graph:
    prepared = GPT2.prepare(graph)
    if prepared is None:
        raise UserError("this model is no GPT-2; export_to_hf finds the class that it is")
    return prepared
