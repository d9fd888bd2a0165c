"""Step 1 with --from, from each kind of base: what is written, kept and said, and the whole road after it."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bases import llama, trained_pair
from conftest import ENVIRONMENT, STORY, digest, run_script
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from custom_llm.base.open import open_base
from custom_llm.commands.convert import main as convert
from custom_llm.commands.model import main as configure
from custom_llm.common.errors import UserError, run
from custom_llm.config.model import ModelConfig
from custom_llm.export.huggingface.directory import write_hf_directory
from custom_llm.model import GPTLanguageModel
from custom_llm.model.files import load_base, load_config, load_trained
from custom_llm.tokenizer.bpe import BPETokenizer

CONFIG, BASE, MODEL = "model_config.pth", "model_config.base.pth", "trained_model.pth"


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("bases") / "small-llama")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return tmp_path


def names(folder: Path) -> set[str]:
    return {re.sub(r"\d{4}-\d\d-\d\d-\d{4}(-\d)?", "DATE", path.name) for path in folder.iterdir()}


@torch.no_grad()
def logits(base_config: str | Path, ids: torch.Tensor) -> torch.Tensor:
    """What the model computes that step 1 has written."""
    saved = load_config(base_config)
    model = GPTLanguageModel(saved.model).eval()
    model.load_state_dict(load_base(base_config, saved))
    return model(ids)[0].float()


def test_a_folder_becomes_the_start_of_a_training(hf, here, capsys):
    configure(["--from", str(hf), "--block_size", "32", "--dropout", "0.1"])
    assert names(here) == {CONFIG, BASE, "model_config.yaml"}
    saved = load_config(CONFIG)
    assert (saved.model.block_size, saved.model.dropout, saved.training_id) == (32, 0.1, "")
    assert (saved.base.name, saved.base.license, saved.base.quantized) == ("small-llama", "mit", "")
    ids = torch.arange(1, 31).view(1, -1)
    stock = AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32).eval()
    assert (logits(CONFIG, ids) - stock(ids).logits).abs().max() < 1e-4
    out = capsys.readouterr().out
    assert out.startswith("Starting from small-llama, with its own ")
    for line in ("  knows       English, German\n", "  license     mit\n", "--lora 16", "exports to GGUF as `llama`"):
        assert line in out
    assert re.search(r"^Model initialized with 0\.\d\dM parameters$", out, re.MULTILINE)
    assert out.endswith("next: python train_llm.py\n") and "Enter" not in out and "vocabulary  " not in out


def test_the_options_beside_it_repeat_it(hf, here):
    configure(["--from", str(hf), "--block_size", "32"])
    before = digest(BASE), digest(CONFIG)
    configure(["--config", "model_config.yaml"])
    assert (digest(BASE), digest(CONFIG)) == before


def test_weights_in_several_files_are_read(hf, here):
    shutil.copytree(hf, here / "parts")
    AutoModelForCausalLM.from_pretrained(hf).save_pretrained(here / "parts", max_shard_size="50KB")
    (here / "parts/model.safetensors").unlink()
    assert len(list(here.glob("parts/*.safetensors"))) > 2
    one, several = (open_base(str(folder)) for folder in (hf, here / "parts"))
    assert one.config == several.config and one.weights.keys() == several.weights.keys()
    assert all(torch.equal(one.weights[name], several.weights[name]) for name in one.weights)


def test_a_model_of_ours_goes_on(here, capsys):
    trained_pair(here, block_size=8)
    expected = load_trained(MODEL, CONFIG)[0].state_dict()
    configure(["--from", MODEL, "--block_size", "4"])  # onto its own configuration
    assert names(here) == {CONFIG, BASE, "model_config.yaml", "model_config.DATE.pth", "trained_model.DATE.pth"}
    saved = load_config(CONFIG)
    assert saved.model.block_size == 4 and saved.base.name == MODEL
    weights = load_base(CONFIG, saved)
    table = "position_embedding.weight"
    assert torch.equal(weights.pop(table), expected.pop(table)[:4]), "the end of the table is cut off"
    assert all(torch.equal(weights[name], x) for name, x in expected.items())
    [kept] = here.glob("trained_model.*.pth")
    configure(["--from", str(kept), "--config_path", "again.pth"])  # whose configuration is found by its training
    assert load_config("again.pth").model.block_size == 8


def test_a_gguf_file_of_ours(here, capsys):
    trained_pair(here, "abc def.", block_size=8)
    assert run(convert, ["--quant_type", "Q8_0", "--llama_cpp_path", "none", "--license", "mit"]) == 0
    configure(["--from", "model.gguf", "--config_path", "whole.pth"])
    configure(["--from", "model.gguf.Q8_0.gguf", "--config_path", "rounded.pth"])
    configure(["--from", "hf_model", "--config_path", "folder.pth"])
    ids = torch.tensor([[0, 1, 2, 3, 4, 5, 6]])
    expected = load_trained(MODEL, CONFIG)[0](ids)[0]
    for path in ("whole.pth", "folder.pth"):
        assert (logits(path, ids) - expected).abs().max() < 1e-5
    rounded = load_config("rounded.pth")
    assert rounded.model.block_size == 8, "and not the 256 rows of the file's table"
    assert rounded.base.quantized == "Q8_0" and rounded.tokenizer["kind"] == "char" and rounded.base.license == "mit"
    assert "its weights were rounded when that file was made (Q8_0)" in capsys.readouterr().out


def test_nothing_that_was_made_is_lost_and_no_stale_weights_stay(hf, here):
    configure(["--from", str(hf)])
    first = digest(BASE)
    configure(["--from", str(hf)])
    assert names(here) == {CONFIG, BASE, "model_config.yaml"}, "the same again is nothing to keep"
    configure(["--n_embd", "16", "--n_head", "2", "--n_layer", "1"])
    kept = {f"model_config.DATE{ending}" for ending in (".pth", ".base.pth", ".yaml")}
    assert names(here) == {CONFIG, "model_config.yaml", *kept}
    [kept] = here.glob("model_config.*.base.pth")
    assert digest(kept) == first
    own = Path(str(kept).replace(".base.pth", ".pth"))
    assert load_base(own, load_config(own)), "it is the base of the configuration that was kept"


@pytest.mark.slow
def test_a_trained_model_is_kept_with_its_base(hf, here):
    (here / "input.txt").write_text(STORY * 9, encoding="utf-8")
    configure(["--from", str(hf)])
    base = digest(BASE)
    flags = "--dataset_path input.txt --max_iters 2 --batch_size 2 --learning_rate 0.001 --cache_dir c".split()
    for _ in range(2):
        done = run_script("train_llm.py", *flags, cwd=here)
        assert done.status == 0, done.stderr
    assert digest(BASE) == base and len(list(here.glob("model_config.*.base.pth"))) == 1
    configure(["--from", str(hf)])
    assert not Path(MODEL).exists() and digest(BASE) == base
    for kept in here.glob("model_config.2*-????.pth"):
        assert load_base(kept, load_config(kept))
    assert len(list(here.glob("model_config.*.base.pth"))) == 2


FULL = """
import resource, sys
sys.dont_write_bytecode = True
from custom_llm.base import huggingface, open
from custom_llm.commands.model import main
from custom_llm.common.errors import run
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # a write that fails, as on a full disk
sys.exit(run(main, ["--from", sys.argv[1]]))
"""
STOPPED = """
import os, signal, sys
from custom_llm.base import huggingface
from custom_llm.commands.model import main
from custom_llm.common.errors import run
read = huggingface.read_folder
def stop(folder):
    os.kill(os.getpid(), signal.SIGINT)
    return read(folder)
huggingface.read_folder = stop
sys.exit(run(main, ["--from", sys.argv[1]]))
"""


@pytest.mark.parametrize(("code", "status"), [(FULL, 2), (STOPPED, 130)], ids=["full disk", "Ctrl-C"])
def test_what_is_stopped_changes_nothing(hf, here, code, status):
    configure("--n_embd 16 --n_head 2 --n_layer 1".split())
    before = {path.name: digest(path) for path in here.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", code, str(hf)], cwd=here, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    if status == 2:
        assert re.search(r"^error: cannot write \S*model_config\S*: .*file too large\n", done.stderr), done.stderr
    assert {path.name: digest(path) for path in here.iterdir()} == before


@pytest.mark.slow
def test_quickstart_from_a_base(hf, here):
    (here / "notes.txt").write_text("Buy milk and bread today, Anna said. " * 60, encoding="utf-8")
    done = run_script("quickstart.py", "notes.txt", "--from", hf, "--minutes", "0.02", "--lora", "4", cwd=here)
    assert done.status == 0, done.stderr
    commands = done.stdout.split("The four commands that repeat it:\n")[1].splitlines()
    first, second, _, last = map(shlex.split, commands)
    assert first[2:4] == ["--from", str(hf)] and "--n_embd" not in first
    assert second[-2:] == ["--lora", "4"] and "0.001" in second
    assert last[last.index("--query") + 1] == "Buy milk and bread today, Anna"
    assert "Buy milk and bread today, Anna" in done.stdout
    assert load_config(here / "quickstart" / CONFIG).base.name == "small-llama"
    assert "continued from small-llama on notes.txt" in (here / "quickstart/hf_model/README.md").read_text()


# --- step 3 of a folder -----------------------------------------------------------------------------------------------


def test_a_folder_of_transformers_becomes_gguf_files_with_proof(hf, here, capsys):
    before = {path.name: digest(path) for path in hf.iterdir()}
    assert run(convert, [str(hf), "--quant_type", "Q8_0", "--gguf_output", "small.gguf"]) == 0
    out = capsys.readouterr().out
    assert "the same as in transformers, to " in out and "llama.cpp runs it as llama" in out
    assert out.rstrip().splitlines()[-1].startswith("next: python inference_gguf.py --gguf_path small.gguf.Q8_0.gguf")
    assert {"small.gguf", "small.gguf.Q8_0.gguf", "small.gguf.yaml", "Modelfile"} <= names(here)
    assert not Path("hf_model").exists() and not [name for name in names(here) if name.startswith(".")]
    assert {path.name: digest(path) for path in hf.iterdir()} == before


@pytest.mark.parametrize("how", ["saved", "without our words", "in parts"])
def test_an_export_of_ours_that_was_trained_on_elsewhere(here, capsys, how):
    text = STORY * 20
    tokenizer = BPETokenizer.train([text], 300)
    sizes = dict(n_embd=32, n_head=2, n_layer=2, block_size=32, dropout=0.0)
    config = ModelConfig(300, **sizes, pos_emb="rope", norm="rms", bias=False, non_linearity="swiglu", qk_norm=True)
    config = ModelConfig.from_dict({**config.to_dict(), "vocab_size": tokenizer.vocab_size})
    write_hf_directory(GPTLanguageModel(config), tokenizer, "hf_model")
    model = AutoModelForCausalLM.from_pretrained("hf_model", dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    model.save_pretrained("tuned", **({"max_shard_size": "60KB"} if how == "in parts" else {}))
    AutoTokenizer.from_pretrained("hf_model").save_pretrained("tuned")
    if how == "without our words":
        path = Path("tuned/config.json")
        values = {key: value for key, value in json.loads(path.read_text()).items() if not key.startswith("custom_llm")}
        path.write_text(json.dumps(values))
    assert run(convert, ["tuned", "--quant_type", "F16", "--gguf_output", "tuned.gguf"]) == 0, capsys.readouterr().err
    configure(["--from", "tuned.gguf"])
    ids = torch.arange(20).view(1, -1)
    assert (logits(CONFIG, ids) - model.eval()(ids).logits).abs().max() < 1e-4


def test_a_folder_that_transformers_computes_otherwise_is_not_converted(hf, here, monkeypatch, capsys):
    """Here the weights change after they were read, in place of an error of the reader."""
    from custom_llm.base import huggingface

    read = huggingface.read_folder

    def wrong(folder: Path) -> tuple:
        config, weights = read(folder)
        return config, {name: x + 0.1 if name.endswith("ln1.weight") else x for name, x in weights.items()}

    monkeypatch.setattr(huggingface, "read_folder", wrong)
    assert run(convert, [str(hf)]) == 2
    assert "read here it would not compute what transformers computes" in capsys.readouterr().err
    assert names(here) <= {"conversion.log"}


# --- ways out that errors name ----------------------------------------------------------------------------------------


def follow(command: str) -> None:
    words = shlex.split(command)
    subprocess.run([sys.executable, *words[1:]], check=True, env=ENVIRONMENT, capture_output=True)


@pytest.mark.slow
def test_the_command_that_makes_safetensors_of_pickles_works(hf, here):
    shutil.copytree(hf, "old")
    torch.save(load_file("old/model.safetensors"), "old/pytorch_model.bin")
    Path("old/model.safetensors").unlink()
    with pytest.raises(UserError) as caught:
        open_base("old")
    follow(re.search(r"python -c .*", str(caught.value))[0])
    expected, found = open_base(str(hf)), open_base("old-safetensors")
    assert all(torch.equal(found.weights[name], x) for name, x in expected.weights.items())


@pytest.mark.slow
def test_the_command_that_merges_an_adapter_works(hf, here):
    peft = pytest.importorskip("peft")
    model = AutoModelForCausalLM.from_pretrained(hf)
    tuned = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained("adapter")
    with pytest.raises(UserError, match="it is an adapter, not a whole model; merge it first") as caught:
        open_base("adapter")
    follow(re.search(r"python -c .*", str(caught.value))[0])
    configure(["--from", "adapter-merged"])
    ids = torch.arange(9).view(1, -1)
    assert (logits(CONFIG, ids) - tuned.eval()(ids).logits).abs().max() < 1e-4
