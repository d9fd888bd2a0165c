"""The road from `trained_model.pth` to quantized files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import Kind, check_target, locked, replacing, scratch_folder, write_bytes
from custom_llm.common.seal import write_seal
from custom_llm.common.signals import unwinding
from custom_llm.common.steps import command, step
from custom_llm.export.about import about_model
from custom_llm.export.gguf.architectures import choose_architecture
from custom_llm.export.gguf.llama_cpp_tools import find_converter, run_converter
from custom_llm.export.gguf.quantize import check_possible, parse_quant_types, quantize
from custom_llm.export.gguf.whole import check_whole
from custom_llm.export.gguf.writer import write_gguf
from custom_llm.export.huggingface.directory import model_files, read_about, read_hf_directory, write_hf_directory
from custom_llm.export.vocabulary import KEYS, read_vocabulary
from custom_llm.model.files import load_trained

# What llama.cpp's converter would guess from the name of the folder it reads.
NOT_GUESSED = dict.fromkeys(f"general.{key}" for key in ("basename", "finetune", "organization", "version"))

# Called with a finished file before it gets its name, the type it is in, and that name.
Proof = Callable[[Path, str, Path], None]


def export_to_hf(
    model_path: str = "trained_model.pth", config_path: str = "model_config.pth", output_dir: str = "hf_model"
) -> str:
    """Write the trained model as a Hugging Face directory, for a stock class if one computes it; return its path."""
    model, tokenizer, saved = load_trained(model_path, config_path)
    write_hf_directory(model, tokenizer, output_dir, about_model(saved, model.n_parameters()))
    return output_dir


@unwinding()
def convert_to_gguf(
    hf_dir: str = "hf_model",
    gguf_output: str = "model.gguf",
    quant_type: str = "Q4_0",
    llama_cpp_path: str | None = "llama.cpp",
    prove: Proof | None = None,
) -> list[str]:
    """Write `gguf_output` in F32 and `gguf_output`.TYPE.gguf for each type of `quant_type`; return the latter.

    What the directory says about the model in words, the files say as well; one without a name is called as the file.

    Args:
        quant_type: one of llama.cpp's types, or several with commas.
        llama_cpp_path: a checkout whose tools are used where they are there; without them the same is done in this
            process.
        prove: called with every file before it gets its name; what it raises keeps the name from being given.

    Raises:
        UserError: an unknown type, a directory that is no exported model, one that llama.cpp has no graph for, a tool
            that failed, or another process writes `gguf_output`.
    """
    quant_types = parse_quant_types(quant_type)
    base, checkout = check_target(gguf_output, Kind.GGUF), llama_cpp_path or ""
    check_possible(quant_types, checkout)
    title = base.stem.encode("utf-8", "replace").decode()
    results = []
    with locked(base, "wait for it, or give another --gguf_output"):
        with replacing(base) as temporary:
            _write_f32(hf_dir, temporary, title, checkout)
            _finish(temporary, base)
            if prove:
                prove(temporary, "F32", base)
        for name in quant_types:
            target = base.with_name(f"{base.name}.{name}.gguf")
            with replacing(target) as temporary:
                quantize(base, temporary, name, checkout)
                _finish(temporary, target)
                if prove:
                    prove(temporary, name, target)
            results.append(os.fspath(target))
    return results


def _finish(path: Path, name: Path) -> None:
    """Seal the file at `path`, to be called `name`; raise UserError where it is not whole."""
    check_whole(path, name)
    write_seal(path)


def _write_f32(hf_dir: str, path: Path, title: str, checkout: str) -> None:
    """Write the GGUF file of a Hugging Face directory, with the checkout's converter where it knows such models.

    The model is called `title` if the directory has no name for it.
    """
    graph, end_of_text_id = read_hf_directory(hf_dir)
    found = choose_architecture(graph)
    if found is None:
        raise UserError(f"{hf_dir}: llama.cpp has no graph for this model; {command('llm_model')} says which it has")
    architecture, prepared = found
    vocabulary = read_vocabulary(hf_dir)
    if len(vocabulary.tokens) != prepared.s.vocab_size:
        raise UserError(
            f"{hf_dir}: tokenizer.json has {len(vocabulary.tokens)} tokens and the model {prepared.s.vocab_size}; "
            f"export the model anew with {step('convert_to_gguf')}"
        )
    about = read_about(hf_dir)
    name = about.name or title
    if not find_converter(checkout) or not architecture.is_converted(prepared.s):
        write_gguf(prepared, architecture, vocabulary, path, name, about)
        return
    # The converter reads a directory, and the graph is already rewritten for llama.cpp.
    with scratch_folder(path.parent, ".converting-") as folder:
        files = model_files(prepared, architecture.converted_from, end_of_text_id, about)
        for file, content in {**files, "metadata.json": json.dumps(NOT_GUESSED).encode()}.items():
            write_bytes(folder / file, content)
        try:
            for file in filter(Path.exists, (Path(hf_dir) / "tokenizer.json", Path(hf_dir) / KEYS)):
                shutil.copy(file, folder)
        except OSError as error:
            raise UserError(f"cannot write {describe_os_error(error)}") from None
        run_converter(checkout, folder, path, name)
