"""LoRA adapters that are applied while a model writes: --lora FILE[:SCALE]."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import pytest
from conftest import run_script
from hypothesis import given
from hypothesis import strategies as st
from server_process import served
from tiny_gguf import write_gpt2

import inference_gguf
from custom_llm.common.errors import UserError
from custom_llm.config.sampling import Sampling
from custom_llm.evaluation.models import _models_here
from custom_llm.inference.card import card_lines
from custom_llm.inference.engine import Engine
from custom_llm.inference.open import choose_model, open_engine
from custom_llm.llamacpp import Lora, parse_lora, score_windows

LETTERS = "abcdefghijklmnopqrstuvwxyz .\n"
UP = "blk.0.ffn_up.weight"  # (128, 32) in the tiny model


def write_adapter(
    path: Path, *, n_in: int = 32, n_out: int = 128, rank: int = 2, alpha: float = 4.0, tensor: str = UP,
    architecture: str = "gpt2", kind: str = "lora", general: str = "adapter", seed: int = 1,
) -> Path:  # fmt: skip
    """A random adapter of one matrix."""
    generator = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(general)
    writer.add_string("adapter.type", kind)
    writer.add_float32("adapter.lora.alpha", alpha)
    writer.add_tensor(f"{tensor}.lora_a", generator.normal(0, 1, (rank, n_in)).astype(np.float32))
    writer.add_tensor(f"{tensor}.lora_b", generator.normal(0, 1, (n_out, rank)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@dataclass
class Files:
    model: Path
    adapter: Path
    other: Path  # another adapter of the same model


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    folder = tmp_path_factory.mktemp("adapters")
    return Files(
        write_gpt2(folder / "model.gguf", LETTERS),
        write_adapter(folder / "a.lora.gguf"),
        write_adapter(folder / "b.lora.gguf", tensor="blk.1.attn_output.weight", n_out=32, seed=2),
    )


def written(files: Files, *lora: str) -> str:
    with open_engine(files.model, warn=pytest.fail, lora=lora) as engine:
        return "".join(engine.generate("the ", 60, Sampling(temp=0)))


def test_an_adapter_changes_the_text_as_strongly_as_is_asked(files):
    plain, whole = written(files), written(files, str(files.adapter))
    assert whole != plain == written(files, f"{files.adapter}:0")
    assert (
        whole
        == written(files, f"{files.adapter}:0.25", f"{files.adapter}:.75")
        == written(files, f"{files.adapter}:1,0")
    )
    assert (
        len({plain, whole, written(files, str(files.other)), written(files, str(files.adapter), str(files.other))}) == 4
    )


def test_its_output_is_added_to_that_of_the_matrix(files, tmp_path):
    """The same as a file with the sum of both."""
    lora = {tensor.name: tensor.data for tensor in gguf.GGUFReader(files.adapter).tensors}
    change = 4.0 / 2 * lora[f"{UP}.lora_b"] @ lora[f"{UP}.lora_a"]
    merged = tmp_path / "merged.gguf"
    merged.write_bytes(files.model.read_bytes())
    reader = gguf.GGUFReader(merged, "r+")
    next(tensor for tensor in reader.tensors if tensor.name == UP).data[:] += 0.5 * change
    del reader
    windows = [[1, 2, 3, 4], [5, 6]]
    applied = score_windows(files.model, windows, loras=[Lora(files.adapter, 0.5)])
    for expected, actual in zip(score_windows(merged, windows), applied, strict=True):
        np.testing.assert_allclose(actual, expected, atol=2e-2, rtol=0)  # GELU by a table of float16


def test_everything_that_writes_takes_it_along(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    expected = written(files, f"{files.adapter}:0.5")
    model = ["--gguf_path", str(files.model), "--lora", f"{files.adapter}:0.5", "--temp", "0", "--max_tokens", "60"]
    inference_gguf.main([*model, "--query", "the ", "--save_config", "run.yaml"])
    assert capsys.readouterr().out == f"the {expected}\n"
    inference_gguf.main(["--config", "run.yaml"])
    assert capsys.readouterr().out == f"the {expected}\n"
    Path("prompts.jsonl").write_text('{"prompt": "the "}\n')
    inference_gguf.main([*model, "--prompts", "prompts.jsonl", "--json"])
    assert json.loads(capsys.readouterr().out)["text"] == expected
    given = inference_gguf.run_inference(files.model, "the ", 60, temp=0, lora=[f"{files.adapter}:0.5"])
    assert given == f"the {expected}"


def test_a_server_applies_it_to_every_answer(files):
    with served(files.model, "--lora", f"{files.adapter}:0.5") as server:
        answer = server.post(prompt="the ", max_tokens=60, temperature=0).json()
        assert answer["choices"][0]["text"] == written(files, f"{files.adapter}:0.5")
        assert server.http.get("/v1/models").json()["data"][0]["card"]["adapters"] == "a.lora.gguf × 0.5"


def test_the_card_names_it(files):
    with open_engine(files.model, warn=pytest.fail, lora=[f"{files.adapter}:0.5", str(files.other)]) as engine:
        assert "adapter       a.lora.gguf × 0.5, b.lora.gguf" in card_lines(engine.card(), 80)


def test_an_adapter_is_not_taken_for_the_newest_model(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").write_bytes(files.model.read_bytes())
    (tmp_path / "adapter.gguf").write_bytes(files.adapter.read_bytes())
    assert choose_model(None) == Path("model.gguf")
    assert _models_here() == ["model.gguf"]


# --- FILE[:SCALE] ---------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(blacklist_characters=":\0", blacklist_categories=["Cs"]), min_size=2)


@given(NAMES, st.floats(-1e9, 1e9))
def test_a_scale_stands_behind_the_last_colon(name, scale):
    assert parse_lora(f"{name}:{scale}") == Lora(Path(name), scale)
    assert parse_lora(name) == Lora(Path(name), 1.0)


@given(st.text())
def test_whatever_is_typed_is_an_adapter_or_a_line(typed):
    try:
        lora = parse_lora(typed)
    except ValueError as error:
        assert re.search("give FILE", str(error))
    else:
        assert np.isfinite(lora.scale) and str(lora.path)


@pytest.mark.parametrize("path", [r"C:\models\a.gguf", "C:/a.gguf", "c:a.gguf", r"\\server\share\a.gguf"])
def test_the_drive_of_a_windows_path_is_no_scale(path):
    assert parse_lora(path) == Lora(Path(path), 1.0)
    assert parse_lora(f"{path}:0.5") == Lora(Path(path), 0.5)
    assert parse_lora(f"{path}:-2") == Lora(Path(path), -2.0)


def test_a_file_whose_name_ends_like_a_scale_is_that_file(tmp_path):
    path = tmp_path / "run:2"
    path.touch()
    assert parse_lora(str(path)) == Lora(path, 1.0)
    assert parse_lora(f"{path}:3") == Lora(path, 3.0)


# --- what cannot be applied -----------------------------------------------------------------------------------------


def cut(data: bytes) -> bytes:
    return data[: len(data) - 600]


def headless(data: bytes) -> bytes:
    return data[:8] + struct.pack("<Q", 1 << 40) + data[16:]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (dict(general="model"), "is a model and no adapter; give it as --gguf_path"),
        (dict(kind="dora"), "is an adapter of another kind"),
        (dict(architecture="llama"), r"is for another architecture than .*model\.gguf \(gpt2\)"),
        (dict(tensor="blk.7.ffn_up.weight"), r"is for another model than .*model\.gguf \(gpt2\)"),
        (dict(n_in=64), r"is for a model of other sizes than .*model\.gguf"),
        (dict(n_out=64), r"is for a model of other sizes than .*model\.gguf"),
        (cut, "is damaged: it ends too early"),
        (headless, "is damaged: its header cannot be read"),
        (lambda data: b"", "an empty file; write it again with convert_to_gguf.py --adapter"),
        (lambda data: b"PK\x03\x04", "not a GGUF file; give the .gguf that convert_to_gguf.py --adapter wrote"),
    ],
)
def test_what_cannot_be_applied_is_said_in_a_line(make, message, files, tmp_path):
    path = tmp_path / "x.gguf"
    if isinstance(make, dict):
        write_adapter(path, **make)
    else:
        path.write_bytes(make(files.adapter.read_bytes()))
    with pytest.raises(UserError, match=rf"^--lora .*x\.gguf:? ?{message}"):
        Engine(files.model, loras=[Lora(path)])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lora", "gone.gguf"], "--lora gone.gguf: no such file; write one with convert_to_gguf.py --adapter"),
        (["--lora", "{adapter}:strong"], "the scale 'strong' is not a number; give FILE:0.5, or FILE alone for 1"),
        (["--lora", "{adapter}:inf"], "the scale 'inf' is not a number"),
        (["--lora", ""], "names no file; give FILE or FILE:SCALE"),
        (["--gguf_path", "x.pth", "--lora", "{adapter}"], "--lora is for GGUF files, and a .pth holds what"),
        (["--gguf_path", "{adapter}"], "an adapter, which writes nothing alone; give its model, and this as --lora"),
        (["--lora", "."], "a folder; give a .gguf file"),
    ],
)
def test_flags_that_cannot_be_followed_are_explained_in_a_line(flags, message, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word.format(adapter=files.adapter) for word in flags]
    with pytest.raises(UserError, match=re.escape(message)):
        inference_gguf.main(["--gguf_path", str(files.model), "--query", "a", *words])


def test_an_adapter_that_is_too_strong_is_to_blame_for_what_is_no_number(files):
    with pytest.raises(UserError, match="an adapter is too strong or damaged; give --lora FILE:SCALE"):
        written(files, f"{files.adapter}:1e38")


def test_it_ends_with_a_line_and_status_2(files, tmp_path):
    done = run_script(
        "inference_gguf.py", "--gguf_path", files.model, "--lora", files.model, "--query", "", cwd=tmp_path
    )
    assert (
        done.status == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith(f"error: --lora {files.model} is")
    )
