"""A model in any of the forms it is kept in, opened to say how likely it finds each token of a text.

.pth        PyTorch's weights, computed in batches
a folder    the Hugging Face directory, computed by transformers with its own tokenizer, no remote code
.gguf       llama.cpp, set up as it is where text is written and served
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from custom_llm.common.errors import UserError, is_out_of_memory
from custom_llm.common.files import Kind
from custom_llm.common.logits import log_softmax, windows_per_batch
from custom_llm.common.notes import note
from custom_llm.common.seal import check_seal
from custom_llm.common.steps import QUICKSTART, command
from custom_llm.evaluation.metrics.quality import LogProbs
from custom_llm.inference.engine import MAX_WINDOW, Engine
from custom_llm.inference.open import WEIGHTS
from custom_llm.llamacpp import MISSING, is_adapter, is_available

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

    from custom_llm.tokenizer.base import Tokenizer


DIRECTORY = "hf_model"  # looked for in the folder, beside WEIGHTS and every .gguf
PART = 64  # rows of logarithms that are handed on at a time


class NotEvaluated(UserError):
    """A form of a model that cannot be evaluated, while others of it can."""


@dataclass(frozen=True)
class Scorer:
    """A model that scores texts."""

    path: str  # as it was named
    form: str  # what computes, for a person
    window: int  # tokens that it reads at once
    n_vocab: int  # tokens that it knows
    end_of_text: int  # the id of that token; -1 where there is none
    begin_of_text: int  # of that which the model expects before each text; -1 where there is none
    encode: Callable[[str], list[int]]  # what is not in the vocabulary is left out
    spell: Callable[[Sequence[int]], bytes]  # what ids stand for in UTF-8
    logprobs: LogProbs  # PART rows at a time
    engine: Engine | None = None  # what writes with it; None for a Hugging Face directory
    tokenizer: Tokenizer | None = None  # the project's own, of PyTorch's weights

    def text_of(self, ids: Sequence[int]) -> str:
        """What ids stand for."""
        return self.spell(ids).decode("utf-8", "replace")

    def n_bytes(self, ids: Sequence[int]) -> int:
        """Bytes of ids in UTF-8; the end of a text counts as one, as in training, and its beginning as none."""
        ends = {self.end_of_text: 1, self.begin_of_text: 0}
        too_many = sum((len(self.spell([i])) - n) * list(ids).count(i) for i, n in ends.items() if i >= 0)
        return len(self.spell(ids)) - too_many

    @property
    def separator(self) -> str:
        """What stands between two documents in a text."""
        return self.text_of([i for i in (self.end_of_text, self.begin_of_text) if i >= 0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Free what holds memory outside of Python."""
        if self.engine is not None:
            self.engine.close()


def open_models(paths: Sequence[str], config_path: str | None, threads: int | None, opened: ExitStack) -> list[Scorer]:
    """The models that are named; without a name, those in this folder that can be evaluated here.

    Raises UserError when one that is named cannot be opened, or there is none.
    """
    models = []
    for path in paths or _models_here():
        try:
            models.append(opened.enter_context(open_scorer(path, config_path, threads)))
        except NotEvaluated as error:
            if paths:
                raise
            note(str(error))
    if not models:
        raise UserError("none of the models in this folder can be evaluated; name another with --model")
    return models


def _models_here() -> list[str]:
    """All in this folder; where there are none, those in the folder of quickstart."""
    for folder in (Path(), Path(QUICKSTART)):
        marks = {folder / WEIGHTS: folder / WEIGHTS, folder / DIRECTORY: folder / DIRECTORY / "config.json"}
        found = [path for path, mark in marks.items() if mark.is_file()]
        ggufs = sorted(path for path in folder.glob("*.gguf") if path.is_file() and not path.name.startswith("."))
        ggufs = [path for path in ggufs if not is_adapter(path)]
        if ggufs and not is_available():
            note(f"{', '.join(map(str, ggufs))}: {MISSING}, so .gguf files are left out")
            ggufs = []
        if found + ggufs:
            note(f"models: {', '.join(map(str, found + ggufs))}")
            return [str(path) for path in found + ggufs]
    raise UserError(
        f"there is no {WEIGHTS}, no {DIRECTORY}/ and no .gguf in this folder or in {QUICKSTART}/; name one with --model"
    )


def open_scorer(path: str, config_path: str | None = None, threads: int | None = None) -> Scorer:
    """The model in a file or a folder. Raises UserError when there is none, it is damaged, or of another project.

    config_path: of a .pth (default: model_config.pth beside it). threads: of the CPU (default: by the model's size).
    """
    if not path:
        raise UserError("--model is empty; give a .pth, a Hugging Face directory or a .gguf")
    try:
        place = Path(path)
        if place.is_dir():
            return _open_directory(path)
        if place.is_file():
            with place.open("rb") as file:
                is_pth = file.read(4).startswith(Kind.PTH.value)
        else:
            is_pth = place.suffix == ".pth"  # whose own words about what is wrong are better
    except ValueError:
        raise UserError(f"--model {path!r} is not the name of a file") from None
    return _open_weights(path, config_path, threads) if is_pth else open_gguf(path, threads)


def open_gguf(path: str | Path, threads: int | None = None) -> Scorer:
    """A GGUF file. Raises UserError, also where llama.cpp is not installed."""
    if not is_available():
        in_pytorch = command("evaluate_llm", "--model", WEIGHTS)
        raise UserError(f"{path}: {MISSING}; {in_pytorch} needs none of it")
    if Path(path).is_file():
        check_seal(Path(path))
    engine = Engine(path, n_threads=threads)
    model = engine.model

    def logprobs(windows: Iterable[Sequence[int]]) -> Iterator[np.ndarray]:
        for window in windows:
            rows = engine.logits(window)
            # Each row is a view that lives until the next one is computed.
            while part := [row.copy() for row in islice(rows, PART)]:
                yield log_softmax(np.stack(part))

    about = str(path), f"llama.cpp, {model.quantization}", engine.window, model.n_vocab, model.eos, model.begin_of_text
    return Scorer(*about, model.tokenize, model.spell, _begun(logprobs, model.begin_of_text), engine)


def check_same_tokens(models: Sequence[Scorer], ids: Sequence[int]) -> None:
    """Raise UserError when not all models read the text as the same tokens.

    The text of the ids is read anew, also by the first model: a text that begins in the middle of a word has other
    tokens there than the whole.
    """
    first = models[0]
    text = first.text_of(ids)
    expected = first.encode(text)
    for model in models[1:]:
        alone = f"evaluate {model.path} by itself; bits per byte compare all the same"
        if model.n_vocab != first.n_vocab:
            sizes = f"{model.n_vocab:,} tokens and that of {first.path} {first.n_vocab:,}"
            raise UserError(f"the vocabulary of {model.path} has {sizes}; {alone}")
        if list(model.encode(text)) != expected or model.text_of(ids) != text:
            raise UserError(f"{model.path} reads the text as other tokens than {first.path}; {alone}")


def _open_weights(path: str, config_path: str | None, threads: int | None) -> Scorer:
    from custom_llm.inference.torch_engine import TorchEngine
    from custom_llm.model.files import load_config

    config_path = config_path or str(Path(path).with_name("model_config.pth"))
    if load_config(config_path).tokenizer is None:
        raise NotEvaluated(
            f"{config_path} holds no vocabulary (its model is untrained, or the tutorial's); make a GGUF file with "
            f"{command('convert_to_gguf')} --dataset_path, and evaluate that, with --model"
        )
    engine = TorchEngine(path, config_path, n_threads=threads)
    network, tokenizer, model = engine.torch_model, engine.tokenizer, engine.model
    return Scorer(
        path, "PyTorch", engine.window, model.n_vocab, model.eos, model.begin_of_text,
        lambda text: tokenizer.encode(text).tolist(), model.spell,
        _begun(_in_batches(lambda idx: network(idx)[0], model.n_vocab), model.begin_of_text), engine, tokenizer,
    )  # fmt: skip


def _open_directory(path: str) -> Scorer:
    from custom_llm.export.graph.check import check_structure
    from custom_llm.export.graph.graph import Structure
    from custom_llm.export.huggingface.directory import AGAIN, OURS, check_sums, read_config
    from custom_llm.export.vocabulary import read_carried, read_vocabulary

    config = read_config(path)
    check_sums(path)
    if config["architectures"][0] == OURS:
        raise NotEvaluated(f"{path}: no Hugging Face class computes this model; leave it out")
    carried, vocabulary = read_carried(path), read_vocabulary(path)
    import transformers

    from custom_llm.tokenizer.bpe import unspell
    from custom_llm.tokenizer.gguf_keys import NORMAL

    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    only_here = {"trust_remote_code": False, "local_files_only": True}
    try:
        structure = Structure.from_dict(config["custom_llm"])
        check_structure(structure)
        settings = transformers.AutoConfig.from_pretrained(path, **only_here)
        if settings.num_hidden_layers != len(structure.layers):  # transformers would first make all of them
            raise ValueError(f"{settings.num_hidden_layers} layers, and {len(structure.layers)} in its custom_llm")
        network = transformers.AutoModelForCausalLM.from_pretrained(
            path, config=settings, dtype="float32", **only_here
        ).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **only_here)
    except Exception as error:  # transformers raises what its parts raise
        if isinstance(error, (MemoryError, RuntimeError)) and is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise UserError(f"{path}: transformers cannot load it ({reason}); {AGAIN}") from None
    spelled = [
        unspell(token) if kind == NORMAL and not carried else token.encode()
        for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)
    ]
    begin = -1 if carried is None or carried.begin_of_text_id is None else carried.begin_of_text_id
    end = -1 if config["eos_token_id"] is None else config["eos_token_id"]
    if structure.vocab_size != len(spelled) or end not in range(-1, len(spelled)):
        raise UserError(f"{path}: config.json and tokenizer.json do not belong together; {AGAIN}")
    return Scorer(
        path, f"Hugging Face, {config['architectures'][0]}", min(structure.block_size, MAX_WINDOW), len(spelled), end,
        begin, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
        carried.spell if carried else lambda ids: b"".join(spelled[i] for i in ids),
        _begun(_in_batches(lambda idx: network(idx, use_cache=False).logits, len(spelled)), begin),
    )  # fmt: skip


def _begun(logprobs: LogProbs, begin: int) -> LogProbs:
    """`logprobs` of windows that begin with the token `begin` (where there is one, not -1) in place of their first."""
    if begin < 0:
        return logprobs
    return lambda windows: logprobs([begin, *window[1:]] for window in windows)


def _in_batches(forward: Callable[[torch.Tensor], torch.Tensor], n_vocab: int) -> LogProbs:
    """`logprobs` of what maps ids (B, T) to logits (B, T, n_vocab): windows of a length share a batch."""
    import torch

    def logprobs(windows: Iterable[Sequence[int]]) -> Iterator[np.ndarray]:
        for length, alike in groupby(windows, len):
            while batch := [list(window) for window in islice(alike, windows_per_batch(length, n_vocab))]:
                with torch.inference_mode():
                    all_logits = forward(torch.tensor(batch)).float().numpy()
                for logits in all_logits:
                    yield from (log_softmax(logits[start : start + PART]) for start in range(0, length, PART))

    return logprobs
