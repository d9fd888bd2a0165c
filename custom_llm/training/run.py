"""One training from a text file to `trained_model.pth`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from custom_llm.common.errors import UserError
from custom_llm.common.files import Kind, check_distinct, check_target
from custom_llm.common.notes import note, say
from custom_llm.common.steps import command, step
from custom_llm.config.model import ModelConfig
from custom_llm.config.sizes import BYTE_PAIRS
from custom_llm.config.training import TrainConfig
from custom_llm.data.dataset import HELD_OUT, HELD_OUT_TOKENS, TextDataset, make_loader
from custom_llm.data.sources import Corpus
from custom_llm.data.token_file import Tokens, open_tokens
from custom_llm.model import GPTLanguageModel
from custom_llm.model.files import SavedConfig, load_config, load_model, save_config, save_trained
from custom_llm.tokenizer.bpe import SMALLEST_VOCABULARY
from custom_llm.tokenizer.load import find_recipe
from custom_llm.training.autotune import use_fastest_settings
from custom_llm.training.distributed.parallel import is_divided
from custom_llm.training.distributed.processes import ALONE, Processes
from custom_llm.training.distributed.torchrun import local_rank
from custom_llm.training.held_out import held_out_loss
from custom_llm.training.loop import Interrupted, Trainer
from custom_llm.training.report import provenance, public_name
from custom_llm.training.resume import Checkpoint, Work, checkpoint_path
from custom_llm.training.step import Batch, Diverged
from custom_llm.training.tracking.about import About, describe
from custom_llm.training.tracking.history import History
from custom_llm.training.tracking.record import SAMPLE_SHARE, Paced, Record
from custom_llm.training.tracking.sample import write_sample
from custom_llm.training.tracking.verdict import describe_overfitting, describe_underfitting

TEXT_TOKENS = 200  # length of the text shown at the end
_WHAT = {
    "char": "the characters of the text and its end",
    "bpe": "as many byte pairs as there are in the text",
}
BYTES_PER_PARAMETER = 20  # weight, best weight, gradient and up to two moments of the optimizer, in float32


def train_on_text(
    config: TrainConfig,
    corpus: Corpus,
    config_path: str,
    model_path: str,
    cache: Path,
    device: str | None = None,
    begun: Checkpoint | None = None,
    on_start: Callable[[TrainConfig], object] = lambda resolved: None,
    processes: Processes = ALONE,
) -> bool:
    """Train the model of `config_path` on a text and show a text of it.

    `config_path` is completed with the vocabulary of the text, together with the first weights written.

    Args:
        cache: the folder for the encoded text.
        device: cpu, cuda or mps (default: the fastest there is).
        begun: the training to go on with (default: a new one).
        on_start: called before the first step with the options that repeat the training, here and now chosen ones too;
            in rank 0 only, which writes all files.
        processes: those that train together; each of them calls this.

    Returns:
        False if the training was stopped from outside; the weights so far are saved.

    Raises:
        UserError: the text, a file or an option does not fit, or the memory does not suffice.
    """
    for path in corpus.files:
        check_distinct(dataset_path=str(path), config_path=config_path, model_path=model_path)
    for path in (config_path, model_path):
        check_target(path, Kind.PTH)
    check_distinct(config_path=config_path, model_path=checkpoint_path(model_path))
    check_target(checkpoint_path(model_path), Kind.PTH)
    record = Record(model_path, config.tracker)
    record.check(corpus.files)
    torch.manual_seed(config.seed)
    architecture = load_config(config_path).model
    tokens = processes.in_turns(lambda: encode_text(config, corpus, architecture, cache))
    if len(set(processes.gather(tokens.key))) > 1:
        raise UserError(f"{corpus.name} is not the same text on all machines; copy it from one to the others")
    tokenizer = tokens.tokenizer
    train = TextDataset.of_tokens(tokens, architecture.block_size)
    held_out = train.split_off(HELD_OUT, HELD_OUT_TOKENS)
    _check_windows(train, corpus.name)
    try:
        config.accumulation(architecture.block_size, processes.size)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    if tokenizer.vocab_size != architecture.vocab_size:
        say(f"vocab_size becomes {tokenizer.vocab_size}, {_WHAT.get(tokenizer.kind, f'that of {config.tokenizer}')}")
    architecture = replace(architecture, vocab_size=tokenizer.vocab_size)
    saved = SavedConfig(architecture, tokenizer.to_dict(), tokens.sample)
    target = pick_device(device, processes)
    model = _build(architecture)
    loader = make_loader(train, config.batch_size, config.stride, config.seed, processes.rank, processes.size)
    if config.threads is not None:
        torch.set_num_threads(min(config.threads, os.cpu_count() or 1))
    if processes.rank:
        torch.manual_seed(config.seed + processes.rank)  # weights began the same; what is dropped shall not be
    held_out_text = tokenizer.decode(held_out.tolist()).replace(tokenizer.end_of_text, "\n")  # counts as a byte
    bytes_per_token = len(held_out_text.encode(errors="replace")) / len(held_out)
    history = History(bytes_per_token, record.add if processes.rank == 0 else None)
    sample = Paced(lambda: write_sample(model, tokenizer, config.sample_tokens, config.seed), SAMPLE_SHARE)
    # Only one writes, which a model that is divided cannot.
    writes = config.sample_tokens and processes.rank == 0 and (processes.size == 1 or config.strategy == "ddp")
    work = Work(config, architecture, tokens.key, model_path, processes, record)
    source = public_name(corpus.name)

    def described(text: str = "") -> SavedConfig:
        """The configuration, with the training as far as it has come."""
        return replace(saved, training=provenance(trainer, source, tokens, bytes_per_token, config, text))

    work.write = lambda weights: save_trained(model_path, weights, config_path, described())
    again = _command(config_path, model_path)
    try:
        trainer = Trainer(
            model, loader, config, target, _validator(held_out, architecture, processes), lambda: work.keep(model),
            bytes_per_token, work.checkpoint, processes, history, sample if writes else None,
        )  # fmt: skip
        trainer.clock.n_held_out = len(held_out)
        if begun is not None:
            work.load(begun, trainer)
        else:
            use_fastest_settings(trainer.step, _batch_of(train, config.batch_size))
        chosen = dict(threads=torch.get_num_threads(), precision=trainer.step.precision)
        if config.tokenizer == "bpe" and config.vocab_size is None:  # the model's, which it now has from the text
            chosen["vocab_size"] = tokenizer.vocab_size
        config = replace(config, **chosen)
        if processes.rank == 0:
            on_start(config)
        by = f" in {processes.size} processes ({config.strategy})" if processes.size > 1 else ""
        print(f"Training on {target.type}{by} with {model.n_parameters() / 1e6:.2f}M parameters", flush=True)
        if trainer.step.precision != "float32":
            note(f"products are computed in {trainer.step.precision}; --precision float32 is more exact")
        about = describe(model_path, corpus.name, model, config, target, processes.size, again)
        with processes.together():
            if processes.rank == 0:
                record.start(about, history)
        trainer.run()
    except Interrupted:
        record.finish("stopped")
        say(f"stopped; the best of what the model has learnt so far is in {model_path}; {again} --resume goes on")
        return False
    except Diverged as error:
        flag = f"--learning_rate {config.learning_rate / 10:g}"
        goes_on = work.can_go_on(trainer)
        record.finish("failed")
        if not goes_on:
            raise UserError(f"{error}: {again} {flag}") from None
        raise UserError(f"{error}: {again} --resume {flag} goes on from the best model so far") from None
    except UserError:
        record.finish("failed")
        raise
    for line in _notes(trainer, about):
        say(line)
    if processes.rank:
        return True
    if is_divided(model.head.weight):
        target = torch.device("cpu")  # the whole model need not fit on a GPU
    print("Generated text:")
    text = write_sample(load_model(model_path, config_path)[0].to(target), tokenizer, TEXT_TOKENS, config.seed)
    print(text, flush=True)
    try:
        save_config(config_path, described(text))
    except UserError as error:  # the model is there
        note(f"{config_path} does not tell all of the training: {error}")
    page = record.finish("finished", text)
    if page is not None:
        say(f"how it went: {page}")
    return True


def _command(config_path: str, model_path: str) -> str:
    """The command that trains this model."""
    flags = [] if config_path == "model_config.pth" else ["--config_path", config_path]
    flags += [] if model_path == "trained_model.pth" else ["--model_path", model_path]
    return command("train_llm", *flags)


def _notes(trainer: Trainer, about: About) -> Iterator[str]:
    """What there is to say of a training at its end."""
    lowest, points = trainer.lowest, trainer.history.points
    if not trainer.clock.done:
        patience, command = trainer.config.patience, about.command
        yield (
            f"--patience {patience} ended it: so many reports in a row had no lower held-out loss; {command} --resume "
            "--patience 0 goes on"
        )
    verdict = describe_overfitting(points, about) or describe_underfitting(points, about)
    if verdict is not None:
        yield verdict
    elif lowest.since:
        yield (
            f"{about.model_path} is the model at its lowest held-out loss, {lowest.loss:.4f} at step {lowest.step:,} "
            f"in epoch {lowest.epoch}"
        )


def encode_text(config: TrainConfig, corpus: Corpus, model: ModelConfig, cache: Path) -> Tokens:
    """The text as the tokens that are configured, encoded now unless it was before.

    Raises:
        UserError: see `open_tokens`.
    """
    told = model.vocab_size if model.vocab_size >= SMALLEST_VOCABULARY else None  # it may be that of some characters
    recipe = find_recipe(config.tokenizer, config.vocab_size or told or BYTE_PAIRS)
    for each in recipe.notes:
        note(each)
    return open_tokens(corpus, recipe, cache, config.max_tokens)


def _check_windows(train: TextDataset, path: str) -> None:
    """Raise UserError when there is too little text for one window."""
    if len(train) < 1:
        n = len(train.data)
        way_out = f"give more text or configure --block_size {n - 1} or less" if n > 1 else "give more text"
        raise UserError(
            f"{path} is too short: {n} tokens are left to train on (a tenth is held out) and block_size "
            f"{train.block_size} needs {train.block_size + 1}; {way_out}"
        )


def _batch_of(data: TextDataset, n_windows: int) -> Batch:
    """Windows of a text, (n_windows, block_size) each."""
    return data.__getitems__([i % len(data) for i in range(n_windows)])


def _validator(held_out: torch.Tensor, config: ModelConfig, processes: Processes) -> Callable[[torch.nn.Module], float]:
    return lambda model: held_out_loss(model, held_out, config.block_size, config.vocab_size, processes)


def _build(config: ModelConfig) -> GPTLanguageModel:
    """The model with fresh weights, if the memory holds its training."""
    n_parameters = GPTLanguageModel.outline(config).n_parameters()
    needed = n_parameters * BYTES_PER_PARAMETER
    available = psutil.virtual_memory().available
    if needed > available:
        raise UserError(
            f"training {n_parameters / 1e6:,.0f}M parameters needs about {needed / 1e9:,.0f} GB of memory and "
            f"{available / 1e9:,.0f} GB are free; configure a smaller --n_embd or --n_layer with {step('llm_model')}"
        )
    return GPTLanguageModel(config)


def pick_device(name: str | None, processes: Processes) -> torch.device:
    """The named device, or the fastest there is. Each of several processes has a GPU of its own."""
    there = ["cpu"]
    there += ["cuda"] if torch.cuda.is_available() else []
    there += ["mps"] if torch.backends.mps.is_available() and processes.size == 1 else []
    if name is not None and name not in there:
        raise UserError(f"--device {name}: this machine has {', '.join(there)}")
    device = torch.device(name or there[-1])
    if device.type == "cuda" and processes.size > 1:
        n = torch.cuda.device_count()
        if local_rank() >= n:
            raise UserError(f"--device cuda: this machine has {n} GPUs; start torchrun with --nproc-per-node {n}")
        torch.cuda.set_device(local_rank())
    return device
