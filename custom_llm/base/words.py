"""What a person should know of the model that they start from, in plain words."""

from __future__ import annotations

from custom_llm.base.open import Base

LANGUAGES = {
    "ar": "Arabic", "de": "German", "en": "English", "es": "Spanish", "fr": "French", "hi": "Hindi", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ru": "Russian",
    "tr": "Turkish", "zh": "Chinese", "code": "program code", "multilingual": "many languages",
}  # fmt: skip
MOST = 5  # languages that are named


def describe(base: Base) -> list[str]:
    """A few lines: its name, what it knows, whose it is, and what was done to its weights."""
    origin = base.origin
    known = [LANGUAGES.get(each, each) for each in base.languages]
    languages = ", ".join(known[:MOST]) + (f" and {len(known) - MOST} more" if len(known) > MOST else "")
    lines = [
        f"Starting from {origin.name}, with its own {base.tokenizer.vocab_size:,} pieces of text",
        f"  knows       {languages or 'its card does not say which languages'}",
        f"  license     {origin.license or 'not stated; ask its author before you hand on what you make of it'}",
    ]
    if origin.quantized:
        lines.append(f"  precision   its weights were rounded when that file was made ({origin.quantized})")
    return lines
