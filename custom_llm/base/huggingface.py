"""A folder that `transformers` loads, as a model of ours: what export/huggingface/classes.py writes, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from custom_llm.base.folder import weight_files
from custom_llm.config.model import ModelConfig
from custom_llm.export.graph.check import check_structure, expected_shapes
from custom_llm.export.graph.configuration import as_model
from custom_llm.export.graph.graph import Graph, Structure
from custom_llm.export.graph.tensor_names import restore
from custom_llm.export.huggingface.classes import BY_NAME
from custom_llm.export.huggingface.directory import OURS

# Classes that hold another one: its tensors' names begin otherwise, and its configuration stands inside theirs.
INSIDE = {
    "Gemma3ForConditionalGeneration": (
        "Gemma3ForCausalLM",
        "text_config",
        ("model.language_model.", "language_model.model."),
    )
}
# Tensors that follow from the configuration, and what no model that writes needs.
LEFT_OUT = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")


def read_folder(folder: str | Path) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """The configuration of a folder's model and its weights, in the type they have there, under our names.

    Raises:
        ValueError: what is wrong with it, or not known here.
        OSError: a file is missing or cannot be read.
    """
    folder = Path(folder)
    name, structure = read_structure(folder)
    tensors = read_tensors(folder)
    if name in INSIDE:
        tensors = _inside(tensors, INSIDE[name][2])
        name = INSIDE[name][0]
    names = {ours: ours for ours in expected_shapes(structure)} if name == OURS else BY_NAME[name].names
    return as_model(Graph(structure, restore(_known(tensors, structure), structure, names)))


def read_structure(folder: Path) -> tuple[str, Structure]:
    """The class that a folder is for, and what it computes. ValueError and OSError as by `read_folder`."""
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not isinstance(raw, dict):
        raise ValueError("its config.json is no JSON object")
    said = raw.get("architectures")
    kinds = {c.model_type: c.name for c in reversed(list(BY_NAME.values()))}
    name = str(said[0]) if isinstance(said, list) and said else kinds.get(raw.get("model_type"), "")
    if name not in BY_NAME and name not in INSIDE and name != OURS:
        known = ", ".join(sorted({c.model_type for c in BY_NAME.values()}))
        what = raw.get("model_type") or name or "nothing"
        raise ValueError(f"it is a model of {what}, which is not known here; {known} are")
    try:
        if own := raw.get("custom_llm"):
            structure = Structure.from_dict(own)
            if structure.vocab_size != raw.get("vocab_size"):  # a program has added tokens
                structure = Structure(**{**vars(structure), "vocab_size": raw["vocab_size"]})
        else:
            hf_class = BY_NAME[INSIDE[name][0] if name in INSIDE else name]
            structure = hf_class.read(_completed(folder, raw, name))
        check_structure(structure)
    except (AttributeError, KeyError, TypeError, IndexError, ZeroDivisionError, OverflowError) as error:
        raise ValueError(f"its config.json is damaged ({type(error).__name__}: {error})") from None
    return name, structure


def _completed(folder: Path, raw: dict[str, Any], name: str) -> dict[str, Any]:
    """config.json with the defaults of `transformers` for what it does not say."""
    from transformers import AutoConfig
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever a damaged file makes of it
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"its config.json cannot be read ({reason[:200]})") from None
    finally:
        logging.set_verbosity(verbosity)
    if name in INSIDE:
        config = getattr(config, INSIDE[name][1])
    values = {**vars(config), **config.to_dict()}
    return values | {ours: values[theirs] for ours, theirs in config.attribute_map.items() if theirs in values}


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's safetensors files. ValueError and OSError as by `read_folder`."""
    tensors: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as opened:
                tensors |= {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path.name} is damaged ({error})") from None
    return tensors


def _inside(tensors: dict[str, torch.Tensor], prefixes: tuple[str, ...]) -> dict[str, torch.Tensor]:
    found = {}
    for name, x in tensors.items():
        for prefix in prefixes:
            if name.startswith(prefix):
                found["model." + name.removeprefix(prefix)] = x
        if name.endswith("lm_head.weight"):
            found["lm_head.weight"] = x
    return found


def _known(tensors: dict[str, torch.Tensor], s: Structure) -> dict[str, torch.Tensor]:
    """The same without what follows from the rest."""
    tied = ("lm_head.weight", "embed_out.weight") if s.tied else ()
    kept = {name: x for name, x in tensors.items() if not name.endswith(LEFT_OUT) and name not in tied}
    for name, x in kept.items():
        if not x.dtype.is_floating_point:
            raise ValueError(
                f"{name} is {str(x.dtype).removeprefix('torch.')}; weights rounded to so few bits are not known here"
            )
    return kept
