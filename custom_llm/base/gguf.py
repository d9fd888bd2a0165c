"""A GGUF file as a model of ours: what export/gguf/architectures.py writes, read back.

Which tensors are there says most of what a model computes; its metadata say the sizes and the rest. Weights that were
rounded to few bits are numbers again (`gguf.quants`), and stay as rounded as they are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from custom_llm.common.gguf import Header, TensorPlace, read_header
from custom_llm.config.model import ModelConfig
from custom_llm.export.gguf.architectures import ARCHITECTURES, GATING, ROPE_FREQS, frequency_factors
from custom_llm.export.graph.check import check_structure
from custom_llm.export.graph.configuration import as_model
from custom_llm.export.graph.graph import Attention, Experts, FeedForward, Graph, Layer, Structure
from custom_llm.export.graph.tensor_names import restore
from custom_llm.model.layers import BETA_FAST, BETA_SLOW

POSITIONS = "position_embd.weight"
WHOLE = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # types of weights that were not rounded
KNOWN = {a.name: [other for other in ARCHITECTURES if other.name == a.name] for a in ARCHITECTURES}
ACTIVATION = {"gptneox": "gelu_erf", "gpt2": "gelu", "starcoder2": "gelu", "arcee": "relu2", "jais2": "relu2"}
GELU_GATES = ("gemma2", "gemma3", "spark2_5")  # others have gates of SiLU
# What llama.cpp takes where a file does not say it: each so many-th layer sees everything; bounds of scores and output.
FULL_EVERY = {"gemma2": 2, "gemma3": 6, "olmo2": 4}
CAPS = {"gemma2": (50.0, 30.0)}
LLAMA3_ORIGINALS = [1 << i for i in range(5, 21)]  # contexts that the tensor of factors may be of


def read_gguf(path: str | Path, header: Header | None = None) -> tuple[ModelConfig, dict[str, torch.Tensor], str]:
    """The configuration of a file's model, its weights under our names, and the type most of them were rounded to.

    That is empty where they were not. Weights in F16 and BF16 stay so, others are float32.

    header: of the file, if it was read already.

    Raises:
        ValueError: what is wrong with it, or not known here.
        UserError: the header is damaged.
        OSError: the file cannot be read.
    """
    header = header or read_header(path)
    kind = header.metadata.get("general.type", "model")
    name = header.metadata.get("general.architecture")
    if kind != "model":
        raise ValueError(f"it is no whole model but of the kind {kind}; give the file of the model it belongs to")
    if name not in KNOWN:
        raise ValueError(f"it is a model of {name}, which is not known here; {', '.join(sorted(KNOWN))} are")
    try:
        structure = _Reader(name, header).structure(path)
        check_structure(structure)
    except (AttributeError, KeyError, TypeError, IndexError, ZeroDivisionError, OverflowError) as error:
        raise ValueError(f"its metadata are damaged ({type(error).__name__}: {error})") from None
    target = next((target for target in KNOWN[name] if target.accepts.fits(structure)), None)
    if target is None:
        raise ValueError(f"it is a {name} of a kind that is not known here")
    places = {name: place for name, place in header.tensors.items() if name != ROPE_FREQS}
    tensors = {name: _read(path, name, place) for name, place in places.items()}
    if POSITIONS in tensors:  # our files have more rows than were trained
        tensors[POSITIONS] = tensors[POSITIONS][: structure.n_positions].clone()
    config, weights = as_model(Graph(structure, restore(tensors, structure, target.names)))
    return config, weights, _rounded_to(places.values())


def _rounded_to(places: Any) -> str:
    """The type that most weights in matrices are in, if that is one of few bits."""
    count: Counter[str] = Counter()
    for place in places:
        if len(place.shape) > 1:
            count[GGMLQuantizationType(place.kind).name] += math.prod(place.shape)
    name = count.most_common(1)[0][0] if count else "F32"
    return "" if name in WHOLE else name


def _read(path: str | Path, name: str, place: TensorPlace) -> torch.Tensor:
    """A tensor of a file."""
    from gguf import GGML_QUANT_SIZES

    kind = GGMLQuantizationType(place.kind)
    of_block, n_bytes = GGML_QUANT_SIZES[kind]
    n = math.prod(place.shape)
    content = np.fromfile(path, np.uint8, n // of_block * n_bytes, offset=place.start)
    if len(content) < n // of_block * n_bytes:
        raise ValueError(f"it ends before {name} does; get it again")
    if kind.name in WHOLE:
        return torch.from_numpy(content).view(WHOLE[kind.name]).view(place.shape)
    try:
        rows = content.reshape(*place.shape[:-1], -1)
        return torch.from_numpy(np.ascontiguousarray(dequantize(rows, kind), np.float32)).view(place.shape)
    except NotImplementedError:
        raise ValueError(f"{name} is in {kind.name}, which cannot be read here; take the file in Q8_0 or F16") from None


class _Reader:
    """What a file's header says about its model."""

    def __init__(self, architecture: str, header: Header) -> None:
        self.name, self.metadata, self.places = architecture, header.metadata, header.tensors
        names: Mapping[str, Any] = {}
        for target in KNOWN[architecture]:
            names = {**names, **target.names}
        self._names = names

    def get(self, key: str, default: Any = None) -> Any:
        return self.metadata.get(f"{self.name}.{key}", default)

    def need(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise ValueError(f"its metadata lack {self.name}.{key}")
        return value

    def each(self, key: str, n: int, default: Any = None) -> list[Any]:
        """A value for each layer."""
        value = self.get(key, default)
        if value is None:
            raise ValueError(f"its metadata lack {self.name}.{key}")
        return value if isinstance(value, list) else [value] * n

    def has(self, tensor: str) -> bool:
        return tensor in self.places

    def shape(self, tensor: str) -> tuple[int, ...]:
        if tensor not in self.places:
            raise ValueError(f"{tensor} is missing")
        return self.places[tensor].shape

    def structure(self, path: str | Path) -> Structure:
        vocab_size, width = self.shape("token_embd.weight")
        n_layer = self.need("block_count")
        if not 0 < n_layer <= 512:
            raise ValueError(f"{self.name}.block_count is {n_layer}")
        norm = "layer" if self.get("attention.layer_norm_epsilon") is not None else "rms"
        eps = self.need(f"attention.layer_norm_{'rms_' if norm == 'rms' else ''}epsilon")
        block_size = self.metadata.get("custom_llm.block_size") or self.need("context_length")
        n_positions = min(block_size, self.shape(POSITIONS)[0]) if self.has(POSITIONS) else None
        layers = tuple(self._layer(i, n_layer, width) for i in range(n_layer))
        is_gemma = self.name.startswith("gemma")
        after = self.has("blk.0.post_ffw_norm.weight")
        softcap = self.get("final_logit_softcapping", CAPS.get(self.name, (None, None))[1])
        rope = {} if n_positions else self._rope(path, layers[0].attn)
        return Structure(
            vocab_size=vocab_size, width=width, block_size=n_positions or block_size, norm=norm,
            norm_bias=self.has("output_norm.bias"), eps=_shortest(eps), n_positions=n_positions, layers=layers,
            tied=not self.has("output.weight"), head_bias=self.has("output.bias"), dropout=0.0,
            norm_place="both" if after and self.has("blk.0.attn_norm.weight") else "after" if after else "before",
            parallel=bool(self.get("use_parallel_residual", False)), embedding_scale=width**0.5 if is_gemma else 1.0,
            logit_softcap=_shortest(softcap) or None, **{"rope_base": 10_000.0, **rope},
        )  # fmt: skip

    def _layer(self, i: int, n_layer: int, width: int) -> Layer:
        return Layer(self._attention(i, n_layer, width), self._feed_forward(i, n_layer))

    def _attention(self, i: int, n_layer: int, width: int) -> Attention:
        n_head = self.each("attention.head_count", n_layer)[i]
        n_kv = self.each("attention.head_count_kv", n_layer, n_head)[i]
        block, fused = f"blk.{i}.", self.has(f"blk.{i}.attn_qkv.weight")
        bias = self.has(f"{block}attn_{'qkv' if fused else 'q'}.bias")
        out_bias = self.has(f"{block}attn_output.bias")
        if self.get("attention.kv_lora_rank"):
            return self._latent(i, n_head)
        head_dim = self.get("attention.key_length") or width // n_head
        normed = self.has(f"{block}attn_q_norm.weight")
        over = "all" if normed and self.shape(f"{block}attn_q_norm.weight") != (head_dim,) else "head"
        rotary = self.get("rope.dimension_count") or head_dim
        # llama.cpp knows the largest Gemma 3 by its depth.
        scale = (width // n_head) ** -0.5 if (self.name, n_layer) == ("gemma3", 62) else None
        cap = self.get("attn_logit_softcapping", CAPS.get(self.name, (None, None))[0])
        return Attention(
            n_head, n_kv, head_dim, bias, out_bias, normed, over, scale=scale, softcap=_shortest(cap) or None,
            window=self._window(i, n_layer), rotary_dim=None if rotary == head_dim else rotary,
        )  # fmt: skip

    def _latent(self, i: int, n_head: int) -> Attention:
        if not self.has(f"blk.{i}.attn_k_b.weight"):
            raise ValueError("it was made by an old llama.cpp, which kept keys and values in one; get a newer file")
        rope_dim = self.need("rope.dimension_count")
        head_dim, scale = self.need("attention.value_length_mla"), None
        if m := self.get("rope.scaling.yarn_log_multiplier"):
            root = 1 + m * math.log(self.need("rope.scaling.factor"))
            scale = root * root / math.sqrt(head_dim + rope_dim)
        return Attention(
            n_head, n_head, head_dim, False, False, scale=scale, q_latent=self.get("attention.q_lora_rank", 0),
            kv_latent=self.need("attention.kv_lora_rank"), rope_dim=rope_dim,
        )  # fmt: skip

    def _window(self, i: int, n_layer: int) -> int | None:
        size = self.get("attention.sliding_window")
        pattern = self.get("attention.sliding_window_pattern", FULL_EVERY.get(self.name))
        if not size or pattern is None or size >= 1 << 24:  # graphs without windows, or one that is never left
            return None
        return size if (pattern[i] if isinstance(pattern, list) else (i + 1) % pattern) else None

    def _feed_forward(self, i: int, n_layer: int) -> FeedForward | Experts:
        block = f"blk.{i}."
        if not self.has(f"{block}ffn_gate_inp.weight"):
            gated = self.has(f"{block}ffn_gate.weight") or self.name == "phi3"
            width = self.each("feed_forward_length", n_layer)[i]
            return FeedForward(width, self._activation(gated), gated, self.has(f"{block}ffn_down.bias"))
        n, width, _ = self.shape(f"{block}ffn_up_exps.weight")
        gated, shared = self.has(f"{block}ffn_gate_exps.weight"), 0
        if self.has(f"{block}ffn_up_shexp.weight"):
            shared = self.shape(f"{block}ffn_up_shexp.weight")[0]
        gating = {number: name for name, number in GATING.items()}
        biased = self.has(f"{block}exp_probs_b.bias")
        k = self.need("expert_used_count")
        # Graphs that do not read whether weights are divided by their sum do so.
        norm_topk = self.get("expert_weights_norm", self.name not in ("deepseek2", "glm4moe"))
        return Experts(
            n, k, width, self._activation(gated), gated, gating[self.get("expert_gating_func", 2 if biased else 1)],
            shared, biased, norm_topk=None if norm_topk == (k > 1) else norm_topk,
            routed_scale=_shortest(self.get("expert_weights_scale", 1.0)) or 1.0,
            n_group=self.get("expert_group_count") or 1, topk_group=self.get("expert_group_used_count") or 1,
        )  # fmt: skip

    def _activation(self, gated: bool) -> str:
        if gated:
            return "gelu" if self.name in GELU_GATES else "silu"
        return ACTIVATION.get(self.name, "silu")

    def _rope(self, path: str | Path, a: Attention) -> dict[str, Any]:
        base = _shortest(self.get("rope.freq_base", 10_000.0))
        fields: dict[str, Any] = {"rope_base": base}
        local = self.get("rope.freq_base_swa", 10_000.0 if self.name == "gemma3" else None)
        if local is not None and local != base and self.get("attention.sliding_window", 1 << 24) < 1 << 24:
            fields["rope_base_local"] = _shortest(local)
        kind, factor = self.get("rope.scaling.type", "none"), self.get("rope.scaling.factor")
        if self.has(ROPE_FREQS):
            return fields | self._llama3(path, base, a)
        if kind == "none" or not factor:
            return fields
        if kind not in ("linear", "yarn"):
            raise ValueError(f"its rotations are stretched by {kind}, which is not known here; linear and yarn are")
        fields |= {"rope_scaling": kind, "rope_factor": _shortest(factor)}
        if kind == "linear":
            return fields
        for key, usual in (("yarn_beta_fast", BETA_FAST), ("yarn_beta_slow", BETA_SLOW)):
            if self.get(f"rope.scaling.{key}", usual) != usual:
                raise ValueError(f"{key} of its rotations is {self.get(f'rope.scaling.{key}')}, not {usual}")
        log = 0.1 * math.log(factor)
        gain = self.get("rope.scaling.attn_factor", 1.0) * (1 + log)
        if m := self.get("rope.scaling.yarn_log_multiplier"):
            gain = 1.0 if self.name == "deepseek2" else (1 + log) / (1 + 10 * m * log)
        fields["rope_original"] = self.need("rope.scaling.original_context_length")
        return fields if abs(gain - 1 - log) < 1e-6 else {**fields, "rope_attention": gain}

    def _llama3(self, path: str | Path, base: float, a: Attention) -> dict[str, Any]:
        """The numbers that a tensor of factors was made of."""
        factors = _read(path, ROPE_FREQS, self.places[ROPE_FREQS])
        if bool((factors == 1).all()):
            return {}
        for original in LLAMA3_ORIGINALS:
            found = dict(rope_scaling="llama3", rope_factor=float(factors.max()), rope_original=original)
            layer = Layer(a, FeedForward(1, "silu", True, False))
            s = Structure(1, 1, 1, "rms", False, 1e-5, None, base, (layer,), True, False, 0.0, **found)
            expected = frequency_factors(s)
            if expected.shape == factors.shape and torch.allclose(expected, factors, rtol=1e-4):
                return found
        raise ValueError(f"{ROPE_FREQS} stretches its rotations in a way that is not known here")


def _shortest(value: Any) -> Any:
    """A float32 as the shortest decimal number that is it: 0.00001 and not 0.0000099999997."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
