"""hf_model/README.md: the model card, with the front matter that the Hugging Face hub reads.

Words in it were typed by anybody; Markdown shows them and does nothing else with them.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import yaml

from custom_llm.common.files import MARK
from custom_llm.common.steps import PROGRAM, program
from custom_llm.config.model import ModelConfig
from custom_llm.export.about import About, clean_line, first_word
from custom_llm.export.plan import context_advice
from custom_llm.export.proof import FileReport, Parity
from custom_llm.model.files import Origin, Provenance

LICENSES = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m "
    "afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 "
    "cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 "
    "cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl "
    "gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl mpl-2.0 odc-by odbl "
    "openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl unknown other"
).split()


def known_license(name: str) -> str | None:
    """The hub's name for a license, or None if it has none.

    >>> known_license("Apache-2.0"), known_license("GPL-3.0-or-later"), known_license("mine")
    ('apache-2.0', 'gpl-3.0', None)
    """
    name = name.lower().removesuffix("-or-later").removesuffix("-only")  # as SPDX has it
    return name if name in LICENSES else None


def license_note(name: str) -> str | None:
    """What to say about a license that the hub does not know; it is kept as it is."""
    if not name or known_license(name):
        return None
    close = get_close_matches(name.lower(), LICENSES, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"--license {name}: the Hugging Face hub has no such license, so the card says `other`{hint}"


# An underscore within a word, as in n_embd, has none.
_MEANS_SOMETHING = re.compile(r"([\\`*{}\[\]()<>#!|~&$@:]|(?<![^\W_])_|_(?![^\W_]))")


def escape(text: object) -> str:
    """`text` in one line, without a meaning in Markdown or HTML.

    >>> escape("a|b <b>`x`")
    'a\\\\|b \\\\<b\\\\>\\\\`x\\\\`'
    """
    return _MEANS_SOMETHING.sub(r"\\\1", clean_line(str(text)))


def fenced(code: str, language: str = "") -> str:
    """A block of code, whatever is in it."""
    longest = max(map(len, re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; the cells of `rows` are escaped."""
    lines = [head, ["---"] * len(head), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


PICTURE = "loss.png"  # beside the card
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
SIX = ("vocab_size", "n_embd", "n_head", "n_layer", "block_size", "dropout")


@dataclass(frozen=True)
class ModelCard:
    """What a card is made of."""

    about: About  # the words that are in the GGUF files as well; it has a name
    origin: Provenance
    config: ModelConfig
    n_parameters: int
    architecture: str  # what llama.cpp calls the model
    hf_class: str | None  # the class of transformers that loads the folder, if there is one
    rows: Sequence[FileReport]  # the GGUF files
    folder: str  # how a person names the folder of the card: its name, or owner/name on the hub
    has_picture: bool = False  # whether PICTURE is there
    has_end: bool = True  # whether the model ends its texts itself
    base: Origin | None = None  # the model that it started from

    def text(self) -> str:
        """The whole README.md."""
        head = yaml.safe_dump(self.front_matter(), sort_keys=False, allow_unicode=True, width=1000)
        parts = [
            f"---\n{head}---\n\n<!-- {MARK} -->",
            f"# {escape(self.about.name)}",
            self._what(),
            f"## How it was trained\n\n{self._training()}",
            f"## Evaluation\n\n{self._evaluation()}",
            f"## How to run it\n\n{self._running()}",
            f"## Limits\n\n{self._limits()}",
        ]
        return "\n\n".join(parts) + "\n"

    def front_matter(self) -> dict[str, Any]:
        """What the hub reads. Nothing is claimed that is not known: no language, and no license that was not given."""
        values: dict[str, Any] = {}
        if self.about.license:
            known = known_license(self.about.license)
            values["license"] = known or "other"
            if known is None:
                values["license_name"] = self.about.license
        if self.base and REPOSITORY.fullmatch(self.base.name):
            values["base_model"] = self.base.name
        if self.hf_class:
            values["library_name"] = "transformers"
        values["pipeline_tag"] = "text-generation"
        values["tags"] = ["gguf", "custom-llm-scripts"]
        if REPOSITORY.fullmatch(self.origin.hub_dataset):
            values["datasets"] = [self.origin.hub_dataset]
            if self.origin.bits_per_byte is not None:
                # For a text from the hub only: on others nobody could measure it.
                dataset = {"type": self.origin.hub_dataset, "name": f"{self.about.dataset} (held-out end of the text)"}
                bits = round(self.origin.bits_per_byte, 4)
                metric = {"type": "bits_per_byte", "name": "bits per byte", "value": bits}
                result = {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": [metric]}
                values["model-index"] = [{"name": self.about.name, "results": [result]}]
        return values

    def _what(self) -> str:
        parts = [escape(self.about.description)]
        author = f"Author: {escape(self.about.author)}. " if self.about.author else ""
        license = escape(self.about.license) if self.about.license else "none was given; ask before you use the model"
        parts.append(f"{author}License: {license}.")
        if self.about.example:
            parts += ["What it wrote by itself when it was trained:", fenced(self.about.example, "text")]
        return "\n\n".join(parts)

    def _training(self) -> str:
        origin = self.origin
        parts = ["Nothing is known of its training: it is of an earlier version, or of other scripts."]
        if self.about.training:
            parts = [f"Text: {escape(self.about.dataset or 'not known')}. {self.about.training}."]
        if origin.kept_step is not None and origin.kept_step != origin.steps:
            parts.append(
                f"The weights are those of step {origin.kept_step:,}, where the held-out loss was lowest; after it the "
                "model began to memorise its text."
            )
        if self.has_picture:
            parts.append(f"![Loss over the steps of training]({PICTURE})")
        parts.append(table(("setting", "value"), self._settings()))
        return "\n\n".join(parts)

    def _settings(self) -> list[tuple[str, str]]:
        """Those of the architecture (the six numbers, and what is not at its default) and of the training."""
        plain, origin = ModelConfig(), self.origin
        chosen = {k: v for k, v in self.config.to_dict().items() if k in SIX or v != getattr(plain, k)}
        values: dict[str, tuple[Any, str]] = {  # each with its format
            "parameters": (self.n_parameters, ","),
            **{name: (value, "") for name, value in chosen.items()},
            "tokenizer": (origin.tokenizer, ""),
            "characters of text": (origin.characters, ","),
            "tokens of text": (origin.tokens, ","),
            "of these held out": (origin.held_out_tokens, ","),
            "epochs": (origin.epochs, "g"),
            "steps": (origin.steps, ","),
            "tokens seen": (origin.tokens_seen, ","),
            "time": (None if origin.minutes is None else _duration(origin.minutes), ""),
            "batch_size": (origin.batch_size, ""),
            "learning_rate": (origin.learning_rate, "g"),
            "optimizer": (origin.optimizer, ""),
            "schedule": (origin.schedule, ""),
            "training loss at the end": (origin.loss, ".4f"),
            "device": (origin.device, ""),
            "PyTorch": (origin.torch, ""),
        }
        return [(name, format(value, form)) for name, (value, form) in values.items() if value not in (None, "")]

    def _evaluation(self) -> str:
        origin, parts = self.origin, []
        if origin.held_out_loss is not None:
            bits = "" if origin.bits_per_byte is None else f", **{origin.bits_per_byte:.4f} bits per byte**"
            parts.append(
                f"Held-out loss: {origin.held_out_loss:.4f} nats per token{bits}, on {origin.held_out_tokens or 0:,} "
                "tokens from the end of the same text. They were not trained on, but the weights were chosen by them, "
                "so that on new text the loss is rather a little higher."
            )
        head = ["KL to PyTorch", "same top-1, text", "same top-1, random"]
        proofs = [row.proof for row in self.rows if row.proof]
        if not proofs:
            parts.append("The files were not compared with the model in PyTorch.")
        elif isinstance(proofs[0], Parity):
            parts.append(
                "Each file was loaded in llama.cpp and compared with the model in PyTorch, on its own text and on "
                "random tokens:"
            )
        else:
            parts.append(
                "llama.cpp has not run these files: it was not installed where they were made. Each was read back and "
                "compared with the trained weights, tensor by tensor, and with the tokenizer, token by token:"
            )
            head = ["tensors", "largest difference of a weight", "relative error of all"]
        parts.append(table(["file", "size", *head], [_cells(row) for row in self.rows]))
        return "\n\n".join(parts)

    def _running(self) -> str:
        block_size, name = self.config.block_size, self.rows[-1].path.name
        given, n_tokens = shlex.quote(name), min(block_size, 200)
        prompt = first_word(self.about.example) or "The"  # of characters that the model knows
        # With the prompt no more than the window, which llama.cpp would round up to a multiple of 256.
        n_written = max(1, min(block_size - len(prompt.encode()), 200))
        ollama = re.sub("[^a-z0-9]+", "-", self.about.name.lower()).strip("-") or "my-model"
        parts = ["transformers has no class that computes this model; the GGUF files run everywhere below."]
        ours = f"{PROGRAM} write" if program() else "python inference_gguf.py"
        if self.hf_class:
            folder = json.dumps(self.folder)
            code = (
                "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
                f"tokenizer = AutoTokenizer.from_pretrained({folder})\n"
                f"model = AutoModelForCausalLM.from_pretrained({folder})\n"
                f'ids = tokenizer({json.dumps(prompt, ensure_ascii=False)}, return_tensors="pt").input_ids\n'
                f"written = model.generate(ids, max_length={n_tokens}, do_sample=True, temperature=0.8)\n"
                "print(tokenizer.decode(written[0]))"
            )
            parts = [f"With transformers, as {self.hf_class}:", fenced(code, "python")]
        parts += [
            f"With custom-llm-scripts, or with llama.cpp, which calls the architecture `{self.architecture}`:",
            fenced(
                f"{ours} --gguf_path {given} --query {prompt}\n"
                f"llama-completion -no-cnv -m {given} -c {block_size} -n {n_written} -p {prompt}",
                "sh",
            ),
            "With Ollama, if its version of llama.cpp has that architecture, by the Modelfile beside the GGUF file:",
            fenced(f"ollama create {ollama} -f Modelfile\nollama run {ollama}", "sh"),
        ]
        return "\n\n".join(parts)

    def _limits(self) -> str:
        size = self.config.block_size
        knows = f"what {escape(self.base.name)} had learnt and" if self.base else "nothing but"
        points = [
            "It continues a text. It was not taught to answer questions, to follow instructions or to be truthful.",
            f"It knows {knows} its training text, with all that is wrong or one-sided in it, and can repeat parts "
            "of it word for word.",
            f"It reads at most {size:,} tokens at once, prompt and what it writes together{self._rounding()}.",
            "It was measured by the figures above and by nothing else: not for bias, harm or use in any decision.",
        ]
        if self.origin.tokenizer == "char":
            points.insert(2, "It knows only the characters of its training text; others are left out of a prompt.")
        if not self.has_end:
            points.append("It has no token that ends a text, so it writes until it is stopped.")
        return "\n".join(f"- {point}" for point in points)

    def _rounding(self) -> str:
        """Of a context that other programs go beyond."""
        if not context_advice(self.config):
            return ""
        return "; llama.cpp would go on to a multiple of 256, and past it the text gets worse: limit its length (`-n`)"


def _cells(row: FileReport) -> list[str]:
    proof, cells = row.proof, ["", "", ""]
    if isinstance(proof, Parity):
        cells = [f"{proof.kl:.1e}", f"{proof.top1_text:.1%}", f"{proof.top1_random:.1%}"]
    elif proof:
        cells = [f"{proof.n_tensors}", f"{proof.max_difference:.2g}", f"{proof.relative_error:.3%}"]
    return [row.path.name, f"{row.n_bytes / 1e6:,.2f} MB", *cells]


def _duration(minutes: float) -> str:
    """2.04 as '2.0 minutes', 0.5 as '30 seconds', 90 as '1.5 hours'."""
    if minutes < 1:
        return f"{60 * minutes:.0f} seconds"
    return f"{minutes:.1f} minutes" if minutes < 60 else f"{minutes / 60:.1f} hours"
