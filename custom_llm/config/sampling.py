"""How the next token is chosen: the settings that the command line, the chat and the server share."""

from __future__ import annotations

from dataclasses import dataclass

from custom_llm.cli.fields import check_fields, option
from custom_llm.common.errors import UserError

MAX_SEED = 2**32 - 2  # llama.cpp takes 2**32 - 1 for "choose one"
SMALLEST_TEMP = 1e-4  # below it float32 logits / temp can overflow; the likeliest token wins anyway
PENALTY_LAST_N = 64  # how far back the penalties look, in tokens; llama.cpp's default


@dataclass(frozen=True)
class Sampling:
    """The names and defaults are llama.cpp's."""

    temp: float = option(0.8, "0: always the likeliest", low=0, high=100)
    top_k: int = option(40, "choose among the N likeliest; 0: off", low=0, high=2**31 - 1)
    top_p: float = option(
        0.95, "choose among the likeliest that have this much probability together; 1: off", low=0, high=1
    )
    min_p: float = option(0.05, "leave out what is less likely than this share of the likeliest; 0: off", low=0, high=1)
    repeat_penalty: float = option(
        1.0, "make what is among the last 64 tokens, the prompt's too, less likely; 1: off", low=0.01, high=100
    )
    frequency_penalty: float = option(0.0, "the same, more for each time that it is there; 0: off", low=-100, high=100)
    presence_penalty: float = option(0.0, "the same, once; 0: off", low=-100, high=100)
    seed: int | None = option(None, "same seed, same text; -1: random (default: random)")
    grammar: str | None = option(None, "what may be written, in llama.cpp's GBNF")

    def __post_init__(self) -> None:
        """Raise UserError for a setting that is out of range."""
        try:
            check_fields(self)
        except ValueError as error:
            raise UserError(f"{error}") from None
        object.__setattr__(self, "seed", fold_seed(self.seed))


def fold_seed(seed: int | None) -> int | None:
    """Any whole number as a seed that the samplers take: None, or 0 to MAX_SEED.

    Programs send what their language calls an integer. -1 is a random seed, as in llama.cpp; any other always writes
    the same text, beyond MAX_SEED that of its remainder.

    >>> fold_seed(7), fold_seed(-1), fold_seed(2**32 - 1), fold_seed(-2)
    (7, None, 0, 4294967293)
    """
    return None if seed in (None, -1) else seed % (MAX_SEED + 1)
