"""Layers that differ from each other, described one by one in JSON."""

from __future__ import annotations

import json
from typing import Any

from custom_llm.common.text import shown
from custom_llm.config.block import BlockConfig, make_block

EXAMPLE = 'such as [{"attn": "mha", "n_head": 8, "moe": false, "up_dim": 1024, "non_linearity": "gelu"}]'


def parse_layers(text: str, n_embd: int | None, pos_emb: str, head_dim: int | None = None) -> tuple[BlockConfig, ...]:
    """The blocks of a JSON list of objects, one for each layer (see `make_block`).

    ValueError where it is not such a list, or an object of it is not a block, by its number (from 1).
    """
    try:
        layers = parse_json(text)
    except ValueError as error:
        raise ValueError(f"layer_configs {shown(text)} is not JSON: {error}") from None
    if not isinstance(layers, list):
        raise ValueError(f"layer_configs {shown(text)} is not a JSON list, {EXAMPLE}")
    if not layers:
        raise ValueError(f"layer_configs [] describes no layer; give an object for each, {EXAMPLE}")
    blocks = []
    for number, layer in enumerate(layers, 1):
        if not isinstance(layer, dict):
            raise ValueError(f"layer_configs, layer {number}: {shown(layer)} is not a JSON object, {EXAMPLE}")
        try:
            blocks.append(make_block(layer, n_embd, pos_emb, head_dim))
        except ValueError as error:
            raise ValueError(f"layer_configs, layer {number}: {error}") from None
    return tuple(blocks)


def parse_json(text: str) -> Any:
    """The value of a JSON text; ValueError also for what Python's reader lets pass: a key twice, NaN, infinity."""

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values:
                raise ValueError(f"the key {shown(key)} stands twice in one object")
            values[key] = value
        return values

    def refuse_constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON number")

    try:
        return json.loads(text, object_pairs_hook=without_duplicates, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("lists or objects are nested too deep") from None


def read_jsonl(text: str) -> str:
    """The content of a `layer_configs_jsonl` file, one JSON object a line, as the value of `layer_configs`.

    ValueError where a line is not a JSON object, by its number.
    """
    layers = []
    # Not splitlines, which also splits at characters that may stand in a JSON text.
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if not line.strip():
            continue
        try:
            layer = parse_json(line)
        except ValueError as error:
            raise ValueError(f"line {number} {shown(line.strip())} is not JSON: {error}") from None
        if not isinstance(layer, dict):
            raise ValueError(f"line {number} {shown(line.strip())} is not a JSON object")
        layers.append(layer)
    if not layers:
        raise ValueError("it has no lines; give a JSON object for each layer")
    return json.dumps(layers)
