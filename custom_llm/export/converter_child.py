"""Runs llama.cpp's converter with our vocabulary step, in a process of its own.

    python -m custom_llm.export.converter_child CHECKOUT HF_DIR OUTFILE NAME

The converter knows a BPE vocabulary only by a hash over the ids of a test text, and refuses every vocabulary that was
trained at home ("BPE pre-tokenizer was not recognized"). Everything else of it is used as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any


def main(checkout: str, hf_dir: str, outfile: str, name: str) -> None:
    sys.path.insert(0, checkout)
    import convert_hf_to_gguf as converter  # first, since it brings its own `gguf`  # isort: split

    from custom_llm.export.gguf_file import add_block_size, add_vocabulary
    from custom_llm.export.gpt2 import HF_CLASS, padded_context, read_config, rewrite
    from custom_llm.export.vocabulary import read_vocabulary

    config = read_config(hf_dir)
    model_class = _find_class(converter, HF_CLASS)
    original_parameters, original_tensors = model_class.set_gguf_parameters, model_class.modify_tensors

    def set_gguf_parameters(self: Any) -> None:
        self.hparams["n_ctx"] = padded_context(config)
        original_parameters(self)
        add_block_size(self.gguf_writer, config)

    def modify_tensors(self: Any, tensor: Any, tensor_name: str, layer: int | None) -> Iterator[tuple[str, Any]]:
        yield from original_tensors(self, rewrite(tensor_name, tensor, config), tensor_name, layer)

    def set_vocab(self: Any) -> None:
        add_vocabulary(self.gguf_writer, read_vocabulary(hf_dir))

    model_class.set_gguf_parameters = set_gguf_parameters
    model_class.modify_tensors = modify_tensors
    model_class.set_vocab = set_vocab
    sys.argv = ["convert_hf_to_gguf.py", hf_dir, "--outfile", outfile, "--outtype", "f32", "--model-name", name]
    converter.main()


def _find_class(converter: Any, architecture: str) -> Any:
    """The converter's class for a Hugging Face architecture, in recent checkouts and in older ones."""
    if hasattr(converter, "get_model_class"):
        return converter.get_model_class(architecture)
    return converter.ModelBase.from_model_architecture(architecture)


if __name__ == "__main__":
    main(*sys.argv[1:])
