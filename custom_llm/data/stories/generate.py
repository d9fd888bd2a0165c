"""The bundled stories: small English stories by the megabyte, made from plots, without a download.

A story is a plot (plots.txt) told with characters and things (words.txt). All chance comes from
`random.Random(seed).random()`, the one method whose numbers Python promises to keep, and nothing depends on
the order of a set. The same seed therefore gives the same text in every version of Python.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from custom_llm.data.stories import assets
from custom_llm.data.stories.assets import Beat, Character, Plot, parse_plot
from custom_llm.tokenizer.base import END_OF_TEXT

PLOTS_PER_VARIETY = 6

T = TypeVar("T")

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{([A-Za-z][A-Za-z_.]*)\}")
_A_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])")


def generate_stories(n_chars: int = 1_000_000, seed: int = 0, variety: int = 2) -> str:
    """Return about `n_chars` characters of stories, no two alike, each followed by `END_OF_TEXT`.

    The text ends with the story that reaches `n_chars`: it is never shorter, and longer by less than a story.

    variety: how many wordings a moment of a story may have, and in proportion how many plots, characters and turns
    of phrase there are. A small model learns to write readable stories of variety 2 in two minutes; 8 is all there is.
    Raises ValueError for `n_chars` or `variety` below 1.
    """
    if n_chars < 1 or variety < 1:
        raise ValueError(f"n_chars {n_chars} and variety {variety} must be at least 1")
    rng = random.Random(seed)
    count = 2 * variety
    heroes = [c for pronoun in assets.PRONOUNS for c in [h for h in assets.HEROES if h.pronoun == pronoun][:count]]
    phrases = {name: wordings[:count] for name, wordings in assets.PHRASES.items()}
    plots = []
    for plot in assets.PLOTS[: PLOTS_PER_VARIETY * variety]:
        paragraphs = [[Beat(b.wordings[:variety], b.optional) for b in beats] for beats in parse_plot(plot.text)]
        plots.append((replace(plot, cases=plot.cases[:count]), paragraphs))
    told: dict[str, None] = {}  # a set that keeps its order
    length = 0
    deck: list[tuple[Plot, list[list[Beat]]]] = []
    while length < n_chars:
        # Every plot comes once before any comes again.
        deck = deck or list(plots)
        plot, paragraphs = deck.pop(int(rng.random() * len(deck)))
        teller = _Teller(rng, _cast(rng, plot, heroes), phrases)
        story = "\n".join(teller.paragraph(beats) for beats in paragraphs)
        if story not in told:
            told[story] = None
            length += len(story) + len(END_OF_TEXT) + 2
    return "".join(f"{story}\n{END_OF_TEXT}\n" for story in told)


def _cast(rng: random.Random, plot: Plot, heroes: Sequence[Character]) -> dict[str, str]:
    """Draw who and what a story is about: the slots that stay the same all through it."""
    hero = _pick(rng, [c for c in heroes if c.name not in plot.not_for])
    # Another pronoun than the hero's, so that "she" and "he" are never in doubt.
    friend = _pick(rng, [c for c in heroes if c.pronoun != hero.pronoun and c.name not in plot.not_for])
    helper = _pick(rng, [c for c in assets.HELPERS if c.pronoun != hero.pronoun])
    slots = {name: _pick(rng, words) for name, words in assets.WORDS.items()}
    for role, character in (("hero", hero), ("friend", friend), ("helper", helper)):
        traits = {**vars(character), "hands": character.hand + "s", **assets.PRONOUNS[character.pronoun]}
        slots[role] = character.name
        slots.update({f"{role}.{name}": value for name, value in traits.items()})
        if character is hero:
            slots.update(traits)  # "{his}" is short for "{hero.his}"
    slots.update(_pick(rng, plot.cases))
    return slots


@dataclass
class _Teller:
    """Tells one story: fills the slots and remembers which wordings of `PHRASES` it has used."""

    rng: random.Random
    slots: Mapping[str, str]
    phrases: Mapping[str, Sequence[str]]
    unused: MutableMapping[str, list[str]] = field(default_factory=dict)

    def paragraph(self, beats: Sequence[Beat]) -> str:
        told = [beat for beat in beats if not beat.optional or self.rng.random() < 0.5]
        text = " ".join(self._expand(_pick(self.rng, beat.wordings)) for beat in told)
        return _A_BEFORE_VOWEL.sub(r"\1n ", text)

    def _expand(self, template: str) -> str:
        """Draw the choices in `template` and fill its slots, and those of what they are filled with."""
        chosen = _CHOICE.sub(lambda match: _pick(self.rng, match[1].split("|")), template)
        return _SLOT.sub(lambda match: self._fill(match[1]), chosen)

    def _fill(self, name: str) -> str:
        key = name[0].lower() + name[1:]
        text = self._expand(self.slots[key] if key in self.slots else self._phrase(key))
        return text[0].upper() + text[1:] if name[0].isupper() else text

    def _phrase(self, key: str) -> str:
        """Draw a wording of the phrase `key` that this story has not used, as long as there is one."""
        assert key in self.phrases, f"a plot has the slot {{{key}}}, which is no word, phrase or trait"
        unused = self.unused.get(key) or list(self.phrases[key])
        phrase = _pick(self.rng, unused)
        self.unused[key] = [other for other in unused if other != phrase]
        return phrase


def _pick(rng: random.Random, options: Sequence[T]) -> T:
    """Draw one of `options`. `rng.choice` would do, but its way of drawing may change between Pythons."""
    return options[int(rng.random() * len(options))]
