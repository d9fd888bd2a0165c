"""All four steps in one go, on a bundled corpus of small stories or on a text of your own.

    python quickstart.py                            about two and a half minutes
    python quickstart.py notes.txt --minutes 10

Chooses sizes for the text, the machine and the minutes, and ends with the four commands that would repeat it by hand.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from custom_llm.cli.parser import StepParser, number
from custom_llm.commands.convert import LLAMA_CPP
from custom_llm.common.aside import set_aside
from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import locked, write_bytes
from custom_llm.common.machine import choose_waiting
from custom_llm.common.steps import STEPS, command
from custom_llm.config.presets import choose_sizes
from custom_llm.data.cache import default_cache
from custom_llm.data.choose import choose_corpus
from custom_llm.data.stories.generate import generate_stories
from custom_llm.data.token_file import open_tokens
from custom_llm.export.gguf.quantize import check_possible, parse_quant_types
from custom_llm.llamacpp import is_available
from custom_llm.tokenizer.load import find_recipe

TEXT_TOKENS = 1500
TEMPERATURE = 0.6  # a model of a few minutes is surer of a word than of the next sentence


def make_parser() -> StepParser:
    """The command line."""
    parser = StepParser(__doc__, "quickstart", lists=["quant_type"])
    add = parser.add_argument
    add("file", nargs="?", metavar="FILE", help="the text (default: bundled stories)")
    add("--minutes", metavar="M", type=number(float, 0.01, 10_000), default=2.0, help="time to train (default: 2)")
    add("--quant_type", metavar="TYPES", default="Q8_0", help="type of the GGUF file (default: Q8_0)")
    add("--output_dir", metavar="FOLDER", default="quickstart", help="folder to write to (default: quickstart)")
    add("--encoding", metavar="NAME", default="utf-8", help="encoding of FILE (default: utf-8)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    quant_types = parse_quant_types(args.quant_type)
    check_possible(quant_types, LLAMA_CPP)
    choose_waiting()
    folder = _make_folder(args.output_dir)
    with locked(folder, "wait for it, or give another --output_dir"):
        return _run(args, folder, quant_types)


def _run(args: Namespace, folder: Path, quant_types: list[str]) -> int:
    # What writes the text: where llama.cpp is not installed, the weights do, in PyTorch.
    written = folder / (f"model.gguf.{quant_types[0]}.gguf" if is_available() else "trained_model.pth")
    steps = _flags_of_steps(args, folder, written)
    for place, (script, flags) in enumerate(steps.items(), start=1):
        print(f"\n[{place}/4] {command(script, *flags)}", flush=True)
        if status := import_module(f"custom_llm.commands.{STEPS[script]}").main(flags):
            return status
    print(f"\nEverything is in {folder}/. To write together with the model:")
    print(command("inference_gguf", "--gguf_path", str(written)))
    print("The four commands that repeat it:")
    print("\n".join(command(script, *flags) for script, flags in steps.items()))
    return 0


def _make_folder(name: str) -> Path:
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"--output_dir {name} is a file; give the name of a folder") from None
    except OSError as error:
        raise UserError(f"--output_dir {describe_os_error(error)}") from None
    return folder


def _flags_of_steps(args: Namespace, folder: Path, written: Path) -> dict[str, list[str]]:
    """What each step is told, for the text and the time."""
    dataset = args.file
    if dataset is None:
        dataset, stories = str(folder / "stories.txt"), generate_stories().encode()
        if (there := Path(dataset)).is_file() and there.read_bytes() != stories:
            set_aside([(there, [there])])
        write_bytes(dataset, stories)
    cache = default_cache()
    corpus = choose_corpus(dataset, cache, encoding=args.encoding)
    tokens = open_tokens(corpus, find_recipe("char", 0), cache)  # which step 2 finds again
    model, training = choose_sizes(tokens.n_characters, args.minutes, os.cpu_count() or 1)
    config_path, model_path = folder / "model_config.pth", folder / "trained_model.pth"
    steps = {
        "llm_model": {"vocab_size": tokens.tokenizer.vocab_size, **model, "config_path": config_path},
        "train_llm": {
            "dataset_path": dataset, "encoding": args.encoding, "minutes": args.minutes, **training,
            "config_path": config_path, "model_path": model_path,
        },
        "convert_to_gguf": {
            "quant_type": args.quant_type, "model_path": model_path, "config_path": config_path,
            "output_dir": folder / "hf_model", "gguf_output": folder / "model.gguf",
        },
        "inference_gguf": {"gguf_path": written, "query": "", "max_tokens": TEXT_TOKENS, "temp": TEMPERATURE},
    }  # fmt: skip
    return {
        script: [word for name, value in options.items() for word in (f"--{name}", str(value))]
        for script, options in steps.items()
    }
