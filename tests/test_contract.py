"""The names, prompts and files that people's notes and scripts rely on."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import run_script

MODEL_PROMPTS = [
    "Configure your LLM model:",
    "Enter vocabulary size (e.g., 10000 for small models): ",
    "Enter embedding dimension (e.g., 256): ",
    "Enter number of attention heads (e.g., 8): ",
    "Enter number of transformer layers (e.g., 6): ",
    "Enter max sequence length (e.g., 128): ",
    "Enter dropout rate (e.g., 0.1): ",
]
TRAINING_PROMPTS = [
    "Configure training parameters:",
    "Enter batch size (e.g., 32): ",
    "Enter learning rate (e.g., 0.0003): ",
    "Enter number of epochs (e.g., 5): ",
    "Enter path to text dataset (e.g., 'input.txt'): ",
]


def test_step_1_asks_six_questions_and_enter_takes_the_defaults(tmp_path):
    result = run_script("llm_model.py", cwd=tmp_path, stdin="\n" * 6)
    assert result.stdout.splitlines()[:8] == [*MODEL_PROMPTS, "Model initialized with 9.89M parameters"]
    assert (result.status, result.stderr) == (0, "")
    config = torch.load(tmp_path / "model_config.pth", weights_only=True)
    six = dict(vocab_size=10000, n_embd=256, n_head=8, n_layer=6, block_size=128, dropout=0.1)
    assert six.items() <= config.items()


def test_end_of_input_means_the_default(tmp_path):
    result = run_script("llm_model.py", cwd=tmp_path, stdin="500\n64")
    config = torch.load(tmp_path / "model_config.pth", weights_only=True)
    assert result.status == 0
    assert [config[key] for key in ("vocab_size", "n_embd", "n_head", "n_layer")] == [500, 64, 8, 6]


def test_a_given_flag_is_not_asked_for(tmp_path):
    result = run_script("llm_model.py", "--n_embd", "64", "--n_layer", "2", cwd=tmp_path, stdin="100\n\n\n\n")
    asked = [MODEL_PROMPTS[i] for i in (0, 1, 3, 5, 6)]
    assert result.stdout.splitlines()[:6] == [*asked, "Model initialized with 0.12M parameters"]


def test_all_flags_given_asks_nothing(tmp_path):
    flags = "--vocab_size 50 --n_embd 16 --n_head 2 --n_layer 1 --block_size 8 --dropout 0".split()
    result = run_script("llm_model.py", *flags, cwd=tmp_path)
    assert result.stdout.startswith("Model initialized with 0.01M parameters\n")


def test_a_bad_answer_is_explained_in_one_line_and_asked_again(tmp_path):
    answers = ["abc", "0", "", "100", "", "4", "", "", "2", "nan", ""]
    lines = run_script("llm_model.py", cwd=tmp_path, stdin="".join(f"{answer}\n" for answer in answers)).stdout
    lines = lines.splitlines()
    for explained in (
        "vocab_size 'abc' is not a whole number; try again.",
        "vocab_size 0 is not a whole number from 1 to 10000000; try again.",
        "n_embd 100 is not a multiple of n_head 8; try again.",
        "dropout 2.0 is not a number from 0.0 to 0.99; try again.",
        "dropout nan is not a number from 0.0 to 0.99; try again.",
    ):
        place = lines.index(explained)
        assert lines[place + 1] == lines[place - 1]  # the same prompt again
    assert any(line.startswith("Model initialized with ") for line in lines)


def test_step_2_asks_four_questions_and_reports_each_epoch(trained):
    lines = trained.training_output.splitlines()
    assert lines[:5] == TRAINING_PROMPTS
    assert re.fullmatch(r"Training on (cpu|cuda|mps) with 0\.03M parameters", lines[5])
    for epoch, line in enumerate(lines[6:9], start=1):
        assert re.fullmatch(
            rf"Epoch {epoch}/3, Loss: \d\.\d{{4}}, Held-out: \d\.\d{{4}} \(\d\.\d{{3}} bits per byte\)", line
        )
    assert lines[9] == "Generated text:"
    assert len(lines) > 10


def test_step_2_completes_the_configuration_with_the_real_vocabulary(trained):
    config = torch.load(trained.folder / "model_config.pth", weights_only=True)
    characters = sorted(set(trained.text.replace("<|endoftext|>", "")))
    assert config["vocab_size"] == len(characters) + 1
    assert config["tokenizer"]["chars"] == "".join(characters)
    weights = torch.load(trained.folder / "trained_model.pth", weights_only=True)
    assert weights["head.weight"].shape == (len(characters) + 1, 32)


def test_public_names():
    from convert_to_gguf import GPTConfig, GPTPreTrainedModel, convert_to_gguf, export_to_hf
    from inference_gguf import monitor_resources, run_inference
    from llm_model import GPTLanguageModel, MultiHeadSelfAttention, TransformerBlock, get_user_config
    from train_llm import TextDataset, get_training_config, train_model

    for name in (get_user_config, get_training_config, train_model, export_to_hf, convert_to_gguf):
        assert callable(name)
    assert callable(run_inference) and isinstance(monitor_resources(), dict)
    six = dict(vocab_size=11, n_embd=32, n_head=4, n_layer=2, block_size=8, dropout=0.0)
    model = GPTLanguageModel(six)
    assert model.generate(torch.zeros(3, 1, dtype=torch.long), 20, temperature=0.8, top_k=5).shape == (3, 21)
    x = torch.randn(2, 8, 32)
    assert TransformerBlock(32, 4, 8, 0.0)(x).shape == MultiHeadSelfAttention(32, 4, 8, 0.0)(x).shape == x.shape
    dataset = TextDataset("hello world", 5)
    loader = torch.utils.data.DataLoader(dataset, batch_size=4)
    trained = train_model(
        GPTLanguageModel({**six, "block_size": 5}), loader, dict(learning_rate=1e-3, max_epochs=1), torch.device("cpu")
    )
    assert isinstance(trained, torch.nn.Module)
    wrapped = GPTPreTrainedModel(GPTConfig(**six))
    assert wrapped(torch.zeros(1, 4, dtype=torch.long)).logits.shape == (1, 4, 11)


@pytest.mark.parametrize("script", ["llm_model.py", "train_llm.py", "convert_to_gguf.py", "inference_gguf.py"])
def test_help_needs_no_torch(tmp_path, script):
    """It would take seconds."""
    import subprocess
    import sys

    from conftest import ENVIRONMENT, ROOT

    command = [sys.executable, "-X", "importtime", str(ROOT / script), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0
    assert script.removesuffix(".py") in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "llama_cpp", "numpy"}
