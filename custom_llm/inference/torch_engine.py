"""The inference engine over PyTorch: what `trained_model.pth` writes with the same settings as a GGUF file of it.

Only the logits are PyTorch's. Tokens, sampling and the sliding of the window are the engine's own, so that with the
same seed a difference in the text is a difference in the logits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFWriter

from custom_llm.common.text import clean
from custom_llm.export.about import about_model
from custom_llm.export.gguf.writer import add_block_size, add_vocabulary
from custom_llm.export.plan import plan_export
from custom_llm.export.vocabulary import gguf_vocabulary
from custom_llm.inference.card import Card
from custom_llm.inference.engine import MAX_WINDOW, Engine, choose_threads
from custom_llm.llamacpp import Model, Sampler
from custom_llm.model import GPTLanguageModel
from custom_llm.model.attention import Cache
from custom_llm.model.files import load_trained
from custom_llm.tokenizer.base import Tokenizer


class TorchEngine(Engine):
    """Continues texts with the weights of `trained_model.pth`."""

    def __init__(
        self, model_path: str | Path, config_path: str | Path, device: str = "cpu", n_threads: int | None = None
    ) -> None:
        """n_threads: None chooses by the size of the model.

        Raises:
            UserError: the files do not load.
        """
        self.torch_model, self.tokenizer, self.saved = load_trained(model_path, config_path)
        n_threads = n_threads or choose_threads(self.torch_model.n_parameters())
        torch.set_num_threads(n_threads)
        model = read_vocabulary(self.tokenizer)
        model.path = Path(model_path)  # which errors name
        self._set_up(model, TorchReader(self.torch_model.to(device)), n_threads)

    def card(self) -> Card:
        """What its GGUF file would say."""
        config, n_params = self.torch_model.config, self.torch_model.n_parameters()
        about = about_model(self.saved, n_params, clean(self.model.path.name))
        return Card(
            name=about.name,
            architecture=plan_export(config).architecture or "in PyTorch only",
            n_params=n_params,
            context=config.block_size,
            n_vocab=config.vocab_size,
            quantization="F32",
            description=about.description,
            trained_on=about.dataset,
            training=about.training,
            example=about.example,
        )


def read_vocabulary(tokenizer: Tokenizer) -> Model:
    """llama.cpp's view of a vocabulary, without weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocabulary.gguf")
        writer = GGUFWriter(path, "gpt2")
        add_block_size(writer, 1)  # of no meaning without weights
        add_vocabulary(writer, gguf_vocabulary(tokenizer))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        return Model(path, vocab_only=True)


class TorchReader:
    """A `Reader`: a PyTorch model with its cache."""

    def __init__(self, model: GPTLanguageModel) -> None:
        self.model = model
        self.n_ctx = self.n_batch = min(model.config.block_size, MAX_WINDOW)
        self._cache = Cache(model.config.n_layer, self.n_ctx)
        self._logits = np.zeros((0, model.config.vocab_size), np.float32)

    @property
    def n_past(self) -> int:
        return self._cache.length

    def clear(self) -> None:
        """Forget everything that was read."""
        self._cache.clear()

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], all_logits: bool = False) -> None:
        """Read `tokens` after what the cache holds."""
        idx = torch.tensor([tokens], device=next(self.model.parameters()).device)
        logits, _ = self.model(idx, cache=self._cache)
        self._logits = (logits[0] if all_logits else logits[0, -1:]).float().cpu().numpy()

    def logits(self, index: int = -1) -> np.ndarray:
        """(n_vocab,) float32."""
        return self._logits[index]

    def sample(self, sampler: Sampler) -> int:
        """Let `sampler` choose the token that follows."""
        return sampler.choose(self._logits[-1])

    def close(self) -> None:
        """Nothing is held that Python does not free."""
