"""Which file is meant, and the engine for it: llama.cpp for a GGUF, PyTorch for a .pth."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from custom_llm.cli.parser import Repeatable, StepParser, number
from custom_llm.common.errors import UserError
from custom_llm.common.notes import say
from custom_llm.common.seal import check_seal
from custom_llm.common.steps import QUICKSTART, command, quoted, step
from custom_llm.llamacpp import MISSING, is_adapter, is_available, parse_lora

if TYPE_CHECKING:
    from custom_llm.inference.engine import Engine


ALL_LAYERS = -1
QUICKLY_CHECKED = 4 << 20  # bytes of a GGUF file that are read in 2 % of the time until the first text
WEIGHTS = "trained_model.pth"


def add_model_flags(parser: StepParser) -> None:
    """What is added to a model and where it is computed, for `open_engine`."""
    add = parser.add_argument
    add("--lora", type=_lora, action=Repeatable, default=(), metavar="FILE[:SCALE]",
        help="apply a LoRA adapter to a GGUF model, SCALE times as strongly; repeatable")  # fmt: skip
    add("--use_gpu", action="store_true", help="compute all layers on the GPU")
    add("--n_gpu_layers", type=number(int, 0, 2**31 - 1), metavar="N", help="compute N layers on the GPU")
    add("--threads", type=number(int, 1, 512), metavar="N", help="CPU threads (default: by the model's size)")


def _lora(typed: str) -> str:
    try:
        parse_lora(typed)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}") from None
    return typed


def choose_model(path: str | None) -> Path:
    """What --gguf_path names; without it, the .gguf written last, in this folder or in that of quickstart: after a
    conversion, the quantized one. Where there is no llama.cpp, the trained weights take its place.

    Raises UserError when it is empty, as of a variable that is not set, or there is no .gguf.
    """
    if path == "":
        raise UserError("--gguf_path is empty; give a .gguf or .pth, or leave it out for the newest .gguf here")
    if path is not None:
        return Path(path)
    weights = newest(WEIGHTS)
    if weights is not None and not is_available():
        say(f"using {weights}, since {MISSING}")
        return weights
    found = newest("*.gguf")
    if found is None:
        way_out = command("quickstart") if weights is None else step("convert_to_gguf")
        raise UserError(f"no .gguf file in this folder or in {QUICKSTART}/; run {way_out} first, or give --gguf_path")
    say(f"using {found}")
    return found


def newest(pattern: str) -> Path | None:
    """The file of such a name that was written last, in this folder or in that of quickstart."""
    found = [path for folder in (Path(), Path(QUICKSTART)) for path in folder.glob(pattern)]
    found = [path for path in found if path.is_file() and not path.name.startswith(".") and not is_adapter(path)]
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)


def open_engine(
    path: str | os.PathLike[str], use_gpu: bool = False, n_gpu_layers: int | None = None, n_threads: int | None = None,
    config_path: str | None = None, *, warn: Callable[[str], None], thorough: bool = False, lora: Sequence[str] = (),
) -> Engine:  # fmt: skip
    """Load a model. Raises UserError when the file cannot be used, or not with these settings.

    n_gpu_layers: how many layers of a GGUF are on the GPU; use_gpu: all of them. n_threads: None chooses by the size of
    the model. config_path: of a .pth; None: model_config.pth beside it. warn: is told when there is no GPU to use.
    thorough: a large GGUF file, too, is read to see whether it is what was written. lora: adapters as `parse_lora`
    reads them.
    """
    path = Path(path)
    try:
        loras = [parse_lora(typed) for typed in lora]
    except ValueError as error:
        raise UserError(f"--lora {error}") from None
    if path.suffix == ".pth":
        if loras:
            raise UserError(
                "--lora is for GGUF files, and a .pth holds what its training learned; leave it out, or give the .gguf "
                "that the adapter was trained on"
            )
        if n_gpu_layers is not None:
            raise UserError("--n_gpu_layers is for GGUF files; --use_gpu puts all of a .pth on the GPU")
        config = Path(config_path) if config_path else path.with_name("model_config.pth")
        return _open_torch(path, config, use_gpu, n_threads, warn)
    if config_path is not None:
        raise UserError("--config_path is for a .pth; a GGUF file holds its own configuration")
    if not is_available():
        weights = path.parent / WEIGHTS
        where = f": --gguf_path {quoted(str(weights))}" if weights.is_file() else ""
        raise UserError(f"{MISSING}; the trained weights need none of it{where}")
    from custom_llm.inference.engine import Engine
    from custom_llm.llamacpp import gpu_available

    if path.is_file():  # a pipe would wait for a writer
        check_seal(path, None if thorough else QUICKLY_CHECKED)
    layers = n_gpu_layers if n_gpu_layers is not None else ALL_LAYERS if use_gpu else 0
    if layers and not gpu_available():
        warn("this build of llama-cpp-python has no GPU support; computing on the CPU")
        layers = 0
    return Engine(path, layers, n_threads, loras)


def _open_torch(path: Path, config: Path, use_gpu: bool, n_threads: int | None, warn: Callable[[str], None]) -> Engine:
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{path} runs in PyTorch, which cannot be loaded ({error}); pip install torch") from None
    from custom_llm.inference.torch_engine import TorchEngine

    if path.exists() and not config.exists():
        raise UserError(f"{config}: no such file, but {path} needs its configuration; name it with --config_path")
    has_gpu = torch.cuda.is_available()
    if use_gpu and not has_gpu:
        warn("PyTorch sees no GPU; computing on the CPU")
    device = "cuda" if use_gpu and has_gpu else "cpu"
    return TorchEngine(path, config, device, n_threads)
