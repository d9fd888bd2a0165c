"""Every exported file is the model that was trained: ids, tensors, logits, in transformers and in llama.cpp."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ENVIRONMENT, ROOT, configure, run_script, train
from gguf import GGUFReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from custom_llm.common.errors import UserError
from custom_llm.export.gguf.quantize import FILE_TYPES, NEED_IMPORTANCE, parse_quant_types
from custom_llm.export.huggingface.directory import write_hf_directory
from custom_llm.export.pipeline import convert_to_gguf, export_to_hf
from custom_llm.export.plan import plan_export
from custom_llm.export.proof import Reference
from custom_llm.llamacpp import Model
from custom_llm.model import GPTLanguageModel
from custom_llm.model.files import SavedConfig, load_model, load_trained, save_config, save_weights
from custom_llm.tokenizer.char import CharTokenizer

ALPHABET = "abcdefghijklmnopqrstuvwxyz ABC.,!?'\"\n0123456789"
SCRIPTS = "aß é ñ Ж щ 中文字 日本語 ไทย हिन्दी العربية עברית 한국어 🙂👩‍👩‍👧🇩🇪\u200b\u00a0\t\n\r\x01�𝔘"


def random_model(seed: int = 0, **changes: object) -> GPTLanguageModel:
    """A model whose every weight matters: biases and norms away from 0 and 1, sharp distributions."""
    torch.manual_seed(seed)
    six = dict(vocab_size=len(ALPHABET) + 1, n_embd=64, n_head=4, n_layer=2, block_size=48, dropout=0.0)
    model = GPTLanguageModel({**six, **changes}).eval()
    for name, parameter in model.named_parameters():
        is_norm = "ln" in name and name.endswith("weight")
        parameter.data = torch.randn_like(parameter) * 0.2 + is_norm
    return model


def tokenizer_for(model: GPTLanguageModel) -> CharTokenizer:
    return CharTokenizer("".join(chr(0x100 + i) for i in range(model.config.vocab_size - 1)))


# --- transformers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"non_linearity": "relu"}, {"head_bias": True}, {"head_bias": True, "vocab_size": 90}]
)
def test_stock_transformers_has_the_same_logits(tmp_path, changes):
    model = random_model(**changes)
    write_hf_directory(model, tokenizer_for(model), tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(stock).__name__ == "GPT2LMHeadModel"
    ids = torch.randint(model.config.vocab_size, (3, 48))
    with torch.no_grad():
        torch.testing.assert_close(stock(ids).logits, model(ids)[0], atol=1e-4, rtol=1e-4)


# What a person does with the folder and stock tools, by their defaults. Prints the texts of a batch, written greedily.
STOCK = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

folder, *prompts = sys.argv[1:]
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
greedy = dict(max_new_tokens=20, do_sample=False)
alone = [model.generate(**tokenizer(p, return_tensors="pt"), **greedy)[0] for p in prompts]
batch = model.generate(**tokenizer(prompts, padding=True, return_tensors="pt"), **greedy)
write = pipeline("text-generation", model=folder, device="cpu")
piped = [one["generated_text"] for [one] in write(prompts, batch_size=2, **greedy)]
assert write(prompts[0])[0]["generated_text"].startswith(prompts[0])  # by default, as long as it likes
print(json.dumps([*(tokenizer.batch_decode(ids, skip_special_tokens=True) for ids in (alone, batch)), piped]))
"""
# An environment with another version, as by: python -m venv tf4 && tf4/bin/pip install "transformers==4.57.*" torch
OTHER_TRANSFORMERS = "OTHER_TRANSFORMERS"


@pytest.mark.parametrize("python", [sys.executable, pytest.param(OTHER_TRANSFORMERS, marks=pytest.mark.slow)])
def test_stock_tools_write_by_default_what_the_model_writes(trained, tmp_path, python):
    """One by one, in a batch of several lengths, in a pipeline: transformers 4 gave GPT-2 token_type_ids, which it took
    for tokens, and wrote nonsense; without a token to pad with no batch was possible."""
    if python == OTHER_TRANSFORMERS and not (python := os.environ.get(OTHER_TRANSFORMERS, "")):
        pytest.skip(f"no {OTHER_TRANSFORMERS}: name a Python that has transformers 4.57")
    folder = export_to_hf(
        str(trained.folder / "trained_model.pth"), str(trained.folder / "model_config.pth"), str(tmp_path / "hf")
    )
    model, tokenizer, _ = load_trained(trained.folder / "trained_model.pth", trained.folder / "model_config.pth")
    prompts = ["Mia found", "The wind was", "S"]
    expected = [tokenizer.decode(greedy(model, tokenizer, prompt)) for prompt in prompts]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, "-c", STOCK, folder, *prompts], env=environment, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr
    alone, batch, piped = json.loads(done.stdout.splitlines()[-1])
    assert alone == batch == piped == expected
    settings = json.loads(Path(folder, "tokenizer_config.json").read_text())
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]


def greedy(model: GPTLanguageModel, tokenizer: CharTokenizer, prompt: str) -> list[int]:
    """The ids of `prompt` and of up to 20 more, always the likeliest, before the text ends."""
    ids = tokenizer.encode(prompt).tolist()
    for _ in range(20):
        with torch.no_grad():
            likeliest = int(model(torch.tensor([ids]))[0][0, -1].argmax())
        if likeliest == tokenizer.end_of_text_id:
            break
        ids.append(likeliest)
    return ids


@pytest.fixture(scope="module")
def many_scripts(tmp_path_factory):
    """A vocabulary of many scripts: our tokenizer, transformers' and llama.cpp's."""
    folder = tmp_path_factory.mktemp("scripts")
    tokenizer = CharTokenizer.from_text(SCRIPTS)
    model = random_model(vocab_size=tokenizer.vocab_size)
    write_hf_directory(model, tokenizer, folder / "hf")
    convert_to_gguf(str(folder / "hf"), str(folder / "model.gguf"), "F16", llama_cpp_path=None)
    with Model(folder / "model.gguf") as runtime:
        yield tokenizer, AutoTokenizer.from_pretrained(folder / "hf"), runtime


TEXTS = st.lists(
    st.one_of(st.text(), st.text(SCRIPTS), st.sampled_from(["<|endoftext|>", "  ", "\n\n", "'s", "aaaa"])), max_size=8
).map("".join)


@given(TEXTS)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_token_ids_are_the_same_everywhere(many_scripts, text):
    tokenizer, hf, runtime = many_scripts
    ids = tokenizer.encode(text).tolist()
    assert hf(text)["input_ids"] == ids
    assert runtime.tokenize(text) == ids
    assert hf.decode(ids) == tokenizer.decode(ids)


def test_the_exported_tokenizer_ends_texts_at_its_own_token(many_scripts):
    tokenizer, hf, runtime = many_scripts
    assert hf.eos_token_id == hf.bos_token_id == runtime.eos == tokenizer.end_of_text_id
    assert hf.eos_token == "<|endoftext|>"


def test_the_tutorials_class_names_hold_the_same_model():
    from convert_to_gguf import GPTPreTrainedModel

    model = random_model()
    wrapped = GPTPreTrainedModel.from_language_model(model)
    ids = torch.randint(model.config.vocab_size, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(wrapped(ids).logits, model(ids)[0], atol=1e-4, rtol=1e-4)


# --- llama.cpp ------------------------------------------------------------------------------------------------------

SHAPES = {
    "gelu": {},
    "relu": {"non_linearity": "relu"},
    "biased head": {"head_bias": True},
    "relu and biased head": {"non_linearity": "relu", "head_bias": True},
    "odd sizes": {"n_embd": 63, "n_head": 3, "block_size": 33, "vocab_size": 7, "n_layer": 1},
    "block_size 1": {"block_size": 1},
    "more than 256 positions": {"block_size": 300},
    "one head": {"n_head": 1, "n_embd": 32},
    "biased head, vocabulary wider than the model": {"vocab_size": 90, "head_bias": True},
}


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
def test_llama_cpp_computes_the_trained_model(tmp_path, changes):
    model = random_model(**changes)
    tokenizer = tokenizer_for(model)
    write_hf_directory(model, tokenizer, tmp_path / "hf")
    reference = Reference(model, tokenizer, tokenizer.chars * 40)
    parities = {}
    convert_to_gguf(
        str(tmp_path / "hf"), str(tmp_path / "model.gguf"), "F16,Q8_0", None,
        lambda path, quant_type, _: parities.update({quant_type: reference.compare(path)}),
    )  # fmt: skip
    # A few positions may be ties: llama.cpp reads GELU from a table of float16 values.
    assert parities["F32"].kl <= 1e-6 and parities["F32"].top1_text >= 0.995
    assert parities["F16"].kl <= 1e-5
    assert parities["Q8_0"].kl <= 5e-3  # weights drawn at random are harder on it than trained ones


def test_a_wrong_export_would_be_noticed(tmp_path):
    """The proof can fail: a file of another model is far outside the bound, and no file is left."""
    from custom_llm.export.proof import FileTable

    model, other = random_model(0), random_model(1)
    tokenizer = tokenizer_for(model)
    write_hf_directory(other, tokenizer, tmp_path / "hf")
    report = FileTable(Reference(model, tokenizer, tokenizer.chars * 10), plan_export(model.config).shapes)
    with pytest.raises(UserError, match="differs from PyTorch by KL"):
        convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / "model.gguf"), "Q8_0", None, report.check)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_both_ways_of_converting_give_the_same_tensors(tmp_path):
    checkout = Path(os.environ.get("LLAMA_CPP", ROOT / "llama.cpp"))
    if not (checkout / "convert_hf_to_gguf.py").is_file():
        pytest.skip("no llama.cpp checkout here; `make test` brings one")
    assert (checkout / "build/bin/llama-quantize").is_file(), "make llama.cpp builds it"
    model = random_model(non_linearity="relu", head_bias=True, n_embd=96, n_head=3)
    write_hf_directory(model, tokenizer_for(model), tmp_path / "hf")
    for way, path in (("inside", None), ("outside", str(checkout))):
        (tmp_path / way).mkdir()
        convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / way / "model.gguf"), "Q4_0,Q8_0,Q4_K_M,F16", path)
    names = sorted(path.name for path in (tmp_path / "inside").iterdir())
    assert len(names) == 5
    for name in names:
        inside, outside = (GGUFReader(tmp_path / way / name) for way in ("inside", "outside"))
        assert _tensors(inside) == _tensors(outside)
        for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "custom_llm.block_size", "gpt2.context_length"):
            assert inside.get_field(key).contents() == outside.get_field(key).contents()


def _tensors(reader: GGUFReader) -> dict[str, tuple[str, list[int], bytes]]:
    return {t.name: (t.tensor_type.name, t.shape.tolist(), np.asarray(t.data).tobytes()) for t in reader.tensors}


def test_other_programs_cannot_be_made_to_read_past_the_position_table(tmp_path):
    """llama.cpp rounds a context up to a multiple of 256, and aborts when the table is shorter."""
    model = random_model()
    write_hf_directory(model, tokenizer_for(model), tmp_path / "hf")
    convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / "model.gguf"), "F32", None)
    reader = GGUFReader(tmp_path / "model.gguf")
    rows = {t.name: t.shape for t in reader.tensors}["position_embd.weight"][1]
    assert rows == reader.get_field("gpt2.context_length").contents() == 256
    table = next(t.data for t in reader.tensors if t.name == "position_embd.weight")
    assert (table[47:] == table[47]).all(), "what others write past the window is worse, but least with these"
    with Model(tmp_path / "model.gguf") as runtime:
        assert runtime.block_size == 48


@pytest.mark.parametrize("quant_type", FILE_TYPES)
def test_every_type_by_name(tmp_path, quant_type, capsys):
    from custom_llm.export.proof import FileTable

    model = random_model(n_embd=256, n_head=4, n_layer=1)
    tokenizer = tokenizer_for(model)
    write_hf_directory(model, tokenizer, tmp_path / "hf")
    report = FileTable(Reference(model, tokenizer, tokenizer.chars * 4), plan_export(model.config).shapes)
    [path] = convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / "model.gguf"), quant_type.lower(), None, report.check)
    assert Path(path).name == f"model.gguf.{quant_type}.gguf"
    assert "note:" not in capsys.readouterr().out, "rows of 256 hold every type"


def test_what_llama_cpp_really_stores_is_said(tmp_path, capsys):
    from custom_llm.export.proof import FileTable

    model = random_model()
    write_hf_directory(model, tokenizer_for(model), tmp_path / "hf")
    convert_to_gguf(
        str(tmp_path / "hf"),
        str(tmp_path / "model.gguf"),
        "Q4_K_M",
        None,
        FileTable(None, plan_export(model.config).shapes).check,
    )
    out = capsys.readouterr().out
    assert "note: Q4_K_M needs rows of a multiple of 256 values, not 64; llama.cpp stores this model as Q5_0 " in out


def test_type_names_are_llama_cpps():
    import llama_cpp

    for name, number in FILE_TYPES.items():
        constant = "LLAMA_FTYPE_ALL_F32" if name == "F32" else f"LLAMA_FTYPE_MOSTLY_{name}"
        assert getattr(llama_cpp, constant) == number
    assert parse_quant_types("q8_0, Q4_0,Q8_0") == ["Q8_0", "Q4_0"]
    with pytest.raises(UserError, match=r"Q9_9: no such type; known are F32, F16, .*Q4_K_M"):
        parse_quant_types("Q8_0,Q9_9")
    for name in NEED_IMPORTANCE:
        with pytest.raises(UserError, match="importance matrix"):
            parse_quant_types(name)


# --- the script -----------------------------------------------------------------------------------------------------


def test_step_3_writes_what_the_contract_says(trained, tmp_path):
    flags = ("--model_path", trained.folder / "trained_model.pth", "--config_path", trained.folder / "model_config.pth")
    flags += ("--quant_type", "Q4_0,Q8_0", "--llama_cpp_path", "none")
    result = run_script("convert_to_gguf.py", *flags, "--verbose", cwd=tmp_path)
    assert (result.status, result.stderr) == (0, "")
    files = {"hf_model", "model.gguf", "model.gguf.Q4_0.gguf", "model.gguf.Q8_0.gguf", "conversion.log"}
    files |= {"model.gguf.yaml", "Modelfile"}
    assert {path.name for path in tmp_path.iterdir()} == files
    lines = result.stdout.splitlines()
    assert lines[0] == "hf_model/: a Hugging Face model (GPT2LMHeadModel); llama.cpp runs it as gpt2"
    rows = {line.split()[0]: line.split() for line in lines if line.startswith("model.gguf")}
    assert set(rows) == {"model.gguf", "model.gguf.Q4_0.gguf", "model.gguf.Q8_0.gguf"}
    assert float(rows["model.gguf"][3]) <= 1e-6
    assert_same_likeliest(result.stdout)
    assert float(rows["model.gguf.Q8_0.gguf"][3]) <= 1e-3
    assert json.loads((tmp_path / "hf_model/config.json").read_text())["model_type"] == "gpt2"
    said = run_script("convert_to_gguf.py", *flags, cwd=tmp_path).stdout
    of_type = (
        r"model\.gguf{} +\d\.\d\d MB  (always|\d\d\.\d % of the time) the same next character as the trained model"
    )
    lines = said.splitlines()[1:]
    assert len(lines) == 5
    for line, name in zip(lines, ("", r"\.Q4_0\.gguf", r"\.Q8_0\.gguf"), strict=False):
        assert re.fullmatch(of_type.format(name), line)
    assert "  always " in lines[0]
    assert re.fullmatch(r"done in \d+\.\d s; each file was compared with the trained model in 1,280 places", lines[3])
    following = shlex.split(lines[4].removeprefix("next: python "))
    assert following[:3] == ["inference_gguf.py", "--gguf_path", "model.gguf.Q8_0.gguf"]
    wrote = run_script(*following, cwd=tmp_path)
    assert wrote.status == 0 and wrote.stdout.startswith(following[-1])


def test_two_conversions_into_one_folder(trained, tmp_path):
    """One once took the configuration away from under the other: hf_model/config.json: no such file."""
    for name in ("trained_model.pth", "model_config.pth"):
        shutil.copy(trained.folder / name, tmp_path)
    command = [sys.executable, ROOT / "convert_to_gguf.py", "--quant_type", "Q8_0", "--llama_cpp_path", "none"]
    both = [
        subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, encoding="utf-8")
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in both]
    for process, error in zip(both, errors, strict=True):
        assert (process.returncode, error) == (0, "") or re.fullmatch(
            r"error: hf_model is being written by convert_to_gguf\.py \(process \d+ .*\); wait for it, or give another "
            r"--output_dir and --gguf_output\n", error,
        ), error  # fmt: skip
    assert 0 in [process.returncode for process in both]
    assert not [path.name for path in tmp_path.rglob(".*")], "nothing is left"
    other = run_script(
        "convert_to_gguf.py", *command[2:], "--output_dir", "second", "--gguf_output", "second.gguf", cwd=tmp_path
    )
    assert other.status == 0, "the way out is one"


def test_a_pair_of_the_tutorials_scripts_converts(tmp_path):
    """No vocabulary, a wrong vocab_size, masks among the weights, ReLU, and a bias on the output layer."""
    text = "The naïve fox — 日本 — jumps over the lazy dog. " * 30
    vocab_size = len(set(text))
    model = random_model(vocab_size=vocab_size, non_linearity="relu", head_bias=True)
    weights = model.state_dict()
    for layer in range(2):
        weights[f"blocks.{layer}.attn.tril"] = torch.ones(48, 48).tril()
    torch.save(weights, tmp_path / "trained_model.pth")
    six = dict(vocab_size=10000, n_embd=64, n_head=4, n_layer=2, block_size=48, dropout=0.1)
    torch.save(six, tmp_path / "model_config.pth")
    (tmp_path / "notes.txt").write_text(text, encoding="utf-8")
    without = run_script("convert_to_gguf.py", cwd=tmp_path)
    assert without.status == 2
    assert "holds no vocabulary" in without.stderr and "--dataset_path" in without.stderr
    result = run_script(
        "convert_to_gguf.py", "--dataset_path", "notes.txt", "--quant_type", "F16", "--verbose", cwd=tmp_path
    )
    assert result.status == 0, result.stderr
    assert result.stderr.startswith("warning: the model does worse on this text than guessing"), (
        "its weights are random"
    )
    [kl] = re.findall(r"^model\.gguf .* MB +(\S+) ", result.stdout, re.MULTILINE)
    assert float(kl) <= 1e-6
    with Model(tmp_path / "model.gguf") as runtime:
        assert runtime.eos == -1, "no character ends a text"
        assert len(runtime.tokenize("naïve 日本")) == 8


def assert_same_likeliest(stdout: str) -> None:
    """The F32 file has the likeliest token of PyTorch at each of 1,024 positions of the text, and of 256 random ones at
    all but one, where two may be as good as tied: which are, depends on the processor that trained the model."""
    row = next(line for line in stdout.splitlines() if line.startswith("model.gguf "))
    text, random = (float(share.rstrip("%")) for share in row.split()[-2:])
    assert text == 100 and random >= 99.6, row


def test_a_lost_vocabulary_is_rebuilt_from_the_text(trained, tmp_path):
    """Step 1 run again after step 2 replaces the configuration that held it."""
    for name in ("input.txt", "trained_model.pth"):
        shutil.copy(trained.folder / name, tmp_path)
    vocab_size = torch.load(trained.folder / "model_config.pth", weights_only=True)["vocab_size"]
    configure(tmp_path, n_embd=32, n_head=4, n_layer=2, block_size=32, dropout=0.0, vocab_size=vocab_size)
    result = run_script(
        "convert_to_gguf.py", "--dataset_path", "input.txt", "--quant_type", "F16", "--verbose", cwd=tmp_path
    )
    assert (result.status, result.stderr) == (0, "")
    assert_same_likeliest(result.stdout)


def test_a_text_the_model_was_not_trained_on_is_noticed(tmp_path):
    model = random_model()
    save_config(tmp_path / "model_config.pth", SavedConfig(model.config, tokenizer_for(model).to_dict(), "Ā" * 2000))
    save_weights(tmp_path / "trained_model.pth", model)
    result = run_script("convert_to_gguf.py", "--llama_cpp_path", "none", cwd=tmp_path)
    assert result.status == 0
    assert result.stderr == "warning: the model does worse on this text than guessing; was it trained on it?\n"


def test_export_to_hf_takes_the_two_files(tmp_path):
    model = random_model()
    save_config(tmp_path / "c.pth", SavedConfig(model.config, tokenizer_for(model).to_dict(), "x"))
    save_weights(tmp_path / "m.pth", model)
    folder = export_to_hf(str(tmp_path / "m.pth"), str(tmp_path / "c.pth"), str(tmp_path / "out"))
    assert (Path(folder) / "model.safetensors").is_file()
    loaded, _ = load_model(tmp_path / "m.pth", tmp_path / "c.pth")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "春眠不觉晓，处处闻啼鸟。🐶 chased 🐱! 🎉👩‍👩‍👧 ",
        pytest.param("كان يا ما كان في قديم الزمان. ", marks=pytest.mark.slow),
        pytest.param("กาลครั้งหนึ่งนานมาแล้ว มีเด็กคนหนึ่ง ", marks=pytest.mark.slow),
    ],
)
def test_any_language_goes_all_the_way(tmp_path, text):
    folder = train(tmp_path, text * 60, epochs=1).folder
    result = run_script("convert_to_gguf.py", "--quant_type", "Q8_0", "--llama_cpp_path", "none", cwd=folder)
    assert (result.status, result.stderr) == (0, "")
    said = run_script("inference_gguf.py", "--query", text[:6], "--max_tokens", "100", "--ignore_eos", cwd=folder)
    assert said.status == 0, said.stderr
    assert said.stdout.startswith(text[:6])
    assert len(said.stdout) > 100
    assert set(said.stdout) <= set(text) | {"\n"}


def test_byte_pairs_of_any_language_go_all_the_way(tmp_path):
    text = "春眠不觉晓，处处闻啼鸟。\nكان يا ما كان في قديم الزمان.\nกาลครั้งหนึ่งนานมาแล้ว\n"
    text += "🐶 chased 🐱! 🎉👩‍👩‍👧\nThe cat's 12 toys.\n"
    (tmp_path / "input.txt").write_text(text * 60, encoding="utf-8")
    configure(tmp_path, n_embd=32, n_head=4, n_layer=2, block_size=32, dropout=0.0, vocab_size=320)
    flags = "--tokenizer bpe --max_epochs 3 --batch_size 8 --learning_rate 0.001 --dataset_path input.txt".split()
    trained = run_script("train_llm.py", *flags, cwd=tmp_path)
    assert trained.status == 0, trained.stderr
    flags = ("--quant_type", "Q8_0", "--llama_cpp_path", "none", "--verbose")
    converted = run_script("convert_to_gguf.py", *flags, cwd=tmp_path)
    assert (converted.status, converted.stderr) == (0, ""), "a vocabulary of bytes knows every character"
    assert_same_likeliest(converted.stdout)
    query = "ж狐 – unseen: กา🐶"
    said = run_script("inference_gguf.py", "--query", query, "--max_tokens", "60", "--ignore_eos", cwd=tmp_path)
    assert said.status == 0 and said.stdout.startswith(query) and len(said.stdout) > len(query) + 20
