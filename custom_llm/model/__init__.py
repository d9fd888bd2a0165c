"""The language model in PyTorch."""

from custom_llm.model.attention import MultiHeadSelfAttention
from custom_llm.model.gpt import GPTLanguageModel, TransformerBlock

__all__ = ["GPTLanguageModel", "MultiHeadSelfAttention", "TransformerBlock"]
