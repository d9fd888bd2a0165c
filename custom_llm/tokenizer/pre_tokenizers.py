"""How a text is cut into pieces before pairs of bytes are merged: llama.cpp's types of byte-level BPE.

A type is written into a GGUF file by name, and llama.cpp then cuts by hand-written code (src/unicode.cpp) and tables
of Unicode 15. The regular expressions here cut exactly so in `tokenizers`. The rules that models ship do not: they know
the letters of Unicode 16, and take ſ for an s. Left out are the types for which llama.cpp has `std::regex` repeat
something (gpt-4o, tekken, deepseek-llm, falcon …), since that recurses for every character of a long word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers


# Letters and digits of Unicode 16, and its marks, which are none in llama.cpp's tables: it cuts around them as around
# punctuation, and the rules that are built into `tokenizers` do not.
NEW_LETTERS = (
    r"\x{1C89}-\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3}\x{10D40}-\x{10D65}\x{10D6F}-\x{10D85}"
    r"\x{10EC2}-\x{10EC4}\x{11380}-\x{113B5}\x{113B7}\x{113D1}\x{113D3}\x{116D0}-\x{116E3}\x{11BC0}-\x{11BE0}"
    r"\x{11BF0}-\x{11BF9}\x{13460}-\x{143FA}\x{16100}-\x{1611D}\x{16130}-\x{16139}\x{16D40}-\x{16D6C}"
    r"\x{16D70}-\x{16D79}\x{18CFF}\x{1CCF0}-\x{1CCF9}\x{1E5D0}-\x{1E5ED}\x{1E5F0}-\x{1E5FA}"
)
NEW_MARKS = (
    r"\x{897}\x{10D69}-\x{10D6D}\x{10EFC}\x{113B8}-\x{113C0}\x{113C2}\x{113C5}\x{113C7}-\x{113CA}\x{113CC}-\x{113D0}"
    r"\x{113D2}\x{113E1}-\x{113E2}\x{11F5A}\x{1611E}-\x{1612F}\x{1E5EE}-\x{1E5EF}"
)
LETTER, NUMBER = rf"[\p{{L}}&&[^{NEW_LETTERS}]]", rf"[\p{{N}}&&[^{NEW_LETTERS}]]"
OTHER = rf"(?:[^\s\p{{L}}\p{{N}}]|[{NEW_LETTERS}])"
LETTER_OR_MARK = rf"[\p{{L}}\p{{M}}&&[^{NEW_LETTERS}{NEW_MARKS}]]"
OTHER_THAN_MARK = rf"(?:[^\s\p{{L}}\p{{M}}\p{{N}}]|[{NEW_LETTERS}{NEW_MARKS}])"
BEFORE_WORD = rf"(?:[^\r\n\p{{L}}\p{{N}}]|[{NEW_LETTERS}])"
SUFFIX = r"'[sStTmMdD]|'[rR][eE]|'[vV][eE]|'[lL][lL]"

GPT_2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?{LETTER}+| ?{NUMBER}+| ?{OTHER}+|\s+(?!\S)|\s+"
LLAMA_3 = rf"{SUFFIX}|{BEFORE_WORD}?{LETTER}+|{NUMBER}{{1,3}}| ?{OTHER}+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_2 = rf"{SUFFIX}|{BEFORE_WORD}?{LETTER}+|{NUMBER}| ?{OTHER}+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_35 = rf"{SUFFIX}|{BEFORE_WORD}?{LETTER_OR_MARK}+|{NUMBER}| ?{OTHER_THAN_MARK}+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# The same as models ship them. ByteLevel and Digits have theirs built in.
SHIPPED_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SHIPPED_DIGIT = r"\p{N}"
SHIPPED_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
SHIPPED_QWEN_2 = SHIPPED_LLAMA_3.replace("{1,3}", "")
SHIPPED_QWEN_35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class PreTokenizer:
    """A type of llama.cpp's, with its name in `tokenizer.ggml.pre`."""

    name: str
    cuts: tuple[str, ...]  # regular expressions of Oniguruma; each cuts what the one before it has left
    shipped: tuple[str, ...]  # the same as models ship them
    # A piece that is a token is that token, whatever the merges say; llama.cpp has it fixed for each type.
    ignore_merges: bool = False

    def build(self) -> tokenizers.pre_tokenizers.PreTokenizer:
        """What cuts a text into these pieces, and spells them in bytes."""
        from tokenizers import Regex, pre_tokenizers

        splits = [pre_tokenizers.Split(Regex(cut), behavior="isolated") for cut in self.cuts]
        return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


# In llama.cpp's source each stands for several more models' types that cut alike.
PRE_TOKENIZERS = {
    pre.name: pre
    for pre in (
        PreTokenizer("gpt-2", (GPT_2,), (SHIPPED_GPT_2,)),  # and OLMo, MPT, Pythia, phi-2
        PreTokenizer("smollm", (NUMBER, GPT_2), (SHIPPED_DIGIT, SHIPPED_GPT_2)),  # and StarCoder, Granite, Command R
        PreTokenizer("llama-bpe", (LLAMA_3,), (SHIPPED_LLAMA_3,), ignore_merges=True),  # Llama 3, Falcon 3, SmolLM 3
        PreTokenizer("dbrx", (LLAMA_3,), (SHIPPED_LLAMA_3,)),  # and OLMo 2, phi-4
        PreTokenizer("qwen2", (QWEN_2,), (SHIPPED_QWEN_2,)),  # Qwen 2, 2.5, 3
        PreTokenizer("qwen35", (QWEN_35,), (SHIPPED_QWEN_35,)),
    )
}

# llama.cpp's other names of the same (llama-vocab.cpp, load).
SAME = {
    "gpt-2": "phi-2 mpt olmo jais trillion granite-docling gigachat a.x-4.0 mellum exaone4",
    "smollm": "starcoder refact command-r codeshell exaone minerva-7b mellum2",
    "llama-bpe": "llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 glm4 glm5",
    "dbrx": "smaug-bpe chatglm-bpe",
    "qwen2": "stablelm2 deepseek-r1-qwen kormo f2llmv2 megrez hunyuan solar-open grok-2",
}
BY_NAME = {**PRE_TOKENIZERS, **{other: PRE_TOKENIZERS[name] for name in SAME for other in SAME[name].split()}}


def recognize(pre_tokenizer: dict[str, Any] | None, ignore_merges: bool) -> PreTokenizer:
    """The type that cuts text as a tokenizer.json's `pre_tokenizer` does, shipped or built here; or ValueError."""
    cuts = _cuts(pre_tokenizer)
    found = [pre for pre in PRE_TOKENIZERS.values() if cuts in (pre.cuts, pre.shipped)]
    for pre in found:
        if pre.ignore_merges == ignore_merges:
            return pre
    if found:
        raise ValueError(f"llama.cpp's {found[0].name} has ignore_merges {not ignore_merges}, it {ignore_merges}")
    raise ValueError("no pre-tokenizer of llama.cpp is known to cut text as its does")


def adds_space(pre_tokenizer: dict[str, Any] | None) -> bool:
    """Whether it reads a text as if a space stood before it."""
    return any(step.get("add_prefix_space", False) for step in _steps(pre_tokenizer))


def _cuts(pre_tokenizer: dict[str, Any] | None) -> tuple[str, ...] | None:
    """The regular expressions it cuts by; None where it does anything else."""
    *splits, last = _steps(pre_tokenizer) or [{"type": None}]
    if last["type"] != "ByteLevel":
        return None
    cuts = []
    for step in splits:
        if step["type"] == "Digits" and step["individual_digits"]:
            cuts.append(SHIPPED_DIGIT)
        # All that these expressions do not match is nothing, so that to keep the matches is to isolate them.
        elif step["type"] == "Split" and (step["behavior"], step["invert"]) in (("Isolated", False), ("Removed", True)):
            cuts.append(step["pattern"].get("Regex"))
        else:
            return None
    return (*cuts, SHIPPED_GPT_2) if last.get("use_regex", True) else tuple(cuts)


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    return pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
