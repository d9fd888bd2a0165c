"""What is added to one table and needs an entry in another has it: a variant that was half added is told here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import gguf
import numpy as np
import pytest
import torch
from conftest import ROOT

from custom_llm.config.block import NON_LINEARITIES, PLAIN, TRAIN_ONLY
from custom_llm.config.sampling import Sampling
from custom_llm.export.gguf.architectures import ARCHITECTURES
from custom_llm.export.gguf.quantize import (
    ALIASES,
    BLOCKS,
    FALLBACKS,
    FILE_TYPES,
    HERE,
    NEED_IMPORTANCE,
    block_size,
    tensor_types,
)
from custom_llm.export.graph.check import check_structure, expected_shapes
from custom_llm.export.graph.graph import Attention, Experts, FeedForward, Layer, Structure
from custom_llm.export.graph.target import REWRITTEN, Target
from custom_llm.export.graph.tensor_names import rename, restore
from custom_llm.export.huggingface.classes import ACTIVATIONS, HF_CLASSES
from custom_llm.export.plan import QUANT_TYPES
from custom_llm.export.read_back import STEPS
from custom_llm.export.share.companions import PARAMETERS
from custom_llm.export.vocabulary import WRITERS
from custom_llm.tokenizer.carried import CarriedTokenizer
from custom_llm.tokenizer.load import TOKENIZERS

TARGETS = {f"{number} {target.name}": target for number, target in enumerate((*HF_CLASSES, *ARCHITECTURES))}


def structures(target: Target) -> Iterator[Structure]:
    """Structures of one layer, of every kind of tensors that a target accepts."""
    a = target.accepts
    latents = [dict(q_latent=n, kv_latent=16, rope_dim=4) for n in (0, 8)] if "latent" in a.attention else [{}]
    attns = [
        Attention(4, 1 if a.shared_keys == ("mqa",) else 4, 8, bias, out_bias, qk_norm, a.qk_norm_over[0], **latent)
        for bias, out_bias, qk_norm, latent in itertools.product(a.attn_bias, a.out_bias, a.qk_norm, latents)
    ]
    dense = [FeedForward(24, *kind, bias) for kind, bias in itertools.product(a.dense, a.dense_bias)]
    experts = [
        Experts(6, 2, 24, *kind, scoring, 24 * shared, bias)
        for kind, scoring, shared, bias in itertools.product(a.experts, a.scoring, a.shared_expert, a.selection_bias)
    ]
    for attn, ffn, norm_bias, head_bias, tied in itertools.product(
        attns, dense + experts, a.norm_bias, a.head_bias, a.tied
    ):
        positions = 64 if "table" in a.positions else None
        layers = (Layer(attn, ffn),)
        s = Structure(
            40, 32, 64, a.norm[0], norm_bias, 1e-5, positions, 1e4, layers, tied, head_bias, 0.0,
            norm_place=a.norm_place[0], parallel=a.parallel[0], embedding_scale=2.0 if a.embedding_scaled[0] else 1.0,
        )  # fmt: skip
        check_structure(s)
        if a.fits(s):
            yield s


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_target_has_a_name_for_every_tensor_it_may_hold(target):
    found = list(structures(target))
    assert found
    for s in found:
        tensors = {name: torch.zeros(shape) for name, shape in expected_shapes(s).items()}
        theirs = rename(tensors, s, target.names)  # fails where one has no name
        if target in HF_CLASSES:
            ours = restore(theirs, s, target.names)
            assert {name: x.shape for name, x in ours.items()} == {name: x.shape for name, x in tensors.items()}
            assert target.config(s)
        else:
            assert dict(target.all_metadata(s))


def test_every_type_of_file_is_known_to_all_that_ask_for_it():
    for name, number in FILE_TYPES.items():
        constant = "ALL_F32" if name == "F32" else f"MOSTLY_{name}"
        assert gguf.LlamaFileType[constant] == number
        packed = {"IQ3_M": "IQ3_S"}.get(name, name.removesuffix("_S").removesuffix("_M").removesuffix("_L"))
        kind = gguf.GGMLQuantizationType[packed if packed != "IQ3" else "IQ3_S"]
        assert gguf.GGML_QUANT_SIZES[kind][0] == block_size(name), name
    assert set(ALIASES.values()) | set(HERE) | set(QUANT_TYPES) <= FILE_TYPES.keys()
    assert not FILE_TYPES.keys() & {*NEED_IMPORTANCE, *ALIASES}


def test_every_type_of_tensor_has_a_size_and_what_is_written_here_a_bound():
    for kind, (n_bytes, n_values) in BLOCKS.items():
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]] == (n_values, n_bytes)
    assert BLOCKS.keys() >= {*HERE, *FALLBACKS, *FALLBACKS.values()}
    assert {kind for kind in HERE if BLOCKS[kind][1] > 1} == STEPS.keys()
    shapes = {"token_embd.weight": (40, 256), "output.weight": (40, 256), "blk.0.ffn_up.weight": (64, 48)}
    for name in {*HERE, *QUANT_TYPES}:
        assert set(tensor_types(shapes, name).values()) <= BLOCKS.keys()
    for name in HERE:
        gguf.quants.quantize(np.ones((1, 256), np.float32), gguf.GGMLQuantizationType[name])


def test_one_table_says_which_activations_never_export():
    accepted = {activation for a in ARCHITECTURES for activation, _ in (*a.accepts.dense, *a.accepts.experts)}
    assert set(PLAIN) - set(TRAIN_ONLY) == accepted | set(REWRITTEN)
    assert not set(TRAIN_ONLY) & (accepted | set(REWRITTEN))
    assert ACTIVATIONS.keys() <= set(PLAIN) <= set(NON_LINEARITIES)
    assert f"`{' '.join(TRAIN_ONLY)}`" in (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")


def test_every_tokenizer_can_be_written_and_every_setting_of_a_modelfile_is_one():
    assert {*WRITERS, CarriedTokenizer.kind} == TOKENIZERS.keys()  # which has files of its own
    assert PARAMETERS.keys() <= vars(Sampling()).keys()
