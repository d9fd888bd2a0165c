"""One training from a text file to `trained_model.pth`: prepare, build, run, finish."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import psutil
import torch

from custom_llm.common.errors import UserError
from custom_llm.common.files import Kind, beside, check_distinct, check_target
from custom_llm.common.notes import note, say, warn
from custom_llm.common.steps import command, flags_of, step
from custom_llm.common.terminal import Terminal
from custom_llm.common.text import counted
from custom_llm.config.model import ModelConfig
from custom_llm.config.presets import BYTE_PAIRS
from custom_llm.config.training import BASE, BASE_WINDOW, TrainConfig
from custom_llm.data.cache import default_cache
from custom_llm.data.dataset import GENERAL_TEXT, HELD_OUT, HELD_OUT_TOKENS, TextDataset, WindowLoader
from custom_llm.data.sources import Corpus
from custom_llm.data.token_file import Tokens, open_tokens
from custom_llm.model import GPTLanguageModel
from custom_llm.model.costs import training_bytes
from custom_llm.model.earlier import EarlierModel
from custom_llm.model.files import SavedConfig, load_base, load_config, load_model, save_config
from custom_llm.model.lora import adapter_of, add_lora, freeze, merge
from custom_llm.tokenizer.base import Tokenizer
from custom_llm.tokenizer.bpe import SMALLEST_VOCABULARY
from custom_llm.tokenizer.load import find_recipe, load_tokenizer, recipe_of
from custom_llm.training.autotune import use_fastest_settings
from custom_llm.training.checkpoint import Checkpoint, checkpoint_path
from custom_llm.training.display import beginning_of, write_sample
from custom_llm.training.distributed.parallel import is_divided
from custom_llm.training.distributed.processes import Processes, local_rank
from custom_llm.training.idle import too_much_for, without_effect
from custom_llm.training.loop import Interrupted, Trainer, held_out_loss
from custom_llm.training.match import describe_match, enough_epochs
from custom_llm.training.provenance import provenance, public_name
from custom_llm.training.resume import Saver
from custom_llm.training.speed import autocast
from custom_llm.training.step import Diverged
from custom_llm.training.tracking.history import About, History, describe
from custom_llm.training.tracking.record import SAMPLE_SHARE, Paced, Record
from custom_llm.training.tracking.verdict import explain, with_gain

TEXT_TOKENS = 200  # length of the text shown at the end
UNTRAINED_TOKENS, UNTRAINED_WORK = 60, 300_000_000  # at most, of what it writes before; tokens times parameters
BASE_WORK = 4_000_000_000  # the same of a base, whose text says something
BASE_HELD_OUT = 1 << 13  # tokens that a report reads at most where training starts from a base, which is a large model
_WHAT = {"char": "the characters of the text and its end", "bpe": "as many byte pairs as there are in the text"}


@dataclass(frozen=True)
class _Job:
    """A training that can be built: its options fit together, and its text is encoded."""

    config: TrainConfig
    corpus: Corpus
    config_path: str
    model_path: str
    cache: Path
    processes: Processes
    device: torch.device
    record: Record
    tokens: Tokens
    train: TextDataset
    held_out: torch.Tensor
    architecture: ModelConfig
    saved: SavedConfig  # as it was found

    @property
    def command(self) -> str:
        """What trains this model again."""
        said = {"config_path": self.config_path, "model_path": self.model_path, "cache_dir": self.cache}
        usual = {"config_path": "model_config.pth", "model_path": "trained_model.pth", "cache_dir": default_cache()}
        return command("train_llm", *flags_of(said, usual))

    @cached_property
    def beginning(self) -> list[int]:
        """The tokens behind which the model is to begin a text."""
        return beginning_of(self.tokens.ids, self.tokens.tokenizer)

    def saved_config(self, trainer: Trainer, text: str = "") -> SavedConfig:
        """The content of `model_config.pth` with the training as far as it has come; `text` is the model's."""
        training = provenance(trainer, public_name(self.corpus.name), self.tokens, text)
        tokenizer = self.tokens.tokenizer.to_dict()
        return SavedConfig(self.architecture, tokenizer, self.tokens.sample, training, base=self.saved.base)


def train_on_text(
    config: TrainConfig, corpus: Corpus, config_path: str, model_path: str, cache: Path, device: str | None,
    resumed: Checkpoint | None, on_start: Callable[[TrainConfig], object], processes: Processes,
    adapt_epochs: bool = False,
) -> int:  # fmt: skip
    """Train the model of `config_path` on a text and show a text of it.

    `config_path` is completed with the vocabulary of the text, together with the first weights written. The number of
    the signal that stopped the training, whose weights so far are saved; 0: none did. UserError where the text, a file
    or an option does not fit, or the memory does not suffice.

    Args:
        cache: the folder for the encoded text.
        device: cpu, cuda or mps; None: the fastest there is.
        resumed: the training to resume; None: a new one.
        on_start: called before the first step with the options that repeat the training, here and now chosen ones too;
            in rank 0 only, which writes all files.
        processes: those that train together; each of them calls this.
        adapt_epochs: nobody has decided on the epochs, so that a short text is read more often.
    """
    keeps = processes.rank == 0 and resumed is None
    earlier = EarlierModel(model_path, config_path) if keeps else None
    job = _prepare(config, corpus, config_path, model_path, cache, device, processes)
    if adapt_epochs:
        job = _with_enough_epochs(job)
    if resumed is None and job.saved.base is None:
        n_parameters = GPTLanguageModel.outline(job.architecture).n_parameters()
        say(describe_match(n_parameters, len(job.train.data), config.dataset_path, config.minutes))
    trainer, saver = _build(job)
    with processes.raising_together():
        if earlier is not None:
            earlier.set_aside()
    with Terminal(beside(model_path, ".log")) as terminal:
        about = _begin(job, trainer, saver, resumed, on_start)
        try:
            trainer.run(lambda: terminal.is_lost)
            saver.settle(trainer)
        except Interrupted as stopped:
            saver.settle(trainer)
            job.record.finish("stopped")
            say(f"stopped; the best of what the model has learnt so far is in {model_path}")
            say(f"to go on: {job.command} --resume")
            return stopped.number
        except Diverged as error:
            flag = f"--learning_rate {config.learning_rate / 10:g}"
            can_resume = saver.fall_back(trainer)
            job.record.finish("failed")
            if not can_resume:
                raise UserError(f"{error}: {job.command} {flag}") from None
            raise UserError(f"{error}: {job.command} --resume {flag} goes on from the best model so far") from None
        except (UserError, KeyboardInterrupt) as error:
            job.record.finish("failed" if isinstance(error, UserError) else "stopped")
            if processes.size == 1 and (resumed is not None or trainer.clock.checkpoint_seconds):
                say(f"to go on from the last checkpoint: {job.command} --resume")
            raise
        for line in _conclusions(job, trainer, about):
            say(line)
        if processes.rank == 0:
            _finish(job, trainer, saver, about)
    return 0


def _prepare(
    config: TrainConfig, corpus: Corpus, config_path: str, model_path: str, cache: Path, device: str | None,
    processes: Processes,
) -> _Job:  # fmt: skip
    """Look whether all fits together, and encode the text. See `train_on_text`."""
    for path in corpus.files:
        check_distinct(dataset_path=str(path), config_path=config_path, model_path=model_path)
    for path in (config_path, model_path):
        check_target(path, Kind.PTH)
    check_distinct(config_path=config_path, model_path=checkpoint_path(model_path))
    check_target(checkpoint_path(model_path), Kind.PTH)
    record = Record(model_path, config.tracker)
    record.check(corpus.files)

    saved = load_config(config_path)
    architecture = saved.model
    config = _fit_to_base(config, saved)
    tokens = processes.rank_0_first(lambda: encode_text(config, corpus, saved, cache))
    if len(set(processes.gather(tokens.key))) > 1:
        raise UserError(f"{corpus.name} is not the same text on all machines; copy it from one to the others")
    train = TextDataset.of_tokens(tokens, config.window or architecture.block_size)
    held_out = train.split_off(HELD_OUT, HELD_OUT_TOKENS)
    if len(train) < 1:
        n = len(train.data)
        smaller = f"give --window {n - 1}" if config.window else f"configure --block_size {n - 1}"
        way_out = f"give more text or {smaller} or less" if n > 1 else "give more text"
        name = "window" if config.window else "block_size"
        raise UserError(
            f"{corpus.name} is too short: {n} tokens are left to train on (a tenth is held out) and {name} "
            f"{train.block_size} needs {train.block_size + 1}; {way_out}"
        )
    try:
        config.accumulation(train.block_size, processes.size)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    vocab_size = tokens.tokenizer.vocab_size
    if saved.base is not None:
        vocab_size = architecture.vocab_size  # of some it is larger than that of the tokenizer
    elif vocab_size != architecture.vocab_size:
        what = _WHAT.get(tokens.tokenizer.kind, f"that of {config.tokenizer}")
        say(f"vocab_size becomes {vocab_size}, {what}")
    return _Job(
        config, corpus, config_path, model_path, cache, processes, pick_device(device, processes), record, tokens,
        train, held_out, replace(architecture, vocab_size=vocab_size), saved,
    )  # fmt: skip


def _fit_to_base(config: TrainConfig, saved: SavedConfig) -> TrainConfig:
    """The same with a window; UserError where it does not fit to the base that there is, or to there being none."""
    n_layer, block_size = saved.model.n_layer, saved.model.block_size
    if config.window is not None and config.window > block_size:
        raise UserError(f"--window {config.window}: this model reads {block_size} tokens at once; give that or less")
    if saved.base is None:
        for name in ("lora", "train_layers"):
            if getattr(config, name):
                start = command("llm_model", "--from", "WHAT")
                raise UserError(f"--{name} {getattr(config, name)} needs a model to start from; {start} gives one")
        return config
    if config.train_layers and config.train_layers > n_layer:
        raise UserError(f"--train_layers {config.train_layers}: this model has {n_layer}; give that or less")
    return replace(config, window=config.window or min(block_size, BASE_WINDOW))


def _with_enough_epochs(job: _Job) -> _Job:
    """The same, with as many epochs as the text needs."""
    config = job.config
    windows = max(1, (len(job.train.data) - 1) // (config.stride or job.train.block_size))
    windows_per_step = config.batch_size * config.accumulation(job.train.block_size, job.processes.size)
    steps = math.ceil(windows / windows_per_step)
    epochs = enough_epochs(steps)
    if epochs > config.max_epochs:
        say(
            f"max_epochs becomes {epochs}, since {config.max_epochs} of so short a text are "
            f"{counted(config.max_epochs * steps, 'step')} only; it ends earlier where nothing more is learnt"
        )
    return replace(job, config=replace(config, max_epochs=epochs))


def _build(job: _Job) -> tuple[Trainer, Saver]:
    """The model with its first weights and all that trains it, if the memory holds that."""
    config, processes, tokenizer = job.config, job.processes, job.tokens.tokenizer
    _check_memory(job)
    torch.manual_seed(config.seed)
    model = GPTLanguageModel(job.architecture)
    base = None if job.saved.base is None else load_base(job.config_path, job.saved)
    checksum = None
    if base is not None:
        model.load_state_dict(base)
        checksum = _checksum(base) if config.is_partial else None
        del base
    if config.sample_tokens and processes.rank == 0:
        work = UNTRAINED_WORK if job.saved.base is None else BASE_WORK
        n = min(UNTRAINED_TOKENS, config.sample_tokens, work // model.n_parameters())
        job.record.untrained = write_sample(model, tokenizer, n, config.seed) if n else None
    if config.lora:
        alpha = config.lora_scale * config.lora
        add_lora(model, config.lora, alpha, config.lora_dropout, config.lora_targets, config.train_layers)
    elif config.train_layers:
        freeze(model, config.train_layers)
    loader = WindowLoader(job.train, config.batch_size, config.stride, config.seed, processes.rank, processes.size)
    if config.threads is not None:
        torch.set_num_threads(min(config.threads, os.cpu_count() or 1))
    if processes.rank:
        torch.manual_seed(config.seed + processes.rank)  # weights began the same; what is dropped must not be

    held_out = job.held_out if job.saved.base is None else job.held_out[:BASE_HELD_OUT]
    general = None if job.saved.base is None else general_text(tokenizer)
    beginning = job.beginning
    sample = Paced(lambda: write_sample(model, tokenizer, config.sample_tokens, config.seed, beginning), SAMPLE_SHARE)
    # Only one process writes, which it cannot with a part of the model.
    writes = config.sample_tokens and processes.rank == 0 and (processes.size == 1 or config.strategy == "ddp")
    described = job.architecture.to_dict() | ({} if checksum is None else {"base weights": checksum})
    training = Checkpoint(asdict(config), described, job.tokens.key)
    saver = Saver(
        training, job.config_path, job.model_path, processes, job.record, job.saved_config, job.command,
        _completing(job) if config.is_partial else dict,
        (lambda trained: adapter_of(trained, config.lora, config.lora_scale * config.lora)) if config.lora else None,
    )  # fmt: skip
    history = History(bytes_per_token(held_out, tokenizer), job.record.add if processes.rank == 0 else None)

    def loss_on(data: torch.Tensor) -> Callable[[GPTLanguageModel], float]:
        return lambda model: held_out_loss(model, data, processes, config.window)

    trainer = Trainer(
        model, loader, config, job.device, loss_on(held_out), general=None if general is None else loss_on(general),
        n_held_out=len(held_out), on_lowest=saver.save_best, save=saver.save_checkpoint, history=history,
        write_sample=sample if writes else None, processes=processes,
    )  # fmt: skip
    return trainer, saver


def _check_memory(job: _Job) -> None:
    """Raise UserError where the memory does not suffice; of a base, say what its training takes."""
    config, model, base = job.config, job.architecture, job.saved.base

    def needed(lora: int | None, batch_size: int = config.batch_size) -> int:
        return training_bytes(model, job.train.block_size, batch_size, lora, config.train_layers, config.ema > 0)

    n_parameters, needs = GPTLanguageModel.outline(model).n_parameters(), needed(config.lora)
    available = psutil.virtual_memory().available
    if base is not None:
        other = "all weights" if config.lora else "--lora 16"
        say(
            f"Memory: this training takes about {_in_gigabytes(needs)}, one of {other} "
            f"{_in_gigabytes(needed(None if config.lora else 16))}; {_in_gigabytes(available)} are free."
        )
    if needs <= available:
        return
    smallest = max(1, config.batch_size // 4)
    ways_out = [f"give --batch_size {smallest}"] if needed(config.lora, smallest) <= available else []
    if base is not None and not config.lora and needed(16) <= available:
        ways_out.append("give --lora 16")
    if not ways_out and base is not None:
        ways_out = [f"start from a smaller model: {command('llm_model', '--from', 'WHAT')}"]
    elif not ways_out:
        ways_out = [f"configure a smaller --n_embd or --n_layer with {step('llm_model')}"]
    raise UserError(
        f"training {n_parameters / 1e6:,.0f}M parameters needs about {_in_gigabytes(needs)} of memory and "
        f"{_in_gigabytes(available)} are free; {' or '.join(ways_out)}"
    )


def _completing(job: _Job) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """What makes all weights of those that training has changed; the others are those in the file of the base."""
    return lambda trained: merge(load_base(job.config_path, job.saved), trained, job.config.lora_scale)


def _in_gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _checksum(weights: dict[str, torch.Tensor]) -> int:
    """A number that other weights hardly have."""
    return functools.reduce(
        lambda sum, weight: zlib.crc32(weight.contiguous().view(torch.uint8).numpy(), sum), weights.values(), 0
    )


def bytes_per_token(ids: torch.Tensor, tokenizer: Tokenizer) -> float:
    """Bytes of UTF-8 that a token stands for, on average; the end of a text counts as one."""
    text = tokenizer.decode(ids.tolist()).replace(tokenizer.end_of_text, "\n")
    return len(text.encode(errors="replace")) / len(ids)


def general_text(tokenizer: Tokenizer) -> torch.Tensor:
    """The ids of a text of many kinds that comes with the program, int64 (n,), to see what a training makes forget."""
    text = tokenizer.end_of_text + GENERAL_TEXT.read_text(encoding="utf-8")
    return torch.from_numpy(tokenizer.encode(text).astype("int64"))


def _begin(
    job: _Job, trainer: Trainer, saver: Saver, resumed: Checkpoint | None, on_start: Callable[[TrainConfig], object]
) -> About:
    """Resume, or choose what is fastest here; say what is trained, and begin the record of it."""
    config, processes, model = job.config, job.processes, trainer.model
    if resumed is not None:
        saver.resume(resumed, trainer)
    by = f" in {processes.size} processes ({config.strategy})" if processes.size > 1 else ""
    n_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    some = f", {n_trained / 1e6:.2f}M of which are trained" if config.is_partial else ""
    print(f"Training on {job.device.type}{by} with {model.n_parameters() / 1e6:.2f}M parameters{some}", flush=True)
    for line in [
        *without_effect(config, processes.size),
        *_more_than_there_is(job, trainer, trainer.clock.total_steps),
    ]:
        warn(line)
    if resumed is None:
        batch = [i % len(job.train) for i in range(config.batch_size)]
        use_fastest_settings(trainer.step, job.train.__getitems__(batch))
    trainer.step.keep_frozen()
    if resumed is None and job.saved.base is not None:
        trainer.try_base()
    config = replace(config, threads=torch.get_num_threads(), precision=trainer.step.precision)
    if config.tokenizer == "bpe" and config.vocab_size is None:  # the model's, which it now has from the text
        config = replace(config, vocab_size=model.config.vocab_size)
    if processes.rank == 0:
        on_start(config)
    about = describe(
        job.model_path, job.config_path, job.corpus.name, job.tokens, model, config, job.device, processes.size,
        job.command, job.saved.base,
    )  # fmt: skip
    with processes.raising_together():
        if processes.rank == 0:
            job.record.start(about, trainer.history, trainer.clock)
    guessing = math.log(about.vocab_size)
    say(f"Loss: how far off the model is with what comes next. Knowing nothing it is {guessing:.4f}; lower is better.")
    say("Held-out: its loss on a part of the text that it never learns from, which is what counts.")
    say("Bits per byte: the same for each byte of text, by which it compares with other models.")
    if trainer.before is not None:
        bits = trainer.history.bits_per_byte(trainer.before["held_out"])
        say(f"Before: {bits:.3f} bits per byte, which {job.saved.base.name} has on the held-out text without training.")
    if job.record.page.is_file():
        say(f"how it goes, to be opened in a browser: {job.record.page}")
    return about


def _more_than_there_is(job: _Job, trainer: Trainer, n_steps: int | None) -> Iterator[str]:
    """Options that are too large for a training of so many steps; none where that is not known yet."""
    if n_steps is not None:
        config, block_size = job.config, job.train.block_size
        per_step = config.accumulation(block_size, job.processes.size) * config.batch_size * block_size
        windows = -(-len(job.train) // (config.stride or block_size))
        yield from too_much_for(config, n_steps, len(job.train.data), per_step, windows)


def _conclusions(job: _Job, trainer: Trainer, about: About) -> Iterator[str]:
    """What there is to say of a training at its end."""
    points = trainer.history.points
    if not trainer.clock.done:
        yield (
            f"--patience {trainer.config.patience} ended it: so many reports in a row had no lower held-out loss; "
            f"{job.command} --resume --patience 0 goes on"
        )
    if trainer.clock.total_steps is None:  # only now are they known
        yield from (f"warning: {line}" for line in _more_than_there_is(job, trainer, trainer.clock.steps))
    yield from explain(points, about)


def _finish(job: _Job, trainer: Trainer, saver: Saver, about: About) -> None:
    """Let the trained model write a text, and add that to what is kept of the training.

    Where it started from a base, say what was gained by the training, and what was lost.
    """
    # Of a model that was divided, the whole need not fit on a GPU.
    device = torch.device("cpu") if is_divided(trainer.model.head.weight) else job.device
    model = load_model(job.model_path, job.config_path)[0].to(device)
    if trainer.before is not None:
        general = general_text(job.tokens.tokenizer)
        with autocast(device, trainer.step.precision):
            after = {
                "held_out": trainer.best.loss, "general": held_out_loss(model, general, window=job.config.window)
            }  # fmt: skip
        of_general = bytes_per_token(general, job.tokens.tokenizer)
        about = with_gain(about, job.saved.base, trainer.before, after, trainer.history.bits_per_byte, of_general)
        for line in about.gain:
            say(line)
    print("Generated text:")
    text = ""
    with contextlib.suppress(KeyboardInterrupt):  # of a large model it takes long, and there is nothing left to lose
        text = write_sample(model, job.tokens.tokenizer, TEXT_TOKENS, job.config.seed, job.beginning)
    print(text, flush=True)
    try:
        save_config(job.config_path, saver.describe(trainer, text))
    except UserError as error:  # the model is there
        note(f"{job.config_path} does not tell all of the training: {error}")
    page = job.record.finish("finished", text, about)
    if page is not None:
        say(f"how it went: {page}")


def encode_text(config: TrainConfig, corpus: Corpus, saved: SavedConfig, cache: Path) -> Tokens:
    """The text as the tokens that are configured, encoded now unless it was before. UserError as by `open_tokens`."""
    if saved.base is not None:
        return open_tokens(corpus, recipe_of(load_tokenizer(saved.tokenizer)), cache, config.max_tokens)
    if config.tokenizer == BASE:
        raise UserError(f"--tokenizer {BASE}: this model starts from no other one; take char or bpe")
    model = saved.model
    told = model.vocab_size if model.vocab_size >= SMALLEST_VOCABULARY else None  # it may be that of some characters
    recipe = find_recipe(config.tokenizer, config.vocab_size or told or BYTE_PAIRS)
    for each in recipe.notes:
        note(each)
    return open_tokens(corpus, recipe, cache, config.max_tokens)


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
