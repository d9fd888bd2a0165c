"""Which combinations of options train, and as what they export: the table of docs/architectures.md.

    python -m benchmarks.architectures > docs/architectures.md

Every combination is built small with random weights (norms and biases too), trained for a step, exported, and compared
with PyTorch in llama.cpp and in `transformers`. A test does the same and holds the table against it.
"""

from __future__ import annotations

import itertools
import string
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from custom_llm.config.model import ModelConfig
from custom_llm.export.gguf.architectures import choose_architecture
from custom_llm.export.gguf.writer import write_gguf
from custom_llm.export.graph.graph import Graph
from custom_llm.export.huggingface.classes import in_directory
from custom_llm.export.huggingface.directory import read_hf_directory, write_hf_directory
from custom_llm.export.proof import Parity, Reference
from custom_llm.export.vocabulary import read_vocabulary
from custom_llm.model import GPTLanguageModel
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.training.optim.adamw import AdamW

ATTN = ("mha", "mqa", "gqa", "mla")
POS_EMB = ("learn", "sin", "rope")
NORM = ("layer", "rms")
NON_LINEARITY = ("relu", "gelu", "silu", "swiglu", "relu2")
FFN = ("dense", "moe softmax", "moe aux-free")
BIAS = (True, False)

TOKENIZER = CharTokenizer(string.ascii_letters[:39])
SMALL = dict(vocab_size=40, n_embd=64, n_head=4, n_layer=2, block_size=64, dropout=0.0)


@dataclass(frozen=True)
class Outcome:
    """What became of one configuration."""

    architecture: str | None
    hf_class: str | None
    parity: Parity | None = None  # of the GGUF file in F32
    hf_difference: float | None = None  # of any logit, in `transformers`

    @property
    def cell(self) -> str:
        """GGUF architecture, Hugging Face class and KL, as the table shows them."""
        hf = self.hf_class.removesuffix("ForCausalLM").removesuffix("LMHeadModel") if self.hf_class else "–"
        if self.architecture is None:
            return "–" if self.hf_class is None else f"– · {hf}"
        return f"`{self.architecture}` · {hf} · {self.parity.kl:.0e}"


def combinations() -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """(pos_emb, norm, non_linearity, ffn, bias, attn) and the configuration of every combination."""
    for key in itertools.product(POS_EMB, NORM, NON_LINEARITY, FFN, BIAS, ATTN):
        yield key, options(*key)


def options(pos_emb: str, norm: str, non_linearity: str, ffn: str, bias: bool, attn: str) -> dict[str, Any]:
    """A small model's configuration."""
    values = dict(SMALL, pos_emb=pos_emb, norm=norm, non_linearity=non_linearity, bias=bias, attn=attn)
    if attn == "gqa":
        values |= dict(n_kv_heads=2)
    if attn == "mla":
        values |= dict(q_latent_dim=48, kv_latent_dim=32)
        values |= dict(rope_head_dim=8) if pos_emb == "rope" else {}
    if ffn != "dense":
        values |= dict(moe=True, n_exp=6, n_shared=1, n_act=3, aux_free=ffn == "moe aux-free", up_dim=32)
    return values


def random_model(values: dict[str, Any], seed: int = 0) -> GPTLanguageModel:
    """A model none of whose weights is trivial: norms are away from 1, and all biases from 0."""
    model = GPTLanguageModel(values).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, x in [*model.named_parameters(), *model.named_buffers()]:
        noise = torch.randn(x.shape, generator=generator)
        if "selection_bias" in name:
            x.data = 0.1 * noise
        elif "embedding" in name and isinstance(x, torch.nn.Parameter):
            x.data = 0.5 * noise
        elif isinstance(x, torch.nn.Parameter):
            x.data = noise / x.shape[-1] ** 0.5 if x.dim() > 1 else 0.3 * noise + (not name.endswith("bias"))
    return model


def train_a_step(values: dict[str, Any]) -> tuple[float, float]:
    """The loss on a batch before and after a step on it."""
    torch.manual_seed(0)
    model = GPTLanguageModel(values).train()
    x = torch.randint(SMALL["vocab_size"], (4, 32))
    optimizer = AdamW([dict(params=model.parameters())], lr=1e-3)
    before = model(x, x.roll(-1, 1))[1]
    (before + model.balance_loss()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    optimizer.step()
    model.rebalance()
    with torch.no_grad():
        return before.item(), model(x, x.roll(-1, 1))[1].item()


def export(model: GPTLanguageModel, folder: Path) -> Outcome:
    """Write a model as a Hugging Face directory and from that as a GGUF file, and compare both with PyTorch."""
    hf_class = write_hf_directory(model, TOKENIZER, folder / "hf")
    difference = _hf_difference(model, folder / "hf") if hf_class else None
    graph, _ = read_hf_directory(folder / "hf")
    found = choose_architecture(graph)
    if found is None:
        return Outcome(None, hf_class, None, difference)
    architecture, prepared = found
    write_gguf(prepared, architecture, read_vocabulary(folder / "hf"), folder / "model.gguf", "test")
    text = "".join(np.random.default_rng(0).choice(list(TOKENIZER.chars), 256))
    parity = Reference(model, TOKENIZER, text).compare(folder / "model.gguf")
    return Outcome(architecture.name, hf_class, parity, difference)


def plan(values: dict[str, Any]) -> tuple[str | None, str | None]:
    """(architecture, class) as promised before there are weights."""
    graph = Graph.of_config(ModelConfig(**values))
    found, hf_class = choose_architecture(graph), in_directory(graph)[0]
    return found and found[0].name, hf_class and hf_class.name


def _hf_difference(model: GPTLanguageModel, folder: Path) -> float:
    """The largest difference of any logit of the stock class."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    stock = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.randint(SMALL["vocab_size"], (2, min(64, model.config.block_size)))
    with torch.no_grad():
        return (stock(ids).logits - model(ids)[0]).abs().max().item()


def table(outcomes: dict[tuple[Any, ...], Outcome]) -> Iterator[str]:
    """The lines of the table in Markdown, a section for each kind of position."""
    for pos_emb in POS_EMB:
        yield f"\n### `--pos_emb {pos_emb}`\n"
        yield "| norm | non_linearity | feed-forward | bias | " + " | ".join(ATTN) + " |"
        yield "|---" * (4 + len(ATTN)) + "|"
        for norm, act, ffn, bias in itertools.product(NORM, NON_LINEARITY, FFN, BIAS):
            cells = [outcomes[pos_emb, norm, act, ffn, bias, attn].cell for attn in ATTN]
            yield f"| {norm} | {act} | {ffn} | {'yes' if bias else 'no'} | " + " | ".join(cells) + " |"


def summary(outcomes: dict[tuple[Any, ...], Outcome]) -> str:
    """The share that exports, and the worst differences."""
    exported = [outcome for outcome in outcomes.values() if outcome.architecture]
    with_class = [outcome for outcome in outcomes.values() if outcome.hf_class]
    rope = [outcome for key, outcome in outcomes.items() if key[0] == "rope"]
    return (
        f"All {len(outcomes)} combinations train. {len(exported)} of them ({len(exported) / len(outcomes):.0%}) export "
        f"to GGUF, {sum(o.architecture is not None for o in rope)} of the {len(rope)} with RoPE; the worst KL is "
        f"{max(o.parity.kl for o in exported):.0e}. {len(with_class)} have a stock class of Hugging Face, whose logits "
        f"differ by at most {max(o.hf_difference for o in with_class):.0e}."
    )


def main() -> None:
    outcomes = {}
    for key, values in combinations():
        train_a_step(values)
        with tempfile.TemporaryDirectory() as folder:
            outcomes[key] = export(random_model(values), Path(folder))
    text = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    print(text.replace("SUMMARY", summary(outcomes)).replace("TABLE", "\n".join(table(outcomes)).strip()))


if __name__ == "__main__":
    main()
