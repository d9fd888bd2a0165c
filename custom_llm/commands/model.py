"""Step 1: what the model looks like.

    python llm_model.py                          asks six questions
    python llm_model.py --n_embd 128 --n_layer 4 asks only the rest
    python llm_model.py --preset modern          rotations, RMSNorm, SwiGLU (others: classic, moe, mla)
    python llm_model.py --advanced               asks for everything that has a meaning

Writes model_config.pth and prints what the model will cost. Enter takes the default.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from custom_llm.cli.ask import ask
from custom_llm.cli.parser import StepParser, add_flags, given
from custom_llm.cli.run_file import write_beside
from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import Kind, check_target, locked
from custom_llm.common.text import as_flag
from custom_llm.config.layers import read_jsonl
from custom_llm.config.model import PER_LAYER, ModelConfig, check_choices, meaningful
from custom_llm.config.presets import PRESETS, complete


def get_user_config(
    values: dict[str, Any] | None = None, preset: str = "classic", advanced: bool = False
) -> dict[str, Any]:
    """Ask for the architecture, except for what `values` already says; a dict with all options.

    preset: a name of `PRESETS`, for what `values` does not say. advanced: ask for every option that has a meaning, and
    not for six only.
    """
    fill = partial(complete, preset=preset, suggest=advanced)
    more = meaningful if advanced else None
    return ask("Configure your LLM model:", ModelConfig, values or {}, fill, more).to_dict()


def make_parser() -> StepParser:
    """The command line."""
    parser = StepParser(__doc__, "llm_model")
    add = parser.add_argument
    add("--config_path", metavar="FILE", default="model_config.pth", help="file to write (default: model_config.pth)")
    add("--preset", type=_preset, metavar="|".join(PRESETS), default="classic",
        help="a known architecture (default: classic)")  # fmt: skip
    add("--advanced", action="store_true", help="ask for every option that has a meaning")
    add("--require_export", action="store_true", help="refuse a model that could be trained but not exported")
    add("--layer_configs_jsonl", metavar="FILE", help="the blocks one by one: a file with a JSON object a line")
    add_flags(parser, ModelConfig, "architecture")
    return parser


def _preset(name: str) -> str:
    if name not in PRESETS:
        raise UserError(f"--preset {name}: no such preset; there are {', '.join(PRESETS)}")
    return name


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    check_target(args.config_path, Kind.PTH)
    config = ModelConfig.from_dict(get_user_config(_given(args), args.preset, args.advanced))

    from custom_llm.export.plan import plan_export, summary
    from custom_llm.model.costs import costs_of
    from custom_llm.model.earlier import keep_trained
    from custom_llm.model.files import SavedConfig, save_config

    costs, export = costs_of(config), plan_export(config)
    if args.require_export and not export.exports:
        raise UserError(f"--require_export: it {export.sentence}")
    with locked(args.config_path, "wait for it, or give another --config_path"):
        keep_trained(args.config_path)
        save_config(args.config_path, SavedConfig(config))
    # The options that give this model without a question.
    said_by_layers = PER_LAYER if config.layer_configs is not None else ()
    resolved = {**config.to_dict(), **dict.fromkeys(said_by_layers), "advanced": False, "layer_configs_jsonl": None}
    write_beside(args.config_path, parser, {**vars(args), **resolved})
    print(f"Model initialized with {costs.n_parameters / 1e6:.2f}M parameters")
    print("\n".join(summary(costs, export)))


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
