"""What cannot be started from: each answered in one line that names it, with status 2, and nothing is written."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bases import llama, trained_pair
from gguf import GGUFEndian, GGUFWriter
from safetensors.torch import load_file, save_file
from tiny_gguf import write_gpt2

from custom_llm.common.errors import run

MODEL, CONVERT, QUICK = "llm_model", "convert_to_gguf", "quickstart"
HUGE = 10**12  # numbers, more than any memory holds
Make = Callable[[Path], object]


# --- folders ----------------------------------------------------------------------------------------------------------


def config(**changes: object) -> Make:
    """A Hugging Face folder with other words in config.json; those that are None are left out."""

    def make(folder: Path) -> None:
        path = folder / "hf/config.json"
        values = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))

    return make


def content(name: str, data: bytes) -> Make:
    """A file with this in it."""

    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    return make


def without(*names: str) -> Make:
    return lambda folder: [(folder / "hf" / name).unlink() for name in names]


def both(*steps: Make) -> Make:
    return lambda folder: [step(folder) for step in steps]


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Make:
    """Weights that are others than those of a Llama of that config.json."""

    def make(folder: Path) -> None:
        path = folder / "hf/model.safetensors"
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(tensors)
        save_file(tensors, path)

    return make


def cut(name: str, share: float) -> Make:
    def make(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(share * len(data))])

    return make


def index(**places: object) -> Make:
    """Weights in several files."""

    def make(folder: Path) -> None:
        (folder / "hf/model.safetensors").rename(folder / "hf/model-00001-of-00002.safetensors")
        (folder / "hf/model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))

    return make


def huge_safetensors(folder: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}).encode()
    with (folder / "hf/model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 4 * HUGE)  # a hole, which takes no disk


class Exploit:
    def __reduce__(self):
        return (os.system, ("touch exploited",))


# --- GGUF files -------------------------------------------------------------------------------------------------------


def gguf(architecture: str = "llama", kind: str = "model", version: int = 3, big: bool = False) -> Make:
    """x.gguf with a tensor and hardly anything else."""

    def make(folder: Path) -> None:
        path, endian = folder / "x.gguf", GGUFEndian.BIG if big else GGUFEndian.LITTLE
        writer = GGUFWriter(path, architecture, endianess=endian)
        writer.add_type(kind)
        writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        if version != 3:
            patch(path, 4, struct.pack("<I", version))

    return make


def small_gguf(folder: Path) -> None:
    write_gpt2(folder / "x.gguf", "abc")


def patch(path: Path, place: int, data: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + data + whole[place + len(data) :])


def other_tensor(n: int | None = None, kind: int | None = None) -> Make:
    """x.gguf whose first tensor has another length, or another type, by its header."""

    def make(folder: Path) -> None:
        gguf()(folder)
        path, name = folder / "x.gguf", b"token_embd.weight"
        place = path.read_bytes().index(name) + len(name) + 4  # behind the number of its dimensions: two sizes, a type
        if n is not None:
            patch(path, place, struct.pack("<QQ", 32, n // 32))
            with path.open("r+b") as file:
                file.truncate(4 * n + 4096)
        if kind is not None:
            patch(path, place + 16, struct.pack("<I", kind))

    return make


# --- files of ours ----------------------------------------------------------------------------------------------------


def torch_file(name: str, value: object) -> Make:
    return lambda folder: torch.save(value, folder / name)


def of_another_training(folder: Path) -> None:
    whole = (folder / "trained_model.pth").read_bytes()
    trained_pair(folder, "xyz", "two")
    (folder / "trained_model.pth").write_bytes(whole)


def untrained(folder: Path) -> None:
    from conftest import configure

    weights = torch.load(folder / "trained_model.pth", weights_only=True)
    torch.save(weights, folder / "trained_model.pth")  # without its label
    configure(folder, vocab_size=4, n_embd=32, n_head=2, n_layer=1, block_size=8, dropout=0.0)


def archive(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        file.writestr("config.json", "{}")


NAN = torch.full((32,), torch.nan)
NOTHING: Make = lambda folder: None  # noqa: E731
PATH = "no such file or folder; give one, or a name on the Hugging Face hub such as"
# what is made in a folder that has hf/ (a Llama), trained_model.pth and input.txt; what is typed; a part of the answer
CASES: list[tuple[str, Make, str | list[str], str]] = [
    # what is named
    (MODEL, NOTHING, "--from missing.gguf", f"--from missing.gguf: {PATH}"),
    (MODEL, NOTHING, "--from ./nowhere", PATH),
    (MODEL, NOTHING, "--from ~nobody/model", PATH),
    (MODEL, NOTHING, "--from a/b/c", PATH),
    (MODEL, NOTHING, ["--from", "a b"], PATH),
    (MODEL, NOTHING, ["--from", ""], PATH),
    (MODEL, NOTHING, ["--from", "x" * 300], PATH),
    (MODEL, NOTHING, "--from input.txt", "a text to learn from is for python train_llm.py --dataset_path input.txt"),
    (MODEL, archive, "--from a.zip", "it is an archive; unpack it"),
    (MODEL, NOTHING, "--from hf/model.safetensors", "give the folder it is in: hf"),
    (MODEL, torch_file("w.bin", {}), "--from w.bin", "may hold code of a stranger; give a folder with model.safeten"),
    (MODEL, lambda folder: os.mkfifo(folder / "fifo"), "--from fifo", "it is not a regular file"),
    # folders
    (MODEL, lambda folder: (folder / "e").mkdir(), "--from e", "it holds no model (config.json is missing); give a"),
    (MODEL, content("t/a.txt", b"a"), "--from t", "a text to learn from is for python train_llm.py --dataset_path t"),
    (MODEL, content("g/m.gguf", b""), "--from g", "did you mean g/m.gguf?"),
    (MODEL, content("out/checkpoint-5/config.json", b""), "--from out", "did you mean out/checkpoint-5?"),
    (MODEL, content("hf/config.json", b""), "--from hf", "config.json is damaged: it is not JSON"),
    (MODEL, content("hf/config.json", b"{"), "--from hf", "config.json is damaged: it is not JSON"),
    (MODEL, content("hf/config.json", b"\xff\0"), "--from hf", "config.json is damaged: it is not JSON"),
    (MODEL, content("hf/config.json", b"[" * 100_000), "--from hf", "config.json is damaged: it is not JSON"),
    (MODEL, content("hf/config.json", b"[]"), "--from hf", "config.json is [], where the description of a model"),
    (MODEL, content("hf/config.json", b"null"), "--from hf", "config.json is None, where the description of a model"),
    (MODEL, content("hf/config.json", b"{}"), "--from hf", "--from hf: "),
    (MODEL, config(architectures=["WeirdForCausalLM"], model_type="weird"), "--from hf", "llama"),
    (MODEL, config(architectures=["BertModel"], model_type="bert"), "--from hf", "llama"),
    (MODEL, config(architectures="Llama", model_type="weird"), "--from hf", "model of weird"),
    (MODEL, config(architectures=["X"], model_type="x", auto_map={"AutoModel": "m.X"}), "--from hf", "code of its own"),
    (MODEL, config(quantization_config={"quant_method": "gptq"}), "--from hf", "way that is not read here ('gptq')"),
    (MODEL, config(vocab_size=-5), "--from hf", "--from hf: "),
    (MODEL, config(vocab_size=1e30), "--from hf", "--from hf: "),
    (MODEL, config(vocab_size="many"), "--from hf", "--from hf: "),
    (MODEL, config(vocab_size=None), "--from hf", "--from hf: "),
    (MODEL, config(hidden_size=float("nan")), "--from hf", "--from hf: "),
    (MODEL, config(hidden_size=float("inf")), "--from hf", "--from hf: "),
    (MODEL, config(hidden_size=[32]), "--from hf", "--from hf: "),
    (MODEL, config(hidden_size=64), "--from hf", "--from hf: "),
    (MODEL, config(num_hidden_layers="two"), "--from hf", "--from hf: "),
    (MODEL, config(num_hidden_layers=10**9), "--from hf", "--from hf: "),
    (MODEL, config(num_hidden_layers=0), "--from hf", "--from hf: "),
    (MODEL, config(num_hidden_layers=3), "--from hf", "--from hf: "),
    (MODEL, config(num_hidden_layers=1), "--from hf", "--from hf: "),
    (MODEL, config(num_attention_heads=0), "--from hf", "--from hf: "),
    (MODEL, config(num_attention_heads=2.5), "--from hf", "--from hf: "),
    (MODEL, config(num_key_value_heads=3), "--from hf", "--from hf: "),
    (MODEL, config(intermediate_size=True), "--from hf", "--from hf: "),
    (MODEL, config(max_position_embeddings=0), "--from hf", "--from hf: "),
    (MODEL, config(hidden_act="snake"), "--from hf", "--from hf: "),
    (MODEL, config(rms_norm_eps=-1.0), "--from hf", "--from hf: "),
    (MODEL, config(rope_parameters={"rope_type": "spiral", "rope_theta": 1e4}), "--from hf", "--from hf: "),
    (MODEL, config(rope_parameters="none"), "--from hf", "--from hf: "),
    # weights
    (MODEL, content("hf/model.safetensors", b""), "--from hf", "model.safetensors is damaged or not wholly there"),
    (MODEL, content("hf/model.safetensors", b"\xff" * 99), "--from hf", "model.safetensors is damaged or not wholly"),
    (MODEL, cut("hf/model.safetensors", 0.9), "--from hf", "model.safetensors is damaged or not wholly there"),
    (MODEL, huge_safetensors, "--from hf", "GB of memory (1,000,000 million parameters), and"),
    (MODEL, weights(lambda w: w.pop("model.norm.weight")), "--from hf", "model.norm.weight"),
    (MODEL, weights(lambda w: w.update({"model.norm.weight": NAN})), "--from hf", "holds NaN or infinity"),
    (MODEL, weights(lambda w: w.update({"model.norm.weight": torch.ones(7)})), "--from hf", "model.norm.weight"),
    (MODEL, weights(lambda w: w.update(more=torch.ones(7))), "--from hf", "more"),
    (MODEL, weights(lambda w: w.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)})), "--from hf", "norm"),
    (MODEL, index(a="model-00001-of-00002.safetensors", b="model-00002-of-00002.safetensors"), "--from hf",
     "1 of its 2 files of weights are missing, such as model-00002-of-00002.safetensors"),
    (MODEL, index(a="../../etc/passwd"), "--from hf", "index.json is damaged: it lists '../../etc/passwd'"),
    (MODEL, index(), "--from hf", "index.json is damaged: it lists no files"),
    (MODEL, both(without("model.safetensors"), torch_file("hf/pytorch_model.bin", {})), "--from hf",
     "its weights are in pytorch_model.bin, which may hold code of a stranger"),
    (MODEL, both(without("model.safetensors"), content("hf/tf_model.h5", b"")), "--from hf", "are in tf_model.h5"),
    (MODEL, without("model.safetensors"), "--from hf", "it holds no weights (model.safetensors is missing)"),
    (MODEL, content("a/adapter_config.json", b'{"base_model_name_or_path": "b/c"}'), "--from a",
     "it is an adapter, not a whole model; merge it first: python -c "),
    (MODEL, content("a/adapter_config.json", b"{}"), "--from a", "it is an adapter, and adapter_config.json does not"),
    # tokenizers
    (MODEL, without("tokenizer.json"), "--from hf", "hf: it has no tokenizer.json, tokenizer.model, or vocab.json"),
    (MODEL, content("hf/tokenizer.json", b"{"), "--from hf", "--from hf: "),
    (MODEL, both(config(vocab_size=500), weights(lambda w: w.update(
        {name: w[name][:500] for name in ("model.embed_tokens.weight", "lm_head.weight")}))), "--from hf", "500"),
    # GGUF files
    (MODEL, content("x.gguf", b""), "--from x.gguf", "it is no GGUF file, or an empty one; get it again"),
    (MODEL, content("x.gguf", b"a text"), "--from x.gguf", "it is no GGUF file, or an empty one; get it again"),
    (MODEL, content("x.gguf", b"GGUF\3\0\0\0" + b"\xff" * 99), "--from x.gguf", "x.gguf: a damaged GGUF file ("),
    (MODEL, content("x-00001-of-00003.gguf", b"GGUF"), "--from x-00001-of-00003.gguf",
     "it is one of 3 parts; join them: llama-gguf-split --merge x-00001-of-00003.gguf x.gguf"),
    (MODEL, both(small_gguf, cut("x.gguf", 0.03)), "--from x.gguf", "x.gguf: "),
    (MODEL, both(small_gguf, cut("x.gguf", 0.9)), "--from x.gguf", "it ends before "),
    (MODEL, gguf(big=True), "--from x.gguf", "it is for big-endian machines"),
    (MODEL, gguf(version=1), "--from x.gguf", "version 1"),
    (MODEL, gguf(version=99), "--from x.gguf", "version 99"),
    (MODEL, gguf("bert"), "--from x.gguf", "bert"),
    (MODEL, gguf("clip", "mmproj"), "--from x.gguf", "--from x.gguf: "),
    (MODEL, gguf("llama", "adapter"), "--from x.gguf", "adapter"),
    (MODEL, gguf("llama"), "--from x.gguf", "--from x.gguf: "),
    (MODEL, other_tensor(HUGE), "--from x.gguf", "GB of memory (1,000,000 million parameters), and"),
    (MODEL, other_tensor(kind=999), "--from x.gguf", "is in a type (999) that is not known here"),
    # trained models of ours
    (MODEL, torch_file("a.checkpoint.pth", {"trainer": {}, "best_model": None}), "--from a.checkpoint.pth",
     "it is what a training resumes from (--resume), not a trained model; give its trained_model.pth"),
    (MODEL, torch_file("trained_model.lora.pth", {"rank": 4, "alpha": 8.0, "weights": {}}),
     "--from trained_model.lora.pth", "it is an adapter, not a whole model; give trained_model.pth"),
    (MODEL, NOTHING, "--from model_config.pth", "it is the description of a model, not its weights"),
    (MODEL, of_another_training, "--from trained_model.pth", "is of another training than trained_model.pth"),
    (MODEL, untrained, "--from trained_model.pth", "holds no vocabulary; convert it with the text it was trained on"),
    (MODEL, lambda folder: (folder / "model_config.pth").unlink(), "--from trained_model.pth",
     "model_config.pth, which says what model it is, is missing; name it with --base_config"),
    (MODEL, cut("trained_model.pth", 0.5), "--from trained_model.pth", "is damaged or not a file of this project"),
    (MODEL, content("p.pth", pickle.dumps(Exploit())), "--from p.pth", "is damaged or not a file of this project"),
    (MODEL, torch_file("x.pth", [1]), "--from x.pth", "not a state dict of numbers"),
    (MODEL, torch_file("x.pth", {"a": torch.ones(2)}), "--from x.pth", "lacks token_embedding.weight"),
    (MODEL, NOTHING, "--from trained_model.pth --base_config none.pth", "none.pth: no such file"),
    (MODEL, NOTHING, "--from hf --base_config model_config.pth", "--base_config is for a .pth of this program"),
    # flags
    (MODEL, NOTHING, "--from hf --from trained_model.pth", "--from is given twice, with hf and trained_model.pth"),
    (MODEL, NOTHING, "--from", "argument --from: expected one argument"),
    (MODEL, NOTHING, "--from hf --preset modern", "--preset modern beside --from, whose model is what it is"),
    (MODEL, NOTHING, "--from hf --n_embd 64", "--n_embd 64 beside --from, whose model is what it is; leave it out"),
    (MODEL, NOTHING, "--from hf --no_bias", "--no_bias beside --from"),
    (MODEL, NOTHING, "--from hf --advanced", "--advanced beside --from"),
    (MODEL, NOTHING, "--from hf --minutes 3", "--minutes 3.0 beside --from"),
    (MODEL, NOTHING, "--from hf --layer_configs_jsonl x", "--layer_configs_jsonl x beside --from"),
    (MODEL, NOTHING, "--from hf --block_size 0", "--block_size 0 is not a whole number from 1"),
    (MODEL, NOTHING, "--from trained_model.pth --block_size 9", "trained_model.pth knows 8 positions; give at most"),
    (MODEL, NOTHING, "--base_config model_config.pth", "--base_config is about the model of --from; give both or"),
    (QUICK, NOTHING, "input.txt --from missing.gguf", f"--from missing.gguf: {PATH}"),
    (QUICK, NOTHING, "input.txt --from hf --n_embd 64", "--n_embd 64 beside --from"),
    (QUICK, NOTHING, "input.txt --from hf --from hf", "--from is given twice"),
    # step 3
    (CONVERT, NOTHING, "input.txt", "input.txt: not a folder; give one of a Hugging Face model"),
    (CONVERT, NOTHING, "hf --model_path trained_model.pth2", "--model_path trained_model.pth2 beside hf, which is all"),
    (CONVERT, NOTHING, "hf --output_dir o", "--output_dir o beside hf, which is all that is converted"),
    (CONVERT, config(architectures=["BertModel"], model_type="bert"), "hf", "hf: "),
    (CONVERT, both(without("model.safetensors"), torch_file("hf/pytorch_model.bin", {})), "hf", "hf: its weights are"),
]  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    llama(folder / "hf")
    trained_pair(folder)
    (folder / "input.txt").write_text("A cat sat on a mat.\n" * 99)
    return folder


@pytest.fixture
def folder(original, tmp_path, monkeypatch):
    """One that has a model of each kind."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return tmp_path


def contents(folder: Path) -> dict[str, bytes | int]:
    """Every file but the log; of large ones the size."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "conversion.log"]
    sizes = {path: path.stat().st_size for path in files}
    return {str(path): path.read_bytes() if sizes[path] < 1e7 else sizes[path] for path in files}


@pytest.mark.parametrize(("script", "make", "typed", "message"), CASES)
def test_one_line_and_status_2(folder, capsys, script, make, typed, message):
    make(folder)
    before = contents(folder)
    status = run(importlib.import_module(script).main, typed if isinstance(typed, list) else typed.split())
    stderr = capsys.readouterr().err
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert status == 2, stderr
    assert len(errors) == 1 and stderr.endswith(errors[0] + "\n"), stderr
    assert message in errors[0]
    assert contents(folder) == before, "half-written"


def test_there_are_enough_cases():
    assert len(CASES) >= 100
