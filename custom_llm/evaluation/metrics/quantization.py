"""What quantization costs: each file against the trained model, and which one to take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from custom_llm.evaluation.metrics.quality import LogProbs, Quality, measure

TOLERANCE = 0.01  # of F32's bits per byte, which a file may have more and still be recommended
SPEED_RUNS = 5


@dataclass(frozen=True)
class Fidelity:
    """How far a file is from the model it was made of."""

    quality: Quality
    kl_mean: float  # KL(trained model ‖ file) in nats
    kl_99: float  # what 99 of 100 positions stay below
    agreement: float  # share of positions with the same likeliest token


@dataclass(frozen=True)
class Candidate:
    """A file of a quantization report."""

    quant_type: str
    n_bytes: int  # its size
    fidelity: Fidelity
    speed: float  # tokens it writes in a second
    note: str = ""  # what is not as its type says; empty if nothing

    @property
    def bits_per_byte(self) -> float:
        return self.fidelity.quality.bits_per_byte


def compare(
    name: str, reference: LogProbs, logprobs: LogProbs, ids: Sequence[int], size: int, n_bytes: int,
    on_tokens: Callable[[int], object] = lambda n: None,
) -> Fidelity:  # fmt: skip
    """Hold a model against another one, on the text that both predict; see `measure`.

    Both give their parts in the same lengths.
    """
    kls, same = [], []

    def observed(texts: Iterable[Sequence[int]]) -> Iterator[np.ndarray]:
        texts = list(texts)
        for p, q in zip(reference(texts), logprobs(texts), strict=True):
            kls.append((np.exp(p) * (p - q)).sum(-1))
            same.append(p.argmax(-1) == q.argmax(-1))
            yield q

    quality = measure(name, observed, ids, size, n_bytes, on_tokens)
    kl = np.concatenate(kls)
    return Fidelity(quality, float(kl.mean()), float(np.quantile(kl, 0.99)), float(np.concatenate(same).mean()))


def median_speeds(
    writers: Sequence[Callable[[], float]], on_run: Callable[[int], object] = lambda n: None
) -> list[float]:
    """The median of what each writer returns in several runs, which alternate: a machine is not always as quick.

    writers: each writes a text and returns its tokens per second. on_run: called with the number of runs so far.
    """
    speeds: list[list[float]] = [[] for _ in writers]
    for run in range(SPEED_RUNS):
        for place, write in enumerate(writers):
            speeds[place].append(write())
            on_run(run * len(writers) + place + 1)
    return [median(found) for found in speeds]


def recommend(candidates: Sequence[Candidate]) -> tuple[Candidate, str]:
    """The file to take, and a sentence that says why: the smallest whose bits per byte are within TOLERANCE of F32's.

    candidates: F32 first.
    """
    exact = candidates[0]
    good = [item for item in candidates if item.bits_per_byte <= (1 + TOLERANCE) * exact.bits_per_byte]
    best = min(good, key=lambda item: (item.n_bytes, item.bits_per_byte))
    if best is not exact:
        return best, (
            f"Take {best.quant_type}: the smallest of these files whose bits per byte are within {TOLERANCE:.0%} of "
            f"F32's ({best.bits_per_byte:.4f} against {exact.bits_per_byte:.4f}), with {best.n_bytes / 1e6:.2f} MB "
            f"instead of {exact.n_bytes / 1e6:.2f} MB."
        )
    if len(candidates) == 1:
        return exact, "Take F32: there is nothing to choose from."
    nearest = min(candidates[1:], key=lambda item: item.bits_per_byte)
    worse = nearest.bits_per_byte / exact.bits_per_byte - 1
    return exact, (
        f"Take F32: none of the smaller files is within {TOLERANCE:.0%} of its bits per byte; the nearest, "
        f"{nearest.quant_type}, has {worse:.1%} more."
    )
