"""Step 1: what the model looks like.

    python llm_model.py                          asks six questions
    python llm_model.py --n_embd 128 --n_layer 4 asks only the rest

Writes model_config.pth. Enter takes the default.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from custom_llm.cli import ArgumentParser
from custom_llm.config import ModelConfig
from custom_llm.errors import run
from custom_llm.exports import lazy
from custom_llm.files import Kind, check_target
from custom_llm.wizard import add_flags, ask, given

if TYPE_CHECKING:
    from custom_llm.model import GPTLanguageModel, MultiHeadSelfAttention, TransformerBlock

__all__ = ["GPTLanguageModel", "MultiHeadSelfAttention", "TransformerBlock", "get_user_config"]

__getattr__ = lazy(
    __name__,
    GPTLanguageModel="custom_llm.model",
    MultiHeadSelfAttention="custom_llm.model",
    TransformerBlock="custom_llm.model",
)


def get_user_config(values: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask for the architecture, except for what `values` already says; a dict with all options."""
    return ask("Configure your LLM model:", ModelConfig, values or {}).to_dict()


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--config_path", metavar="FILE", default="model_config.pth", help="file to write (default: model_config.pth)"
    )
    add_flags(parser, ModelConfig, "architecture")
    args = parser.parse_args(argv)
    check_target(args.config_path, Kind.PTH)
    config = ModelConfig.from_dict(get_user_config(given(ModelConfig, args)))

    from custom_llm.model import GPTLanguageModel
    from custom_llm.model.checkpoint import SavedConfig, save_config

    n_parameters = GPTLanguageModel.outline(config).n_parameters()
    save_config(args.config_path, SavedConfig(config))
    print(f"Model initialized with {n_parameters / 1e6:.2f}M parameters")


if __name__ == "__main__":
    sys.exit(run(main))
