"""The inference engine over PyTorch: what `trained_model.pth` writes with the same settings as a GGUF file of it.

The logits are PyTorch's, the tokens the tokenizer's, and the sampler is ours, which chooses as llama.cpp's: with the
same seed, a difference in the text is a difference in the logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from custom_llm.common.text import clean
from custom_llm.config.sampling import Sampling
from custom_llm.export.about import about_model
from custom_llm.export.plan import plan_export
from custom_llm.export.vocabulary import gguf_vocabulary
from custom_llm.inference.card import Card
from custom_llm.inference.engine import MAX_WINDOW, Engine, choose_threads
from custom_llm.inference.sampler import Sampler
from custom_llm.model import GPTLanguageModel
from custom_llm.model.attention import Cache
from custom_llm.model.files import load_trained
from custom_llm.tokenizer.added_tokens import TAKEN_FOR_CONTROL
from custom_llm.tokenizer.base import Tokenizer
from custom_llm.tokenizer.carried import CarriedTokenizer
from custom_llm.tokenizer.gguf_keys import CONTROL, TAKEN_FOR_TEXT, UNUSED

# Special tokens by which llama.cpp ends a text, beside the one that a file names.
ENDS = frozenset(
    """
    <|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> <|eom_id|>
    <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> <｜end▁of▁sentence｜>
    [e~[ <|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>
    <|file_sep|>
    """.split()
)


class TorchEngine(Engine):
    """Continues texts with the weights of `trained_model.pth`."""

    def __init__(
        self, model_path: str | Path, config_path: str | Path, device: str = "cpu", n_threads: int | None = None
    ) -> None:
        """n_threads: None chooses by the size of the model. Raises UserError when the files do not load."""
        self.torch_model, self.tokenizer, self.saved = load_trained(model_path, config_path)
        n_threads = n_threads or choose_threads(self.torch_model.n_parameters())
        torch.set_num_threads(n_threads)
        vocabulary = TokenizerVocabulary(self.tokenizer, Path(model_path))
        self._set_up(vocabulary, TorchReader(self.torch_model.to(device)), n_threads)

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

    def _sampler(self, sampling: Sampling, logit_bias: Mapping[int, float]) -> Sampler:
        return Sampler(sampling, logit_bias)


class TokenizerVocabulary:
    """A tokenizer as llama.cpp's `Model` shows the vocabulary of its GGUF file; its methods are described there."""

    loras = ()  # what was trained is in the weights

    def __init__(self, tokenizer: Tokenizer, path: Path) -> None:
        """path: of the model, which errors name."""
        self.path, self.n_vocab = path, tokenizer.vocab_size
        self.eos = -1 if tokenizer.end_of_text_id is None else tokenizer.end_of_text_id
        self.begin_of_text = -1 if tokenizer.begin_of_text_id is None else tokenizer.begin_of_text_id
        self._tokenizer = tokenizer
        described = gguf_vocabulary(tokenizer)
        named_end = described.keys["tokenizer.ggml.eos_token_id"]
        self._spelled: list[bytes] = []
        self._controls, self._ends = set(), set()
        for i, (token, kind, spelled) in enumerate(
            zip(described.tokens, described.types, tokenizer.bytes, strict=True)
        ):
            self._spelled.append(b"" if kind == UNUSED else spelled)
            if (kind == CONTROL or token in TAKEN_FOR_CONTROL) and token not in TAKEN_FOR_TEXT:
                self._controls.add(i)
                if i in (self.eos, named_end) or token in ENDS:
                    self._ends.add(i)

    def tokenize(self, text: str) -> list[int]:
        return self._tokenizer.encode(text).tolist()

    def spell(self, tokens: Sequence[int]) -> bytes:
        if isinstance(self._tokenizer, CarriedTokenizer):
            return self._tokenizer.spell(tokens)
        return b"".join([self._spelled[token] for token in tokens])

    def token_bytes(self, token: int) -> bytes:
        return self._spelled[token]

    def is_control(self, token: int) -> bool:
        return token in self._controls

    def ends_text(self, token: int) -> bool:
        return token in self._ends

    def close(self) -> None:
        """Nothing is held that Python does not free."""


class TorchReader:
    """A PyTorch model with its cache; its methods are those of llama.cpp's `Context`, and described there."""

    def __init__(self, model: GPTLanguageModel) -> None:
        self.model = model
        self.n_ctx = self.n_batch = min(model.config.block_size, MAX_WINDOW)
        self.n_cleared = 0
        self._cache = Cache(model.config.n_layer, self.n_ctx)
        self._logits = np.zeros((0, model.config.vocab_size), np.float32)

    @property
    def n_past(self) -> int:
        return self._cache.length

    def clear(self) -> None:
        self._cache.clear()
        self.n_cleared += 1

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], all_logits: bool = False) -> None:
        idx = torch.tensor([tokens], device=next(self.model.parameters()).device)
        logits, _ = self.model(idx, cache=self._cache)
        self._logits = (logits[0] if all_logits else logits[0, -1:]).float().cpu().numpy()

    def logits(self, index: int = -1) -> np.ndarray:
        return self._logits[index]

    def sample(self, sampler: Sampler) -> int:
        return sampler.choose(self._logits[-1])

    def close(self) -> None:
        """Nothing is held that Python does not free."""
