"""CONTRIBUTING.md and the docs name files and names that are there; and what a person may choose is implemented."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from custom_llm.config.block import NON_LINEARITIES, TRAIN_ONLY
from custom_llm.config.model import ModelConfig
from custom_llm.config.training import TrainConfig
from custom_llm.export.plan import plan_export
from custom_llm.model.feed_forward import make_feed_forward
from custom_llm.training.clock import SCHEDULES
from custom_llm.training.optim.optimizers import OPTIMIZERS

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = [path.name for path in (ROOT / "custom_llm").iterdir() if path.is_dir()]
# In backticks or as the target of a link: a path into the package or the tests, and perhaps a name in that file.
PLACE = re.compile(
    rf"(?:`|\]\((?:\.\./)?)((?:custom_llm/|tests/|(?:{'|'.join(FOLDERS)})/)[\w/]*(?:\.\w+)?)(?::(\w+))?(?:`|\))"
)


def names_in(path: Path) -> set[str]:
    """What a module defines at its head."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            found |= {name.id for name in ast.walk(target) if isinstance(name, ast.Name)} if target else set()
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_and_names_a_page_names_are_there(page):
    for path, name in PLACE.findall(page.read_text(encoding="utf-8")):
        places = [place for place in (ROOT / path, ROOT / "custom_llm" / path) if place.exists()]
        assert places, f"{page.name}: {path}"
        assert not name or name in names_in(places[0]), f"{page.name}: {path}:{name}"


def test_every_folder_and_kind_of_variant_has_a_row():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(PLACE.findall(text)) > 50
    for folder in FOLDERS:
        assert folder == "__pycache__" or f"| `{folder}/` |" in text, folder
    for variant in "activation, norm, attention, tokenizer, dataset, quantization, optimizer, schedule".split(", "):
        assert f"\n| {variant} |" in text


def test_what_can_be_chosen_is_implemented():
    choices = {item.name: item.metadata["choices"] for item in fields(TrainConfig)}
    assert set(choices["optimizer"]) == set(OPTIMIZERS)
    assert set(choices["schedule"]) == set(SCHEDULES)
    for non_linearity in NON_LINEARITIES:
        if non_linearity != "swish":  # a block has its other name
            layer = make_feed_forward(4, 8, non_linearity, 0.0, bias=True)
            assert layer(torch.randn(2, 3, 4)).shape == (2, 3, 4)


@pytest.mark.parametrize("non_linearity", NON_LINEARITIES)
def test_an_activation_exports_with_some_model_or_is_said_to_be_trained_only(non_linearity):
    sizes = dict(vocab_size=50, n_embd=32, n_head=4, n_layer=1, block_size=8)
    experts = dict(moe=True, n_exp=4, n_act=2)
    models = [
        ModelConfig(**sizes, **more, pos_emb=pos_emb, norm=norm, bias=bias, non_linearity=non_linearity)
        for pos_emb, norm, bias, more in product(("learn", "rope"), ("layer", "rms"), (True, False), ({}, experts))
    ]
    assert any(plan_export(model).exports for model in models) == (non_linearity not in TRAIN_ONLY)
