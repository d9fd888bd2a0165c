"""Proof where llama.cpp is not installed: a GGUF file is read back and held against the trained weights and tokenizer.

It shows that the file holds this model, tensor by tensor and token by token; that llama.cpp computes it as PyTorch
does is shown where llama.cpp runs (`proof`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, quants

from custom_llm.common.errors import UserError
from custom_llm.common.gguf import read_header
from custom_llm.export.gguf.architectures import choose_architecture
from custom_llm.export.graph.graph import Graph
from custom_llm.export.huggingface.classes import in_directory
from custom_llm.export.vocabulary import GGUFVocabulary, gguf_vocabulary, merges
from custom_llm.llamacpp import MISSING, is_available
from custom_llm.model import GPTLanguageModel
from custom_llm.tokenizer.added_tokens import Added
from custom_llm.tokenizer.base import Tokenizer
from custom_llm.tokenizer.bpe import BPETokenizer, unspell
from custom_llm.tokenizer.carried import CarriedTokenizer
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.tokenizer.gguf_keys import CONTROL, NORMAL, USER_DEFINED
from custom_llm.tokenizer.pre_tokenizers import PRE_TOKENIZERS

# The directory that files are made of holds them multiplied for its class (`huggingface.classes.SHRINK`), and they are
# divided again: two roundings in float32.
ROUNDED_TWICE = ("attn_q_a.weight", "attn_kv_a_mqa.weight")
STEPS = {"Q8_0": 127, "Q4_0": 8, "Q5_0": 16, "Q4_1": 15, "Q5_1": 31}  # of a block's scale, to its largest value


@dataclass(frozen=True)
class Agreement:
    """How far the weights in a file are from the trained ones; within what its types explain, or it were none."""

    n_tensors: int
    n_tokens: int
    max_difference: float  # of any weight
    relative_error: float  # root of the mean square of all differences, as a share of that of the weights


def why_not_run() -> str:
    """Why llama.cpp does not run the files that are written here; empty where it does."""
    return "" if is_available() else f"{MISSING}, so it has not run these files"


class Original:
    """The tensors, the metadata and the vocabulary that the files of a model must hold."""

    def __init__(self, model: GPTLanguageModel, tokenizer: Tokenizer, text: str) -> None:
        """`text`: some thousand characters that the model was trained on, which must be read as the same ids."""
        architecture, graph = choose_architecture(in_directory(Graph.of_model(model))[1])
        self.tensors = {name: x.numpy() for name, x in architecture.tensors(graph).items()}
        self.metadata = {
            "general.architecture": architecture.name,
            **dict(architecture.all_metadata(graph.s)),
            "custom_llm.block_size": graph.s.block_size,
        }
        self.tokenizer, self.vocabulary, self.text = tokenizer, gguf_vocabulary(tokenizer), text

    def compare(self, path: str | Path, name: str | Path) -> Agreement:
        """Hold the GGUF file at `path`, which is to be called `name`, against the model.

        Raises:
            UserError: something in it is another than the model's, and no rounding of its types explains it.
        """
        try:
            reader = GGUFReader(path)
            self._check_metadata(reader)
            self._check_vocabulary(path)
            return self._compare_tensors(reader)
        except (ValueError, KeyError, IndexError, AttributeError, UnicodeDecodeError) as error:
            raise UserError(f"{name}: read back, {error}, so the file is not kept; --no_verify keeps it") from None

    def _check_metadata(self, reader: GGUFReader) -> None:
        for key, expected in self.metadata.items():
            found = _value(reader, key)
            if not np.allclose(found, expected, rtol=1e-6) if isinstance(expected, float) else found != expected:
                raise ValueError(f"{key} is {found!r} and not {expected!r}")

    def _check_vocabulary(self, path: str | Path) -> None:
        found = read_gguf_vocabulary(path)
        if found != self.vocabulary:
            raise ValueError("its vocabulary is not the trained one")
        rebuilt = CarriedTokenizer(found.keys) if self.tokenizer.kind == CarriedTokenizer.kind else rebuild(found)
        for i, (token, expected) in enumerate(zip(rebuilt.bytes, self.tokenizer.bytes, strict=True)):
            if token != expected:
                raise ValueError(f"token {i} is {token!r} and not {expected!r}")
        if rebuilt.encode(self.text).tolist() != self.tokenizer.encode(self.text).tolist():
            raise ValueError("its vocabulary reads the training text as other token ids")

    def _compare_tensors(self, reader: GGUFReader) -> Agreement:
        found = {tensor.name: tensor for tensor in reader.tensors}
        if odd := sorted(found.keys() ^ self.tensors.keys()):
            raise ValueError(f"{odd[0]} is {'unexpected' if odd[0] in found else 'missing'}")
        worst = squares = whole = 0.0
        for name, expected in self.tensors.items():
            tensor = found[name]
            kind = tensor.tensor_type.name
            actual = quants.dequantize(tensor.data, tensor.tensor_type)
            if actual.shape != expected.shape:
                raise ValueError(f"{name} has shape {actual.shape} and not {expected.shape}")
            difference = np.abs(actual - expected)
            allowed = rounding(expected, kind)
            if kind == "F32" and name.endswith(ROUNDED_TWICE):
                allowed = np.abs(expected) * 2.0**-22
            if not (difference <= allowed).all():  # the negation also catches NaN
                raise ValueError(f"{name} is further from the trained weights than {kind} explains")
            worst = max(worst, float(difference.max(initial=0)))
            squares += float(np.square(difference, dtype=np.float64).sum())
            whole += float(np.square(expected, dtype=np.float64).sum())
        return Agreement(len(found), len(self.vocabulary.tokens), worst, (squares / whole) ** 0.5 if whole else 0.0)


def rounding(x: np.ndarray, kind: str) -> np.ndarray | float:
    """How far from the weights `x` (…, n) values in a GGUF type may be; any distance for types that are not known here.

    Types of blocks hold 32 values as whole multiples of a scale (and above a least value, in Q4_1 and Q5_1), which are
    float16. The numbers of Q4_0 and Q5_0 reach a step less far above 0 than below, or the other way round.
    """
    if kind == "F32":
        return 0.0
    if kind in ("F16", "BF16"):
        return np.maximum(np.abs(x) * 2.0 ** (-11 if kind == "F16" else -8), 2.0 ** (-25 if kind == "F16" else -134))
    if kind not in STEPS:
        return np.inf
    n = STEPS[kind]
    blocks = x.reshape(-1, 32).astype(np.float64)
    largest = np.abs(blocks).max(-1, keepdims=True)
    least = blocks.min(-1, keepdims=True)
    scale = (blocks.max(-1, keepdims=True) - least if kind.endswith("_1") else largest) / n
    allowed = scale * 0.5001 + n * rounding(scale, "F16") + largest * 2.0**-22  # float32 in between
    if kind.endswith("_1"):
        allowed = allowed + rounding(least, "F16")
    elif kind != "Q8_0":
        allowed = allowed + np.maximum(0, np.abs(blocks) - (n - 0.5) * scale)
    return np.broadcast_to(allowed, blocks.shape).reshape(x.shape)


def read_gguf_vocabulary(path: str | Path) -> GGUFVocabulary:
    """The vocabulary of a GGUF file. Raises UserError where it cannot be read."""
    metadata = read_header(path).metadata
    return GGUFVocabulary({key: value for key, value in metadata.items() if key.startswith("tokenizer.")})


def rebuild(vocabulary: GGUFVocabulary) -> Tokenizer:
    """Our tokenizer of a file's vocabulary. Raises ValueError where there is none that llama.cpp reads alike."""
    tokens, types = vocabulary.tokens, vocabulary.types
    pre, end = vocabulary.keys["tokenizer.ggml.pre"], vocabulary.keys["tokenizer.ggml.eos_token_id"]
    normal = [unspell(token) for token, kind in zip(tokens, types, strict=True) if kind == NORMAL]
    chars = [token.decode("utf-8", "ignore") for token in normal]
    joined = [] if vocabulary.merges == merges("") else vocabulary.merges
    if all(len(char) == 1 for char in chars):  # a byte-level BPE has bytes that are no characters
        if vocabulary.merges != merges(chars) or types != sorted(types):
            raise ValueError("its merges do not make its characters")
        return CharTokenizer("".join(chars), end_of_text=CONTROL in types)
    added = {i: Added(tokens[i], kind == CONTROL) for i, kind in enumerate(types) if kind in (CONTROL, USER_DEFINED)}
    pairs = [tuple(merge.split(" ")) for merge in joined]
    return BPETokenizer(tokens, pairs, added, PRE_TOKENIZERS[pre], tokens[end])


def _value(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise ValueError(f"{key} is missing")
    return field.contents()
