"""Why a model does not export, and the nearest one that does."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from typing import Any

from custom_llm.common.text import as_flag
from custom_llm.config.block import TRAIN_ONLY, defaults, known_keys
from custom_llm.config.model import MODEL_DEFAULTS, PER_LAYER, ModelConfig, without_meaning
from custom_llm.export.gguf.architectures import choose_architecture
from custom_llm.export.graph.graph import Graph
from custom_llm.export.huggingface.classes import in_directory

Changes = tuple[tuple[str, Any], ...]

# Changes to try, the least ones first, when a model does not export.
CHANGES: Changes = (
    ("rope_attention", 1.0), ("attn_softcap", None), ("logit_softcap", None), ("sliding_window", None),
    ("full_every", None), ("rotary_dim", None), ("rope_scaling", None), ("qk_norm_over", "head"), ("norm_topk", None),
    ("routed_scale", None), ("n_group", None), ("qkv_bias", None), ("parallel_residual", False),
    ("norm_place", "before"), ("qk_norm", False), ("head_bias", False), ("tie_embeddings", False),
    ("non_linearity", "swiglu"), ("non_linearity", "gelu"), ("norm", "rms"), ("norm", "layer"), ("bias", False),
    ("pos_emb", "rope"), ("aux_free", False), ("layers", "alike"), ("moe", False), ("attn", "mha"),
)  # fmt: skip
NAMED = (
    "norm_place", "parallel_residual", "sliding_window", "full_every", "rotary_dim", "rope_scaling", "rope_attention",
    "attn_softcap", "logit_softcap", "qkv_bias",
)  # fmt: skip
DRASTIC = {"layers", "moe", "attn"}


def refusal(config: ModelConfig) -> str:
    """Why a model does not export, in terms of its options, and the nearest one that does."""
    text = f"llama.cpp has no graph for {_describe(config)}"
    changes = nearest_changes(config)
    return f"{text}; nearest that exports: {_spell(config, changes)}" if changes else text


def nearest_changes(config: ModelConfig) -> Changes | None:
    """The least changes that make a model export; what was not left at its default counts twice, kinds of layers most.

    None if there are none, which is not known to happen.
    """
    config = _in_small(config)
    idle = without_meaning(config.to_dict()).keys()
    possible = [change for change in CHANGES if change[0] not in idle and _values(config, change[0]) != {change[1]}]
    defaults = ModelConfig.__dataclass_fields__
    chosen = {name for name, _ in possible if name == "layers" or _values(config, name) != {defaults[name].default}}
    never = not _values(config, "non_linearity").isdisjoint(TRAIN_ONLY)  # then there is no need to try the rest

    def weight(changes: Changes) -> tuple[int, int, int]:
        names = {name for name, _ in changes}
        return len(names & DRASTIC), len(names) + len(names & chosen), len(names & chosen)

    sets = (changes for n in range(1, len(possible) + 1) for changes in combinations(possible, n))
    for changes in sorted((changes for changes in sets if len(dict(changes)) == len(changes)), key=weight):
        if (not never or "non_linearity" in dict(changes)) and _exports(apply_changes(config, changes)):
            return changes
    return None


def apply_changes(config: ModelConfig, changes: Changes) -> ModelConfig | None:
    """The configuration with other options, without what has no meaning then; None if that is impossible."""
    values = {**config.to_dict(), **{name: value for name, value in changes if name not in (*PER_LAYER, "layers")}}
    values |= {name: MODEL_DEFAULTS[name] for name in without_meaning(values)}
    layers = [dict(layer) for layer in json.loads(config.layer_configs)] if config.layer_configs else [values]
    if ("layers", "alike") in changes:
        layers = [dict(layers[0]) for _ in layers]
    for layer in layers:
        layer.update((name, value) for name, value in changes if name in PER_LAYER)
        known = known_keys(layer, values["pos_emb"])
        for name in PER_LAYER:
            if name in layer and name not in known:
                del layer[name]
        for name, value in defaults(known).items():
            layer.setdefault(name, value)
        if "rope_head_dim" in known and layer.get("rope_head_dim") is None:
            layer["rope_head_dim"] = _rotating_head(config.n_embd // layer["n_head"])
    if config.layer_configs:
        values["layer_configs"] = json.dumps(layers)
    try:
        return ModelConfig(**values)
    except ValueError:
        return None


def _rotating_head(head_dim: int) -> int:
    """Half as wide as a head, as in DeepSeek, and even."""
    return max(2, head_dim // 4 * 2)


def _in_small(config: ModelConfig) -> ModelConfig:
    """A model of fewer layers that exports if and only if this one does: as many kinds of layers, in the same order.

    Of widths and numbers of experts it matters only whether they differ.
    """
    if config.layer_configs is None:
        return replace(config, n_layer=1)
    layers = json.loads(config.layer_configs)
    groups: dict[str, list[int]] = {}
    for i, layer in enumerate(layers):
        groups.setdefault(json.dumps({**layer, "up_dim": 0, "n_exp": 0}, sort_keys=True), []).append(i)
    kept: set[int] = set()
    for group in groups.values():
        other = next((i for i in group if layers[i] != layers[group[0]]), group[0])
        kept |= {group[0], other, group[-1]}
    few = [layers[i] for i in sorted(kept)]
    return replace(config, n_layer=len(few), layer_configs=json.dumps(few))


def _exports(config: ModelConfig | None) -> bool:
    return config is not None and choose_architecture(in_directory(Graph.of_config(config))[1]) is not None


def _values(config: ModelConfig, name: str) -> set[Any]:
    """The values that an option has in the layers, or the one of the model."""
    if name == "layers":
        return {"alike" if len(set(config.blocks)) == 1 else "different"}
    return {getattr(block, name) for block in (config.blocks if name in PER_LAYER else [config])}


def _describe(config: ModelConfig) -> str:
    """The options that decide which graph a model needs."""
    c = config
    positions = {"learn": "a table of positions", "sin": "sinusoidal positions", "rope": "RoPE"}[c.pos_emb]
    parts = [positions, {"layer": "LayerNorm", "rms": "RMSNorm"}[c.norm], "biases" if c.bias else "no biases"]
    if c.qk_norm:
        parts.append("QK-norm" if c.qk_norm_over == "head" else "QK-norm over all heads")
    parts += [f"{name} {getattr(c, name)}" for name in NAMED if getattr(c, name) != MODEL_DEFAULTS[name]]
    if c.head_bias:
        parts.append("a bias on the output layer")
    kinds = []
    for block in c.blocks:
        experts = f" in {block.n_act} of {block.n_exp} experts{' (aux_free)' * block.aux_free}" if block.moe else ""
        kinds.append(f"{block.attn} with {block.non_linearity}{experts}")
    return ", ".join(parts) + " and " + " beside ".join(dict.fromkeys(kinds))


def _spell(config: ModelConfig, changes: Changes) -> str:
    """Changes as they are written: flags, and keys of layers where those are listed."""
    keys = PER_LAYER if config.layer_configs else ()
    flags = [(name, value) for name, value in changes if name not in (*keys, "layers")]
    parts = [" ".join(f"no --{name}" if value is None else as_flag(name, value) for name, value in flags)]
    in_layers = {name: value for name, value in changes if name in keys}
    turns = ("pos_emb", "rope") in changes and ("attn", "mha") not in changes
    if turns and any(block.attn == "mla" for block in config.blocks):
        width = _rotating_head(config.n_embd // config.blocks[0].n_head)
        if keys:
            in_layers["rope_head_dim"] = width
        else:
            parts[0] += f" --rope_head_dim {width}"
    if ("layers", "alike") in changes:
        parts.append("every layer like the first")
    if in_layers:
        parts.append(f"{json.dumps(in_layers)[1:-1]} in every layer")
    return " and ".join(filter(None, parts))
