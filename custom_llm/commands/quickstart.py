"""All four steps in one go, on a bundled corpus of small stories or on a text of your own.

    python quickstart.py                            about two and a half minutes
    python quickstart.py notes.txt --minutes 10
    python quickstart.py notes.txt --from WHAT      from a model that knows a language already (see step 1)
    python quickstart.py notes.txt --preset modern --tokenizer bpe --seed 1      any option of the steps

Chooses sizes for the text, the machine and the minutes, and ends with the four commands that would repeat it by hand.
Ctrl-C ends the training, and makes a file of what was learnt until then.
"""

from __future__ import annotations

import argparse
from argparse import SUPPRESS, Namespace
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from custom_llm.cli.ask import build
from custom_llm.cli.parser import Once, StepParser, add_flags, given, number
from custom_llm.commands.convert import LLAMA_CPP
from custom_llm.commands.model import sizes_for, text_of
from custom_llm.common.aside import set_aside
from custom_llm.common.errors import EXIT_INTERRUPTED, UserError, describe_os_error
from custom_llm.common.files import locked, write_bytes
from custom_llm.common.machine import choose_waiting
from custom_llm.common.notes import say
from custom_llm.common.steps import QUICKSTART, STEPS, command, flags_of, on_a_road
from custom_llm.config.presets import Purpose
from custom_llm.config.training import complete_from_base
from custom_llm.data.stories.generate import generate_stories
from custom_llm.export.about import first_word, first_words
from custom_llm.export.gguf.quantize import check_possible, parse_quant_types
from custom_llm.llamacpp import is_available

ROAD = ("llm_model", "train_llm", "convert_to_gguf", "inference_gguf")
TEXT_TOKENS, TEXT_TOKENS_OF_BASE = 1500, 300  # characters, or pieces of words
OPENING = "Once upon a time"  # of many of the bundled stories
TEMPERATURE = 0.6  # a model of a few minutes is surer of a word than of the next sentence

ONLY_FOR = {"--lora": "train_llm"}  # the rank of an adapter; where a model writes it is the file of one


def make_parser() -> StepParser:
    """The command line."""
    parser = StepParser(__doc__, "quickstart", lists=["quant_type"])
    add = parser.add_argument
    add("file", nargs="?", metavar="FILE", help="the text (default: bundled stories)")
    add("--minutes", metavar="M", type=number(float, 0.01, 10_000), default=2.0, help="time to train (default: 2)")
    add("--from", metavar="WHAT", action=Once, help="the model to start from (default: none, but sizes for the text)")
    add("--quant_type", metavar="TYPES", default="Q8_0", help="type of the GGUF file (default: Q8_0)")
    add("--output_dir", metavar="FOLDER", default=QUICKSTART, help=f"folder to write to (default: {QUICKSTART})")
    add("--cache_dir", metavar="FOLDER", help="where encoded texts are kept (default: ~/.cache/custom-llm-scripts)")
    add_flags(parser, Purpose, "how the text is read", but=("dataset_path", "minutes"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    others = _add_options_of_steps(parser)
    args, rest = parser.parse_known_args(argv)
    if rest:
        args.file = _with_spaces(args.file, rest, parser)
    quant_types = parse_quant_types(args.quant_type)
    check_possible(quant_types, LLAMA_CPP)
    choose_waiting()
    folder = _make_folder(args.output_dir)
    with locked(folder, "wait for it, or give another --output_dir"):
        return _take_steps(args, folder, quant_types[0], others)


def _take_steps(args: Namespace, folder: Path, quant_type: str, others: dict[str, list[str]]) -> int:
    """One after the other, each with its `others`; the exit status."""
    # What writes the text: where llama.cpp is not installed, the weights do, in PyTorch.
    written = folder / (f"model.gguf.{quant_type}.gguf" if is_available() else "trained_model.pth")
    options = _options_of_steps(args, folder, written, has_lora="--lora" in others["train_llm"])
    steps = {script: [*flags_of(options[script]), *others[script]] for script in ROAD}
    for place, (script, flags) in enumerate(steps.items(), start=1):
        print(f"\n[{place}/{len(steps)}] {command(script, *flags)}", flush=True)
        with on_a_road():
            status = import_module(f"custom_llm.commands.{STEPS[script]}").main(flags)
        if status == EXIT_INTERRUPTED and script == "train_llm":  # Ctrl-C: what was learnt until then is there
            say("going on to the file, with what was learnt until now")
        elif status:
            return status
    print(f"\nEverything is in {folder}/. To write together with the model:")
    print(command("inference_gguf", "--gguf_path", str(written)))
    print("The four commands that repeat it:")
    print("\n".join(command(script, *flags) for script, flags in steps.items()))
    return 0


def _with_spaces(start: str, rest: list[str], parser: StepParser) -> str:
    """A name that came in parts, as by `make run ARGS="my notes.txt"`; UserError where there is no such file."""
    flags = [word for word in rest if word.startswith("-")]
    if flags or not Path(" ".join([start, *rest])).exists():
        parser.error(f"unrecognized arguments: {' '.join(flags or rest)}")
    return " ".join([start, *rest])


class _Forward(argparse.Action):
    """A flag of one or more steps, handed on to them as it was typed."""

    def __call__(self, parser: object, namespace: Namespace, values: object, option_string: str | None = None) -> None:
        for words in self.const:
            words += [option_string, *([values] if isinstance(values, str) else values or [])]


def _add_options_of_steps(parser: StepParser) -> dict[str, list[str]]:
    """Let `parser` know every flag that a step has; when it has parsed, the words for each step are in these lists."""
    own = {flag for action in parser._actions for flag in action.option_strings}
    words: dict[str, list[str]] = {script: [] for script in ROAD}
    takers: dict[str, list[list[str]]] = {}
    nargs: dict[str, object] = {}
    for script in ROAD:
        for action in import_module(f"custom_llm.commands.{STEPS[script]}").make_parser()._actions:
            for flag in set(action.option_strings) - own:
                if ONLY_FOR.get(flag, script) != script:
                    continue
                takers.setdefault(flag, []).append(words[script])
                nargs[flag] = action.nargs
    for flag, lists in takers.items():
        parser.add_argument(flag, action=_Forward, nargs=nargs[flag], const=lists, dest=SUPPRESS, help=SUPPRESS)
    return words


def _make_folder(name: str) -> Path:
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"--output_dir {name} is a file; give the name of a folder") from None
    except OSError as error:
        raise UserError(f"--output_dir {describe_os_error(error)}") from None
    return folder


def _options_of_steps(args: Namespace, folder: Path, written: Path, has_lora: bool) -> dict[str, dict[str, object]]:
    """What each step is told, for the text and the time."""
    dataset = args.file
    if dataset is None:
        dataset, stories = str(folder / "stories.txt"), generate_stories().encode()
        if (there := Path(dataset)).is_file() and there.read_bytes() != stories:
            set_aside([(there, [there])])
        write_bytes(dataset, stories)
    args.dataset_path = dataset
    purpose, base = build(Purpose, given(Purpose, args)), getattr(args, "from")
    if base:
        model, (training, beginning) = {"from": base}, text_of(purpose, args.cache_dir)
        usual = complete_from_base({"lora": has_lora})
        training |= {name: usual[name] for name in ("batch_size", "learning_rate")}  # or they were asked for
    else:
        model, training, beginning = sizes_for(purpose, args.cache_dir)
    # On an empty page a short training has seen too few beginnings to be sure of one.
    query = OPENING if args.file is None else first_words(beginning) if base else first_word(beginning)
    config_path, model_path = folder / "model_config.pth", folder / "trained_model.pth"
    return {
        "llm_model": {**model, "config_path": config_path},
        "train_llm": {**training, "cache_dir": args.cache_dir, "config_path": config_path, "model_path": model_path},
        "convert_to_gguf": {
            "quant_type": args.quant_type, "model_path": model_path, "config_path": config_path,
            "output_dir": folder / "hf_model", "gguf_output": folder / "model.gguf",
        },
        "inference_gguf": {
            "gguf_path": written, "query": query, "temp": TEMPERATURE,
            "max_tokens": TEXT_TOKENS_OF_BASE if base else TEXT_TOKENS,
        },
    }  # fmt: skip
