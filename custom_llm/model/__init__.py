"""The language model in PyTorch."""

from custom_llm.model.attention import MultiHeadSelfAttention
from custom_llm.model.block import TransformerBlock
from custom_llm.model.gpt import GPTLanguageModel

__all__ = ["GPTLanguageModel", "MultiHeadSelfAttention", "TransformerBlock"]
