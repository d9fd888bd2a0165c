"""Runs llama.cpp's converter with our vocabulary step, in a process of its own.

    python -m custom_llm.export.gguf.converter_child CHECKOUT HF_DIR OUTFILE NAME

The converter knows a BPE vocabulary only by a hash over the ids of a test text, and refuses every vocabulary that was
trained at home ("BPE pre-tokenizer was not recognized"). Everything else of it is used as it is.
"""

from __future__ import annotations

import sys
from typing import Any


def main(checkout: str, hf_dir: str, outfile: str, name: str) -> None:
    sys.path.insert(0, checkout)
    import convert_hf_to_gguf as converter  # first, since it brings its own `gguf`  # isort: split

    from custom_llm.export.gguf.writer import add_about, add_block_size, add_vocabulary
    from custom_llm.export.huggingface.directory import read_about, read_config
    from custom_llm.export.vocabulary import read_vocabulary

    config = read_config(hf_dir)
    model_class = _find_class(converter, config["architectures"][0])
    original_parameters = model_class.set_gguf_parameters

    def set_gguf_parameters(self: Any) -> None:
        original_parameters(self)
        add_block_size(self.gguf_writer, config["custom_llm"]["block_size"])
        add_about(self.gguf_writer, read_about(hf_dir))

    def set_vocab(self: Any) -> None:
        add_vocabulary(self.gguf_writer, read_vocabulary(hf_dir))

    model_class.set_gguf_parameters = set_gguf_parameters
    model_class.set_vocab = set_vocab
    words = ["--model-name", name, "--metadata", f"{hf_dir}/metadata.json"]
    sys.argv = ["convert_hf_to_gguf.py", hf_dir, "--outfile", outfile, "--outtype", "f32", *words]
    converter.main()


def _find_class(converter: Any, architecture: str) -> Any:
    """The converter's class for a Hugging Face architecture, in recent checkouts and in older ones."""
    if hasattr(converter, "get_model_class"):
        return converter.get_model_class(architecture)
    return converter.ModelBase.from_model_architecture(architecture)


if __name__ == "__main__":
    main(*sys.argv[1:])
