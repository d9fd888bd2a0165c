"""The classic block as Hugging Face's GPT2LMHeadModel and as llama.cpp's `gpt2` graph.

Three steps, each plain data or a pure function on tensors:
    hf_config, hf_tensors   our model → config.json and GPT-2's tensor names
    rewrite                 what llama.cpp's graph cannot compute as it is, expressed exactly in what it can
    gguf_tensors            GPT-2's names → GGUF's (the same map as llama.cpp's own converter)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from custom_llm.config import ModelConfig
from custom_llm.errors import UserError

ARCHITECTURE = "gpt2"
HF_CLASS = "GPT2LMHeadModel"
HF_ACTIVATIONS = {"gelu": "gelu_new", "relu": "relu"}  # gelu_new is the tanh form

# ours → Hugging Face. GPT-2 keeps its matrices as (in, out), torch.nn.Linear as (out, in).
HF_NAMES = {
    r"token_embedding\.": "transformer.wte.",
    r"position_embedding\.": "transformer.wpe.",
    r"blocks\.(\d+)\.ln1\.": r"transformer.h.\1.ln_1.",
    r"blocks\.(\d+)\.attn\.proj\.": r"transformer.h.\1.attn.c_proj.",
    r"blocks\.(\d+)\.ln2\.": r"transformer.h.\1.ln_2.",
    r"blocks\.(\d+)\.ffn\.0\.": r"transformer.h.\1.mlp.c_fc.",
    r"blocks\.(\d+)\.ffn\.2\.": r"transformer.h.\1.mlp.c_proj.",
    r"ln_f\.": "transformer.ln_f.",
    r"head\.": "lm_head.",
}
# Hugging Face → GGUF
GGUF_NAMES = {
    r"transformer\.wte\.": "token_embd.",
    r"transformer\.wpe\.": "position_embd.",
    r"transformer\.h\.(\d+)\.ln_1\.": r"blk.\1.attn_norm.",
    r"transformer\.h\.(\d+)\.attn\.c_attn\.": r"blk.\1.attn_qkv.",
    r"transformer\.h\.(\d+)\.attn\.c_proj\.": r"blk.\1.attn_output.",
    r"transformer\.h\.(\d+)\.ln_2\.": r"blk.\1.ffn_norm.",
    r"transformer\.h\.(\d+)\.mlp\.c_fc\.": r"blk.\1.ffn_up.",
    r"transformer\.h\.(\d+)\.mlp\.c_proj\.": r"blk.\1.ffn_down.",
    r"transformer\.ln_f\.": "output_norm.",
    r"lm_head\.": "output.",
}
TRANSPOSED = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")

# llama.cpp rounds a context up to a multiple of 256 and reads that many rows of the position table.
POSITION_ROWS = 256
# GELU(s·x)/s → ReLU(x) for large s. A power of two, so that the scaling itself loses nothing; larger ones push
# the weights of ffn_down below what float16 (and the float16 scales of quantized blocks) can hold well.
RELU_SCALE = 512.0


def hf_config(config: ModelConfig, end_of_text_id: int | None) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "architectures": [HF_CLASS],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,  # gone from recent GPT2Config, but llama.cpp's converter reads it
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "activation_function": HF_ACTIVATIONS[config.non_linearity],
        "resid_pdrop": config.dropout,
        "embd_pdrop": 0.0,
        "attn_pdrop": config.dropout,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": end_of_text_id,
        "eos_token_id": end_of_text_id,
        "dtype": "float32",
    }


def read_config(hf_dir: str | Path) -> dict[str, Any]:
    """config.json of a directory that `write_hf_directory` wrote.

    Raises:
        UserError: there is none, or it is of another kind of model.
    """
    path = Path(hf_dir) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if HF_CLASS not in config["architectures"] or "n_ctx" not in config:
            raise ValueError("not a model this program exported")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; export a model with convert_to_gguf.py") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: {error}; export the model anew with convert_to_gguf.py") from None
    return config


def hf_tensors(weights: dict[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
    """Our state dict under GPT-2's names and in its layout, float32.

    Raises:
        UserError: the output layer has a bias that GPT-2, which has none, cannot express.
    """
    weights = {name: tensor.detach().float() for name, tensor in weights.items()}
    if "head.bias" in weights:
        shift = _as_input_shift(weights.pop("head.bias"), weights["head.weight"])
        weights["ln_f.bias"] = weights["ln_f.bias"] + shift
    for layer in range(config.n_layer):
        for kind in ("weight", "bias"):
            parts = [weights.pop(f"blocks.{layer}.attn.{name}.{kind}") for name in ("query", "key", "value")]
            fused = torch.cat(parts)  # (3·n_embd, n_embd) or (3·n_embd,)
            weights[f"transformer.h.{layer}.attn.c_attn.{kind}"] = fused
    renamed = {_rename(name, HF_NAMES): tensor for name, tensor in weights.items()}
    return {name: _transpose(name, tensor).contiguous() for name, tensor in renamed.items()}


def _as_input_shift(bias: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The shift δ of a linear layer's input with weight @ δ = bias, so that weight @ (x + δ) = weight @ x + bias.

    Args:
        bias: (vocab_size,)
        weight: (vocab_size, n_embd)
    """
    vocab_size, n_embd = weight.shape
    shift = torch.linalg.lstsq(weight.double(), bias.double(), driver="gelsd").solution
    miss = (weight.double() @ shift - bias).abs().max().item()
    if miss > 1e-5 * max(1.0, bias.abs().max().item()):
        raise UserError(
            f"head_bias: GPT-2 has no output bias, and {vocab_size} of them cannot be moved into a final norm of "
            f"n_embd {n_embd}; train without --head_bias, or with n_embd of at least {vocab_size}"
        )
    return shift.float()


def rewrite(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    """A tensor of the Hugging Face directory as llama.cpp's graph needs it, exact or to rounding.

    Args:
        name: GPT-2's name.
        config: the content of config.json.
    """
    if name == "transformer.wpe.weight":
        return F.pad(tensor, (0, 0, 0, padded_context(config) - config["n_positions"]))
    if config["activation_function"] == "relu":
        if ".mlp.c_fc." in name:
            return tensor * RELU_SCALE
        if name.endswith(".mlp.c_proj.weight"):
            return tensor / RELU_SCALE
    return tensor


def padded_context(config: dict[str, Any]) -> int:
    """Rows of the exported position table: block_size rounded up as llama.cpp rounds a context."""
    return -(-config["n_positions"] // POSITION_ROWS) * POSITION_ROWS


def gguf_tensors(tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a Hugging Face directory under GGUF's names, rewritten for llama.cpp."""
    for name, tensor in tensors.items():
        yield _rename(name, GGUF_NAMES), _transpose(name, rewrite(name, tensor, config)).contiguous()


def _rename(name: str, names: dict[str, str]) -> str:
    for pattern, replacement in names.items():
        new, found = re.subn("^" + pattern, replacement, name)
        if found:
            return new
    return name


def _transpose(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.T if name.endswith(TRANSPOSED) else tensor
