"""What decides over a text beside what stands before it: one set of settings for flags, prompt and batch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from custom_llm.cli.fields import parse
from custom_llm.common.errors import UserError
from custom_llm.common.text import shown
from custom_llm.config.sampling import Sampling

SAMPLING = {item.name: item for item in fields(Sampling)}
NAMES = (*SAMPLING, "max_tokens", "stop")  # what may be changed from text to text
DEFAULT = "default"  # what is typed to have a setting as it was

ESCAPES = {r"\n": "\n", r"\t": "\t", "\\\\": "\\"}
INTERRUPTED = "interrupted"  # why a text ended: by Ctrl-C


@dataclass(frozen=True)
class Settings:
    """How a text is written."""

    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 100
    stop: tuple[str, ...] = ()  # it ends before the first of these
    ignore_eos: bool = False  # it does not end where the model would end it
    n_top: int | None = None  # tell how likely each token was, and so many of the likeliest in its place; None: do not

    def __getitem__(self, name: str) -> Any:
        """The value of one of `NAMES`."""
        return getattr(self.sampling if name in SAMPLING else self, name)

    def changed(self, values: Mapping[str, Any]) -> Settings:
        """These settings with other `values` for some of `NAMES`. Raises UserError where one cannot be set so."""
        for name in values:
            if name not in NAMES:
                raise UserError(f"there is no setting {shown(name)[1:-1]}; there are {', '.join(NAMES)}")
        changed = {name: value for name, value in values.items() if name in SAMPLING}
        sampling = Sampling(**{**asdict(self.sampling), **changed})
        count, stop = values.get("max_tokens", self.max_tokens), values.get("stop", self.stop)
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise UserError(f"max_tokens {shown(count)} is not a whole number of at least 0")
        texts = (stop,) if isinstance(stop, str) else stop
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise UserError(f"stop {shown(stop)} is not a text, nor a list of texts")
        if "" in texts:
            raise UserError("stop: an empty string would stop at once; give the text to stop at")
        return replace(self, sampling=sampling, max_tokens=count, stop=tuple(texts))


def stop_string(typed: str) -> str:
    r"""A stop string as a person types it, in which \n is a new line, \t a tab and \\ a backslash.

    >>> stop_string(r"a\n"), stop_string(r"\d\\n")
    ('a\n', '\\d\\n')
    """
    return re.sub(r"\\[nt\\]", lambda found: ESCAPES[found[0]], typed)


def value_of(name: str, text: str) -> Any:
    """What `text` says a setting is, for `Settings.changed`. Raises UserError."""
    if name == "stop":
        return stop_string(text)
    if name not in SAMPLING:
        return int(text) if text.isdecimal() and len(text) < 19 else text
    try:
        return parse(SAMPLING[name], text)
    except ValueError as error:
        raise UserError(f"{error}") from None
