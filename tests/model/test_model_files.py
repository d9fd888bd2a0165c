"""The files of a training: a changed byte is noticed, they know each other, and none is written over."""

from __future__ import annotations

import io
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import STORY, configure, digest, run_script
from hypothesis import given, settings
from hypothesis import strategies as st

import convert_to_gguf
from custom_llm.common import aside
from custom_llm.common.errors import UserError, run
from custom_llm.config.model import ModelConfig
from custom_llm.model import GPTLanguageModel
from custom_llm.model.archive import Label, label_of, load_file, to_bytes
from custom_llm.model.earlier import EarlierModel, keep_trained
from custom_llm.model.files import SavedConfig, load_config, load_model, load_trained, save_trained
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.training.checkpoint import load_checkpoint

CONFIG, MODEL, CHECKPOINT = "model_config.pth", "trained_model.pth", "trained_model.checkpoint.pth"


def save_pair(folder: Path, text: str, training: str, config: str = CONFIG, model: str = MODEL) -> None:
    """What a training on `text` writes, but for the learning."""
    tokenizer = CharTokenizer.from_text(text, end_of_text=True)
    architecture = ModelConfig(tokenizer.vocab_size, n_embd=8, n_head=2, n_layer=1, block_size=8, dropout=0.0)
    saved = SavedConfig(architecture, tokenizer.to_dict(), text[:100], training_id=training)
    save_trained(folder / model, GPTLanguageModel(architecture).state_dict(), folder / config, saved)


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b or a != a  # NaN


READERS = {
    CONFIG: lambda folder: vars(load_config(folder / CONFIG)),
    MODEL: lambda folder: dict(load_model(folder / MODEL, folder / CONFIG)[0].state_dict()),
    CHECKPOINT: lambda folder: vars(load_checkpoint(folder / CHECKPOINT)),
}


@pytest.fixture(scope="module")
def trained_files(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name in READERS:
        shutil.copy(trained.folder / name, folder)
    return folder, {name: read(folder) for name, read in READERS.items()}


@pytest.mark.parametrize("name", READERS)
def test_a_byte_that_has_changed_is_noticed_or_does_not_matter(trained_files, name):
    folder, expected = trained_files
    path = folder / name
    whole = path.read_bytes()
    directory = whole.index(b"PK\x01\x02")  # of the archive, where a byte may hide a part, or change its length
    places = st.integers(0, len(whole) - 1) | st.integers(directory, len(whole) - 1)

    @given(places, st.integers(1, 255))
    @settings(deadline=None, max_examples=150)
    def change(place, bits):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bits]) + whole[place + 1 :])
        try:
            found = READERS[name](folder)
        except UserError as error:
            assert str(path) in str(error)
        else:
            assert same(found, expected[name])

    try:
        change()
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("bits", [16, 255])
def test_no_byte_of_the_directory_of_an_archive_is_believed(tmp_path, bits):
    """16 makes a part a folder, which torch's reader leaves empty: its weights are what was in the memory before."""
    path, expected = tmp_path / MODEL, {"a": torch.randn(3), "b": torch.randn(3)}
    whole = to_bytes(expected, Label("weights", "one"))
    n_refused = 0
    for place in range(whole.index(b"PK\x01\x02"), len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bits]) + whole[place + 1 :])
        try:
            assert same(load_file(path, "")[0], expected), place
        except UserError:
            n_refused += 1
    assert n_refused > 300


def test_files_of_others_still_load(tmp_path):
    save_pair(tmp_path, "abc", "one")
    weights = torch.load(tmp_path / MODEL, weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in weights.values()), "the label is none of its values"
    for legacy in (False, True):
        torch.save(weights, tmp_path / MODEL, _use_new_zipfile_serialization=not legacy)
        assert label_of(tmp_path / MODEL) == Label()
        assert same(dict(load_model(tmp_path / MODEL, tmp_path / CONFIG)[0].state_dict()), dict(weights))


def test_label():
    content = to_bytes({"a": 1}, Label("config", "0123"))
    assert torch.load(io.BytesIO(content), weights_only=True) == {"a": 1}
    assert to_bytes({"a": 1}, Label("config")) == to_bytes({"a": 1}), "no training, no label"


# --- files that belong together ---------------------------------------------------------------------------------------


def test_weights_and_a_configuration_of_two_trainings_are_no_model_and_the_way_out_works(tmp_path):
    """Of one size, they would load, and speak with each other's letters."""
    save_pair(tmp_path, "abc", "one", "first.pth")
    weights = (tmp_path / MODEL).read_bytes()
    save_pair(tmp_path, "xyz", "two")
    (tmp_path / MODEL).write_bytes(weights)
    with pytest.raises(UserError) as caught:
        load_model(tmp_path / MODEL, tmp_path / CONFIG)
    assert f"{tmp_path / CONFIG} is of another training than {tmp_path / MODEL}; give its own" in str(caught.value)
    own = re.search(r"--config_path (\S+)$", str(caught.value))[1]
    assert load_trained(tmp_path / MODEL, own)[2].sample == "abc"
    configure(tmp_path, vocab_size=4, n_embd=8, n_head=2, n_layer=1, block_size=8, dropout=0.0)  # step 1 again
    with pytest.raises(UserError, match=f"give it: --config_path {re.escape(own)}$"):
        load_trained(tmp_path / MODEL, tmp_path / CONFIG)
    Path(own).unlink()
    with pytest.raises(UserError, match="holds no vocabulary"):
        load_trained(tmp_path / MODEL, tmp_path / CONFIG)


# --- nothing is written over ------------------------------------------------------------------------------------------


def names(folder: Path) -> set[str]:
    return {re.sub(r"\d{4}-\d\d-\d\d-\d{4}", "DATE", path.name) for path in folder.iterdir()}


def test_before_step_1_a_trained_model_is_kept_with_its_configuration(tmp_path, capsys):
    save_pair(tmp_path, "abc", "one")
    save_pair(tmp_path, "xyz", "two", "c.pth", "m.pth")
    for name in ("trained_model.yaml", "trained_model.txt", "model_config.yaml", CHECKPOINT):
        (tmp_path / name).touch()
    keep_trained(tmp_path / CONFIG)
    assert names(tmp_path) == {
        "model_config.DATE.pth", "model_config.DATE.yaml", "trained_model.DATE.pth", "trained_model.DATE.yaml",
        "trained_model.DATE.checkpoint.pth", "trained_model.txt", "c.pth", "m.pth",
        "model_config.yaml", "trained_model.yaml",
    }  # fmt: skip
    said = capsys.readouterr().err
    config, model = re.search(r"kept what was there: (\S+) and (\S+) \(0\.0 MB", said).groups()
    assert said.count("\n") == 1 and load_trained(model, config)[2].sample == "abc"


def test_before_step_1_an_untrained_configuration_is_nothing_to_keep_but_anything_else_is(tmp_path):
    configure(tmp_path, n_embd=16)
    keep_trained(tmp_path / CONFIG)
    keep_trained(tmp_path / "nothing.pth")
    assert names(tmp_path) == {CONFIG}
    save_pair(tmp_path, "abc", "one", "c.pth")
    keep_trained(tmp_path / MODEL)  # given for the configuration
    assert names(tmp_path) == {CONFIG, "c.pth", "trained_model.DATE.pth"}


def test_before_a_training_the_model_goes_and_a_copy_of_its_configuration(tmp_path, capsys):
    save_pair(tmp_path, "abc", "one")
    for _ in range(2):
        save_pair(tmp_path, "abc", "one")
        os.utime(tmp_path / MODEL, (0, 0))
        before = digest(tmp_path / CONFIG)
        EarlierModel(tmp_path / MODEL, tmp_path / CONFIG).set_aside()
        assert digest(tmp_path / CONFIG) == before and not (tmp_path / MODEL).exists()
    assert len(names(tmp_path)) == 1 + 2 * 2, "of one minute, too"
    for kept in capsys.readouterr().err.splitlines():
        model, config = re.search(r"there: (\S+) and (\S+) \(", kept).groups()
        assert load_trained(model, config)[2].sample == "abc"
    EarlierModel(tmp_path / MODEL, tmp_path / CONFIG).set_aside()
    assert capsys.readouterr().err == ""
    (tmp_path / CHECKPOINT).write_bytes(b"PK")  # of a training that was stopped before its first report
    EarlierModel(tmp_path / MODEL, tmp_path / CONFIG).set_aside()
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize(("answer", "kept"), [("\n", True), ("yes\n", True), ("", True), ("no\n", False)])
def test_a_person_at_a_terminal_is_asked(tmp_path, monkeypatch, capsys, answer, kept):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr(aside, "_answers", [])
    save_pair(tmp_path, "abc", "one")
    EarlierModel(tmp_path / MODEL, tmp_path / CONFIG).set_aside()
    assert (tmp_path / MODEL).exists() is not kept
    asked = capsys.readouterr().out
    assert f"There is {tmp_path / MODEL}, which was made before. Keep it under another name? (Enter: yes;" in asked
    keep_trained(tmp_path / CONFIG)  # another step of the same command asks no more
    assert capsys.readouterr().out == ""


def test_training_and_configuring_again_keep_what_was_there(tmp_path):
    (tmp_path / "input.txt").write_text(STORY * 20, encoding="utf-8")
    flags = "--dataset_path input.txt --max_iters 2 --batch_size 2 --learning_rate 0.001 --cache_dir c".split()
    configure(tmp_path, n_embd=8, n_head=2, n_layer=1, block_size=8)
    kept = []
    for _ in range(2):
        done = run_script("train_llm.py", *flags, cwd=tmp_path)
        assert done.status == 0, done.stderr
        kept += re.findall(r"kept what was there: (\S+) and (\S+) \(", done.stderr)
    again = run_script("llm_model.py", "--n_embd", "16", "--n_head", "2", cwd=tmp_path)
    assert again.status == 0, again.stderr
    kept += [re.search(r"kept what was there: (\S+) and (\S+) \(", again.stderr).groups()[::-1]]
    assert len(kept) == 2
    for model, config in kept:
        load_trained(tmp_path / model, tmp_path / config)
    assert load_config(tmp_path / CONFIG).model.n_embd == 16 and not (tmp_path / MODEL).exists()


def test_converting_keeps_files_of_another_model_only(trained, tmp_path, monkeypatch, capsys):
    for name in (CONFIG, MODEL):
        shutil.copy(trained.folder / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    flags = ["--llama_cpp_path", "none", "--no_verify", "--quant_type"]
    assert run(convert_to_gguf.main, [*flags, "Q8_0"]) == 0
    assert run(convert_to_gguf.main, [*flags, "F16", "--author", "Mia"]) == 0
    first = names(tmp_path)
    assert "kept" not in capsys.readouterr().err
    wrote = {name: digest(name) for name in ("model.gguf", "model.gguf.F16.gguf", "hf_model/model.safetensors")}
    model, saved = load_model(MODEL, CONFIG)
    other = replace(saved, training=replace(saved.training, text="another"))
    save_trained(MODEL, {name: 2 * value for name, value in model.state_dict().items()}, CONFIG, other)
    assert run(convert_to_gguf.main, [*flags, "Q8_0"]) == 0
    kept, directory = re.search(r"kept what was there: (\S+) and (\S+) \(", capsys.readouterr().err).groups()
    dated = {"model.DATE.gguf", "model.DATE.gguf.Q8_0.gguf", "model.DATE.gguf.F16.gguf", "model.DATE.gguf.yaml"}
    assert names(tmp_path) == (first - {"model.gguf.F16.gguf"}) | dated | {"hf_model.DATE"}
    for name, before in wrote.items():
        assert digest(name.replace("model.gguf", kept).replace("hf_model/", f"{directory}/")) == before
    assert digest("model.gguf") != wrote["model.gguf"]
