"""A LoRA by itself is what was trained: `peft` applies its folder, and llama.cpp its GGUF file, to the base."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from conftest import ENVIRONMENT, ROOT
from gguf import GGUFReader
from transformers import AutoModelForCausalLM

from custom_llm.commands.convert import main as convert
from custom_llm.common.errors import UserError
from custom_llm.config.model import ModelConfig
from custom_llm.config.sampling import Sampling
from custom_llm.export.about import About
from custom_llm.export.adapter import AdapterExport, load_adapter
from custom_llm.export.pipeline import convert_to_gguf, export_to_hf
from custom_llm.export.proof import Reference
from custom_llm.export.read_back import Original
from custom_llm.inference.engine import Engine
from custom_llm.llamacpp import Lora
from custom_llm.model import GPTLanguageModel
from custom_llm.model.archive import Label, to_bytes
from custom_llm.model.files import Origin, SavedConfig, load_trained, save_base, save_trained
from custom_llm.tokenizer.base import Tokenizer
from custom_llm.tokenizer.char import CharTokenizer

TEXT = "The quick brown fox jumps over the lazy dog, and the dog does not mind.\n" * 20
LLAMA = dict(pos_emb="rope", norm="rms", non_linearity="swiglu", bias=False, attn="gqa", n_kv_heads=2)
GEMMA = {
    **LLAMA, "norm_place": "both", "scale_embeddings": True, "non_linearity": "geglu",
    "sliding_window": 16, "full_every": 2,
}  # fmt: skip
MODELS = {
    "gpt2": {},  # query, key and value in one matrix, and all of them turned
    "llama": LLAMA,  # rows of queries and keys in another order in GGUF
    "qwen3": {**LLAMA, "qk_norm": True},
    "starcoder2": dict(pos_emb="rope"),
    "mixtral": {**LLAMA, "moe": True, "n_exp": 4, "n_act": 2},
    "gpt_neox": dict(pos_emb="rope", parallel_residual=True),  # query, key and value of each head together
    "qwen2": {**LLAMA, "qkv_bias": True},
    "phi3": {**LLAMA, "rotary_dim": 8},  # gate and up in one matrix, too
    "olmo2": {**LLAMA, "qk_norm": True, "qk_norm_over": "all", "norm_place": "after"},
    "gemma2": {**GEMMA, "tie_embeddings": True, "attn_softcap": 50.0, "logit_softcap": 30.0},
    "gemma3": {**GEMMA, "qk_norm": True, "rope_base_local": 1000.0},
}
QUICK = ("gpt2", "llama", "qwen3", "phi3")
LATENT = dict(attn="mla", q_latent_dim=32, kv_latent_dim=32, rope_head_dim=16)
MLA = {**{name: value for name, value in LLAMA.items() if name != "n_kv_heads"}, **LATENT}


@dataclass
class Trained:
    """The files of a LoRA training, and its base by itself in a folder of its own."""

    folder: Path
    base: Path  # the folder of its Hugging Face directory and GGUF file
    model: GPTLanguageModel  # merged
    tokenizer: Tokenizer

    def load(self):
        paths = self.folder / "trained_model.pth", self.folder / "model_config.pth"
        model, _, saved = load_trained(*paths)
        return load_adapter(*paths, model, saved)


def train(folder: Path, targets: str = "", rank: int = 4, alpha: float = 6.0, **changes: object) -> Trained:
    """A random model, and a random LoRA of the matrices whose names match `targets`, as step 2 leaves them."""
    torch.manual_seed(0)
    tokenizer = CharTokenizer.from_text(TEXT, end_of_text=True)
    sizes = dict(vocab_size=tokenizer.vocab_size, n_embd=64, n_head=4, n_layer=2, block_size=64, dropout=0.0)
    model = GPTLanguageModel(ModelConfig(**{**sizes, **changes})).eval()
    for name, parameter in model.named_parameters():
        is_scale = name.endswith("weight") and parameter.dim() == 1
        parameter.data = torch.randn_like(parameter) * 0.1 + is_scale
    base = {name: x.clone() for name, x in model.state_dict().items()}
    weights = {}
    for name, layer in model.named_modules():
        is_target = re.search(r"^blocks\.\d+\.(attn|ffn)\.", name) and "router" not in name and re.search(targets, name)
        if isinstance(layer, torch.nn.Linear) and is_target:
            a, b = torch.randn(rank, layer.in_features) * 0.1, torch.randn(layer.out_features, rank) * 0.2
            weights |= {f"{name}.lora_A": a, f"{name}.lora_B": b}
            layer.weight.data += alpha / rank * b @ a
    assert weights
    saved = SavedConfig(model.config, tokenizer.to_dict(), TEXT, training_id="1f", base=Origin("somebody/base"))
    (folder / "base").mkdir(parents=True)
    save_base(folder / "model_config.pth", saved, base)
    save_trained(folder / "trained_model.pth", model.state_dict(), folder / "model_config.pth", saved)
    content = {"rank": rank, "alpha": alpha, "weights": weights}
    (folder / "trained_model.lora.pth").write_bytes(to_bytes(content, Label("lora", saved.training_id)))
    # What the person started from, exported by itself.
    save_trained(folder / "base" / "trained_model.pth", base, folder / "base" / "model_config.pth", saved)
    return Trained(folder, folder / "base", model, tokenizer)


def export_base(trained: Trained) -> Path:
    """The F32 file of the base, beside its Hugging Face directory."""
    paths = (str(trained.base / name) for name in ("trained_model.pth", "model_config.pth", "hf"))
    convert_to_gguf(export_to_hf(*paths), str(trained.base / "base.gguf"), "F16", llama_cpp_path=None)
    return trained.base / "base.gguf"


def export(trained: Trained, *flags: str) -> str:
    """What step 3 prints."""
    places = {
        "model_path": "trained_model.pth", "config_path": "model_config.pth", "output_dir": "hf_model",
        "gguf_output": "model.gguf", "llama_cpp_path": "none",
    }  # fmt: skip
    words = [word for name, file in places.items() for word in (f"--{name}", str(trained.folder / file))]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        convert(["--quant_type", "Q8_0", "--adapter", *words, *flags])
    return printed.getvalue()


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name not in QUICK]


@pytest.fixture(scope="module", params=[*QUICK, *SLOW])
def exported(request, tmp_path_factory) -> Trained:
    trained = train(tmp_path_factory.mktemp(request.param) / "x", **MODELS[request.param])
    printed = export(trained)
    assert "model.lora.gguf: the adapter alone, for somebody/base; applied to it, " in printed
    assert "same next character as the trained model\n" in printed
    export_base(trained)
    return trained


def test_peft_applies_it_to_the_stock_class_of_the_base(exported):
    base = AutoModelForCausalLM.from_pretrained(exported.base / "hf")
    ids = torch.randint(exported.model.config.vocab_size, (3, 48), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = exported.model(ids)[0]
        assert (base(ids).logits - expected).abs().max() > 0.1
        adapted = peft.PeftModel.from_pretrained(base, exported.folder / "hf_model" / "adapter")
        torch.testing.assert_close(adapted(ids).logits, expected, atol=1e-5, rtol=1e-5)
        config = json.loads((exported.folder / "hf_model" / "adapter" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "somebody/base" and config["task_type"] == "CAUSAL_LM"


def test_llama_cpp_applies_it_to_the_file_of_the_base(exported):
    """By the bindings' own class, which knows nothing of ours."""
    import llama_cpp

    ids = exported.tokenizer.encode(TEXT)[:48].tolist()
    options = dict(n_ctx=64, n_threads=1, logits_all=True, verbose=False, type_k=0, type_v=0)
    adapter = str(exported.folder / "model.lora.gguf")
    judge = llama_cpp.Llama(str(exported.base / "base.gguf"), lora_path=adapter, use_extra_bufts=False, **options)
    judge.eval(ids)
    with torch.no_grad():
        expected = exported.model(torch.tensor([ids]))[0][0].log_softmax(-1)
    actual = torch.tensor(judge.scores[: len(ids)]).log_softmax(-1)
    assert (expected.exp() * (expected - actual)).sum(-1).mean() < 1e-6


def test_merged_and_applied_write_the_same_text(exported):
    def written(path: Path, *scales: float) -> str:
        loras = [Lora(exported.folder / "model.lora.gguf", scale) for scale in scales]
        with Engine(path, loras=loras) as engine:
            return "".join(engine.generate("The dog", 100, Sampling(temp=0), ignore_eos=True))

    merged, base = written(exported.folder / "model.gguf"), exported.base / "base.gguf"
    assert written(base, 1) == written(base, 0.25, 0.75) == merged
    assert written(base, 0) == written(base) != merged


@pytest.mark.slow
def test_llama_cpp_makes_the_same_file_of_the_folder(tmp_path):
    """Its own converter of PEFT folders. (That of gpt2 forgets that its matrices are turned.)"""
    trained = train(tmp_path / "x", **LLAMA)
    export(trained)
    export_base(trained)
    converter = ROOT / "llama.cpp" / "convert_lora_to_gguf.py"
    if not converter.exists():
        pytest.skip("there is no llama.cpp/")
    command = [sys.executable, converter, "hf_model/adapter", "--base", "base/hf", "--outfile", "theirs.gguf"]
    done = subprocess.run(command, cwd=trained.folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, theirs = (GGUFReader(trained.folder / name) for name in ("model.lora.gguf", "theirs.gguf"))
    for key in ("general.type", "general.architecture", "adapter.type", "adapter.lora.alpha"):
        assert ours.get_field(key).contents() == theirs.get_field(key).contents()
    expected = {tensor.name: tensor.data for tensor in theirs.tensors}
    assert {tensor.name for tensor in ours.tensors} == expected.keys()
    for tensor in ours.tensors:
        np.testing.assert_array_equal(tensor.data, expected[tensor.name])


@pytest.mark.parametrize("targets", ["query|value", r"attn\.proj", r"blocks\.1\.attn", r"ffn\.2"])
def test_some_matrices_only(tmp_path, targets):
    """Parts of the joined matrix; a c_proj that is also the name of another; one layer of two."""
    trained = train(tmp_path / "x", targets)
    export(trained, "--no_verify")
    export_base(trained)
    ids = torch.arange(48)[None] % trained.model.config.vocab_size
    base = AutoModelForCausalLM.from_pretrained(trained.base / "hf")
    with torch.no_grad():
        adapted = peft.PeftModel.from_pretrained(base, trained.folder / "hf_model" / "adapter")
        torch.testing.assert_close(adapted(ids).logits, trained.model(ids)[0], atol=1e-5, rtol=1e-5)
        found = {name for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert len(found) == {"query|value": 2, r"attn\.proj": 2, r"blocks\.1\.attn": 2, r"ffn\.2": 2}[targets]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_without_llama_cpp_it_is_read_back(tmp_path, name):
    trained = train(tmp_path / "x", **MODELS[name])
    export(trained, "--no_verify")
    expected = Original(trained.model, trained.tokenizer, TEXT)
    places = trained.folder / "hf_model", trained.folder / "model.gguf"
    assert AdapterExport.of(trained.load()).write(*places, About("x"), expected) == (
        trained.folder / "model.lora.gguf", None,
    )  # fmt: skip


def test_a_file_that_is_not_what_was_trained_gets_no_name(tmp_path):
    trained = train(tmp_path / "x", **LLAMA)
    export(trained, "--no_verify")
    (trained.folder / "model.lora.gguf").unlink()
    exported = AdapterExport.of(trained.load())
    other = next(iter(exported.for_gguf.values())).B
    other[0] += 1  # of what is written, but not of what was trained
    for judge in (Reference, Original):
        expected = judge(trained.model, trained.tokenizer, TEXT)
        with pytest.raises(UserError, match=r"model\.lora\.gguf.* so the file is not kept"):
            exported.write(trained.folder / "hf_model", trained.folder / "model.gguf", About("x"), expected)
    assert not (trained.folder / "model.lora.gguf").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(non_linearity="relu"), r"gpt2 computes this model with a rewritten blocks\.0\.ffn\.up\.weight"),
        (MLA, "llama.cpp applies none to the attention of deepseek2"),
        (dict(pos_emb="rope", non_linearity="swiglu"), "transformers has no class that the adapter could be added to"),
    ],
)
def test_a_model_that_is_rewritten_is_exported_merged_only(tmp_path, changes, message):
    trained = train(tmp_path / "x", **changes)
    with pytest.raises(UserError, match=message + ".*; leave out --adapter"):
        export(trained)
    assert not (trained.folder / "model.gguf").exists()


def test_a_folder_is_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--adapter is about a LoRA training here, and somewhere is whole"):
        convert(["somewhere", "--adapter"])


def damaged(what: str, folder: Path) -> None:
    path = folder / "trained_model.lora.pth"
    content = torch.load(path, weights_only=True)
    first = next(iter(content["weights"]))
    if what == "missing":
        path.unlink()
    elif what == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif what == "list":
        torch.save([1, 2], path)
    elif what == "rank":
        torch.save({**content, "rank": 5}, path)
    elif what == "half":
        del content["weights"][first]
        torch.save(content, path)
    elif what == "nan":
        content["weights"][first][0] = torch.nan
        torch.save(content, path)
    elif what == "other":
        content["weights"][first] += 1
        torch.save(content, path)
    elif what == "training":
        path.write_bytes(to_bytes(content, Label("lora", "2e")))
    elif what == "base":
        (folder / "model_config.base.pth").unlink()


@pytest.mark.parametrize("what", ["missing", "cut", "list", "rank", "half", "nan", "other", "training", "base"])
def test_what_is_missing_or_damaged_is_said_in_a_line(tmp_path, what):
    trained = train(tmp_path / "x")
    damaged(what, trained.folder)
    with pytest.raises(UserError, match=r"(trained_model\.lora\.pth|base\.pth)") as error:
        trained.load()
    assert re.search("leave out|make it|train again", str(error.value))
