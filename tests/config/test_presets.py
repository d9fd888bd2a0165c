"""Presets, the questions of --advanced, flags that say no, and layers described one by one."""

from __future__ import annotations

import io
import json
import sys

import pytest
import torch
from conftest import ROOT

import llm_model
from custom_llm.common.errors import run
from custom_llm.config.layers import read_jsonl
from custom_llm.config.model import ModelConfig
from custom_llm.config.presets import PRESETS, complete
from custom_llm.model import GPTLanguageModel

SIX_QUESTIONS = 6


@pytest.fixture
def step_1(tmp_path, monkeypatch, capsys):
    """Run step 1 in an empty folder: (flags, answers) → the configuration it wrote, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def call(flags: str = "", answers: str = "") -> tuple[dict, list[str]]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
        status = run(llm_model.main, flags.split())
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return torch.load("model_config.pth", weights_only=True), captured.out.splitlines()

    return call


def prompts(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("Enter ")]


def train_one_step(config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = GPTLanguageModel(config)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    x = torch.randint(config.vocab_size, (2, config.block_size))
    losses = []
    for _ in range(2):
        loss = model(x, x)[1]
        (loss + model.balance_loss()).backward()
        optimizer.step()
        model.rebalance()
        losses.append(loss.item())
    assert losses[1] < losses[0]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("n_embd", "n_head"), [(256, 8), (64, 4), (48, 3), (16, 8)])
def test_a_preset_fits_any_width(preset, n_embd, n_head):
    six = dict(vocab_size=40, n_embd=n_embd, n_head=n_head, n_layer=1, block_size=8, dropout=0.0)
    train_one_step(ModelConfig(**complete(six, preset)))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_asks_the_same_six_questions(step_1, preset):
    _, plain = step_1()
    config, lines = step_1(f"--preset {preset}")
    assert prompts(lines) == prompts(plain) and len(prompts(lines)) == SIX_QUESTIONS
    assert PRESETS[preset].items() <= config.items()


def test_auto_asks_for_a_text_and_a_time(step_1, tmp_path):
    (tmp_path / "notes.txt").write_text("To be, or not to be, that is the question.\n" * 2000)
    config, lines = step_1("--preset auto", "notes.txt\n0,5\n")
    asked = ["Enter path to text dataset (e.g., 'input.txt'): ", "Enter minutes of training (e.g., 10): "]
    assert lines[:3] == ["Choose sizes for your text:", *asked]
    assert (config["vocab_size"], config["n_embd"], config["block_size"]) == (18, 64, 256)
    training = "--dataset_path notes.txt --minutes 0.5 --batch_size 8 --learning_rate 0.001"
    assert lines[-1] == f"next: python train_llm.py {training}"
    again, said = step_1("--config model_config.yaml")
    assert again == config and not prompts(said), "the file has the sizes, and needs no text"


@pytest.mark.parametrize(
    ("flags", "expected"), [("", {}), ("--preset modern", PRESETS["modern"]), ("--n_layer 5", {"n_layer": 5})]
)
def test_sizes_for_a_text_go_with_any_preset_and_flag(step_1, tmp_path, flags, expected):
    (tmp_path / "notes.txt").write_text("To be, or not to be, that is the question.\n" * 2000)
    config, lines = step_1(f"--dataset_path notes.txt --minutes 1 {flags}")
    assert not prompts(lines)
    assert {"n_embd": 64, "n_head": 4, "block_size": 256, **expected}.items() <= config.items()


def test_a_plan_that_the_vocabulary_will_change_says_so(step_1):
    _, lines = step_1()
    said = "  vocabulary  10,000 until step 2 has the text: by characters, its default, about 100, and the model 4.82M"
    assert said in lines and lines[-1] == "next: python train_llm.py"
    assert not [line for line in step_1("--vocab_size 90")[1] if "vocabulary" in line and "until" in line]


def test_classic_is_the_default(step_1):
    assert step_1("--preset classic") == step_1()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--preset modern --norm layer --bias", dict(norm="layer", bias=True, qk_norm=True, pos_emb="rope")),
        ("--preset modern --no_qk_norm", dict(qk_norm=False, bias=False)),
        ("--preset modern --attn mla --q_latent_dim 0 --kv_latent_dim 64 --rope_head_dim 8", dict(qk_norm=False)),
        ("--preset moe --no_moe", dict(moe=False, n_exp=None, n_act=None, aux_free=False, non_linearity="swiglu")),
        ("--preset moe --no_aux_free --n_exp 4", dict(aux_free=False, n_exp=4, n_shared=1, n_act=3)),
        ("--preset mla --attn mha", dict(kv_latent_dim=None, rope_head_dim=None, pos_emb="rope")),
        ("--preset mla --pos_emb learn", dict(attn="mla", rope_head_dim=None, kv_latent_dim=64)),
        ("--preset mla --kv_latent_dim 40", dict(kv_latent_dim=40, q_latent_dim=128, rope_head_dim=16)),
        ("--preset mla --n_embd 64 --n_head 4", dict(kv_latent_dim=32, q_latent_dim=32, rope_head_dim=8)),
        ("--no_bias", dict(bias=False)),
        ("--no_bias --bias", dict(bias=True)),
    ],
)
def test_a_flag_beside_a_preset_wins(step_1, flags, expected):
    config, _ = step_1(flags)
    assert expected.items() <= config.items()


def test_advanced_takes_the_default_on_enter(step_1):
    plain, _ = step_1()
    config, lines = step_1("--advanced")
    assert {**config, "up_dim": None} == plain
    assert config["up_dim"] == 4 * 256
    assert len(prompts(lines)) > SIX_QUESTIONS
    assert "Enter attention (mha, mqa, gqa, mla) (e.g., mha): " in lines
    assert not [line for line in prompts(lines) if "number of experts" in line or "key and value" in line]


@pytest.mark.parametrize("preset", PRESETS)
def test_advanced_takes_the_default_of_the_preset_on_enter(step_1, preset):
    plain, _ = step_1(f"--preset {preset}")
    config, lines = step_1(f"--preset {preset} --advanced")
    model, wanted = ModelConfig(**config), ModelConfig(**plain)
    assert model.blocks == wanted.blocks and model.pos_emb == wanted.pos_emb and model.bias == wanted.bias
    assert not [line for line in lines if "None" in line]


def test_advanced_asks_for_what_the_answers_give_a_meaning(step_1):
    sizes = ["100", "64", "", "2", "16", "0"]
    attention = ["rope", "rms", "no", "gqa", "3", "2", ""]
    experts = ["swiglu", "yes", "8", "1", "9", "3", "yes", "", "", "40"]
    answers = [*sizes, *attention, *experts, "", "maybe", "no"]
    config, lines = step_1("--advanced", "\n".join(answers) + "\n")
    assert "n_head 8 is not a multiple of n_kv_heads 3; try again." in lines
    assert "n_act 9 is more than n_exp 8; try again." in lines
    assert "head_bias 'maybe' is not yes or no; try again." in lines
    expected = dict(
        pos_emb="rope", norm="rms", bias=False, attn="gqa", n_kv_heads=2, qk_norm=False, non_linearity="swiglu",
        moe=True, n_exp=8, n_shared=1, n_act=3, aux_free=True, alpha=0.0001, gamma=0.001, up_dim=40,
    )  # fmt: skip
    assert expected.items() <= config.items()
    assert len(prompts(lines)) == len(answers)


def test_advanced_asks_for_nothing_that_a_flag_says(step_1):
    _, lines = step_1("--advanced --attn mqa --norm rms --no_bias")
    asked = " ".join(prompts(lines))
    assert "attention (" not in asked and "normalisation" not in asked and "biases" not in asked


def test_a_width_that_no_answer_can_mend_is_asked_again(step_1):
    config, lines = step_1("--pos_emb rope", "\n63\n64\n3\n4\n")
    again = "Enter embedding dimension (e.g., 256): "
    assert lines.count(again) == 2 and "odd; try again." in lines[lines.index(again) + 1]
    assert (config["n_embd"], config["n_head"]) == (64, 4)


# --- layers one by one ------------------------------------------------------------------------------------------------

MHA = {"attn": "mha", "n_head": 4, "moe": False, "up_dim": 64, "non_linearity": "relu"}
GQA = {**MHA, "attn": "gqa", "n_kv_heads": 2, "up_dim": 96}


def test_layers_from_a_flag(step_1):
    layers = json.dumps([MHA, GQA], separators=(",", ":"))
    config, lines = step_1(f"--n_embd 32 --layer_configs {layers}")
    assert json.loads(config["layer_configs"]) == [MHA, GQA]
    assert config["n_layer"] == 2
    assert not [line for line in prompts(lines) if "heads" in line or "layers" in line]
    assert [block.attn for block in ModelConfig(**config).blocks] == ["mha", "gqa"]


@pytest.mark.parametrize(
    "content",
    [
        "{0}\n{1}\n", "{0}\n{1}", "\ufeff{0}\n{1}\n", "{0}\r\n{1}\r\n", "\n\n{0}\n   \n{1}\n\n", "  {0}  \n\t{1}\n",
        "{0}\r{1}",
    ],
)  # fmt: skip
def test_layers_from_a_file_however_its_lines_end(step_1, tmp_path, content):
    text = content.replace("{0}", json.dumps(MHA)).replace("{1}", json.dumps(GQA))
    (tmp_path / "layers.jsonl").write_bytes(text.encode())
    config, _ = step_1("--n_embd 32 --layer_configs_jsonl layers.jsonl --n_layer 2")
    assert json.loads(config["layer_configs"]) == [MHA, GQA]


def test_a_preset_gives_layers_what_is_not_theirs(step_1, tmp_path):
    (tmp_path / "layers.jsonl").write_text(json.dumps(GQA))
    config, _ = step_1("--n_embd 32 --layer_configs_jsonl layers.jsonl --preset moe")
    assert (config["pos_emb"], config["norm"], config["bias"]) == ("rope", "rms", False)
    assert config["moe"] is False and config["n_exp"] is None and config["non_linearity"] == "gelu"


def test_a_line_separator_inside_a_text_is_no_end_of_line():
    with pytest.raises(ValueError, match=r"line 1 .* is not a JSON object"):
        read_jsonl('"a\u2028b"\n')


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*.jsonl")), ids=lambda path: path.stem)
def test_an_example_trains(step_1, path):
    flags = "--vocab_size 50 --n_embd 128 --block_size 16 --dropout 0 --pos_emb rope --norm rms --no_bias"
    config, _ = step_1(f"{flags} --layer_configs_jsonl {path}")
    model_config = ModelConfig(**config)
    assert len(set(model_config.blocks)) > 1
    train_one_step(model_config)


def test_there_are_three_examples_and_each_is_described():
    names = [path.name for path in ROOT.glob("configs/*.jsonl")]
    text = (ROOT / "configs" / "README.md").read_text(encoding="utf-8")
    assert len(names) >= 3
    assert all(f"`{name}`" in text for name in names)
