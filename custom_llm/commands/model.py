"""Step 1: what the model looks like.

    python llm_model.py                          asks six questions
    python llm_model.py --n_embd 128 --n_layer 4 asks only the rest
    python llm_model.py --preset auto            asks for your text and your minutes, and chooses sizes for them
    python llm_model.py --from WHAT              a model that knows a language already, to learn your text as well
    python llm_model.py --preset modern          rotations, RMSNorm, SwiGLU (others: classic, moe, mla)
    python llm_model.py --advanced               asks for everything that has a meaning

Writes model_config.pth and prints what the model will cost. Enter takes the default. WHAT is a Hugging Face folder, a
name on its hub, a .gguf, or a trained_model.pth; its weights are written beside, as model_config.base.pth.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custom_llm.cli.ask import ask, is_interactive
from custom_llm.cli.parser import Once, StepParser, add_flags, given
from custom_llm.cli.run_file import write_beside
from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import Kind, check_target, locked
from custom_llm.common.machine import choose_waiting
from custom_llm.common.steps import command, flags_of, next_step
from custom_llm.common.text import as_flag
from custom_llm.config.layers import read_jsonl
from custom_llm.config.model import PER_LAYER, ModelConfig, check_choices, meaningful
from custom_llm.config.presets import PRESETS, Purpose, choose_sizes, complete

if TYPE_CHECKING:  # it imports torch
    from custom_llm.data.sources import Corpus
    from custom_llm.model.files import SavedConfig

CONFIG = "model_config.pth"
AUTO = "auto"  # the preset whose sizes are chosen for a text and a time
BEGINNING = 1000  # characters of a text, of which a story's first words are taken
OF_A_BASE = ("block_size", "dropout")  # what a person may say of the architecture of another model


def get_user_config(
    values: dict[str, Any] | None = None, preset: str = "classic", advanced: bool = False
) -> dict[str, Any]:
    """Ask for the architecture, except for what `values` already says; a dict with all options.

    preset: a name of `PRESETS`, for what `values` does not say. advanced: ask for every option that has a meaning, and
    not for six only.
    """
    fill = partial(complete, preset=preset, suggest=advanced)
    more = meaningful if advanced else None
    return ask("Configure your LLM model:", ModelConfig, values or {}, fill, more)[0].to_dict()


def make_parser() -> StepParser:
    """The command line."""
    parser = StepParser(__doc__, "llm_model")
    add = parser.add_argument
    add("--config_path", metavar="FILE", default=CONFIG, help=f"file to write (default: {CONFIG})")
    add("--from", metavar="WHAT", action=Once,
        help="start from another model: a Hugging Face folder, a name on its hub, a .gguf or a .pth")  # fmt: skip
    add("--base_config", metavar="FILE", help="the configuration of a .pth to start from (default: the one beside it)")
    add("--preset", type=_preset, metavar="|".join([*PRESETS, AUTO]),
        help="a known architecture, or auto: classic in sizes for a text and a time (default: classic)")  # fmt: skip
    add("--advanced", action="store_true", help="ask for every option that has a meaning")
    add("--verbose", action="store_true", help="say what the model costs in the terms of the field")
    add("--require_export", action="store_true", help="refuse a model that could be trained but not exported")
    add("--layer_configs_jsonl", metavar="FILE", help="the blocks one by one: a file with a JSON object a line")
    add("--cache_dir", metavar="FOLDER", help="where encoded texts are kept (default: ~/.cache/custom-llm-scripts)")
    add_flags(parser, ModelConfig, "architecture")
    add_flags(parser, Purpose, "what sizes are chosen for, whatever the preset is")
    return parser


def _preset(name: str) -> str:
    if name not in (*PRESETS, AUTO):
        raise UserError(f"--preset {name}: no such preset; there are {', '.join([*PRESETS, AUTO])}")
    return name


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    check_target(args.config_path, Kind.PTH)
    purpose = given(Purpose, args)
    if getattr(args, "from") is not None:
        _start_from(getattr(args, "from"), parser, args, purpose)
        return
    if args.base_config is not None:
        raise UserError("--base_config is about the model of --from; give both or neither")
    is_auto = args.preset == AUTO or bool(purpose)
    args.preset = "classic" if args.preset in (None, AUTO) else args.preset
    values, training = _given(args), {}
    if is_auto:
        from custom_llm.data.choose import check_text

        chosen = ask("Choose sizes for your text:", Purpose, purpose, checks={"dataset_path": check_text})[0]
        sizes, training, _ = sizes_for(chosen, args.cache_dir)
        values = {**sizes, **values}
    elif is_interactive() and not values:
        print(f"({command('llm_model', '--preset', AUTO)} chooses sizes for your text and your minutes;")
        print(f" {command('llm_model', '--from', 'WHAT')} starts from a model that knows a language already)")
    config = ModelConfig.from_dict(get_user_config(values, args.preset, args.advanced))

    from custom_llm.model.files import SavedConfig, save_config

    _write(parser, args, config, lambda: save_config(args.config_path, SavedConfig(config)), training)


def _start_from(what: str, parser: StepParser, args: Namespace, purpose: dict[str, Any]) -> None:
    """Step 1 with --from: the architecture, the weights and the tokenizer are those of another model."""
    values = given(ModelConfig, args)
    others = {name: value for name, value in values.items() if name not in OF_A_BASE} | purpose
    others |= {name: getattr(args, name) for name in ("preset", "layer_configs_jsonl") if getattr(args, name)}
    flags = [as_flag(name, value) for name, value in others.items()] + ["--advanced"] * args.advanced
    if flags:
        raise UserError(
            f"{flags[0]} beside --from, whose model is what it is; leave it out (of its architecture only --block_size "
            "and --dropout can be chosen)"
        )
    from custom_llm.base.open import open_base, shortened
    from custom_llm.base.words import describe
    from custom_llm.model.files import SavedConfig, save_base

    base = shortened(open_base(what, args.base_config), values.get("block_size"))
    config = replace(base.config, dropout=values.get("dropout", base.config.dropout))
    saved = SavedConfig(config, base.tokenizer.to_dict(), base=base.origin)
    print("\n".join(describe(base)))
    _write(parser, args, config, lambda: save_base(args.config_path, saved, base.weights), {}, saved)


def _write(
    parser: StepParser, args: Namespace, config: ModelConfig, save: Callable[[], None], training: dict[str, Any],
    saved: SavedConfig | None = None,
) -> None:  # fmt: skip
    """Write the files of a model by `save`, what it will cost and become to the terminal, and name the next command.

    training: options of it that are decided already. saved: what is written, where it starts from another model.
    """
    from custom_llm.export.plan import context_advice, figures, plan_export, summary
    from custom_llm.model.costs import costs_of
    from custom_llm.model.earlier import keep_trained

    costs, export = costs_of(config), plan_export(config)
    if args.require_export and not export.exports:
        raise UserError(f"--require_export: it {export.sentence}")
    with locked(args.config_path, "wait for it, or give another --config_path"):
        keep_trained(args.config_path, saved.base if saved else None)
        save()
    if saved is None:  # the options that give this model without a question
        said_by_layers = PER_LAYER if config.layer_configs is not None else ()
        resolved = {**config.to_dict(), **dict.fromkeys(said_by_layers), "advanced": False, "layer_configs_jsonl": None}
    else:
        resolved = dict.fromkeys(config.to_dict()) | {name: getattr(config, name) for name in OF_A_BASE}
    resolved |= {item.name: None for item in fields(Purpose)}
    write_beside(args.config_path, parser, {**vars(args), **resolved})
    print(f"Model initialized with {costs.n_parameters / 1e6:.2f}M parameters")
    print("\n".join(figures(costs, export) if args.verbose else summary(costs, export, saved is not None)))
    if advice := context_advice(config) if export.exports else "":
        print(f"  context     {advice}")
    flags = flags_of({**training, "config_path": args.config_path}, {"config_path": CONFIG})
    if line := next_step("train_llm", *flags):
        print(line)


def sizes_for(purpose: Purpose, cache_dir: str | None = None) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Options of a model and of its training that suit a text and a time on this machine; and how the text begins.

    UserError where there is no such text. A dataset by name is downloaded.
    """
    choose_waiting()
    from custom_llm.data.token_file import open_tokens
    from custom_llm.tokenizer.load import find_recipe

    corpus, cache = _corpus(purpose, cache_dir)
    tokens = open_tokens(corpus, find_recipe("char", 0), cache)  # which step 2 finds again
    model, training = choose_sizes(tokens.n_characters, purpose.minutes, os.cpu_count() or 1)
    return {"vocab_size": tokens.tokenizer.vocab_size, **model}, {**_said(purpose), **training}, tokens.sample


def text_of(purpose: Purpose, cache_dir: str | None = None) -> tuple[dict[str, Any], str]:
    """As `sizes_for`, for a model that has its sizes: which text is learnt and for how long, and how it begins."""
    from custom_llm.tokenizer.cut import up_to

    corpus, _ = _corpus(purpose, cache_dir)
    return _said(purpose), "".join(up_to(BEGINNING, corpus.read()))


def _corpus(purpose: Purpose, cache_dir: str | None) -> tuple[Corpus, Path]:
    """The text, and the folder where what is made of it is kept."""
    from custom_llm.data.cache import default_cache
    from custom_llm.data.choose import choose_corpus

    cache = Path(cache_dir) if cache_dir else default_cache()
    how = dict(encoding=purpose.encoding, field=purpose.text_field, clean=purpose.clean)
    return choose_corpus(purpose.dataset_path, cache, **how), cache


def _said(purpose: Purpose) -> dict[str, Any]:
    """What is said to step 2 about text and time."""
    how_to_read = {name: getattr(purpose, name) for name in ("encoding", "text_field", "clean")}
    said = {name: value for name, value in how_to_read.items() if value != getattr(Purpose, name)}
    return {"dataset_path": purpose.dataset_path, "minutes": purpose.minutes, **said}


def _given(args: Namespace) -> dict[str, Any]:
    """The architecture as far as the flags say it. Raises UserError when they contradict each other."""
    values = given(ModelConfig, args)
    if args.layer_configs_jsonl is not None:
        if "layer_configs" in values:
            raise UserError("--layer_configs and --layer_configs_jsonl both describe the layers; give one of them")
        values["layer_configs"] = _read_layers(args.layer_configs_jsonl)
    for name, value in values.items():
        if "layer_configs" in values and name in PER_LAYER:
            raise UserError(
                f"{as_flag(name, value)} beside layer configs, which say it for each layer; give it in one place only"
            )
    try:
        check_choices(complete(values, args.preset, suggest=args.advanced))
    except ValueError as error:
        raise UserError(f"{error}") from None
    if "layer_configs" in values:  # then some things need not be asked
        n_layer = len(json.loads(values["layer_configs"]))
        if values.get("n_layer", n_layer) != n_layer:
            raise UserError(f"--n_layer {values['n_layer']}: the layer configs describe {n_layer} layers; leave it out")
        pos_emb = complete(values, args.preset).get("pos_emb", "learn")  # layers are written for one kind
        values |= {"n_layer": n_layer, "n_head": ModelConfig.n_head, "pos_emb": pos_emb}
    return values


def _read_layers(path: str) -> str:
    try:
        return read_jsonl(Path(path).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"--layer_configs_jsonl {path} is not UTF-8 text: {error.reason}") from None
    except OSError as error:
        raise UserError(f"--layer_configs_jsonl {describe_os_error(error)}; give a file of JSON objects") from None
    except ValueError as error:
        raise UserError(f"--layer_configs_jsonl {path}: {error}") from None
