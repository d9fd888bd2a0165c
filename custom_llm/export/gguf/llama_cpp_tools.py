"""llama.cpp's own tools, run as programs: `convert_hf_to_gguf.py` and `llama-quantize` of a checkout."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from custom_llm.common.errors import UserError

CONVERTER = "convert_hf_to_gguf.py"
PROJECT = Path(__file__).resolve().parents[3]

logger = logging.getLogger("custom_llm")


def find_converter(checkout: str | Path) -> Path | None:
    """llama.cpp's converter in a checkout, if there is one."""
    path = Path(checkout) / CONVERTER
    return path if path.is_file() else None


def find_quantizer(checkout: str | Path) -> Path | None:
    """`llama-quantize`, built in a checkout, if there is one."""
    names = ("build/bin/llama-quantize", "llama-quantize", "build/bin/Release/llama-quantize.exe")
    return next((path for path in map(Path(checkout).joinpath, names) if os.access(path, os.X_OK)), None)


def run_converter(checkout: str | Path, hf_dir: str | Path, path: str | Path, name: str) -> None:
    """Write `hf_dir` to `path` as F32 with the checkout's converter, whose vocabulary step is ours.

    Raises:
        UserError: the converter failed.
    """
    child = [
        sys.executable,
        "-m",
        "custom_llm.export.gguf.converter_child",
        str(checkout),
        str(hf_dir),
        str(path),
        name,
    ]
    search = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    _run(child, f"{checkout}/{CONVERTER}", {**os.environ, "PYTHONPATH": search})


def run_quantizer(program: str | Path, source: str | Path, target: str | Path, quant_type: str) -> None:
    """Write the GGUF `source` to `target` in another type.

    Raises:
        UserError: the program failed.
    """
    _run([str(program), str(source), str(target), quant_type], str(program), dict(os.environ))


def _run(command: list[str], name: str, environment: dict[str, str]) -> None:
    """Run a program and log what it prints; its last line of error becomes ours."""
    logger.info("running %s", " ".join(command))
    try:
        result = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise UserError(f"{name} cannot be started: {error.strerror}; build it anew or move it away") from None
    output = (result.stdout + result.stderr).strip()
    logger.info("%s returned %d:\n%s", name, result.returncode, output)
    if result.returncode:
        last = output.splitlines()[-1] if output else "no message"
        raise UserError(
            f"{name} failed: {last} (all of it is in conversion.log; give --llama_cpp_path none to do without)"
        )
