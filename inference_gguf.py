"""Step 4: let a GGUF model continue a text.

    python inference_gguf.py --gguf_path model.gguf.Q8_0.gguf --query "To be or not" --max_tokens 200
    python inference_gguf.py                                  # the newest .gguf here, from an empty page
    cat scene.txt | python inference_gguf.py --temp 0.6 --seed 1 > continued.txt
    python inference_gguf.py --query "ROMEO:" --stop "JULIET:" --use_gpu

The text, starting with the query, goes to stdout as it is written; speed, memory and warnings go to stderr
and to inference.log. Ctrl-C ends the text early.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from custom_llm.cli import Repeatable, StepParser, log_to, number
from custom_llm.errors import EXIT_INTERRUPTED, UserError, run
from custom_llm.inference.resources import monitor_resources
from custom_llm.inference.sampling import Sampling
from custom_llm.wizard import add_flags, given

if TYPE_CHECKING:
    from custom_llm.inference.engine import Engine, Statistics

__all__ = ["main", "monitor_resources", "run_inference"]

LOG_FILE = "inference.log"
ALL_LAYERS = -1
MAX_UNKNOWN_SHOWN = 10


def run_inference(
    gguf_path: str | os.PathLike[str],
    query: str,
    max_tokens: int = 100,
    use_gpu: bool = False,
    *,
    n_gpu_layers: int | None = None,
    threads: int | None = None,
    stop: Sequence[str] = (),
    ignore_eos: bool = False,
    **sampling: float | None,
) -> str:
    """Return `query` followed by up to `max_tokens` tokens of the model's text.

    sampling: fields of `Sampling`. use_gpu puts all layers on the GPU,
    n_gpu_layers that many. Raises UserError for a file or a setting that cannot be used.
    """
    from custom_llm.inference.text import clean

    settings = Sampling(**sampling)
    with _open_engine(gguf_path, use_gpu, n_gpu_layers, threads) as engine:
        _warn_of_unknown(engine, query)
        return clean(query) + "".join(engine.generate(query, max_tokens, settings, stop, ignore_eos))


def main(argv: Sequence[str] | None = None) -> int:
    """Write the query and its continuation to stdout; return the exit status."""
    started = perf_counter()
    parser = make_parser()
    args = parser.parse_args(argv)
    sampling = Sampling(**given(Sampling, args))
    if args.save_config is not None:
        from custom_llm.run_file import check_run_file

        check_run_file(args.save_config)
    log = log_to(LOG_FILE)
    log.info("start: %s", {**vars(args), **asdict(sampling)})
    try:
        status = _generate(args, sampling, parser, started)
    except UserError as error:
        log.error("%s", error)
        raise
    return status


def _generate(args: argparse.Namespace, sampling: Sampling, parser: StepParser, started: float) -> int:
    """Stream the text, then one line of figures and one of resources to stderr."""
    gguf_path = args.gguf_path or _newest_gguf()
    query = _query_from_stdin() if args.query is None else args.query

    from custom_llm.inference.text import clean

    with _open_engine(gguf_path, args.use_gpu, args.n_gpu_layers, args.threads) as engine:
        _warn_of_unknown(engine, query)
        loaded = perf_counter()
        interrupted = False
        pieces = engine.generate(query, args.max_tokens, sampling, args.stop, args.ignore_eos)
        with closing(pieces):  # so that the statistics are final after Ctrl-C too
            try:
                print(clean(query), end="", flush=True)
                for piece in pieces:
                    print(piece, end="", flush=True)
            except KeyboardInterrupt:
                interrupted = True
        print(flush=True)
        _report(engine, engine.statistics, loaded - started)
        if args.save_config is not None:
            from custom_llm.run_file import write_run_file

            used = {"gguf_path": gguf_path, "query": query, "seed": engine.seed, "threads": engine.n_threads}
            write_run_file(args.save_config, parser, {**vars(args), **used})
    return EXIT_INTERRUPTED if interrupted else 0


def make_parser() -> StepParser:
    """The command line."""
    parser = StepParser(__doc__, "inference_gguf")
    add = parser.add_argument
    add("--gguf_path", metavar="FILE", help="the model (default: the newest .gguf in this folder)")
    add("--query", metavar="TEXT", help="the text to continue (default: what is piped in, else an empty page)")
    add("--max_tokens", type=number(int, 0), default=100, metavar="N", help="tokens to write (default: 100)")
    add(
        "--stop",
        type=_text,
        action=Repeatable,
        default=(),
        metavar="TEXT",
        help="end before TEXT; repeatable",
    )
    add("--ignore_eos", action="store_true", help="write on where the model would end its text")
    add("--use_gpu", action="store_true", help="compute all layers on the GPU")
    add("--n_gpu_layers", type=number(int, 0, 2**31 - 1), metavar="N", help="compute N layers on the GPU")
    add("--threads", type=number(int, 1, 512), metavar="N", help="CPU threads (default: by the model's size)")
    add_flags(parser, Sampling, "sampling")
    add("--save_config", metavar="FILE", help="write all options of this run, its seed too, as a file for --config")
    return parser


def _text(value: str) -> str:
    if not value:
        raise argparse.ArgumentTypeError("empty, it would stop at once; give the text to stop at")
    return value


def _newest_gguf() -> Path:
    """The .gguf in the current folder written last: after a conversion, the quantized one."""
    found = [path for path in Path().glob("*.gguf") if path.is_file() and not path.name.startswith(".")]
    if not found:
        raise UserError("no .gguf file in this folder; run convert_to_gguf.py first, or give --gguf_path")
    newest = max(found, key=lambda path: (path.stat().st_mtime_ns, path.name))
    print(f"using {newest}", file=sys.stderr)
    return newest


def _query_from_stdin() -> str:
    """What is piped or redirected in, without the newline that `echo` adds; nothing from a terminal."""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        return ""
    return sys.stdin.buffer.read().decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")


def _open_engine(
    gguf_path: str | os.PathLike[str], use_gpu: bool, n_gpu_layers: int | None, threads: int | None
) -> Engine:
    from custom_llm.inference.engine import Engine
    from custom_llm.llamacpp import gpu_available

    layers = n_gpu_layers if n_gpu_layers is not None else ALL_LAYERS if use_gpu else 0
    if layers and not gpu_available():
        _warn("this build of llama-cpp-python has no GPU support; computing on the CPU")
        layers = 0
    return Engine(gguf_path, layers, threads)


def _warn_of_unknown(engine: Engine, query: str) -> None:
    _, known, unknown = engine.read(query)
    if unknown:
        shown = ", ".join(map(repr, unknown[:MAX_UNKNOWN_SHOWN]))
        more = len(unknown) - MAX_UNKNOWN_SHOWN
        _warn(f"not in the model's vocabulary, left out: {shown}" + (f" and {more} more" if more > 0 else ""))
    if query and not known:
        _warn("nothing of the query is left; starting from an empty page")


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)
    log_to(LOG_FILE).warning("%s", message)


def _report(engine: Engine, statistics: Statistics, load_seconds: float) -> None:
    """For example `100 tokens, 8,123 tokens/s, first text after 0.05 s, peak memory 61 MB`."""
    count = statistics.generated_tokens
    figures = [f"{count} token{'' if count == 1 else 's'}"]
    if count:
        figures.append(f"{statistics.tokens_per_second:,.0f} tokens/s")
    if statistics.first_text_seconds is not None:
        figures.append(f"first text after {load_seconds + statistics.first_text_seconds:.2f} s")
    use = monitor_resources()
    figures.append(f"peak memory {use['memory_peak'] / 1e6:,.0f} MB")
    threads = f"{engine.n_threads} thread{'' if engine.n_threads == 1 else 's'}"
    devices = [f"CPU {use['process_cpu_percent']:.0f} % of one core ({threads})"]
    for gpu in use["gpus"]:
        devices.append(f"{gpu['name']} {gpu['load_percent']:.0f} %, {gpu['memory_used'] / 1e6:,.0f} MB")
    log = log_to(LOG_FILE)
    for line in (", ".join(figures), "; ".join(devices)):
        print(line, file=sys.stderr)
        log.info("%s", line)
    log.info("seed %s, %d tokens read, %s", engine.seed, statistics.prompt_tokens, engine.model.path)


if __name__ == "__main__":
    sys.exit(run(main))
