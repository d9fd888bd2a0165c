"""Step 2: train the model on a text.

    python train_llm.py                                  asks four questions
    python train_llm.py --dataset_path notes.txt --minutes 10
    python train_llm.py --dataset_path notes.txt --inspect   says what there is to learn, and stops
    python train_llm.py --dataset_path notes/            a folder of texts, records, code, pages, .docx, .pdf and such
    python train_llm.py --dataset tinystories --max_chars 20_000_000     or shakespeare, wikitext, fineweb, c4
    python train_llm.py --dataset hf:owner/name:config:field             any dataset of the Hugging Face hub

Reads model_config.pth, completes it with the text's vocabulary, and writes trained_model.pth. The last tenth of the
text is held out: its loss says how well the model does on text it has not seen. Ctrl-C stops and keeps what is learnt.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custom_llm.cli.ask import Complete, ask, build
from custom_llm.cli.parser import StepParser, add_flags, given
from custom_llm.cli.run_file import write_beside
from custom_llm.common.errors import UserError
from custom_llm.common.files import BASE_WEIGHTS, beside
from custom_llm.common.machine import choose_waiting
from custom_llm.common.notes import is_terminal, note, say
from custom_llm.common.steps import command, docs, flags_of, next_step
from custom_llm.common.text import counted
from custom_llm.config.presets import BYTE_PAIRS, LONG_TEXT, choose_sizes
from custom_llm.config.training import BASE, TrainConfig, complete_from_base
from custom_llm.training.distributed.processes import Processes, only_the_first_speaks, world_size

if TYPE_CHECKING:
    from custom_llm.data.sources import Corpus
    from custom_llm.training.checkpoint import Checkpoint

MINUTES = 2.0  # for which sizes are chosen where nothing is said, as in quickstart.py
ENDS = ("minutes", "max_iters", "max_epochs")  # what ends a training: the one that was said last


def get_training_config(values: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask about the training, except for what `values` already says; a dict with all options."""
    return asdict(_ask(values or {})[0])


def _ask(values: dict[str, Any], complete: Complete = dict) -> tuple[TrainConfig, set[str]]:
    """The training that a person decides on, and what they left to the default."""
    from custom_llm.data.choose import check_text

    return ask("Configure training parameters:", TrainConfig, values, complete, checks={"dataset_path": check_text})


def _defaults(config_path: str, values: dict[str, Any]) -> Complete:
    """What adds defaults to values, by whether the training starts from another model, which is a file beside.

    UserError where they say another tokenizer than that model's.
    """
    if not beside(config_path, BASE_WEIGHTS).exists():
        return dict
    for name, usual in (("tokenizer", BASE), ("vocab_size", None)):
        if values.get(name, usual) != usual:
            raise UserError(
                f"--{name} {values[name]}: the model that training starts from has its own tokens; leave it out, or "
                f"configure a model without --from: {command('llm_model')}"
            )
    return complete_from_base


def make_parser() -> StepParser:
    """The command line."""
    parser = StepParser(__doc__, "train_llm", lists=["dataset_path"], instead=ENDS)
    add = parser.add_argument
    add("--config_path", metavar="FILE", default="model_config.pth", help="the model (default: model_config.pth)")
    add("--model_path", metavar="FILE", default="trained_model.pth", help="file to write (default: trained_model.pth)")
    add("--dataset", metavar="TEXT", dest="dataset_path", help="the same as --dataset_path")
    add("--cache_dir", metavar="FOLDER", help="where encoded texts are kept (default: ~/.cache/custom-llm-scripts)")
    add("--stream", action="store_true", default=None,
        help="read a dataset by name while it is downloaded (default: if only a part of it is wanted)")  # fmt: skip
    add("--no_stream", action="store_false", dest="stream",
        help="download all of it first; then it stays for other programs")  # fmt: skip
    add(
        "--fallback",
        action="store_true",
        help="carry on where the hub cannot be reached: with the bundled "
        "stories for a dataset, with byte pairs learnt from the text for a tokenizer",
    )
    add("--inspect", action="store_true", help="say what there is to learn from the text, and stop")
    add("--resume", action="store_true", help="resume the training that was stopped last")
    add("--device", metavar="NAME", help="cpu, cuda or mps (default: the fastest one there is)")
    add_flags(parser, TrainConfig, "training")
    return parser


@only_the_first_speaks()
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    if world_size() > 1:
        choose_waiting()
    with Processes.joined() as processes:
        values = given(TrainConfig, args)
        resumed = None
        if args.resume:
            choose_waiting()
            from custom_llm.training.checkpoint import checkpoint_path, load_checkpoint

            resumed = load_checkpoint(checkpoint_path(args.model_path))
            ends_anew = any(name in values for name in ENDS)
            before = {name: value for name, value in resumed.config.items() if not (ends_anew and name in ENDS)}
            values = {**before, **values}
        complete = _defaults(args.config_path, values)
        if {"minutes", "max_iters"} & values.keys():  # then epochs do not end the training, or not alone
            values.setdefault("max_epochs", complete({}).get("max_epochs", TrainConfig.max_epochs))
        if not (args.inspect or Path(args.config_path).exists()):
            raise UserError(f"{args.config_path}: no such file; make it with {command('llm_model')}")
        config, assumed = processes.shared(
            lambda: (build(TrainConfig, complete(values)), set()) if args.inspect else _ask(values, complete)
        )

        choose_waiting()
        from custom_llm.data.cache import default_cache
        from custom_llm.data.choose import choose_corpus

        cache, agreed = Path(args.cache_dir) if args.cache_dir else default_cache(), args.fallback

        def fallback() -> bool:
            nonlocal agreed
            agreed = agreed or _agrees(config.dataset_path)
            return agreed

        corpus = processes.rank_0_first(lambda: choose_corpus(
            config.dataset_path, cache, encoding=config.encoding, field=config.text_field,
            max_chars=config.most_characters, clean=config.clean, stream=args.stream, fallback=fallback,
        ))  # fmt: skip
        config = processes.shared(lambda: _with_a_tokenizer(config) if agreed else config)
        _say_what_it_is(corpus)
        if (args.inspect or "dataset_path" not in values) and config.tokenizer == "char" and corpus.size >= LONG_TEXT:
            tip = f"--tokenizer bpe --vocab_size {BYTE_PAIRS} learns more of so long a text in the same time"
            say(f"tip: {tip}{docs('data')}")
        if args.inspect:
            return processes.rank_0_first(lambda: _inspect(config, corpus, args.config_path, cache))
        adapt_epochs = "max_epochs" in assumed and complete is dict
        return _train(parser, args, config, corpus, cache, resumed, processes, adapt_epochs)


def _agrees(name: str) -> bool:
    """Whether a person at a terminal wants to train without the dataset they named."""
    if not is_terminal(sys.stdin, sys.stderr):
        return False
    print(f"{name} cannot be had here and now. Train on the bundled stories instead? (yes or no) ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _with_a_tokenizer(config: TrainConfig) -> TrainConfig:
    """`config`, or with byte pairs learnt from the text where its tokenizer is on a hub that cannot be reached."""
    from custom_llm.tokenizer.load import LEARNED
    from custom_llm.tokenizer.pretrained import OutOfReach, find_pretrained

    if config.tokenizer in (BASE, *(learned.kind for learned in LEARNED)):
        return config
    try:
        find_pretrained(config.tokenizer)
    except OutOfReach:
        say(f"WARNING: the tokenizer {config.tokenizer} cannot be had. LEARNING BYTE PAIRS FROM THE TEXT INSTEAD.")
        return replace(config, tokenizer="bpe", vocab_size=BYTE_PAIRS)
    return config


def _say_what_it_is(corpus: Corpus) -> None:
    """What a person should know about the text before it is learnt."""
    from custom_llm.data.clean import LOOKED_AT, advice
    from custom_llm.tokenizer.cut import up_to

    if corpus.left_out:
        note(f"{corpus.name}: {counted(len(corpus.files), 'file')} to read; left out: {corpus.left_out}")
    with contextlib.suppress(UserError):  # what cannot be read is said where it is needed
        for each in advice("".join(up_to(LOOKED_AT, corpus.read()))) if corpus.clean == "none" else ():
            say(f"tip: {each}{docs('data')}")


def _inspect(config: TrainConfig, corpus: Corpus, config_path: str, cache: Path) -> int:
    """Print what there is to learn from a text, for the model that is configured, or that would suit the text."""
    from custom_llm.config.model import ModelConfig
    from custom_llm.data.inspect import LOOKED_AT, inspect
    from custom_llm.model import GPTLanguageModel
    from custom_llm.model.files import SavedConfig, load_config
    from custom_llm.training.run import encode_text

    is_configured = Path(config_path).exists()
    saved = load_config(config_path) if is_configured else SavedConfig(ModelConfig(vocab_size=BYTE_PAIRS))
    tokens, model = encode_text(config, corpus, saved, cache), saved.model
    if not is_configured:
        minutes = config.minutes or MINUTES
        sizes, _ = choose_sizes(tokens.n_characters, minutes, os.cpu_count() or 1)
        model = ModelConfig(vocab_size=tokens.tokenizer.vocab_size, **sizes)
        note(f"{config_path} is not there yet; the model is what would suit this text and {minutes:g} minutes")
    model = replace(model, vocab_size=tokens.tokenizer.vocab_size)  # as in training
    text = "".join(replace(corpus, max_chars=min(LOOKED_AT, corpus.max_chars or LOOKED_AT)).read())
    print(corpus.name)
    n_parameters = GPTLanguageModel.outline(model).n_parameters()
    in_colour = is_terminal(sys.stdout) and not os.environ.get("NO_COLOR")
    print("\n".join(inspect(text, tokens, n_parameters, model.block_size, in_colour)))
    return 0


def _train(
    parser: StepParser, args: Namespace, config: TrainConfig, corpus: Corpus, cache: Path, resumed: Checkpoint | None,
    processes: Processes, adapt_epochs: bool,
) -> int:  # fmt: skip
    """Train, in one of the processes that do it together; the exit status."""
    from custom_llm.export.plan import plan_export
    from custom_llm.model.files import load_config
    from custom_llm.training.resume import only_training
    from custom_llm.training.run import train_on_text

    export = plan_export(load_config(args.config_path).model)
    if not export.exports:
        note(f"this model {export.sentence}")

    def keep_options(resolved: TrainConfig) -> None:
        write_beside(args.model_path, parser, {**vars(args), **asdict(resolved), "resume": False})

    gc.freeze()  # what was imported stays; looking through it again and again for garbage takes 0.3 s
    files = (args.config_path, args.model_path, cache)
    with only_training(args.config_path, args.model_path, processes):
        stopped_by = train_on_text(config, corpus, *files, args.device, resumed, keep_options, processes, adapt_epochs)
    flags = {name: getattr(args, name) for name in ("config_path", "model_path")}
    if export.exports:
        line = next_step("convert_to_gguf", *flags_of(flags, {name: parser.get_default(name) for name in flags}))
    else:  # there is no file to make
        line = next_step("inference_gguf", *flags_of({"gguf_path": args.model_path, "config_path": args.config_path}))
    if line:
        say(line.replace("next", "or to use it as it is", 1) if stopped_by else line)
    return 128 + stopped_by if stopped_by else 0  # what a shell reports
