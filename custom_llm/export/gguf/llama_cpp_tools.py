"""llama.cpp's own tools, run as programs: `convert_hf_to_gguf.py` and `llama-quantize` of a checkout."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    """Write `hf_dir` to `path` as F32 with the checkout's converter, whose vocabulary step is ours."""
    search = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    child = [sys.executable, "-m", __name__, str(checkout), str(hf_dir), str(path), name]
    run_program(child, f"{checkout}/{CONVERTER}", PYTHONPATH=search)


def run_program(command: list[str], name: str, **environment: str) -> None:
    """Run a program and log what it prints. Raises UserError, with its last line, where it fails."""
    logger.info("running %s", " ".join(command))
    try:
        result = subprocess.run(
            command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace",
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"{name} cannot be started: {error.strerror}; build it anew or move it away") from None
    output = (result.stdout + result.stderr).strip()
    logger.info("%s returned %d:\n%s", name, result.returncode, output)
    if result.returncode:
        last = output.splitlines()[-1] if output else "no message"
        raise UserError(
            f"{name} failed: {last} (all of it is in conversion.log beside the GGUF file; give "
            "--llama_cpp_path none to do without)"
        )


def convert(checkout: str, hf_dir: str, outfile: str, name: str) -> None:
    """Run the converter of a checkout with our vocabulary step, in this process, which is of its own.

    It knows a BPE vocabulary only by a hash over the ids of a test text, and refuses every vocabulary that was trained
    at home ("BPE pre-tokenizer was not recognized"). Everything else of it is used as it is.
    """
    sys.path.insert(0, checkout)
    import convert_hf_to_gguf as converter  # first, since it brings its own `gguf`  # isort: split

    from custom_llm.export.gguf.writer import add_about, add_block_size, add_vocabulary
    from custom_llm.export.huggingface.directory import read_about, read_config
    from custom_llm.export.vocabulary import read_vocabulary

    config = read_config(hf_dir)
    # In recent checkouts, and in older ones.
    find = getattr(converter, "get_model_class", None) or converter.ModelBase.from_model_architecture
    model_class = find(config["architectures"][0])
    original_parameters = model_class.set_gguf_parameters

    def set_gguf_parameters(self: Any) -> None:
        original_parameters(self)
        add_block_size(self.gguf_writer, config["custom_llm"]["block_size"])
        add_about(self.gguf_writer, read_about(hf_dir))

    def set_vocab(self: Any) -> None:
        add_vocabulary(self.gguf_writer, read_vocabulary(hf_dir))

    model_class.set_gguf_parameters = set_gguf_parameters
    model_class.set_vocab = set_vocab
    words = ["--model-name", name, "--metadata", f"{hf_dir}/metadata.json"]
    sys.argv = ["convert_hf_to_gguf.py", hf_dir, "--outfile", outfile, "--outtype", "f32", *words]
    converter.main()


if __name__ == "__main__":
    convert(*sys.argv[1:])
