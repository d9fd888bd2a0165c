"""Step 4: let a GGUF model continue a text.

    python inference_gguf.py --gguf_path model.gguf.Q8_0.gguf --query "To be or not" --max_tokens 200
    python inference_gguf.py                                  # the newest .gguf here; at a terminal, a prompt
    cat scene.txt | python inference_gguf.py --temp 0.6 --seed 1 > continued.txt
    python inference_gguf.py --query "ROMEO:" --stop "JULIET:" --use_gpu
    python inference_gguf.py --prompts prompts.jsonl --json > texts.jsonl
    python inference_gguf.py --gguf_path trained_model.pth    # the same in PyTorch, to compare
    python inference_gguf.py --gguf_path base.gguf --lora model.lora.gguf

The text, starting with the query, goes to stdout as it is written; speed, memory and warnings go to stderr
and to inference.log. Ctrl-C ends the text early. docs/inference.md tells more.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from custom_llm.cli.parser import Repeatable, StepParser, add_flags, given, number
from custom_llm.common.errors import EXIT_INTERRUPTED, UserError, describe_os_error
from custom_llm.common.machine import measure_from_here
from custom_llm.common.notes import is_terminal, log_to, note, warn
from custom_llm.common.text import as_read
from custom_llm.config.sampling import Sampling
from custom_llm.inference.open import add_model_flags, choose_model, open_engine
from custom_llm.inference.report import devices, summary, timings, together
from custom_llm.inference.settings import INTERRUPTED, Settings, stop_string
from custom_llm.inference.text import left_out
from custom_llm.inference.write import Text, cut_off, print_text

if TYPE_CHECKING:
    from custom_llm.inference.console import Console
    from custom_llm.inference.engine import Engine, Query

LOG_FILE = "inference.log"
HISTORY = "prompt_history"  # in the user's cache
LIKELIEST, MAX_LIKELIEST = 5, 100  # that --logprobs shows


def run_inference(
    gguf_path: str | os.PathLike[str], query: str, max_tokens: int = 100, use_gpu: bool = False, *,
    n_gpu_layers: int | None = None, threads: int | None = None, stop: Sequence[str] = (), ignore_eos: bool = False,
    lora: Sequence[str] = (), **sampling: float | None,
) -> str:  # fmt: skip
    """Return `query` followed by up to `max_tokens` tokens of the model's text.

    sampling: fields of `Sampling`. use_gpu puts all layers on the GPU, n_gpu_layers that many. lora: adapters, each
    FILE or FILE:SCALE. Raises UserError for a file or a setting that cannot be used.
    """
    settings = Sampling(**sampling)
    with open_engine(gguf_path, use_gpu, n_gpu_layers, threads, warn=_warn, lora=lora) as engine:
        _warn_of_unknown(query, engine.read(query))
        return as_read(query) + "".join(engine.generate(query, max_tokens, settings, stop, ignore_eos))


def main(argv: Sequence[str] | None = None) -> int:
    """Write texts to stdout as the flags say; return the exit status."""
    started = perf_counter()
    measure_from_here()
    parser = make_parser()
    args = parser.parse_args(argv)
    sampling = Sampling(**given(Sampling, args))
    log = log_to(LOG_FILE)
    log.info("start: %s", {**vars(args), **asdict(sampling)})
    try:
        return _start(args, sampling, parser, started)
    except UserError as error:
        log.error("%s", error)
        raise


def _start(args: argparse.Namespace, sampling: Sampling, parser: StepParser, started: float) -> int:
    """Check what can be checked before a model is loaded; then write one text, or many, or with a person."""
    # Whether a person can type and see; where stdout goes to a file, a text is wanted and no prompt.
    is_at_terminal = is_terminal(sys.stdin, sys.stdout)
    is_chat = args.query is None and args.prompts is None and not args.json and is_at_terminal
    if args.prompts is not None and args.query is not None:
        raise UserError("--query and --prompts are both given; give one of them")
    if args.save_config is not None:
        if is_chat or args.prompts is not None:
            raise UserError("--save_config is about one text, which it repeats; give --query")
        from custom_llm.cli.run_file import check_run_file

        check_run_file(args.save_config)
    if args.grammar_file is not None:
        if sampling.grammar is not None:
            raise UserError("--grammar and --grammar_file are both given; give one of them")
        sampling = replace(sampling, grammar=_read_grammar(args.grammar_file))
    settings = Settings(sampling, args.max_tokens, tuple(map(stop_string, args.stop)), args.ignore_eos, args.logprobs)
    if args.prompts is not None:
        from custom_llm.inference.batch import read_requests

        requests = read_requests(args.prompts, settings)
    gguf_path = choose_model(args.gguf_path)
    query = args.query
    if query is None and args.prompts is None and not is_chat:
        before = perf_counter()
        query = _query_from_stdin()
        started += perf_counter() - before  # to wait for what is piped in is not to load
    with open_engine(
        gguf_path, args.use_gpu, args.n_gpu_layers, args.threads, args.config_path, warn=_warn, lora=args.lora
    ) as engine:
        load_seconds = perf_counter() - started
        engine.check(settings.sampling, settings.ignore_eos)
        if is_chat:
            from custom_llm.inference.chat import Chat

            Chat(engine, settings, load_seconds, args.stats).run(_console())
            return 0
        if args.prompts is not None:
            from custom_llm.inference.batch import write_all

            texts = write_all(engine, requests, args.json)
        else:
            texts = [print_text(engine, query, settings, args.json, partial(_warn_of_unknown, query))]
        if not args.json and (message := cut_off(texts, args.max_tokens)):
            note(message)
        _report(engine, texts, load_seconds, args.stats)
        if args.save_config is not None:
            from custom_llm.cli.run_file import write_run_file

            used = {"gguf_path": str(gguf_path), "query": query, "seed": texts[0].seed, "threads": engine.n_threads}
            write_run_file(args.save_config, parser, {**vars(args), **used})
    return EXIT_INTERRUPTED if texts[-1].finish_reason == INTERRUPTED else 0


def _console() -> Console:
    """A prompt at the terminal."""
    from custom_llm.data.cache import default_cache
    from custom_llm.inference.console import Console

    try:
        return Console(default_cache() / HISTORY)
    except UserError:  # there is no home
        return Console(None)


def make_parser() -> StepParser:
    """The command line."""
    parser = StepParser(__doc__, "inference_gguf")
    add = parser.add_argument
    add("--gguf_path", metavar="FILE", help="the model (default: the newest .gguf in this folder); or a .pth")
    add("--config_path", metavar="FILE", help="of a .pth (default: model_config.pth beside it)")
    add("--query", metavar="TEXT",
        help="the text to continue (default: what is piped in; at a terminal what you type; else an empty page)",
    )  # fmt: skip
    add("--prompts", metavar="FILE", help="continue each line of FILE: JSON with a prompt and settings, or text")
    add("--max_tokens", type=number(int, 0), default=100, metavar="N", help="tokens to write (default: 100)")
    add("--stop", type=_text, action=Repeatable, default=(), metavar="TEXT",
        help=r"end before TEXT, in which \n is a new line, \t a tab, \\ a backslash; repeatable",
    )  # fmt: skip
    add("--ignore_eos", action="store_true", help="write on where the model would end its text")
    add("--json", action="store_true", help="write each text as a line of JSON")
    add("--stats", action="store_true", help="tell the times of loading, reading and writing")
    add("--logprobs", type=number(int, 0, MAX_LIKELIEST), nargs="?", const=LIKELIEST, metavar="N",
        help=f"tell the logarithm of each token's probability, and of the N likeliest (N alone: {LIKELIEST})",
    )  # fmt: skip
    add_model_flags(parser)
    add_flags(parser, Sampling, "sampling")
    add("--grammar_file", metavar="FILE", help="the grammar is in FILE")
    add("--save_config", metavar="FILE", help="write all options of this run, its seed too, as a file for --config")
    return parser


def _text(value: str) -> str:
    if not value:
        raise argparse.ArgumentTypeError("empty, it would stop at once; give the text to stop at")
    return value


def _query_from_stdin() -> str:
    """What is piped or redirected in, without the newline that `echo` adds; nothing from a terminal or a notebook.

    A pipe may be a socket: those of Node.js and of ssh are.
    """
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
            return ""
        data = sys.stdin.buffer.read()
    except (OSError, ValueError, AttributeError):  # it is no file, is closed, or there is none
        return ""
    return as_read(data, "replace").removesuffix("\n")


def _read_grammar(path: str) -> str:
    try:
        return as_read(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"--grammar_file {describe_os_error(error)}; give a file in llama.cpp's GBNF") from None
    except ValueError:  # a NUL in the name, or bytes that are no text
        raise UserError(f"--grammar_file {path!r} is not UTF-8 text; give a file in llama.cpp's GBNF") from None


def _warn_of_unknown(query: str, read: Query) -> None:
    if message := left_out(read.unknown):
        _warn(message)
    if query and not read.text:
        _warn("nothing of the query is left; starting from an empty page")


def _warn(message: str) -> None:
    warn(message)
    log_to(LOG_FILE).warning("%s", message)


def _report(engine: Engine, texts: Sequence[Text], load_seconds: float, show_timings: bool) -> None:
    """Figures of all texts together, to stderr and the log."""
    statistics = together([text.statistics for text in texts])
    lines = [summary(statistics, load_seconds), devices(engine)]
    log = log_to(LOG_FILE)
    for line in timings(statistics, load_seconds) if show_timings else lines:
        print(line, file=sys.stderr)
    for line in lines:
        log.info("%s", line)
    log.info("seed %s, %d tokens read, %s", texts[-1].seed, statistics.prompt_tokens, engine.model.path)
