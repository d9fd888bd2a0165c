"""A model by its name on the Hugging Face hub: what is needed of it, downloaded into the hub's own cache.

Safetensors, the tokenizer's files and texts only: no pickles, which may hold code, and no programs.
"""

from __future__ import annotations

from pathlib import Path

from custom_llm.base.folder import ADAPTER, CARD, CONFIG, INDEX, WEIGHTS, read_config, resave, shard_names
from custom_llm.base.size import check_fits
from custom_llm.common.hub import HubError, bytes_of, download

TEXTS = (
    CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja", CARD, INDEX, ADAPTER,
)  # fmt: skip
BYTES_OF_NUMBER = 2  # in nearly all weights on the hub: float16 or bfloat16


def download_model(name: str) -> Path:
    """The folder of a model on the hub. Raises ValueError where there is none, or it cannot be had."""
    try:
        folder = download(name, TEXTS)
        if folder is None:
            raise ValueError("this model on the hub has no config.json; give one that is for transformers")
        read_config(folder, name)  # or raises
        weights = shard_names(folder / INDEX) if (folder / INDEX).is_file() else [WEIGHTS]
        check_fits(bytes_of(name, weights) // BYTES_OF_NUMBER, "downloading and reading it")
        if download(name, weights) is None:
            raise ValueError(
                f"this model on the hub has no {WEIGHTS}, and other forms of weights may hold code of a stranger; if "
                f"you trust it, make that of it: {resave(name)}"
            )
    except HubError as error:
        way_out = error.way_out or "give a folder that holds the model, or a .gguf"
        raise ValueError(f"{error.reason}; {way_out}") from None
    return folder
