"""Proof that a GGUF file is the model that was trained: the same token ids and the same logits as PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from custom_llm.data.tokenizer import CharTokenizer
from custom_llm.errors import UserError
from custom_llm.llamacpp import Model, score_windows
from custom_llm.model import GPTLanguageModel

TEXT_POSITIONS, RANDOM_POSITIONS = 1024, 256
# Mean KL divergence in nats that rounding explains. llama.cpp computes GELU through a float16 table.
BOUNDS = {"F32": 1e-6, "F16": 1e-5}


@dataclass(frozen=True)
class Parity:
    """How far the next-token distributions of a file are from PyTorch's."""

    positions: int
    max_difference: float  # of any logit
    kl: float  # mean KL(PyTorch ‖ file) in nats
    top1_text: float  # share of positions of the text with the same likeliest token
    top1_random: float  # the same for random tokens, where the two likeliest are often as good as tied


class Reference:
    """PyTorch's logits on a text of the training file and on random tokens, to hold files against."""

    def __init__(self, model: GPTLanguageModel, tokenizer: CharTokenizer, text: str) -> None:
        """Args:
        text: a few thousand characters the model was trained on; only the known ones count.
        """
        self.tokenizer = tokenizer
        self.text = text.translate(dict.fromkeys(map(ord, tokenizer.unknown(text))))
        block_size = model.config.block_size
        ids = tokenizer.encode(self.text)[:TEXT_POSITIONS].tolist() or [0]
        chance = np.random.default_rng(0).integers(tokenizer.vocab_size, size=RANDOM_POSITIONS).tolist()
        text_windows = _split(ids, block_size)
        self.n_text_windows = len(text_windows)
        self.windows = [*text_windows, *_split(chance, block_size)]
        self.logits = [_torch_logits(model, window) for window in self.windows]

    @property
    def n_positions(self) -> int:
        return sum(map(len, self.windows))

    def text_loss(self) -> float:
        """PyTorch's mean loss on the text in nats per token; a trained model's own text costs less than guessing."""
        losses = [np.zeros(0)]
        for window, logits in zip(self.windows[: self.n_text_windows], self.logits, strict=False):
            losses.append(-_log_softmax(logits[:-1])[np.arange(len(window) - 1), window[1:]])
        return float(np.concatenate(losses).sum() / max(1, sum(map(len, losses))))

    def compare(self, path: str | Path) -> Parity:
        """Hold a GGUF file against PyTorch.

        Raises:
            UserError: the file does not load, or reads text as other token ids.
        """
        self._check_token_ids(path)
        kls, same, worst = [], [], 0.0
        for expected, actual in zip(self.logits, score_windows(path, self.windows), strict=True):
            worst = max(worst, float(np.abs(expected - actual).max()))
            kls.append(_kl(expected, actual))
            same.append(expected.argmax(-1) == actual.argmax(-1))
        kl = np.concatenate(kls)
        text, chance = np.concatenate(same[: self.n_text_windows]), np.concatenate(same[self.n_text_windows :])
        return Parity(len(kl), worst, float(kl.mean()), float(text.mean()), float(chance.mean()))

    def _check_token_ids(self, path: str | Path) -> None:
        with Model(path) as model:
            if list(model.tokenize(self.text)) != self.tokenizer.encode(self.text).tolist():
                raise UserError(f"{path}: llama.cpp reads the training text as other token ids than PyTorch")


def check_bound(path: str | Path, quant_type: str, parity: Parity) -> None:
    """Raise UserError when a file that must be exact is further from PyTorch than rounding explains."""
    bound = BOUNDS.get(quant_type)
    if bound is not None and not parity.kl <= bound:  # the negation also catches NaN
        raise UserError(
            f"{path}: as {quant_type} the model differs from PyTorch by KL {parity.kl:.1e} where rounding explains "
            f"{bound:.0e}, so the file is not kept; --no_verify keeps it"
        )


@torch.no_grad()
def _torch_logits(model: GPTLanguageModel, window: Sequence[int]) -> np.ndarray:
    """(T, vocab_size) for a window of T token ids."""
    return model(torch.tensor([window]))[0][0].float().numpy()


def _kl(p_logits: np.ndarray, q_logits: np.ndarray) -> np.ndarray:
    """KL(p ‖ q) at each of T positions, in float64."""
    log_p, log_q = _log_softmax(p_logits), _log_softmax(q_logits)
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _split(ids: list[int], size: int) -> list[list[int]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]
