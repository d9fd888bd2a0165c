"""Step 2: train the model on a text.

    python train_llm.py                                  asks four questions
    python train_llm.py --dataset_path notes.txt --minutes 10
    python train_llm.py --dataset_path notes.txt --inspect   says what there is to learn, and stops
    python train_llm.py --dataset_path notes/            a folder of .txt .md .jsonl .csv .parquet (and .gz) files
    python train_llm.py --dataset tinystories --max_chars 20_000_000     or shakespeare, wikitext, fineweb, c4
    python train_llm.py --dataset hf:owner/name:config:field             any dataset of the Hugging Face hub

Reads model_config.pth, completes it with the text's vocabulary, and writes trained_model.pth. The last tenth of the
text is held out: its loss says how well the model does on text it has not seen. Ctrl-C stops and keeps what is learnt.
"""

from __future__ import annotations

import gc
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custom_llm.cli.ask import ask, build
from custom_llm.cli.parser import StepParser, add_flags, given
from custom_llm.cli.run_file import write_beside
from custom_llm.common.errors import EXIT_INTERRUPTED, UserError
from custom_llm.common.machine import choose_waiting
from custom_llm.common.notes import note, say
from custom_llm.common.steps import command, docs
from custom_llm.config.presets import BYTE_PAIRS, LONG_TEXT
from custom_llm.config.training import TrainConfig
from custom_llm.training.distributed.processes import Processes, only_the_first_speaks, world_size

if TYPE_CHECKING:
    from custom_llm.data.sources import Corpus
    from custom_llm.training.checkpoint import Checkpoint

ENDS = ("minutes", "max_iters", "max_epochs")  # what ends a training: the one that was said last


def get_training_config(values: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask about the training, except for what `values` already says; a dict with all options."""
    return asdict(ask("Configure training parameters:", TrainConfig, values or {}))


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
    add("--fallback", action="store_true", help="train on the bundled stories where a dataset by name cannot be had")
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
        if {"minutes", "max_iters"} & values.keys():  # then epochs do not end the training
            values.setdefault("max_epochs", TrainConfig.max_epochs)
        if not Path(args.config_path).exists():
            raise UserError(f"{args.config_path}: no such file; make it with {command('llm_model')}")
        config = processes.shared(lambda: build(TrainConfig, values if args.inspect else get_training_config(values)))

        choose_waiting()
        from custom_llm.data.cache import default_cache
        from custom_llm.data.choose import choose_corpus

        cache = Path(args.cache_dir) if args.cache_dir else default_cache()
        corpus = processes.rank_0_first(lambda: choose_corpus(
            config.dataset_path, cache, encoding=config.encoding, field=config.text_field,
            max_chars=config.most_characters, stream=args.stream,
            fallback=lambda: args.fallback or _agrees(config.dataset_path),
        ))  # fmt: skip
        if (args.inspect or "dataset_path" not in values) and config.tokenizer == "char" and corpus.size >= LONG_TEXT:
            tip = f"--tokenizer bpe --vocab_size {BYTE_PAIRS} learns more of so long a text in the same time"
            say(f"tip: {tip}{docs('data')}")
        if args.inspect:
            return processes.rank_0_first(lambda: _inspect(config, corpus, args.config_path, cache))
        return _train(parser, args, config, corpus, cache, resumed, processes)


def _agrees(name: str) -> bool:
    """Whether a person at a terminal wants to train without the dataset they named."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{name} cannot be had here and now. Train on the bundled stories instead? (yes or no) ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _inspect(config: TrainConfig, corpus: Corpus, config_path: str, cache: Path) -> int:
    """Print what there is to learn from a text, for the model that is configured."""
    from custom_llm.data.inspect import LOOKED_AT, inspect
    from custom_llm.model import GPTLanguageModel
    from custom_llm.model.files import load_config
    from custom_llm.training.run import encode_text

    model = load_config(config_path).model
    tokens = encode_text(config, corpus, model, cache)
    model = replace(model, vocab_size=tokens.tokenizer.vocab_size)  # as in training
    text = "".join(replace(corpus, max_chars=min(LOOKED_AT, corpus.max_chars or LOOKED_AT)).read())
    print(corpus.name)
    print("\n".join(inspect(text, tokens, GPTLanguageModel.outline(model).n_parameters(), model.block_size)))
    return 0


def _train(
    parser: StepParser, args: Namespace, config: TrainConfig, corpus: Corpus, cache: Path, resumed: Checkpoint | None,
    processes: Processes,
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
        finished = train_on_text(config, corpus, *files, args.device, resumed, keep_options, processes)
    return 0 if finished else EXIT_INTERRUPTED
