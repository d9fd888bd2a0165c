"""Step 3: the trained model as files that run anywhere.

    python convert_to_gguf.py --quant_type Q8_0         one type
    python convert_to_gguf.py --quant_type Q4_0,Q8_0    several
    python convert_to_gguf.py HF_FOLDER                 a Hugging Face model from elsewhere, or one fine-tuned there
    python convert_to_gguf.py --name "Tiny tales" --author Mia --license mit --push_to_hub mia/tiny-tales

Writes hf_model/ (loads in transformers) with a model card, model.gguf (F32), model.gguf.Q8_0.gguf and a Modelfile for
Ollama. Every GGUF file is loaded in llama.cpp and compared with PyTorch on text and on random tokens before it gets its
name; where llama.cpp is not installed it is read back and compared with the trained weights. Where the folder
llama.cpp/ is a checkout, its convert_hf_to_gguf.py and llama-quantize do the work; elsewhere the same is done without.
Of HF_FOLDER, which stays as it is, only GGUF files are made, once it computes here what it computes in transformers.
"""

from __future__ import annotations

import contextlib
import math
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from custom_llm.cli.parser import StepParser
from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import Kind, beside, check_target, locked, scratch_folder
from custom_llm.common.notes import log_to, note, say, warn
from custom_llm.common.steps import command, flags_of, next_step
from custom_llm.export.about import parse_line
from custom_llm.export.gguf.quantize import check_possible, parse_quant_types
from custom_llm.llamacpp import is_available

if TYPE_CHECKING:  # they import torch
    from custom_llm.model import GPTLanguageModel
    from custom_llm.model.files import SavedConfig
    from custom_llm.tokenizer.base import Tokenizer

LLAMA_CPP = "llama.cpp"  # the folder of a checkout, if there is one
OF_WEIGHTS = ("model_path", "config_path", "output_dir", "dataset_path", "text_field")  # options that are about a .pth
SAMPLE = 5000  # characters, on which a model is proven whose own text is not known
STOCK_TOKENS = 128  # in a window on which it is compared with transformers


def make_parser() -> StepParser:
    """The command line."""
    parser = StepParser(__doc__, "convert_to_gguf", lists=["quant_type"])
    add = parser.add_argument
    add("hf_folder", nargs="?", metavar="HF_FOLDER", help="Hugging Face folder to convert (default: --model_path)")
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

    if args.hf_folder is not None:
        surplus = {name: getattr(args, name) for name in OF_WEIGHTS if getattr(args, name) != parser.get_default(name)}
        if surplus:
            flag = " ".join(flags_of(surplus)[:2])
            raise UserError(f"{flag} beside {args.hf_folder}, which is all that is converted; leave one of them out")
        trained = _read_folder(args.hf_folder, compare=not args.no_verify)
    else:
        from custom_llm.data.sources import read_text
        from custom_llm.model.files import load_trained

        text = read_text(args.dataset_path, args.encoding, args.text_field) if args.dataset_path else None
        trained = load_trained(args.model_path, args.config_path, text)
    with _folder_to_write(args) as folder:
        _convert(parser, args, folder, *trained)


def _read_folder(path: str, compare: bool) -> tuple[GPTLanguageModel, Tokenizer, SavedConfig]:
    """The model of a Hugging Face folder; UserError where it cannot be one of ours, or is not what transformers has.

    compare: look whether it is that.
    """
    import numpy as np

    from custom_llm.base.open import open_folder
    from custom_llm.base.stock import compare_with_stock
    from custom_llm.data.stories.generate import generate_stories
    from custom_llm.model import GPTLanguageModel
    from custom_llm.model.files import SavedConfig

    try:
        if not Path(path).is_dir():
            raise ValueError("not a folder; give one of a Hugging Face model, or leave it out to convert --model_path")
        base = open_folder(Path(path))
        model = GPTLanguageModel(base.config)
        model.load_state_dict(base.weights)
        model.eval()
        sample = generate_stories(SAMPLE)
        if compare:
            length = min(STOCK_TOKENS, base.config.block_size)
            text = base.tokenizer.encode(sample)[:length].tolist() or [0]
            chance = np.random.default_rng(0).integers(base.config.vocab_size, size=length).tolist()
            worst = compare_with_stock(Path(path), model, [text, chance])
            print(f"{path}: the same as in transformers, to {worst:.0e} of its logits", flush=True)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return model, base.tokenizer, SavedConfig(base.config, base.tokenizer.to_dict(), sample, base=base.origin)


@contextlib.contextmanager
def _folder_to_write(args: Namespace) -> Iterator[Path]:
    """The Hugging Face directory to write: --output_dir; where a model is in such a folder already, one for a while."""
    if args.hf_folder is not None:
        with scratch_folder(Path(args.gguf_output).absolute().parent, ".huggingface-") as folder:
            yield folder
        return
    folder = Path(args.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output_dir: cannot write {describe_os_error(error)}") from None
    with locked(folder, "wait for it, or give another --output_dir and --gguf_output"):
        yield folder


def _convert(
    parser: StepParser, args: Namespace, folder: Path, model: GPTLanguageModel, tokenizer: Tokenizer, saved: SavedConfig
) -> None:
    """All that is written of a model that was read."""
    from custom_llm.cli.run_file import write_beside
    from custom_llm.export.about import about_model, first_word, title_of
    from custom_llm.export.earlier import keep_others
    from custom_llm.export.huggingface.directory import write_hf_directory
    from custom_llm.export.pipeline import convert_to_gguf
    from custom_llm.export.plan import plan_export
    from custom_llm.export.proof import FileTable
    from custom_llm.export.share.card import ModelCard, license_note
    from custom_llm.export.share.companions import write_companions

    start = time.monotonic()
    plan = plan_export(model.config)
    if not plan.exports and args.hf_folder is not None:
        raise UserError(f"{args.hf_folder} does not become a GGUF file: {plan.refusal}")
    if not plan.exports:
        as_it_is = command("inference_gguf", *_flags_to_write(args, None))
        raise UserError(f"{args.model_path} does not export: {plan.refusal}. It runs as it is: {as_it_is}")
    title = saved.base.name if args.hf_folder is not None else title_of(saved.training.dataset)
    name = args.name or title or Path(args.gguf_output).stem
    about = about_model(saved, model.n_parameters(), name, args.author or "", args.license or "")
    if about_license := license_note(args.license or ""):
        note(about_license)
    keep_others(about, args.gguf_output, folder)
    hf_class = write_hf_directory(model, tokenizer, folder, about)
    described = f"a Hugging Face model ({hf_class})" if hf_class else "no Hugging Face class fits, so only we read it"
    print(f"{args.hf_folder or args.output_dir}/: {described}; llama.cpp runs it as {plan.architecture}")
    expected, compared = None, ""
    if not args.no_verify:
        from custom_llm.export.proof import Reference
        from custom_llm.export.read_back import Original, why_not_run

        expected = Reference(model, tokenizer, saved.sample)
        if args.hf_folder is None and expected.text_loss() > math.log(model.config.vocab_size):
            warn("the model does worse on this text than guessing; was it trained on it?")
        compared = f"; each file was compared with the trained model in {expected.n_positions:,} places"
        if reason := why_not_run():
            expected = Original(model, tokenizer, saved.sample)
            compared = f"; read back and compared tensor by tensor and token by token. {reason}"
    table = FileTable(expected, plan.shapes, args.verbose)
    word = first_word(saved.sample) or first_word(about.example)
    try:
        convert_to_gguf(str(folder), args.gguf_output, args.quant_type, args.llama_cpp_path, table.check)
    except UserError:
        if table.rows:  # this much is done
            flags = _flags_to_write(args, table.rows[-1].path, word)
            say(f"what is there already runs: {command('inference_gguf', *flags)}")
        raise
    write_beside(args.gguf_output, parser, vars(args))
    card = ModelCard(
        about, saved.training, model.config, model.n_parameters(), plan.architecture, hf_class, table.rows,
        args.push_to_hub or folder.name, has_end=tokenizer.end_of_text_id is not None,
        base=saved.base,
    )  # fmt: skip
    end_of_text = tokenizer.end_of_text if card.has_end else None
    for problem in write_companions(card, folder, beside(args.model_path, ".loss.png"), end_of_text):
        note(problem)
    print(f"done in {time.monotonic() - start:.1f} s{compared}")
    line = next_step("inference_gguf", *_flags_to_write(args, table.rows[-1].path, word))
    if line and (args.hf_folder is None or is_available()):
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
