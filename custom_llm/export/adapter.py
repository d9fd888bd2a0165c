"""A LoRA by itself: a folder that `peft` applies in transformers, and a GGUF adapter that llama.cpp applies.

Both are for the model that the training started from: W of it becomes W + alpha / rank · B · A (Hu et al. 2021,
https://arxiv.org/abs/2106.09685). Names and layouts are those of the tables that the whole model is exported by. What a
table joins or turns, it does to rows of W and so to rows of B.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from gguf import GGML_QUANT_VERSION, GGUFReader, GGUFWriter
from safetensors.torch import save as safetensors_bytes

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import beside, replacing, scratch_folder, write_bytes
from custom_llm.common.seal import EMPTY, KEY, write_seal
from custom_llm.common.signals import unwinding
from custom_llm.common.steps import command
from custom_llm.export.about import About
from custom_llm.export.gguf.architectures import Architecture, choose_architecture
from custom_llm.export.gguf.whole import check_whole
from custom_llm.export.gguf.writer import add_about, finish, write_gguf
from custom_llm.export.graph.check import expected_shapes
from custom_llm.export.graph.graph import Graph, Structure, canonical
from custom_llm.export.graph.tensor_names import Table, rename, rows
from custom_llm.export.huggingface.classes import HFClass, in_directory
from custom_llm.export.proof import Parity, Reference, check_bound
from custom_llm.export.read_back import Original
from custom_llm.export.vocabulary import read_vocabulary
from custom_llm.llamacpp import Lora
from custom_llm.model import GPTLanguageModel
from custom_llm.model.archive import load_file
from custom_llm.model.files import SavedConfig, is_state_dict, load_base

MERGED_ONLY = "leave out --adapter for the merged model, which needs no base"
# Matrices that llama.cpp multiplies by without a look at adapters, by architecture.
NOT_ADAPTED = {"deepseek2": r"attn\.(query|key|value|kv)"}
# Of weights as large as the largest of a matrix: how far merged ones may be from base and adapter added up anew.
ROUNDING = 1e-5


class Pair(NamedTuple):
    """What is added to a matrix of (out, in), but for its scale: B · A."""

    A: torch.Tensor  # (rank, in)
    B: torch.Tensor  # (out, rank)
    is_transposed: bool = False  # the matrix is kept as (in, out)


Pairs = dict[str, Pair]  # by the name of the matrix


@dataclass(frozen=True)
class Adapter:
    """What a LoRA training has learned, and what it is added to."""

    rank: int
    alpha: float
    pairs: Pairs  # under the names of graphs
    base: Graph
    base_name: str


def adapter_path(gguf_output: str | Path) -> Path:
    """The GGUF adapter beside the files of the merged model: `model.lora.gguf` beside `model.gguf`."""
    path = Path(gguf_output)
    return path.with_name(f"{path.stem if path.suffix == '.gguf' else path.name}.lora.gguf")


def load_adapter(
    model_path: str | Path, config_path: str | Path, model: GPTLanguageModel, saved: SavedConfig
) -> Adapter:
    """The adapter of a trained model: `trained_model.lora.pth` beside `trained_model.pth`, and the base's weights.

    Raises UserError where there is none, it is damaged, or base and adapter do not make up the trained model.
    """
    path, again = beside(model_path, ".lora.pth"), command("train_llm", "--lora", "16")
    if not path.exists():
        raise UserError(f"--adapter: there is no {path}, which a LoRA training writes ({again}); {MERGED_ONLY}")
    values, label = load_file(path, again)
    rank, alpha, weights = _fields(values, path, again)
    if saved.base is None or (label.training and saved.training_id and label.training != saved.training_id):
        raise UserError(f"--adapter: {path} is of another training than {config_path} ({again}); {MERGED_ONLY}")
    merged = model.state_dict()
    pairs: Pairs = {}
    for name in sorted({name.rpartition(".")[0] for name in weights}):
        pair = [weights.pop(f"{name}.lora_{x}", None) for x in "AB"]
        matrix = merged.get(f"{name}.weight")
        shapes = None if matrix is None else [(rank, matrix.shape[1]), (len(matrix), rank)]
        if [None if x is None else tuple(x.shape) for x in pair] != shapes:
            raise UserError(f"{path}: {name} is not an adapter of {model_path}; make it anew with {again}")
        pairs[f"{name}.weight"] = Pair(*(x.float() for x in pair))
    base = {name: x.float() for name, x in load_base(config_path, saved).items()}
    for name, x in merged.items():
        change = alpha / rank * pairs[name].B @ pairs[name].A if name in pairs else 0
        if (base[name] + change - x).abs().max() > ROUNDING * x.abs().max():
            raise UserError(f"--adapter: {model_path} is not its base and {path} added up (see {name}); {MERGED_ONLY}")
    ours = {name: canonical(name, model.config) for name in pairs}
    graph = Graph.of_model(model).change({ours[name]: base[name] for name in pairs})  # all else is as it was
    return Adapter(rank, alpha, {ours[name]: pair for name, pair in pairs.items()}, graph, saved.base.name)


def _fields(values: object, path: Path, again: str) -> tuple[int, float, dict[str, torch.Tensor]]:
    """What stands in a file of an adapter. Raises UserError where it is something else."""
    kinds = {"rank": int, "alpha": (int, float), "weights": dict}
    if isinstance(values, dict) and all(isinstance(values.get(name), kind) for name, kind in kinds.items()):
        rank, alpha, weights = (values[name] for name in kinds)
        is_finite = is_state_dict(weights) and all(bool(torch.isfinite(x).all()) for x in weights.values())
        if rank > 0 and alpha > 0 and weights and is_finite:
            return rank, float(alpha), dict(weights)
    raise UserError(f"{path} is not the adapter of a LoRA training; make it anew with {again}")


@dataclass(frozen=True)
class AdapterExport:
    """An adapter under the names that others give to what it is added to."""

    adapter: Adapter
    hf_class: HFClass
    as_written: Graph  # the base as that class computes it
    for_hf: Pairs
    architecture: Architecture
    prepared: Graph  # the base as that graph of llama.cpp computes it
    for_gguf: Pairs

    @classmethod
    def of(cls, adapter: Adapter) -> AdapterExport:
        """Raises UserError where the model is exported in a way that an adapter cannot follow."""
        hf_class, as_written = in_directory(adapter.base)
        found = choose_architecture(as_written)
        if hf_class is None or found is None:
            where = "transformers has no class" if hf_class is None else "llama.cpp has no graph"
            raise UserError(f"--adapter: {where} that the adapter could be added to; {MERGED_ONLY}")
        architecture, prepared = found
        for graph, target in ((as_written, hf_class), (prepared, architecture)):
            if name := _rewritten(adapter, graph):
                raise UserError(
                    f"--adapter: {target.name} computes this model with a rewritten {name}, which an adapter cannot be "
                    f"added to; {MERGED_ONLY}"
                )
        if any(re.search(NOT_ADAPTED.get(architecture.name, "(?!)"), name) for name in adapter.pairs):
            raise UserError(f"--adapter: llama.cpp applies none to the attention of {architecture.name}; {MERGED_ONLY}")
        for_gguf = rename_pairs(adapter.pairs, prepared.s, architecture.names)
        for_hf = rename_pairs(adapter.pairs, as_written.s, hf_class.names)
        return cls(adapter, hf_class, as_written, for_hf, architecture, prepared, for_gguf)

    def write_peft(self, folder: Path) -> None:
        """Write what `peft.PeftModel.from_pretrained(model, folder)` reads. Raises UserError where that cannot be."""
        adapter, rank = self.adapter, self.adapter.rank
        modules = {name.removesuffix(".weight"): pair for name, pair in self.for_hf.items()}
        others = [
            theirs.removesuffix(".weight")
            for theirs, row, _ in rows(self.as_written.s, self.hf_class.names)
            if theirs not in self.for_hf and all(name in self.as_written.tensors for name in row.ours)
        ]
        targets = {_shortest_end(name, others) for name in modules}
        ranks = {name: len(pair.A) for name, pair in modules.items() if len(pair.A) != rank}
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": adapter.base_name,
            "r": rank,
            "lora_alpha": int(adapter.alpha) if adapter.alpha.is_integer() else adapter.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": sorted(targets),
            "rank_pattern": ranks,
            "fan_in_fan_out": any(pair.is_transposed for pair in modules.values()),
            "inference_mode": True,
        }
        tensors = {}
        for name, pair in modules.items():
            tensors[f"base_model.model.{name}.lora_A.weight"] = pair.A.contiguous()
            tensors[f"base_model.model.{name}.lora_B.weight"] = pair.B.contiguous()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {describe_os_error(error)}") from None
        write_bytes(folder / "adapter_model.safetensors", safetensors_bytes(tensors, metadata={"format": "pt"}))
        write_bytes(folder / "adapter_config.json", (json.dumps(config, indent=2) + "\n").encode())

    def write_gguf(self, path: Path, about: About) -> None:
        """Write to `path` what llama.cpp's convert_lora_to_gguf.py makes of the folder."""
        writer = GGUFWriter(str(path), self.architecture.name)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", self.adapter.alpha)
        writer.add_name(about.name)
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, self.adapter.base_name)
        writer.add_string(KEY, EMPTY)
        add_about(writer, about)
        for name, pair in self.for_gguf.items():
            writer.add_tensor(f"{name}.lora_a", pair.A.contiguous().numpy())
            writer.add_tensor(f"{name}.lora_b", pair.B.contiguous().numpy())
        writer.add_quantization_version(GGML_QUANT_VERSION)
        finish(writer)

    @unwinding()
    def write(
        self, hf_dir: Path, gguf_output: str | Path, about: About, expected: Reference | Original | None
    ) -> tuple[Path, Parity | None]:
        """Write both forms: a folder in that of the merged model, and a file beside its GGUF files.

        The file gets its name when it is proven: llama.cpp applies it to the F32 file of the base, which is written for
        that and removed; where `expected` is what files are read back for, it is multiplied out. Returned are its name
        and how near it is to the trained model, where that was measured. Raises UserError where one cannot be written
        or is not what was trained.
        """
        name, parity = adapter_path(gguf_output), None
        with replacing(name) as temporary:
            self.write_gguf(temporary, about)
            check_whole(temporary, name)
            write_seal(temporary)
            if isinstance(expected, Reference):
                with scratch_folder(name.parent, ".base-") as folder:
                    base = folder / "base.gguf"
                    write_gguf(self.prepared, self.architecture, read_vocabulary(hf_dir), base, about.name)
                    parity = expected.compare(base, [Lora(temporary)])
                check_bound(name, "F32", parity)
            elif expected:
                self._multiply_out(temporary, name)
        self.write_peft(hf_dir / "adapter")
        return name, parity

    def _multiply_out(self, path: Path, name: Path) -> None:
        """B · A of what is in a file is the change of the matrices, joined and turned as they are."""
        found = {tensor.name: torch.tensor(tensor.data) for tensor in GGUFReader(path).tensors}
        pairs, base, changes = self.adapter.pairs, self.prepared.tensors, {}
        for _, row, _ in rows(self.prepared.s, self.architecture.names):
            if any(ours in pairs for ours in row.ours):
                changes |= {x: pairs[x].B @ pairs[x].A if x in pairs else torch.zeros_like(base[x]) for x in row.ours}
        for theirs, change in rename(changes, self.prepared.s, self.architecture.names).items():
            a, b = found[f"{theirs}.lora_a"], found[f"{theirs}.lora_b"]
            if not torch.allclose(b @ a / len(a), change / self.adapter.rank, rtol=1e-4, atol=1e-6):
                raise UserError(f"{name}: read back, {theirs} is not what was trained, so the file is not kept")


def rename_pairs(pairs: Pairs, s: Structure, table: Table) -> Pairs:
    """Adapters of our matrices as those of the matrices in a table, which may be several of ours on top of each other.

    Of n of them, A is n times as high and B has a block for each. To divide alpha by this rank would weaken them, so
    they are n times as strong.
    """
    shapes, result = expected_shapes(s), {}
    for theirs, row, attn in rows(s, table):
        found = [pairs.get(name) for name in row.ours]
        a = [pair.A for pair in found if pair]
        if not a:
            continue
        # Of a matrix without an adapter, rows of zeros.
        blocks = [pair.B if pair else torch.zeros(shapes[x][0], 0) for x, pair in zip(row.ours, found, strict=True)]
        b = len(a) * torch.block_diag(*blocks)
        if row.scale:
            b = b * torch.tensor(row.scale(s, attn))[:, None]
        # Layouts move rows; that of GPT-2's Conv1D turns the matrix, and then neither A nor B.
        is_transposed = row.layout is not None and len(row.layout(b[:, :1], attn)) == 1
        if row.layout and not is_transposed:
            b = row.layout(b, attn)
        result[theirs] = Pair(torch.cat(a), b, is_transposed)
    return result


def _rewritten(adapter: Adapter, graph: Graph) -> str | None:
    """A matrix with an adapter that is another one in a rewritten graph of the base, or that others are made of."""
    before = adapter.base.tensors
    new = {_part(name) for name in graph.tensors.keys() - before.keys() if name.endswith(".weight")}
    for name in adapter.pairs:
        is_same = name in graph.tensors and torch.equal(graph.tensors[name], before[name])
        if not is_same or _part(name) in new:
            return name
    return None


def _part(name: str) -> str:
    """The attention or the feed-forward layer that a tensor is of: `blocks.0.attn`."""
    return ".".join(name.split(".")[:3])


def _shortest_end(module: str, others: Sequence[str]) -> str:
    """By which `peft` finds a module and none of the others: `q_proj`, or `attn.c_proj` where `mlp` has one, too."""
    words = module.split(".")
    ends = [".".join(words[-n:]) for n in range(1, len(words))]
    return next((end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)), module)
