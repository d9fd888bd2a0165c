"""How good the model is: on text that it has not seen, in every form it is kept in.

    python evaluate_llm.py                                     all models in this folder, on the held-out tenth
    python evaluate_llm.py --model model.gguf --text_path other.txt
    python evaluate_llm.py --quantization_report Q4_0,Q4_K_M,Q8_0,F16
    python evaluate_llm.py --samples 20                        repetitions, and copies of the training text
    python evaluate_llm.py --judge http://127.0.0.1:8000/v1    lets another model grade what this one writes
    python evaluate_llm.py --judge other.gguf

The tables go to stdout, and with --json and --markdown to files. docs/evaluation.md says what the figures mean.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custom_llm.cli.ask import build
from custom_llm.cli.parser import Repeatable, StepParser, add_flags, given, number, read_options
from custom_llm.common.errors import UserError
from custom_llm.common.files import beside, check_distinct, check_target, write_bytes
from custom_llm.common.machine import choose_waiting
from custom_llm.common.notes import note
from custom_llm.config.sampling import Sampling
from custom_llm.config.training import TrainConfig

if TYPE_CHECKING:
    from custom_llm.evaluation.held_out import HeldOutText
    from custom_llm.evaluation.models import Scorer
    from custom_llm.evaluation.tables import Table

OPTIONS = "trained_model.yaml"
JUDGED = 10  # texts, unless --samples says how many


def make_parser() -> StepParser:
    """The command line."""
    parser = StepParser(__doc__, "evaluate_llm", lists=["dataset_path", "quantization_report"])
    add = parser.add_argument
    add("--model", action=Repeatable, default=(), metavar="PATH",
        help="a .pth, a Hugging Face directory or a .gguf; repeatable (default: all in this folder)")  # fmt: skip
    add("--config_path", metavar="FILE", help="of a .pth (default: model_config.pth beside it)")
    add("--text_path", metavar="FILE", help="a text that the model has not seen, all of which is scored")
    add("--dataset_path", metavar="TEXT",
        help="the text it was trained on, as in training; its held-out end is scored (default: what the .yaml beside "
        "the model names)")  # fmt: skip
    add("--dataset", metavar="TEXT", dest="dataset_path", help="the same as --dataset_path")
    add("--encoding", metavar="NAME", help="encoding of files of text (default: utf-8)")
    add("--text_field", metavar="NAME", help="key or column of the text in .jsonl, .csv and .parquet (default: text)")
    add("--clean", metavar="none|markdown", help="what was left out of --dataset_path, as in training (default: none)")
    add("--cache_dir", metavar="FOLDER", help="where encoded texts are kept (default: ~/.cache/custom-llm-scripts)")
    add("--max_tokens", type=number(int, 1), default=100_000, metavar="N", help="tokens to score (default: 100000)")
    add("--threads", type=number(int, 1, 512), metavar="N", help="CPU threads (default: by the model's size)")
    add("--quantization_report", type=_quant_types, metavar="TYPES",
        help="what these types cost, such as Q4_0,Q8_0: size, quality and speed")  # fmt: skip
    add("--picture", metavar="FILE", default="quantization.png",
        help="its picture to write (default: quantization.png)")  # fmt: skip
    add("--samples", type=number(int, 0, 10_000), metavar="N", help="let the model write N texts, and look at them")
    add("--sample_tokens", type=number(int, 1), default=300, metavar="N", help="tokens of each (default: 300)")
    add("--prompt_tokens", type=number(int, 0), default=50, metavar="N",
        help="tokens of held-out text that each continues; 0: an empty page (default: 50)")  # fmt: skip
    add("--judge", metavar="URL|FILE", help="who grades the texts: an OpenAI-compatible address, or a .gguf")
    add("--judge_model", metavar="NAME", help="the judge's name at that address (default: the first one there)")
    add("--judge_key", metavar="KEY", help="for that address (default: OPENAI_API_KEY of the environment)")
    add("--judge_prompt", metavar="FILE", help="what the judge is told, with {beginning} and {continuation} in it")
    add("--judge_seconds", type=number(float, 0.1, 86_400), default=120.0, metavar="S",
        help="to wait for an answer (default: 120)")  # fmt: skip
    add("--json", metavar="FILE", help="write all figures as JSON")
    add("--markdown", metavar="FILE", help="write the tables as Markdown")
    add_flags(parser, Sampling, "sampling of --samples")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Print each table as it is ready, and write the files at the end."""
    args = make_parser().parse_args(argv)
    sampling = Sampling(**given(Sampling, args))
    _check_targets(args)
    choose_waiting()

    from custom_llm.evaluation import run
    from custom_llm.evaluation.judges import open_judge
    from custom_llm.evaluation.models import check_same_tokens, open_models
    from custom_llm.evaluation.samples import write_samples
    from custom_llm.evaluation.tables import as_json, as_markdown, as_text

    tables: list[Table] = []

    def show(table: Table) -> None:
        print(("\n" if tables else "") + as_text(table), end="", flush=True)
        tables.append(table)

    with ExitStack() as opened:
        ask = None
        if args.judge is not None:
            key = args.judge_key or os.environ.get("OPENAI_API_KEY")
            ask = open_judge(args.judge, args.judge_model, key, args.judge_seconds, args.threads, args.judge_prompt)
        models = open_models(args.model, args.config_path, args.threads, opened)
        text = _choose_text(args, models)
        ids = text.ids[: args.max_tokens + 1]
        check_same_tokens(models, ids)
        # What cannot be done is said before the first hour of work.
        trained = None if args.quantization_report is None else run.find_trained(models)
        writer = run.find_writer(models, sampling) if args.samples or ask is not None else None
        if writer is not None and len(text.ids) <= args.prompt_tokens:
            raise UserError(f"--prompt_tokens {args.prompt_tokens}: the text has {len(text.ids)} tokens; give fewer")
        show(run.score_models(models, ids, text.name))
        if trained is not None:
            show(run.report_quantization(trained, ids, args.quantization_report, args.picture, args.threads))
        if writer is not None:
            n = JUDGED if args.samples is None else args.samples
            samples = write_samples(writer, text.ids, n, args.prompt_tokens, args.sample_tokens, sampling)
            if args.samples:
                show(run.measure_samples(samples, text))
            if ask is not None:
                show(run.grade_samples(samples, args.judge, ask))
    values: dict[str, Any] = {"text": {"name": text.name, "unknown": text.unknown}}
    if args.json is not None:
        for table in tables:
            values |= table.values
        write_bytes(args.json, as_json(values).encode("utf-8", "replace"))
    if args.markdown is not None:
        page = as_markdown(f"Evaluation of {models[0].path}", tables)
        write_bytes(args.markdown, page.encode("utf-8", "replace"))


def _check_targets(args: argparse.Namespace) -> None:
    """Before the work begins: whether all that is going to be written can be."""
    targets = {"json": args.json, "markdown": args.markdown}
    if args.quantization_report is not None:
        targets["picture"] = args.picture
    targets = {flag: path for flag, path in targets.items() if path is not None}
    for flag in ("text_path", "dataset_path", "judge", "judge_prompt"):  # what is read must not be written over
        if getattr(args, flag) is not None:
            check_distinct(**{flag: getattr(args, flag)}, **targets)
    check_distinct(**targets)
    for path in targets.values():
        if Path(check_target(path)).suffix in (".pth", ".gguf"):
            raise UserError(f"{path} is the name of a model; give another name to write")
    if "picture" in targets and Path(args.picture).suffix.lower() != ".png":
        raise UserError(f"--picture {args.picture} is written as PNG; give a name that ends in .png")
    if args.samples == 0 and args.judge is not None:
        raise UserError("--judge has nothing to grade with --samples 0; leave one of them out")


def _quant_types(text: str) -> list[str]:
    from custom_llm.export.gguf.quantize import parse_quant_types

    try:
        return parse_quant_types(text)
    except UserError as error:
        raise UserError(str(error).replace("--quant_type", "--quantization_report", 1)) from None


def _choose_text(args: argparse.Namespace, models: Sequence[Scorer]) -> HeldOutText:
    """What is scored, in the tokens of the models, and where the training text is needed, how to read that."""
    from custom_llm.data.cache import default_cache
    from custom_llm.data.sources import open_corpus
    from custom_llm.evaluation.held_out import training_held_out, whole_text
    from custom_llm.inference.text import left_out

    # Of weights the tokens of a long text are in a file, and need not be in memory.
    model = next((model for model in models if model.tokenizer is not None), models[0])
    cache = Path(args.cache_dir) if args.cache_dir else default_cache()
    if args.text_path is None:
        text = training_held_out(model, _training(args, models), cache)
    else:
        corpus = open_corpus(args.text_path, args.encoding or "utf-8", args.text_field)
        text = whole_text(model, corpus, args.max_tokens)
        if args.samples and (args.dataset_path is not None or _options_file(models) is not None):
            try:
                text = replace(text, training=training_held_out(model, _training(args, models), cache).training)
            except UserError as error:
                note(f"copies of the training text are not looked for: {error}")
    if message := left_out(text.unknown):
        note(message)
    return text


def _training(args: argparse.Namespace, models: Sequence[Scorer]) -> TrainConfig:
    """What was trained on, as the flags say it, or the options that training left beside a model."""
    if args.dataset_path is not None:
        names = ("dataset_path", "encoding", "text_field", "clean")
        return build(TrainConfig, {name: getattr(args, name) for name in names if getattr(args, name) is not None})
    options = _options_file(models)
    if options is None:
        hint = "give it with --dataset_path, or another text with --text_path"
        raise UserError(f"there is no {OPTIONS} that names the text of the training; {hint}")
    parser = StepParser("", "train_llm", lists=["dataset_path"])
    parser.add_argument("--dataset", dest="dataset_path")
    add_flags(parser, TrainConfig, "training")
    training = build(TrainConfig, read_options(str(options), parser, is_part=True))
    beside_it = options.parent / Path(training.dataset_path).name
    if not Path(training.dataset_path).exists() and beside_it.is_file():  # it was named from another folder
        training = replace(training, dataset_path=str(beside_it))
    note(f"{options} says that {training.dataset_path} is what it was trained on")
    return training


def _options_file(models: Sequence[Scorer]) -> Path | None:
    """What training left beside one of the models."""
    paths = [Path(model.path) for model in models]
    found = (beside(path, ".yaml") if path.suffix == ".pth" else path.parent / OPTIONS for path in paths)
    return next((path for path in found if path.is_file()), None)
