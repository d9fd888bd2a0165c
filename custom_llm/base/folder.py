"""A Hugging Face folder: what must be in it before it is read, where its weights are, and what its card says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from custom_llm.common.steps import command, python, quoted
from custom_llm.common.text import shown

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG, ADAPTER, CARD = "config.json", "adapter_config.json", "README.md"
PICKLES = ("*.bin", "*.pt", "*.bin.index.json", "*.ckpt", "*.h5", "*.msgpack")  # of weights, by other names
MOST_CARD = 1 << 16  # characters of a card that are looked at
TEXTS = (".txt", ".md", ".jsonl", ".csv", ".parquet", ".html", ".pdf", ".docx", ".epub")


def read_config(folder: Path, name: str = "") -> dict[str, Any]:
    """config.json. Raises ValueError where the folder holds no model, or none that can be read as it is.

    name: of the model on the hub that the folder was downloaded of.
    """
    path = folder / CONFIG
    if not any((folder / file).is_file() for file in (WEIGHTS, INDEX)) and (folder / ADAPTER).is_file():
        raise ValueError(f"it is an adapter, not a whole model; merge it first: {_merge(folder, name or str(folder))}")
    if not path.is_file():
        raise ValueError(f"it holds no model ({CONFIG} is missing){_instead(folder)}")
    config = read_json(path)
    if packed := config.get("quantization_config"):
        method = packed.get("quant_method") if isinstance(packed, dict) else packed
        raise ValueError(
            f"its weights are packed in a way that is not read here ({shown(method)}); take the model it was made of"
        )
    return config


def read_json(path: Path) -> dict[str, Any]:
    """A file that is an object in JSON; ValueError where it is not."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError, MemoryError):
        raise ValueError(f"{path.name} is damaged: it is not JSON; get it again") from None
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read ({(error.strerror or str(error)).lower()})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is {shown(content)}, where the description of a model should be; get it again")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The files of weights. Raises ValueError where some are missing, or they are pickles."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        names = shard_names(folder / INDEX)
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"{len(missing)} of its {len(names)} files of weights are missing, such as {missing[0]}")
        return [folder / name for name in names]
    pickles = [path.name for pattern in PICKLES for path in sorted(folder.glob(pattern))]
    if pickles:
        raise ValueError(
            f"its weights are in {pickles[0]}, which may hold code of a stranger and is not opened here; if you trust "
            f"it, make {WEIGHTS} of it: {resave(str(folder))}"
        )
    raise ValueError(f"it holds no weights ({WEIGHTS} is missing){_instead(folder)}")


def shard_names(index: Path) -> list[str]:
    """The files of weights that an index lists; ValueError where it lists none, or what is no name of such a file."""
    places = read_json(index).get("weight_map")
    names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
    odd = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if odd or not names:
        raise ValueError(f"{index.name} is damaged: it lists {shown(odd[0]) if odd else 'no files'}; get it again")
    return names


def read_card(folder: Path) -> tuple[str, list[str]]:
    """The license and the languages that the card of a model names; empty where it does not."""
    import yaml

    try:
        text = (folder / CARD).read_text(encoding="utf-8", errors="replace")[:MOST_CARD]
        values = yaml.safe_load(text.split("\n---", 1)[0]) if text.startswith("---\n") else {}
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        values = {}
    values = values if isinstance(values, dict) else {}
    license, languages = values.get("license_name") or values.get("license"), values.get("language")
    languages = languages if isinstance(languages, list) else [languages]
    return license if isinstance(license, str) else "", [each for each in languages if isinstance(each, str)]


def _instead(folder: Path) -> str:
    """What in the folder may have been meant."""
    found = [*sorted(folder.glob("*.gguf")), *sorted(folder.glob("trained_model*.pth"))]
    found += sorted((path.parent for path in folder.glob(f"*/{CONFIG}")), key=lambda path: path.stat().st_mtime)[::-1]
    if found:
        return f"; did you mean {quoted(str(found[0]))}?"
    if any(path.suffix in TEXTS for path in folder.iterdir()):
        return f"; a text to learn from is for {command('train_llm', '--dataset_path', str(folder))}"
    return "; give a folder with config.json, model.safetensors and tokenizer.json"


def resave(model: str) -> str:
    """A command that writes a folder or a model on the hub anew, with its tokenizer, and its weights as safetensors."""
    return python(
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
        f"[c.from_pretrained({model!r}).save_pretrained({_beside(model, 'safetensors')!r}) for c in (M, T)]"
    )


def _merge(folder: Path, adapter: str) -> str:
    """A command that writes an adapter merged into its model."""
    target = _beside(adapter, "merged")
    tokenizer = adapter if (folder / "tokenizer_config.json").is_file() else _base_of(folder)
    return python(
        "from peft import AutoPeftModelForCausalLM as M; from transformers import AutoTokenizer as T; "
        f"M.from_pretrained({adapter!r}).merge_and_unload().save_pretrained({target!r}); "
        f"T.from_pretrained({tokenizer!r}).save_pretrained({target!r})"
    )


def _beside(model: str, what: str) -> str:
    """A name for what is made of a model: beside its folder; here, if it is on the hub."""
    path = Path(model)
    return f"{path if path.is_dir() else path.name}-{what}"


def _base_of(adapter: Path) -> str:
    """The model that an adapter is for."""
    name = read_json(adapter / ADAPTER).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ValueError(f"it is an adapter, and {ADAPTER} does not say for which model; get it again")
    return name
