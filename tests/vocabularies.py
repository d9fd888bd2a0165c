"""Texts of many scripts, small models over a vocabulary, and whether all that read it give the same ids."""

from __future__ import annotations

import numpy as np
import torch
from gguf import GGUFWriter
from hypothesis import HealthCheck
from hypothesis import strategies as st

from custom_llm.export.gguf.writer import add_block_size, add_vocabulary
from custom_llm.export.huggingface.directory import write_hf_directory
from custom_llm.export.pipeline import convert_to_gguf
from custom_llm.export.vocabulary import gguf_vocabulary
from custom_llm.model import GPTLanguageModel
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.bpe import BYTE_LETTERS

SCRIPTS = (
    "The fox's tail isn't long, they've said; I'm sure we'll see. 12 345,67 €\n\n  two  spaces\tand a tab\r\n"
    "Die Straße führt über größere Brücken. Où est l'été? ¿Dónde está el niño? Žluťoučký kůň. "
    "Жили-были дед да баба. Ήταν μια φορά. כל בני האדם. كان يا ما كان في قديم الزمان. हिन्दी में एक कहानी। "
    "ไทยเป็นภาษา 한국어 이야기 日本語のお話。春眠不觉晓，处处闻啼鸟。 🙂👩‍👩‍👧🇩🇪 𝔘𝔫𝔦 ½ ² ٣ Ⅷ — … “x” "
)
PIECES = [
    END_OF_TEXT, "<|endoftext|", "  ", "\n\n", "\n \n", "\t\t", "\r\n", " \u00a0 ", "\u3000", "\u2028", "\x85", "\x1c",
    "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "''ll", "it's", "1234567890", "3.14", "aaaa", "!!!", "...", "\0",
    "\x01\x7f", "\u200b\u200d\ufe0f", "\ufeff", "\ufffd", "\uffff", "\ue000", "\U0010ffff", "e\u0301",
    "\u1c89\U00010d40", "\U000143fa", "\U0001d7d9",
]  # fmt: skip
TEXTS = st.lists(
    st.one_of(st.text(), st.text(SCRIPTS), st.sampled_from(SCRIPTS.split(" ")), st.sampled_from(PIECES), st.just(" ")),
    max_size=10,
).map("".join)
MANY = dict(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def small_model(vocab_size: int) -> GPTLanguageModel:
    torch.manual_seed(0)
    values = dict(vocab_size=vocab_size, n_embd=32, n_head=4, n_layer=2, block_size=32, dropout=0.0)
    model = GPTLanguageModel(values).eval()
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.2
    return model


def export(tokenizer, folder):
    """The folder of a model with this vocabulary, and its file."""
    model = small_model(tokenizer.vocab_size)
    write_hf_directory(model, tokenizer, folder / "hf")
    convert_to_gguf(str(folder / "hf"), str(folder / "model.gguf"), "Q8_0", llama_cpp_path=None)
    return model, folder / "hf", folder / "model.gguf"


def check_ids(readers, text: str) -> None:
    tokenizer, hf, runtime = readers
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert hf(text)["input_ids"] == ids.tolist()
    assert runtime.tokenize(text) == ids.tolist()
    assert tokenizer.decode(ids) == text == hf.decode(ids.tolist())
    assert runtime.spell(ids.tolist()) == text.encode()
    assert tokenizer.unknown(text) == []


def boundary_merges() -> list[tuple[str, str]]:
    """Merges in which it shows how any character is cut from what stands around it.

    A letter, a digit, a sign, a quote and a tab merge with the first byte of every character behind them, and "b" and
    "1" with the last byte of every one before, if both belong to the same piece.
    """
    leads = sorted({chr(point).encode()[0] for point in (*range(0xD800), *range(0xE000, 0x110000, 64))})
    behind = [(first, BYTE_LETTERS[lead]) for first in ("a", "1", "!", "'", BYTE_LETTERS[9]) for lead in leads]
    before = [(BYTE_LETTERS[last], second) for second in ("b", "1") for last in range(0xC0)]
    return list(dict.fromkeys(behind + before))


def check_boundaries(boundaries, points) -> None:
    """Whether llama.cpp cuts around each of these code points as our tokenizer does."""
    tokenizer, runtime = boundaries
    lines = [
        "a{0}b 1{0}1 !{0} \t{0}\t{0}. {0}b\n{0}b{0}\n 12{0}345 '{0} '{0}e '{0}{0}\r\n{0}\n x".format(chr(point))
        for point in points
    ]
    for start in range(0, len(lines), 256):
        part = lines[start : start + 256]
        if tokenizer.encode("".join(part)).tolist() != runtime.tokenize("".join(part)):
            assert [line for line in part if tokenizer.encode(line).tolist() != runtime.tokenize(line)] == []
            raise AssertionError(f"lines from {start} on, but none of them alone")


def in_llama_cpp(tokenizer, folder):
    """The vocabulary as llama.cpp has it, by way of a file without weights."""
    from custom_llm.llamacpp import Model

    writer = GGUFWriter(folder / "vocabulary.gguf", "gpt2")
    add_block_size(writer, 1)  # of no meaning without weights
    add_vocabulary(writer, gguf_vocabulary(tokenizer))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return Model(folder / "vocabulary.gguf", vocab_only=True)
