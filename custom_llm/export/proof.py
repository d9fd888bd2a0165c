"""Proof that a GGUF file is the model that was trained: the same token ids and the same logits as PyTorch."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from custom_llm.common.errors import UserError
from custom_llm.common.logits import log_softmax
from custom_llm.export.gguf.quantize import Shapes, fallback_note
from custom_llm.export.read_back import Agreement, Original
from custom_llm.llamacpp import Lora
from custom_llm.model import GPTLanguageModel
from custom_llm.tokenizer.base import Tokenizer

TEXT_POSITIONS, RANDOM_POSITIONS = 1024, 256
CLEAR_TOKEN = 0.01  # llama.cpp's GELU, from a table of float16 values, shifts logits by a few thousandths
# Two experts whose scores are closer may be chosen the other way round by other rounding, or by the little that SiLU
# differs from the ReLU it stands for, and then all that follows in the window differs.
CLEAR_CHOICE = 1e-4
# Mean KL divergence in nats that rounding explains. llama.cpp computes GELU through a float16 table.
BOUNDS = {"F32": 1e-6, "F16": 1e-5}


@dataclass(frozen=True)
class Parity:
    """How far the next-token distributions of a file are from PyTorch's."""

    max_difference: float  # of any logit
    kl: float  # mean KL(PyTorch ‖ file) in nats
    top1_text: float  # share of positions of the text with the same likeliest token
    top1_random: float  # the same for random tokens, where the two likeliest are often as good as tied
    top1_clear: float  # the same where the two likeliest logits, and all choices of experts, are far from a tie
    kl_clear: float  # mean KL where all choices of experts are far from a tie; everywhere, where there are none
    kl_median: float
    has_experts: bool

    def bounded(self, quant_type: str) -> float:
        """The KL that BOUNDS are for. Rounded weights (F16) move many a choice of experts; there the median counts."""
        if quant_type == "F32" or not self.has_experts:
            return self.kl_clear
        return self.kl_median


class Reference:
    """PyTorch's logits on a text of the training file and on random tokens, to hold files against."""

    def __init__(self, model: GPTLanguageModel, tokenizer: Tokenizer, text: str) -> None:
        """`text`: a few thousand characters the model was trained on; only the known ones count."""
        self.tokenizer = tokenizer
        self.text = text.translate(dict.fromkeys(map(ord, tokenizer.unknown(text))))
        block_size = model.config.block_size
        ids = tokenizer.encode(self.text)[:TEXT_POSITIONS].tolist() or [0]
        chance = np.random.default_rng(0).integers(tokenizer.vocab_size, size=RANDOM_POSITIONS).tolist()
        self.windows = [part[i : i + block_size] for part in (ids, chance) for i in range(0, len(part), block_size)]
        self.n_text_windows = -(-len(ids) // block_size)
        self.has_experts = bool(model.mixtures)
        self.logits, self.clear_choices = zip(*(_torch_logits(model, window) for window in self.windows), strict=True)

    @property
    def n_positions(self) -> int:
        return sum(map(len, self.windows))

    def text_loss(self) -> float:
        """PyTorch's mean loss on the text in nats per token; a trained model's own text costs less than guessing."""
        losses = [np.zeros(0)]
        for window, logits in zip(self.windows[: self.n_text_windows], self.logits, strict=False):
            losses.append(-log_softmax(logits[:-1])[np.arange(len(window) - 1), window[1:]])
        return float(np.concatenate(losses).sum() / max(1, sum(map(len, losses))))

    def compare(self, path: str | Path, loras: Sequence[Lora] = ()) -> Parity:
        """Hold a GGUF file, with adapters, against PyTorch.

        Raises UserError where it does not load, or reads text as other ids.
        """
        from custom_llm.llamacpp import Model, score_windows

        with Model(path) as model:
            if list(model.tokenize(self.text)) != self.tokenizer.encode(self.text).tolist():
                raise UserError(f"{path}: llama.cpp reads the training text as other token ids than PyTorch")
        kls, same, untied, worst = [], [], [], 0.0
        for expected, actual in zip(self.logits, score_windows(path, self.windows, loras=loras), strict=True):
            worst = max(worst, float(np.abs(expected - actual).max()))
            log_p, log_q = log_softmax(expected), log_softmax(actual)
            kls.append((np.exp(log_p) * (log_p - log_q)).sum(-1))  # KL(PyTorch ‖ file) at each position
            same.append(expected.argmax(-1) == actual.argmax(-1))
            ranked = np.sort(expected, axis=-1)[:, -2:]
            untied.append(ranked[:, -1] - ranked[:, 0] > CLEAR_TOKEN)
        kl, agree, clear = np.concatenate(kls), np.concatenate(same), np.concatenate(self.clear_choices)
        sure, n_text = np.concatenate(untied) & clear, sum(map(len, self.windows[: self.n_text_windows]))
        return Parity(
            max_difference=worst,
            kl=float(kl.mean()),
            top1_text=float(agree[:n_text].mean()),
            top1_random=float(agree[n_text:].mean()),
            top1_clear=float(agree[sure].mean()) if sure.any() else 1.0,
            kl_clear=float(kl[clear].mean()) if clear.any() else float(kl.mean()),
            kl_median=float(np.median(kl)),
            has_experts=self.has_experts,
        )


def check_bound(path: str | Path, quant_type: str, parity: Parity) -> None:
    """Raise UserError when a file that must be exact is further from PyTorch than rounding explains."""
    bound = BOUNDS.get(quant_type)
    if bound is not None and not parity.bounded(quant_type) <= bound:  # the negation also catches NaN
        raise UserError(
            f"{path}: as {quant_type} this would not write what the trained model writes (it differs from PyTorch by "
            f"KL {parity.kl:.1e} where rounding explains {bound:.0e}), so the file is not kept; --no_verify keeps it"
        )


@torch.no_grad()
def _torch_logits(model: GPTLanguageModel, window: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(T, vocab_size) for a window of T token ids, and (T,) whether all choices of experts up to there are clear."""
    margins = [torch.ones(len(window))]
    hooks = [
        mixture.register_forward_pre_hook(lambda mixture, args: margins.append(mixture.margin(args[0])[0]))
        for mixture in model.mixtures
    ]
    logits = model(torch.tensor([window]))[0][0].float().numpy()
    for hook in hooks:
        hook.remove()
    clear = (torch.stack(margins).amin(0) > CLEAR_CHOICE).cummin(0).values
    return logits, clear.numpy()


HEADERS = {
    Reference: f"{'KL to PyTorch':>16}{'max logit diff':>16}{'same top-1 (text, random)':>28}",
    Original: f"{'tensors':>10}{'tokens':>10}{'max weight diff':>18}{'relative error':>17}",
    type(None): "",
}

logger = logging.getLogger("custom_llm")


@dataclass(frozen=True)
class FileReport:
    """What was measured of a file; `proof` is None where it was not held against the model."""

    path: Path
    quant_type: str
    n_bytes: int
    proof: Parity | Agreement | None


class FileTable:
    """Checks each finished file against the trained model before it gets its name, and prints a line about it."""

    def __init__(self, expected: Reference | Original | None, shapes: Shapes, verbose: bool = True) -> None:
        """`expected`: what to hold files against (None: nothing); `shapes`: of their tensors (`ExportPlan.shapes`).

        `verbose`: with the figures that the log and the model's card have, not with what they mean.
        """
        self.expected = expected
        self._shapes, self._verbose = shapes, verbose
        self.rows: list[FileReport] = []

    def check(self, path: Path, quant_type: str, name: Path) -> None:
        """Print the line of the file at `path`, to be called `name`; raise UserError if it is not the trained model."""
        if note := fallback_note(quant_type, path, self._shapes):
            print(f"note: {note}")
        n_bytes, proof = path.stat().st_size, None
        start, figures, meaning = f"{name!s:<32}{n_bytes / 1e6:>7.2f} MB", "", ""
        if isinstance(self.expected, Reference):
            proof = p = self.expected.compare(path)
            check_bound(name, quant_type, p)
            figures = f"{p.kl:>16.1e}{p.max_difference:>16.4f}{p.top1_text:>18.1%}{p.top1_random:>10.1%}"
            unit = "character" if self.expected.tokenizer.kind == "char" else "piece of text"
            meaning = f"  {share(p.top1_text)} the same next {unit} as the trained model"
        elif self.expected:
            proof = a = self.expected.compare(path, name)
            figures = f"{a.n_tensors:>10}{a.n_tokens:>10}{a.max_difference:>18.2g}{a.relative_error:>17.3%}"
            meaning = (
                f"  the trained weights{f', rounded by {a.relative_error:.2%}' if a.max_difference else ', exactly'}"
            )
        if self._verbose and not self.rows:
            print(f"{'file':<32}{'size':>10}{HEADERS[type(self.expected)]}")
        self.rows.append(FileReport(name, quant_type, n_bytes, proof))
        print(start + (figures if self._verbose else meaning), flush=True)
        logger.info(start + figures)


def share(part: float) -> str:
    """How often something is so.

    >>> share(1.0), share(0.9996), share(0.5)
    ('always', '99.9 % of the time', '50.0 % of the time')
    """
    return "always" if part == 1 else f"{math.floor(1000 * part) / 10:.1f} % of the time"
