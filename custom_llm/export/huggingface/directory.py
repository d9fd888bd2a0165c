"""The Hugging Face directory: stock classes load it, no remote code; and it is read back to write GGUF files from.

Its config.json holds, under `custom_llm`, the structure of the graph that its tensors are of. Where no stock class
computes what the model does, the tensors stand under our own names, and only this program reads them. Under
`custom_llm_about` stand the words that its GGUF files say about the model. SHA256SUMS is for `sha256sum -c` and for us:
a folder that has it is read only as it was written.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import write_bytes
from custom_llm.common.steps import step
from custom_llm.export.about import KEY, About
from custom_llm.export.graph.check import check_structure, expected_shapes
from custom_llm.export.graph.graph import Graph, Structure
from custom_llm.export.graph.tensor_names import rename, restore
from custom_llm.export.huggingface.classes import BY_NAME, HFClass, in_directory
from custom_llm.export.vocabulary import KEYS, tokenizer_files
from custom_llm.model import GPTLanguageModel
from custom_llm.tokenizer.base import Tokenizer
from custom_llm.tokenizer.carried import FILES as CARRIED_FILES

OURS = "CustomLLM"  # in the place of a class
SUMS = "SHA256SUMS"
FILES = (
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", SUMS,
)  # fmt: skip
CARRIED = (*CARRIED_FILES, KEYS)  # which are there where the tokenizer came with another model
AGAIN = f"remove its folder, or name another with --output_dir, and export anew with {step('convert_to_gguf')}"


def write_hf_directory(
    model: GPTLanguageModel,
    tokenizer: Tokenizer,
    output_dir: str | Path,
    about: About = About(),  # noqa: B008 (frozen)
) -> str | None:
    """Write weights, configuration and tokenizer so that `AutoModelForCausalLM` and `AutoTokenizer` load them.

    Returned is the stock class it is for; None if there is none, and only this program reads the directory. An
    interrupted run leaves it without config.json, and nothing takes that for a model. Raises UserError for a directory
    that cannot be written, or holds somebody else's model.
    """
    output_dir = Path(output_dir)
    if (output_dir / "config.json").exists():
        read_config(output_dir)  # raises for somebody else's model
    graph = Graph.of_model(model)
    hf_class, prepared = in_directory(graph)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / "config.json").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {describe_os_error(error)}") from None
    end_of_text_id = tokenizer.end_of_text_id
    # The token that pads stands here and not in config.json: there, Llama's class keeps its row from being fine-tuned.
    generation = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end_of_text_id)
    if tokenizer.begin_of_text_id is not None:
        generation["bos_token_id"] = tokenizer.begin_of_text_id
    generation["do_sample"] = True
    if graph.s.n_positions is not None:
        # Without a length pipelines write 256 tokens, and fall over the end of the table of positions.
        generation["max_length"] = graph.s.block_size
    texts = tokenizer_files(tokenizer, graph.s.block_size)
    files = {name: content.encode("utf-8") for name, content in texts.items()}
    files |= {"generation_config.json": _json(generation)}
    files |= model_files(prepared, hf_class, end_of_text_id, about)
    sums = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()]
    for name, content in {SUMS: "".join(sums).encode(), **files}.items():
        write_bytes(output_dir / name, content)
    return hf_class.name if hf_class else None


def model_files(graph: Graph, hf_class: HFClass | None, end_of_text_id: int | None, about: About) -> dict[str, bytes]:
    """The content of model.safetensors and, at last, config.json of a graph that `hf_class` has prepared."""
    tensors = rename(graph.tensors, graph.s, hf_class.names) if hf_class else graph.tensors
    tensors = {name: x.contiguous() for name, x in tensors.items()}
    config = {**hf_config(graph.s, hf_class, end_of_text_id), KEY: about.to_dict()}
    return {
        "model.safetensors": safetensors_bytes(tensors, metadata={"format": "pt"}), "config.json": _json(config),
    }  # fmt: skip


def hf_config(s: Structure, hf_class: HFClass | None, end_of_text_id: int | None) -> dict[str, Any]:
    """The content of config.json."""
    own = {"model_type": hf_class.model_type, **hf_class.config(s)} if hf_class else {"model_type": "custom_llm"}
    return {
        "architectures": [hf_class.name if hf_class else OURS],
        **own,
        "vocab_size": s.vocab_size,
        "tie_word_embeddings": s.tied,
        "bos_token_id": end_of_text_id,
        "eos_token_id": end_of_text_id,
        "dtype": "float32",
        "custom_llm": s.to_dict(),
    }


def read_hf_directory(hf_dir: str | Path) -> tuple[Graph, int | None]:
    """The graph of a directory that `write_hf_directory` wrote, and its end-of-text id. Raises UserError for others."""
    config = read_config(hf_dir)
    check_sums(hf_dir)
    path = Path(hf_dir) / "model.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: {error}; {AGAIN}") from None
    name = config["architectures"][0]
    try:
        structure = Structure.from_dict(config["custom_llm"])
        check_structure(structure)
        names = {ours: ours for ours in expected_shapes(structure)} if name == OURS else BY_NAME[name].names
        return Graph(structure, restore(tensors, structure, names)), config["eos_token_id"]
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} and config.json beside it do not belong together ({error}); {AGAIN}") from None


def read_config(hf_dir: str | Path) -> dict[str, Any]:
    """config.json of a directory that `write_hf_directory` wrote. Raises UserError for others."""
    path = Path(hf_dir) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        known = isinstance(config["custom_llm"], dict) and config["architectures"][0] in (*BY_NAME, OURS)
        if not known or type(config["eos_token_id"]) not in (int, type(None)):
            raise ValueError("not a model this program exported")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; export a model with {step('convert_to_gguf')}") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        reason = "not a model this program exported" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: {reason}; {AGAIN}") from None
    return config


def check_sums(hf_dir: str | Path) -> None:
    """Raise UserError where a file is another than SHA256SUMS says. Folders of transformers' own making have none."""
    sums = Path(hf_dir) / SUMS
    try:
        lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
        known = (*FILES, *CARRIED)
        found = {name: line.partition(" ")[0] for line in lines for name in known if line.endswith(f"  {name}")}
        for name in dict.fromkeys((*FILES[:-1], *found)):
            if _sha256(Path(hf_dir) / name) != found.get(name):
                raise UserError(
                    f"{Path(hf_dir) / name} is not what was written; if you changed it, remove {sums}, else {AGAIN}"
                )
    except FileNotFoundError as error:
        if error.filename != str(sums):
            raise UserError(f"{error.filename}: no such file; {AGAIN}") from None
    except OSError as error:
        raise UserError(f"cannot read {describe_os_error(error)}") from None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def read_about(hf_dir: str | Path) -> About:
    """The words of such a directory about its model. Raises UserError as `read_config` does."""
    return About.from_dict(read_config(hf_dir).get(KEY))


def _json(values: dict) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
