"""Step 3: the trained model as files that run anywhere.

    python convert_to_gguf.py --quant_type Q8_0         one type
    python convert_to_gguf.py --quant_type Q4_0,Q8_0    several
    python convert_to_gguf.py --adapter                 after a LoRA training: the adapter alone as well
    python convert_to_gguf.py --name "Tiny tales" --author Mia --license mit --push_to_hub mia/tiny-tales

Writes hf_model/ (loads in transformers) with a model card, model.gguf (F32), model.gguf.Q8_0.gguf and a Modelfile for
Ollama. Every GGUF file is loaded in llama.cpp and compared with PyTorch on text and on random tokens before it gets its
name; where llama.cpp is not installed it is read back and compared with the trained weights. Where the folder
llama.cpp/ is a checkout, its convert_hf_to_gguf.py and llama-quantize do the work; elsewhere the same is done without.
"""

from __future__ import annotations

import math
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from custom_llm.cli.parser import StepParser
from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import Kind, beside, check_target, locked
from custom_llm.common.notes import log_to, note, say, warn
from custom_llm.common.steps import command, next_step
from custom_llm.export.about import parse_line
from custom_llm.export.gguf.quantize import check_possible, parse_quant_types
from custom_llm.llamacpp import is_available

if TYPE_CHECKING:  # they import torch
    from custom_llm.model import GPTLanguageModel
    from custom_llm.model.files import SavedConfig
    from custom_llm.tokenizer.base import Tokenizer

LLAMA_CPP = "llama.cpp"  # the folder of a checkout, if there is one


def make_parser() -> StepParser:
    """The command line."""
    parser = StepParser(__doc__, "convert_to_gguf", lists=["quant_type"])
    add = parser.add_argument
    add("--quant_type", type=_quant_types, metavar="TYPES", default="Q4_0",
        help="type, or several with commas (default: Q4_0)")  # fmt: skip
    add("--model_path", metavar="FILE", default="trained_model.pth", help="weights (default: trained_model.pth)")
    add("--config_path", metavar="FILE", default="model_config.pth", help="the model (default: model_config.pth)")
    add("--output_dir", metavar="FOLDER", default="hf_model",
        help="Hugging Face directory to write (default: hf_model)")  # fmt: skip
    add("--gguf_output", metavar="FILE", default="model.gguf", help="F32 file to write (default: model.gguf)")
    add("--llama_cpp_path", metavar="FOLDER", default=LLAMA_CPP, help="llama.cpp checkout (default: llama.cpp)")
    add("--dataset_path", metavar="FILE", help="training text, for a model of the tutorial, which kept no vocabulary")
    add("--encoding", metavar="NAME", default="utf-8", help="encoding of --dataset_path (default: utf-8)")
    add("--text_field", metavar="NAME", help="key or column of the text in --dataset_path (default: text)")
    add("--adapter", action="store_true", help="after a LoRA training, write the adapter alone as well")
    add("--no_verify", action="store_true", help="do not compare the files with PyTorch")
    add("--verbose", action="store_true", help="say how near the files are to PyTorch in the terms of the field")
    add("--name", type=parse_line, metavar="TEXT", help="the model's title in all files (default: as its text)")
    add("--author", type=parse_line, metavar="TEXT", help="whose model it is (default: not said)")
    add("--license", type=parse_line, metavar="NAME", help="such as mit or cc-by-4.0 (default: none is claimed)")
    add("--push_to_hub", metavar="NAME", help="then push all to owner/name on the Hugging Face hub, made if need be")
    add("--public", action="store_true", help="let all see what is pushed (default: it is private)")
    return parser


def _quant_types(text: str) -> str:
    parse_quant_types(text)  # before the work begins
    return text


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    check_target(args.gguf_output, Kind.GGUF)
    check_possible(parse_quant_types(args.quant_type), args.llama_cpp_path)
    log_to(str(Path(args.gguf_output).with_name("conversion.log"))).info("convert_to_gguf.py %s", vars(args))

    if args.public and args.push_to_hub is None:
        raise UserError("--public is about what is pushed, and nothing is without --push_to_hub; give both or neither")
    if args.push_to_hub is not None:
        from custom_llm.export.share.hub import check_push

        check_push(args.push_to_hub)

    from custom_llm.data.sources import read_text
    from custom_llm.model.files import load_trained

    text = read_text(args.dataset_path, args.encoding, args.text_field) if args.dataset_path else None
    trained = load_trained(args.model_path, args.config_path, text)
    folder = Path(args.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output_dir: cannot write {describe_os_error(error)}") from None
    with locked(folder, "wait for it, or give another --output_dir and --gguf_output"):
        _convert(parser, args, *trained)


def _convert(
    parser: StepParser, args: Namespace, model: GPTLanguageModel, tokenizer: Tokenizer, saved: SavedConfig
) -> None:
    """All that is written of a model that was read."""
    from custom_llm.cli.run_file import write_beside
    from custom_llm.export.about import about_model, first_word, title_of
    from custom_llm.export.earlier import keep_others
    from custom_llm.export.huggingface.directory import write_hf_directory
    from custom_llm.export.pipeline import convert_to_gguf
    from custom_llm.export.plan import plan_export
    from custom_llm.export.proof import FileTable, share
    from custom_llm.export.share.card import ModelCard, license_note
    from custom_llm.export.share.companions import write_companions

    start, folder = time.monotonic(), Path(args.output_dir)
    plan = plan_export(model.config)
    if not plan.exports:
        as_it_is = command("inference_gguf", *_flags_to_write(args, None))
        raise UserError(f"{args.model_path} does not export: {plan.refusal}. It runs as it is: {as_it_is}")
    adapter = None
    if args.adapter:
        from custom_llm.export.adapter import AdapterExport, adapter_path, load_adapter

        check_target(adapter_path(args.gguf_output), Kind.GGUF)
        adapter = AdapterExport.of(load_adapter(args.model_path, args.config_path, model, saved))
    name = args.name or title_of(saved.training.dataset) or Path(args.gguf_output).stem
    about = about_model(saved, model.n_parameters(), name, args.author or "", args.license or "")
    if about_license := license_note(about.license):
        note(about_license)
    keep_others(about, args.gguf_output, args.output_dir)
    hf_class = write_hf_directory(model, tokenizer, folder, about)
    described = f"a Hugging Face model ({hf_class})" if hf_class else "no Hugging Face class fits, so only we read it"
    print(f"{args.output_dir}/: {described}; llama.cpp runs it as {plan.architecture}")
    expected, compared = None, ""
    if not args.no_verify:
        from custom_llm.export.proof import Reference
        from custom_llm.export.read_back import Original, why_not_run

        expected = Reference(model, tokenizer, saved.sample)
        if expected.text_loss() > math.log(model.config.vocab_size):
            warn("the model does worse on this text than guessing; was it trained on it?")
        compared = f"; each file was compared with the trained model in {expected.n_positions:,} places"
        if reason := why_not_run():
            expected = Original(model, tokenizer, saved.sample)
            compared = f"; read back and compared tensor by tensor and token by token. {reason}"
    table = FileTable(expected, plan.shapes, args.verbose)
    word = first_word(saved.sample) or first_word(about.example)
    try:
        convert_to_gguf(args.output_dir, args.gguf_output, args.quant_type, args.llama_cpp_path, table.check)
    except UserError:
        if table.rows:  # this much is done
            flags = _flags_to_write(args, table.rows[-1].path, word)
            say(f"what is there already runs: {command('inference_gguf', *flags)}")
        raise
    if adapter:
        written, parity = adapter.write(folder, args.gguf_output, about, expected)
        print(f"{folder / 'adapter'}/ and {written}: the adapter alone, for {saved.base.name}", end="")
        unit = "character" if tokenizer.kind == "char" else "piece of text"
        measured = f"{share(parity.top1_text)} the same next {unit} as the trained model" if parity else ""
        figure = f" (KL {parity.kl:.1e})" if parity and args.verbose else ""
        print(f"; applied to it, {measured}{figure}" if parity else "")
    write_beside(args.gguf_output, parser, vars(args))
    card = ModelCard(
        about, saved.training, model.config, model.n_parameters(), plan.architecture, hf_class, table.rows,
        args.push_to_hub or folder.name, has_end=tokenizer.end_of_text_id is not None,
    )  # fmt: skip
    end_of_text = tokenizer.end_of_text if card.has_end else None
    for problem in write_companions(card, folder, beside(args.model_path, ".loss.png"), end_of_text):
        note(problem)
    print(f"done in {time.monotonic() - start:.1f} s{compared}")
    if line := next_step("inference_gguf", *_flags_to_write(args, table.rows[-1].path, word)):
        print(line)
    if args.push_to_hub is not None:
        from custom_llm.export.share.companions import files_to_push
        from custom_llm.export.share.hub import push

        print(push(args.push_to_hub, files_to_push(card, folder), args.public, f"Upload {about.name}"))


def _flags_to_write(args: Namespace, written: Path | None, word: str = "") -> list[str]:
    """With which the model writes: from a file that was written, or from its weights where nothing runs it."""
    words = ["--gguf_path", str(written or args.model_path)]
    if written is None or not is_available():
        words[1] = args.model_path
        if Path(args.config_path) != Path(args.model_path).with_name("model_config.pth"):
            words += ["--config_path", args.config_path]
    return [*words, *(["--query", word] if word else [])]
