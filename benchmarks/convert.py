"""Seconds from trained_model.pth to a quantized file, for a model of the default size (9.89 M parameters).

    python -m benchmarks.convert --rounds 5

By turns: convert_to_gguf.py in this process, with llama.cpp's tools, each with and without the proof; and the rival:
llama.cpp's convert_hf_to_gguf.py and llama-quantize alone on the finished Hugging Face directory (with our vocabulary
step, without which the converter refuses every character vocabulary). Needs `make llama.cpp`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from custom_llm.cli.parser import ArgumentParser, number
from custom_llm.common.errors import UserError, run
from custom_llm.config.model import ModelConfig
from custom_llm.model import GPTLanguageModel
from custom_llm.model.files import SavedConfig, save_config, save_weights
from custom_llm.tokenizer.char import CharTokenizer

ROOT = Path(__file__).resolve().parents[1]
CHECKOUT = ROOT / "llama.cpp"
SCRIPT = [sys.executable, str(ROOT / "convert_to_gguf.py"), "--quant_type", "Q8_0"]
CHILD = [
    sys.executable,
    "-m",
    "custom_llm.export.gguf.converter_child",
    str(CHECKOUT),
    "hf_model",
    "rival.gguf",
    "rival",
]
QUANTIZE = [str(CHECKOUT / "build/bin/llama-quantize"), "rival.gguf", "rival.Q8_0.gguf", "Q8_0"]

CONTESTANTS = {
    "in this process": [[*SCRIPT, "--llama_cpp_path", "none", "--no_verify"]],
    "in this process, with proof": [[*SCRIPT, "--llama_cpp_path", "none"]],
    "with llama.cpp's tools": [[*SCRIPT, "--llama_cpp_path", str(CHECKOUT), "--no_verify"]],
    "with llama.cpp's tools, with proof": [[*SCRIPT, "--llama_cpp_path", str(CHECKOUT)]],
    "rival: convert_hf_to_gguf.py + llama-quantize": [CHILD, QUANTIZE],
}


def write_default_model(folder: Path) -> None:
    """A pair of files as training leaves them: the six defaults, and 9,999 characters and <|endoftext|>."""
    chars = "".join(chr(0x4E00 + i) for i in range(9_999))
    tokenizer = CharTokenizer(chars)
    torch.manual_seed(0)
    save_config(folder / "model_config.pth", SavedConfig(ModelConfig(), tokenizer.to_dict(), chars[:4096]))
    save_weights(folder / "trained_model.pth", GPTLanguageModel(ModelConfig()))


def seconds(commands: list[list[str]], folder: Path) -> float:
    """Wall clock of commands run one after the other."""
    start = time.perf_counter()
    for command in commands:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, errors="replace")
        if done.returncode:
            raise UserError(f"{command} failed: {done.stdout}{done.stderr}")
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--rounds", type=number(int, 1), default=5, help="turns of each (default: 5)")
    args = parser.parse_args(argv)
    if not (CHECKOUT / "convert_hf_to_gguf.py").is_file():
        raise UserError("llama.cpp/ is not here; make llama.cpp brings it")
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_default_model(folder)
        seconds(CONTESTANTS["in this process"], folder)  # the Hugging Face directory for the rival, and warm caches
        for _ in range(args.rounds):
            for contestant, commands in CONTESTANTS.items():
                times[contestant].append(seconds(commands, folder))
    rival = statistics.median(times["rival: convert_hf_to_gguf.py + llama-quantize"])
    for contestant, values in times.items():
        median = statistics.median(values)
        print(f"{contestant:<48}{median:>6.2f} s{median / rival:>8.2f} × the rival's time")


if __name__ == "__main__":
    sys.exit(run(main))
