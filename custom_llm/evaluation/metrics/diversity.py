"""Whether a model repeats itself: n-grams that come again, and how many different ones there are.

Units are words; characters of scripts that put no spaces between words (Chinese, Japanese, Thai, …) count each by
itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

REPEATED_N = 4
# Thai and Lao, Tibetan, Myanmar, Khmer, kana, Chinese characters (all planes).
_ALONE = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNIT = re.compile(rf"[{_ALONE}]|[^{_ALONE}\s—–…]+")


@dataclass(frozen=True)
class Diversity:
    """Of some texts."""

    # Share of 4-grams that stood in the same text before, over all texts (Welleck et al. 2020, seq-rep-4).
    repeated: float
    longest_repeat: str  # the longest string that stands twice in one of the texts
    # Share of different ones among the n-grams of all texts, for n = 1, 2, 3 (Li et al. 2016).
    distinct: tuple[float, float, float]


def diversity(texts: Sequence[str]) -> Diversity:
    """How varied texts are; texts of other lengths do not compare, since longer ones repeat more."""
    units = [words(text) for text in texts]
    per_text = [_ngrams(text, REPEATED_N) for text in units]
    n = sum(map(len, per_text))
    return Diversity(
        repeated=1 - sum(len(set(grams)) for grams in per_text) / n if n else 0.0,
        longest_repeat=max(map(longest_repeat, texts), key=len, default=""),
        distinct=tuple(_share_distinct([gram for text in units for gram in _ngrams(text, n)]) for n in (1, 2, 3)),
    )


def words(text: str) -> list[str]:
    """The units of a text in small letters.

    >>> words("Don't go, 春眠!")
    ["don't", 'go', '春', '眠']
    """
    units = map(_without_punctuation, _UNIT.findall(text.lower()))
    return [unit for unit in units if unit]


def _without_punctuation(unit: str) -> str:
    """`unit` from its first letter, mark or digit to its last. (What `\\w` takes has no vowel signs of Hindi in it.)"""
    counts = [place for place, char in enumerate(unit) if unicodedata.category(char)[0] in "LMN"]
    return unit[counts[0] : counts[-1] + 1] if counts else ""


def longest_repeat(text: str) -> str:
    """The longest string that stands twice in `text` (the two may overlap), the first of equals.

    If one of length n does, so does one of each smaller length: found by halving.
    """
    low, high, found = 0, len(text) - 1, ""
    while low < high:
        length = (low + high + 1) // 2
        repeat = _repeat_of(text, length)
        if repeat is None:
            high = length - 1
        else:
            low, found = length, repeat
    return found


def _repeat_of(text: str, length: int) -> str | None:
    seen: set[int] = set()  # hashes, since the strings themselves would take the square of the memory
    kept: dict[int, list[int]] = {}
    for start in range(len(text) - length + 1):
        part = text[start : start + length]
        code = hash(part)
        if code in seen and any(text[other : other + length] == part for other in kept[code]):
            return part
        seen.add(code)
        kept.setdefault(code, []).append(start)
    return None


def _ngrams(units: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(units[start : start + n]) for start in range(len(units) - n + 1)]


def _share_distinct(grams: Sequence[tuple[str, ...]]) -> float:
    return len(set(grams)) / len(grams) if grams else 1.0
