"""Tokenizers of other models, in the forms in which the models ship them."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from vocabularies import PIECES, SCRIPTS

from custom_llm.tokenizer.base import END_OF_TEXT

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
QWEN_2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SPELL = {**BYTE_LEVEL, "use_regex": False}


def split_at(regex: str) -> dict:
    cut = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [cut, SPELL]}


DIGITS = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]}
BEGIN = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {},  # filled in by `make`
}
LLAMA_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(9))]

# name → pre_tokenizer, special tokens, other added tokens, the token named as eos, its class, and more
FORMS = {
    "gpt-2": (BYTE_LEVEL, [END_OF_TEXT], [], END_OF_TEXT, "GPT2Tokenizer", {}),
    "llama-3": (
        split_at(LLAMA_3),
        [*LLAMA_SPECIAL, "<|eot_id|>"],
        [],
        "<|eot_id|>",
        "PreTrainedTokenizerFast",
        {"ignore_merges": True, "post_processor": {"type": "Sequence", "processors": [BYTE_LEVEL, BEGIN]}},
    ),
    "qwen2": (
        split_at(QWEN_2),
        [END_OF_TEXT, "<|im_start|>", "<|im_end|>"],
        ["<tool_call>", "<|fim_prefix|>", "<|file_sep|>"],
        "<|im_end|>",
        "Qwen2Tokenizer",
        {"normalizer": {"type": "NFC"}},
    ),
    "qwen3.5": (split_at(QWEN_35), [END_OF_TEXT, "<|im_end|>"], ["<think>"], "<|im_end|>", "Qwen2Tokenizer", {}),
    "smollm": (DIGITS, [END_OF_TEXT, "<|im_start|>"], [], END_OF_TEXT, "GPT2Tokenizer", {}),
    "pythia": (
        BYTE_LEVEL,
        [END_OF_TEXT, "<|padding|>"],
        [" " * n for n in range(24, 1, -1)],
        END_OF_TEXT,
        "GPTNeoXTokenizer",
        {"normalizer": {"type": "NFC"}},
    ),
    "olmo-2": (split_at(LLAMA_3), [END_OF_TEXT, "<|endofprompt|>"], [], END_OF_TEXT, "GPT2Tokenizer", {}),
}
PRE = {
    "gpt-2": "gpt-2",
    "llama-3": "llama-bpe",
    "qwen2": "qwen2",
    "smollm": "smollm",
    "pythia": "gpt-2",
    "qwen3.5": "qwen35",
}
NOTES = {
    "llama-3": ["no token is put around a text, where the tokenizer would put <|begin_of_text|>"],
    "qwen2": ["text stays as it is, where the tokenizer would normalize it (NFC)"],
    "pythia": ["text stays as it is, where the tokenizer would normalize it (NFC)"],
}


def make(form: str, folder: Path, vocab_size: int = 600) -> Path:
    """A folder such as `save_pretrained` leaves it, with the tokenizer of one of these models, learned anew."""
    pre_tokenizer, special, others, eos, its_class, more = FORMS[form]
    hf = Tokenizer(models.BPE())
    content = {**json.loads(hf.to_str()), "pre_tokenizer": pre_tokenizer, "decoder": BYTE_LEVEL}
    hf = Tokenizer.from_str(json.dumps(content))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    hf.train_from_iterator(
        [SCRIPTS * 3, *PIECES * 2],
        trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False),
    )
    hf.add_special_tokens(special)
    hf.add_tokens([AddedToken(token, normalized=bool(token.isspace())) for token in others])
    content = {**json.loads(hf.to_str()), **{key: more[key] for key in more if key != "ignore_merges"}}
    if "ignore_merges" in more:  # which only shows where a token has no merge
        content["model"]["ignore_merges"] = True
        content["model"]["merges"] = content["model"]["merges"][::2]
        kept = {"".join(merge) for merge in content["model"]["merges"]}
        content["model"]["merges"] = [
            pair for pair in content["model"]["merges"] if all(len(side) == 1 or side in kept for side in pair)
        ]
    if "post_processor" in more:
        first = hf.token_to_id("<|begin_of_text|>")
        marks = {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [first], "tokens": ["<|begin_of_text|>"]}}
        content["post_processor"]["processors"][1] = {**BEGIN, "special_tokens": marks}
    hf = Tokenizer.from_str(json.dumps(content))
    begin = special[0]
    PreTrainedTokenizerFast(tokenizer_object=hf, bos_token=begin, eos_token=eos).save_pretrained(folder)
    change(folder / "tokenizer_config.json", lambda config: config.update(tokenizer_class=its_class))
    return folder


def change(path: Path, how) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    how(content)
    path.write_text(json.dumps(content), encoding="utf-8")
