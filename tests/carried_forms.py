"""Tokenizers such as come with models that a training can start from, learned anew and small."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast
from vocabularies import PIECES, SCRIPTS

RUNS = "the theme aaaa aaa aa haha hahah anana banana abababa hello  lol   ======== ....... 2025 1999 "
LINES = [*SCRIPTS.split("\n"), *[RUNS * 3] * 4]
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"


def sentencepiece_model(folder: Path, **settings) -> Path:
    """A folder with only a tokenizer.model, as the first Llama's had it; skips where `sentencepiece` is missing."""
    sentencepiece = pytest.importorskip("sentencepiece")
    content = io.BytesIO()
    settings = {"add_dummy_prefix": True, "character_coverage": 0.98, **settings}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=content, model_type="bpe", byte_fallback=True, vocab_size=600,
        hard_vocab_limit=False, minloglevel=2, normalization_rule_name="identity", remove_extra_whitespaces=False,
        **settings,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(content.getvalue())
    return folder


def like_llama(folder: Path) -> Path:
    """A space is put before each text."""
    return sentencepiece_model(folder)


def like_gemma(folder: Path) -> Path:
    """No space is; runs of spaces and of line breaks are tokens of their own."""
    runs = ["▁▁", "▁▁▁", "▁▁▁▁", "\n", "\n\n", "\n\n\n", "<b>", "</b>"]
    return sentencepiece_model(folder, add_dummy_prefix=False, user_defined_symbols=runs)


def trained_by_tokenizers(folder: Path) -> Path:
    """Merges in an order that no scores can have."""
    hf = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    hf.normalizer = normalizers.Replace(" ", "▁")
    hf.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [word for line in LINES for word in line.replace(" ", " ▁").split(" ")]
    hf.train_from_iterator(words, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False))
    content = json.loads(hf.to_str())
    content["added_tokens"] = content["added_tokens"][:4]
    hf = Tokenizer.from_str(json.dumps(content))
    hf.add_tokens([AddedToken("<turn>", special=True, normalized=False)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=hf, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "add_bos_token": True}))
    return folder


SENTENCEPIECE = {"llama": like_llama, "gemma": like_gemma, "tokenizers": trained_by_tokenizers}
ODD = [*PIECES, "a" * 7, "ha" * 5, "an" * 4, "ab" * 6, " " * 33, "\n" * 9, "<0x0A>", "</s>", "<s>", "<eos>", "[PAD700]"]
