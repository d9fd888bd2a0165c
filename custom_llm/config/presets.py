"""Named architectures, and what an option is suggested to be where it has no fixed default.

classic   GPT-2's block: learned positions, LayerNorm, GELU, biases
modern    as in Llama and Qwen3: rotations, RMSNorm, SwiGLU, normalised queries and keys, no biases
moe       the same with experts in place of the feed-forward layer (and queries and keys as they are)
mla       the same with latent attention, whose cache is the smallest

And sizes for a text, a machine and a time, found by trying on the bundled stories (benchmarks/sizes.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from custom_llm.cli.fields import check_fields, option
from custom_llm.config.block import DEFAULTS, default_up_dim, defaults
from custom_llm.config.model import MODEL_DEFAULTS, meaningful
from custom_llm.config.training import TrainConfig

_LLAMA = dict(pos_emb="rope", norm="rms", bias=False, non_linearity="swiglu")

PRESETS: dict[str, dict[str, Any]] = {
    "classic": {},
    "modern": {**_LLAMA, "qk_norm": True},
    "moe": {**_LLAMA, "moe": True, "n_exp": 8, "n_shared": 1, "n_act": 3, "aux_free": True},
    "mla": {**_LLAMA, "attn": "mla", "norm_eps": 1e-6},  # DeepSeek's, so that its classes hold the very same weights
}
DERIVED = {"mla": ("q_latent_dim", "kv_latent_dim", "rope_head_dim")}  # settings of a preset that depend on sizes

# An option → its suggestion, from the options known by then.
SUGGESTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "n_kv_heads": lambda c: next(n for n in range(c["n_head"] // 2 or 1, 0, -1) if c["n_head"] % n == 0),
    "q_latent_dim": lambda c: _round_up(c["n_embd"] // 2, 32),
    "kv_latent_dim": lambda c: _round_up(c["n_embd"] // 4, 32),  # multiples of 32 quantize to every type
    "rope_head_dim": lambda c: max(2, _round_up(c["n_embd"] // c["n_head"] // 2, 2)),
    "n_exp": lambda c: 8,
    "n_act": lambda c: min(c["n_shared"] + 2, c["n_exp"] - 1),
    "up_dim": lambda c: default_up_dim(c["n_embd"], c["non_linearity"], c["n_act"] if c["moe"] else None),
}


def complete(values: dict[str, Any], preset: str = "classic", suggest: bool = False) -> dict[str, Any]:
    """`values`, which win, and what the preset adds: those of its settings that have a meaning beside them.

    suggest: add a suggestion for every other option as well that has a meaning and no fixed default.

    >>> complete({"n_embd": 64, "bias": True}, "modern")
    {'pos_emb': 'rope', 'norm': 'rms', 'bias': True, 'non_linearity': 'swiglu', 'qk_norm': True, 'n_embd': 64}
    """
    settings = PRESETS[preset]
    known = meaningful({**settings, **values})
    added = {name: value for name, value in settings.items() if name in known}
    if suggest:
        added = defaults(known) | added
    for name in SUGGESTIONS if suggest else DERIVED.get(preset, ()):
        if name in known and name not in added and name not in values:
            added[name] = SUGGESTIONS[name]({**MODEL_DEFAULTS, **DEFAULTS, **added, **values})
    return {**added, **values}


def _round_up(number: int, multiple: int) -> int:
    return max(multiple, -(-number // multiple) * multiple)


_TRAINING = {item.name: option(item.default, **item.metadata) for item in fields(TrainConfig)}


@dataclass(frozen=True)
class Purpose:
    """What sizes are chosen for: a text, and a time to train."""

    dataset_path: str = _TRAINING["dataset_path"]
    minutes: float = option(
        10.0, "how long you will train it", question="Enter minutes of training (e.g., 10): ", low=0.01, high=10_000.0
    )
    encoding: str = _TRAINING["encoding"]
    text_field: str | None = _TRAINING["text_field"]
    clean: str = _TRAINING["clean"]

    def __post_init__(self) -> None:
        check_fields(self)


# (minutes × cores from which on it is the best, layers, width, heads)
LADDER = ((0, 2, 64, 4), (2, 3, 96, 4), (12, 4, 128, 4), (60, 6, 192, 6), (240, 8, 256, 8), (1200, 10, 384, 8))
USEFUL_CORES = 8  # a small model gains little from more
BATCH_SIZE = 8
BLOCK_SIZE = 256  # what llama.cpp rounds contexts up to, so that other programs use the very context that was trained
WINDOWS_AT_LEAST = 20  # in a text; a shorter one gets a shorter context
CHARACTERS_READ_PER_MINUTE_AND_CORE = 700_000  # by the smallest model
READ_OFTEN = 20  # epochs from which on a model memorises and needs dropout
# Bytes from which on byte pairs learnt more of a text than characters did, and the best number of them (docs/data.md).
LONG_TEXT, BYTE_PAIRS = 1_000_000, 4096


def choose_sizes(n_characters: int, minutes: float, n_cores: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options for `llm_model.py` and for `train_llm.py`: the model that learns most from a text in the time.

    Bigger ones learn more from each character, but read fewer of them. One with more parameters than the text has
    characters would memorise it.
    """
    budget = minutes * min(n_cores, USEFUL_CORES)
    fitting = [rung[1:] for rung in LADDER if rung[0] <= budget and 12 * rung[1] * rung[2] ** 2 <= n_characters]
    n_layer, n_embd, n_head = fitting[-1] if fitting else LADDER[0][1:]
    block_size = max(8, min(BLOCK_SIZE, n_characters // WINDOWS_AT_LEAST))
    epochs = budget * CHARACTERS_READ_PER_MINUTE_AND_CORE / n_characters
    dropout = 0.1 if epochs > READ_OFTEN else 0.0
    model = dict(n_embd=n_embd, n_head=n_head, n_layer=n_layer, block_size=block_size, dropout=dropout)
    return model, dict(batch_size=BATCH_SIZE, learning_rate=round(0.008 / n_embd**0.5, 4))
