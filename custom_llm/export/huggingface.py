"""The Hugging Face directory: stock classes load it, no remote code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save as safetensors_bytes

from custom_llm.errors import UserError, describe_os_error
from custom_llm.export.gpt2 import hf_config, hf_tensors, read_config
from custom_llm.export.vocabulary import tokenizer_files
from custom_llm.files import write_bytes

if TYPE_CHECKING:
    from custom_llm.data.tokenizer import CharTokenizer
    from custom_llm.model import GPTLanguageModel


def write_hf_directory(model: GPTLanguageModel, tokenizer: CharTokenizer, output_dir: str | Path) -> None:
    """Write weights, configuration and tokenizer so that `AutoModelForCausalLM` and `AutoTokenizer` load them.

    An interrupted run leaves a directory without config.json, which nothing takes for a model.

    Raises:
        UserError: the model cannot be expressed as a stock class, or the directory cannot be written.
    """
    output_dir = Path(output_dir)
    tensors = hf_tensors(model.state_dict(), model.config)
    if (output_dir / "config.json").exists():
        read_config(output_dir)  # raises for somebody else's model
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / "config.json").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {describe_os_error(error)}") from None
    for name, content in tokenizer_files(tokenizer, model.config.block_size).items():
        write_bytes(output_dir / name, content.encode("utf-8"))
    write_bytes(output_dir / "model.safetensors", safetensors_bytes(tensors, metadata={"format": "pt"}))
    end = {"bos_token_id": tokenizer.end_of_text_id, "eos_token_id": tokenizer.end_of_text_id}
    write_bytes(output_dir / "generation_config.json", _json({**end, "do_sample": True}))
    write_bytes(output_dir / "config.json", _json(hf_config(model.config, tokenizer.end_of_text_id)))


def _json(values: dict) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
