"""Shared by all tests: scripts run as a person runs them, and small models that were really trained."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the root scripts are modules, too

CACHE = tempfile.TemporaryDirectory(prefix="custom-llm-cache-")  # removed when the tests are over
os.environ["XDG_CACHE_HOME"] = CACHE.name

# One thread: on small models two threads of several test processes only wait for each other.
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "TOKENIZERS_PARALLELISM": "false",
}

STORY = "Mia found a small red kite. She ran up the hill. The wind was strong, and the kite flew high!\n<|endoftext|>\n"


@dataclass
class Result:
    """What a finished script leaves behind."""

    status: int
    stdout: str
    stderr: str


def run_script(
    script: str, *args: str | Path, cwd: Path, stdin: str = "", timeout: float = 120, environment: dict | None = None
) -> Result:
    """Run a root script in `cwd` with `stdin` as its piped input."""
    command = [sys.executable, str(ROOT / script), *map(str, args)]
    done = subprocess.run(
        command, cwd=cwd, input=stdin, capture_output=True, encoding="utf-8", timeout=timeout,
        env={**ENVIRONMENT, **(environment or {})},
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr)


def configure(folder: Path, **model: object) -> None:
    """Step 1 without its process, which takes a second and a half: `llm_model.py` with these flags."""
    from custom_llm.config import ModelConfig
    from custom_llm.model.checkpoint import SavedConfig, save_config

    save_config(folder / "model_config.pth", SavedConfig(ModelConfig(**model)))


@dataclass
class Trained:
    """A folder in which steps 1 and 2 were run."""

    folder: Path
    text: str
    model_output: str
    training_output: str
    training_notes: str


def train(folder: Path, text: str, *model_flags: str, epochs: int = 3) -> Trained:
    """Steps 1 and 2 on `text` with a tiny model (n_embd 32, 2 layers, block_size 32 unless flags say otherwise)."""
    (folder / "input.txt").write_text(text, encoding="utf-8")
    defaults = {"--n_embd": "32", "--n_head": "4", "--n_layer": "2", "--block_size": "32", "--dropout": "0"}
    given = dict(zip(model_flags[::2], model_flags[1::2], strict=False))
    flags = [word for pair in {**defaults, **given}.items() for word in pair if word]
    first = run_script("llm_model.py", *flags, cwd=folder)
    assert first.status == 0, first.stderr
    answers = f"16\n0.003\n{epochs}\n\n"
    second = run_script("train_llm.py", cwd=folder, stdin=answers)
    assert second.status == 0, second.stderr
    return Trained(folder, text, first.stdout, second.stdout, second.stderr)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A tiny GELU model trained on English, with `<|endoftext|>` in its text. Do not write into its folder."""
    return train(tmp_path_factory.mktemp("trained"), STORY * 80)
