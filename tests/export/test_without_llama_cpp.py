"""Where llama.cpp is not installed, files are written, quantized and proven all the same, and are the same files."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, run_script
from gguf import GGUFReader

from benchmarks.architectures import SMALL, TOKENIZER, random_model
from custom_llm.common.errors import UserError
from custom_llm.export.gguf.quantize import BLOCKS, HERE, check_possible, quantize, tensor_types
from custom_llm.export.huggingface.directory import write_hf_directory
from custom_llm.export.pipeline import convert_to_gguf
from custom_llm.export.proof import Reference
from custom_llm.export.read_back import ROUNDED_TWICE, Original, read_gguf_vocabulary, rebuild
from custom_llm.llamacpp import is_available
from custom_llm.tokenizer.bpe import BPETokenizer
from custom_llm.tokenizer.char import CharTokenizer

MODERN = dict(pos_emb="rope", norm="rms", bias=False, non_linearity="swiglu")
MODELS = {
    "rows of 64": {},
    "rows of 256": dict(n_embd=256),
    "rows of 48": dict(n_embd=48),
    "tied": dict(MODERN, tie_embeddings=True, attn="gqa", n_kv_heads=2),
    "8 experts": dict(MODERN, moe=True, n_exp=9, n_shared=1, n_act=3, aux_free=True, up_dim=32),
    "latent attention": dict(MODERN, attn="mla", q_latent_dim=40, kv_latent_dim=32, rope_head_dim=8),
}
TEXT = TOKENIZER.chars * 10


@pytest.fixture
def absent(monkeypatch):
    """llama.cpp as if it were not installed: importing its bindings fails."""
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    assert not is_available()


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def made(request, tmp_path_factory):
    """A model, and the folder of its files that were written without llama.cpp, in all types."""
    model, folder = random_model({**SMALL, **request.param}), tmp_path_factory.mktemp("made")
    write_hf_directory(model, TOKENIZER, folder / "hf")
    original, found = Original(model, TOKENIZER, TEXT), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "llama_cpp", None)
        convert_to_gguf(
            str(folder / "hf"), str(folder / "m.gguf"), ",".join(HERE), None,
            lambda path, quant_type, name: found.update({quant_type: original.compare(path, name)}),
        )  # fmt: skip
    assert list(found) == list(HERE)
    assert found["F32"].relative_error < 1e-7 and found["Q4_0"].relative_error < 0.1
    return model, folder


def tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in GGUFReader(path).tensors}


@pytest.mark.parametrize("quant_type", HERE)
def test_the_files_are_those_of_llama_cpp(made, tmp_path, quant_type):
    """Byte for byte, but for what it holds in Q6_K; and what it has computed of them is near the model."""
    model, folder = made
    quantize(folder / "m.gguf", tmp_path / "m.gguf", quant_type, None)
    here, there = tensors(folder / f"m.gguf.{quant_type}.gguf"), tensors(tmp_path / "m.gguf")
    assert here.keys() == there.keys()
    shapes = {t.name: tuple(map(int, t.shape[::-1])) for t in GGUFReader(tmp_path / "m.gguf").tensors}
    assert tensor_types(shapes, quant_type) == {name: kind for name, (kind, _) in there.items()}
    for name, (kind, data) in there.items():
        assert here[name] == (kind, data) or (kind, here[name][0]) == ("Q6_K", "Q8_0"), name
    if here != there or quant_type in ("F16", "Q8_0"):  # else it is the same model
        reference = Reference(model, TOKENIZER, TEXT)
        ours = reference.compare(folder / f"m.gguf.{quant_type}.gguf")
        assert ours.kl <= 1.01 * reference.compare(tmp_path / "m.gguf").kl + 1e-9


def test_what_llama_cpp_wrote_is_within_the_bounds_too(made, tmp_path):
    model, folder = made
    original = Original(model, TOKENIZER, TEXT)
    for quant_type in HERE:
        quantize(folder / "m.gguf", tmp_path / quant_type, quant_type, None)
        original.compare(tmp_path / quant_type, quant_type)


@pytest.mark.parametrize("quant_type", HERE)
def test_a_single_altered_byte_of_any_tensor_is_noticed(made, tmp_path, quant_type):
    model, folder = made
    original, draw = Original(model, TOKENIZER, TEXT), np.random.default_rng(0)
    path = tmp_path / "m.gguf"
    shutil.copy(folder / f"m.gguf.{quant_type}.gguf", path)
    content = path.read_bytes()
    assert original.compare(path, "m.gguf").n_tensors > 10
    for tensor in GGUFReader(path).tensors:
        kind = tensor.tensor_type.name
        # The sign of a number, or of a block's scale, which are the last bytes of those; F32 by its last bit.
        size = BLOCKS[kind][0] if BLOCKS[kind][1] == 1 else 2
        place = int(draw.integers(tensor.n_bytes // BLOCKS[kind][0])) * BLOCKS[kind][0]
        place, bit = (
            (place, 1) if kind == "F32" and not tensor.name.endswith(ROUNDED_TWICE) else (place + size - 1, 0x80)
        )
        altered = bytearray(content)
        altered[int(tensor.data_offset) + place] ^= bit
        path.write_bytes(altered)
        if not np.any(np.frombuffer(tensor.data.tobytes(), np.uint8)):
            continue  # -0 is 0
        with pytest.raises(UserError, match=re.escape(tensor.name)):
            original.compare(path, "m.gguf")


def test_another_vocabulary_or_model_is_noticed(tmp_path, absent):
    model = random_model(SMALL)
    other = CharTokenizer(TOKENIZER.chars[::-1])
    write_hf_directory(model, other, tmp_path / "hf")
    with pytest.raises(UserError, match=r"m\.gguf: read back, its vocabulary is not the trained one, so the file is"):
        convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / "m.gguf"), "F16", None,
                        lambda path, _, name: Original(model, TOKENIZER, TEXT).compare(path, name.name))  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
    convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / "m.gguf"), "F16", None)
    for changes, said in (
        (dict(n_head=2), "gpt2.attention.head_count is 4 and not 2"),
        (dict(n_layer=3), "gpt2.block_count is 2 and not 3"),
        (dict(block_size=63), "custom_llm.block_size is 64 and not 63"),
        (dict(pos_emb="sin"), r"blk\.0\.\S+ is further from the trained weights than F32 explains"),
    ):
        with pytest.raises(UserError, match=said):
            Original(random_model({**SMALL, **changes}), other, TEXT).compare(tmp_path / "m.gguf", "m.gguf")


@pytest.mark.parametrize(
    "tokenizer", [TOKENIZER, CharTokenizer("aß中🙂\n"), BPETokenizer.train(["Mia – 中文 🙂"] * 9, 290)]
)
def test_the_tokenizer_is_rebuilt_from_the_file(tmp_path, absent, tokenizer):
    text = "Mia – aß 中文 🙂<|endoftext|>\n" * 3
    model = random_model(SMALL | dict(vocab_size=tokenizer.vocab_size))
    write_hf_directory(model, tokenizer, tmp_path / "hf")
    convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / "m.gguf"), "F32", None)
    found = rebuild(read_gguf_vocabulary(tmp_path / "m.gguf"))
    assert found.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert (found.tokens, found.end_of_text_id) == (tokenizer.tokens, tokenizer.end_of_text_id)
    assert Original(model, tokenizer, text).compare(tmp_path / "m.gguf", "m").n_tokens == tokenizer.vocab_size


def test_types_that_need_it_are_refused_at_once(tmp_path, absent):
    with pytest.raises(UserError) as error:
        check_possible(["Q8_0", "Q4_K_M"], "llama.cpp of nobody")
    assert str(error.value) == (
        "--quant_type Q4_K_M: llama.cpp is not installed here (it needs a C++ compiler: docs/install.md); without it "
        "there are F32, F16, BF16, Q8_0, Q5_0, Q5_1, Q4_0, Q4_1"
    )
    with pytest.raises(UserError, match="without it there are"):
        convert_to_gguf("nowhere", str(tmp_path / "m.gguf"), "Q6_K", None)
    check_possible(HERE, None)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Variables of a process in which llama.cpp cannot be imported."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['llama_cpp'] = None\n")
    return {"PYTHONPATH": f"{ROOT}:{folder}" if sys.platform != "win32" else f"{ROOT};{folder}"}


def test_step_3_says_what_was_proven_and_what_was_not(trained, tmp_path, bare):
    flags = ("--model_path", trained.folder / "trained_model.pth", "--config_path", trained.folder / "model_config.pth")
    refused = run_script("convert_to_gguf.py", "--quant_type", "Q4_K_M", *flags, "--llama_cpp_path", "none",
                         cwd=tmp_path, environment=bare)  # fmt: skip
    assert refused.status == 2 and refused.stderr.count("\n") == 1 and "without it there are F32" in refused.stderr
    assert not (tmp_path / "hf_model").exists()
    unknown = run_script("convert_to_gguf.py", "--quant_type", "Q9", *flags, cwd=tmp_path, environment=bare)
    assert unknown.stderr.endswith(
        "no such type; without llama.cpp there are F32, F16, BF16, Q8_0, Q5_0, Q5_1, Q4_0, Q4_1\n"
    )
    done = run_script("convert_to_gguf.py", "--quant_type", "Q8_0", *flags, "--llama_cpp_path", "none", "--verbose",
                      cwd=tmp_path, environment=bare)  # fmt: skip
    assert (done.status, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("model.gguf")]
    assert [row[0] for row in rows] == ["model.gguf", "model.gguf.Q8_0.gguf"]
    assert rows[0][-2:] == ["0", "0.000%"] and 0 < float(rows[1][-1].rstrip("%")) < 1
    assert "; read back and compared tensor by tensor and token by token. llama.cpp is not installed" in done.stdout
    *_, last, following = done.stdout.splitlines()
    assert last.endswith(", so it has not run these files")
    wrote = run_script(*shlex.split(following.removeprefix("next: python ")), cwd=tmp_path, environment=bare)
    assert wrote.status == 0 and len(wrote.stdout) > 5, wrote.stderr
    card = (tmp_path / "hf_model" / "README.md").read_text(encoding="utf-8")
    assert "llama.cpp has not run these files" in card and "loaded in llama.cpp" not in card
    said = run_script("inference_gguf.py", "--gguf_path", "model.gguf.Q8_0.gguf", "--query", "Mia", cwd=tmp_path)
    assert said.status == 0 and said.stdout.startswith("Mia"), "where llama.cpp is, it reads them"


def test_no_module_of_export_needs_llama_cpp(bare):
    folder = ROOT / "custom_llm" / "export"
    paths = [path.relative_to(ROOT).with_suffix("") for path in folder.rglob("*.py")]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    code = f"import {', '.join(names)}, custom_llm.commands.convert, custom_llm.commands.train"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**ENVIRONMENT, **bare}, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
