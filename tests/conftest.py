"""Shared by all tests: scripts run as a person runs them, and small models that were really trained."""

from __future__ import annotations

import hashlib
import os
import signal
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
# As in an activated environment, where messages say "python".
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

# In the background of a shell these are ignored, and scripts that are started here would inherit that.
for _name, _handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, _name) and signal.getsignal(getattr(signal, _name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _handler)

# One thread: on small models two threads of several test processes only wait for each other.
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "PYTHONDONTWRITEBYTECODE": "",  # or hundreds of scripts would compile the same modules
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


def digest(path: str | Path) -> str:
    """Of a file's bytes. (How two large files differ would take pytest many minutes to show.)"""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def configure(folder: Path, **model: object) -> None:
    """Step 1 without its process, which takes a second and a half: `llm_model.py` with these flags."""
    from custom_llm.config.model import ModelConfig
    from custom_llm.model.files import SavedConfig, save_config

    save_config(folder / "model_config.pth", SavedConfig(ModelConfig(**model)))


@dataclass
class Trained:
    """A folder in which a model was configured and step 2 was run."""

    folder: Path
    text: str
    training_output: str
    training_notes: str


def train(folder: Path, text: str, epochs: int = 3, **model: object) -> Trained:
    """Step 2 on `text` with a tiny model (n_embd 32, 2 layers, block_size 32 unless `model` says otherwise)."""
    (folder / "input.txt").write_text(text, encoding="utf-8")
    configure(folder, **{**dict(n_embd=32, n_head=4, n_layer=2, block_size=32, dropout=0.0), **model})
    answers = f"16\n0.003\n{epochs}\n\n"
    done = run_script("train_llm.py", cwd=folder, stdin=answers)
    assert done.status == 0, done.stderr
    return Trained(folder, text, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A tiny GELU model trained on English, with `<|endoftext|>` in its text. Do not write into its folder."""
    return train(tmp_path_factory.mktemp("trained"), STORY * 80)
