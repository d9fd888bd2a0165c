"""A trained model in several types of GGUF, each held against PyTorch on held-out text, and a picture of that."""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from custom_llm.common.errors import UserError
from custom_llm.common.progress import Progress
from custom_llm.common.signals import unwinding
from custom_llm.config.sampling import Sampling
from custom_llm.evaluation.metrics.quantization import SPEED_RUNS, TOLERANCE, Candidate, compare, median_speeds
from custom_llm.evaluation.models import Scorer, open_gguf
from custom_llm.export.gguf.quantize import fallback_note
from custom_llm.export.huggingface.directory import write_hf_directory
from custom_llm.export.pipeline import convert_to_gguf
from custom_llm.export.plan import plan_export
from custom_llm.inference.torch_engine import TorchEngine

WRITTEN = 200  # tokens in a run that measures speed
BYTES_PER_VALUE = 4  # at most, in each of the files


def compare_types(
    scorer: Scorer, quant_types: Sequence[str], ids: Sequence[int], threads: int | None = None
) -> list[Candidate]:
    """F32 and each of `quant_types` as files in a temporary folder, compared with the trained model on a text.

    Raises UserError when the model does not export, or there is no room for the files.
    """
    engine: TorchEngine = scorer.engine
    plan = plan_export(engine.torch_model.config)
    if not plan.exports:
        raise UserError(f"--quantization_report: {scorer.path} does not export: {plan.refusal}")
    names = [name for name in quant_types if name != "F32"]
    needed = (2 + len(names)) * BYTES_PER_VALUE * engine.torch_model.n_parameters()
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if needed > free:
        raise UserError(
            f"--quantization_report: {tempfile.gettempdir()} has {free / 1e6:,.0f} MB free and up to "
            f"{needed / 1e6:,.0f} MB are needed; name a larger folder in TMPDIR"
        )
    with unwinding(), tempfile.TemporaryDirectory(prefix="custom-llm-") as folder, ExitStack() as opened:
        with Progress("writing files", delay=1):
            base = Path(folder, "model.gguf")
            write_hf_directory(engine.torch_model, engine.tokenizer, Path(folder, "hf_model"))
            written = convert_to_gguf(f"{folder}/hf_model", str(base), ",".join(names) or "F32", llama_cpp_path=None)
            files = {"F32": base, **dict(zip(names, map(Path, written), strict=False))}
        models = [opened.enter_context(open_gguf(path, threads)) for path in files.values()]
        n_bytes, size = scorer.n_bytes(ids[1:]), min(scorer.window, *(model.window for model in models))
        fidelities = []
        with Progress("comparing") as progress:
            for place, (name, model) in enumerate(zip(files, models, strict=True)):

                def show(done: int, place: int = place, name: str = name) -> None:
                    progress.update((place + done / (len(ids) - 1)) / len(models), name)

                fidelities.append(compare(name, scorer.logprobs, model.logprobs, ids, size, n_bytes, show))
        with Progress("writing texts") as progress:
            writers = [partial(_speed, model, ids[:1]) for model in models]
            n_runs = len(models) * SPEED_RUNS
            speeds = median_speeds(writers, lambda n: progress.update(n / n_runs, "runs"))
        return [
            Candidate(name, path.stat().st_size, fidelity, speed, fallback_note(name, path, plan.shapes) or "")
            for (name, path), fidelity, speed in zip(files.items(), fidelities, speeds, strict=True)
        ]


def _speed(model: Scorer, first: Sequence[int]) -> float:
    """Write a text; tokens per second."""
    text = model.engine.stream(first, WRITTEN, Sampling(temp=0), ignore_eos=True)
    for _ in text:
        pass
    return text.statistics.tokens_per_second


INK, FAINT, POINT, BEST, WITHIN = "#1f2933", "#7b8794", "#2b6cb0", "#c2410c", "#e6f0fa"
INCHES, DOTS_PER_INCH = (8.0, 4.5), 120


def draw(candidates: Sequence[Candidate], best: Candidate) -> bytes:
    """A PNG of all candidates, F32 first, and which of them is recommended. Raises UserError without matplotlib."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # silent about folders that it cannot write
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("--picture needs matplotlib; pip install matplotlib") from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever a person's matplotlibrc says
        figure = Figure(figsize=INCHES, layout="constrained")
        axes = figure.add_subplot()
        sizes = [item.n_bytes / 1e6 for item in candidates]
        bits = [item.bits_per_byte for item in candidates]
        axes.axhspan(min(bits), (1 + TOLERANCE) * bits[0], color=WITHIN, label=f"within {TOLERANCE:.0%} of F32")
        for item, x, y in zip(candidates, sizes, bits, strict=True):
            color = BEST if item is best else POINT
            axes.plot([x], [y], "o", color=color, label="recommended" if item is best else None)
            axes.annotate(item.quant_type, (x, y), (6, 6), textcoords="offset points", color=INK, fontsize=9)
        axes.set_xlabel("size of the file (MB)", color=INK)
        axes.set_ylabel("bits per byte of held-out text (lower is better)", color=INK)
        axes.set_xlim(0, 1.1 * max(sizes))
        axes.margins(y=0.15)
        axes.tick_params(colors=FAINT)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e7eb")
        axes.set_axisbelow(True)
        axes.legend(loc="upper right", frameon=False, fontsize=9)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=DOTS_PER_INCH)
    return png.getvalue()
