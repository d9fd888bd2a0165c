"""A base by its name on the Hugging Face hub: what is downloaded, what is refused, and what works without a network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from bases import llama
from conftest import ENVIRONMENT
from hub_server import Hub
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from custom_llm.model.files import load_config

CODE = """
import contextlib, io, json, sys
from custom_llm.commands.model import main
from custom_llm.common.errors import run
for name in sys.argv[1:]:
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        status = run(main, ["--from", name, "--config_path", name.replace("/", "-") + ".pth"])
    print(json.dumps([status, err.getvalue().splitlines()[-1:]]))
"""


def configured(*names: str, cwd, environment: dict[str, str]) -> dict[str, tuple[int, str]]:
    """Name → exit status and last line on stderr of step 1 with --from, one after the other in one process."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *names], cwd=cwd, env={**ENVIRONMENT, **environment}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    found = (json.loads(line) for line in done.stdout.splitlines())
    return {name: (status, "".join(lines)) for name, (status, lines) in zip(names, found, strict=True)}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    models = folder / "models/mia"
    whole = llama(models / "whole")
    (whole / "modeling_whole.py").write_text("raise SystemExit")
    (whole / "training_args.bin").write_bytes(b"\x80")
    for name in ("parts", "pickles", "gated", "bare"):
        shutil.copytree(whole, models / name)
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(models / "parts", max_shard_size="50KB")
    (models / "parts/model.safetensors").unlink()
    torch.save(load_file(whole / "model.safetensors"), models / "pickles/pytorch_model.bin")
    (models / "pickles/model.safetensors").unlink()
    (models / "bare/config.json").unlink()
    (models / "adapter").mkdir()
    (models / "adapter/adapter_config.json").write_text('{"base_model_name_or_path": "mia/whole"}')
    with Hub(folder) as running:
        running.gated.add("mia/gated")
        yield running


@pytest.mark.slow
def test_names_on_the_hub(hub, tmp_path):
    names = [f"mia/{name}" for name in ("whole", "parts", "pickles", "gated", "bare", "adapter", "nothing")]
    environment = hub.environment(tmp_path / "home")
    found = configured(*names, cwd=tmp_path, environment=environment)
    for name in ("whole", "parts"):
        assert found[f"mia/{name}"][0] == 0, found
        saved = load_config(tmp_path / f"mia-{name}.pth")
        assert (saved.base.name, saved.base.license) == (f"mia/{name}", "mit")
    asked = {path.rpartition("/")[2] for _, _, path in hub.answers}
    assert "model.safetensors" in asked and not {"modeling_whole.py", "training_args.bin", "pytorch_model.bin"} & asked
    for name, message in {
        "pickles": "this model on the hub has no model.safetensors, and other forms of weights may hold code of a",
        "gated": "the hub gives it only to those who were allowed; log in with hf auth login, or give a folder that",
        "bare": "it holds no model (config.json is missing); give another one",
        "adapter": "it is an adapter, not a whole model; merge it first: python -c ",
        "nothing": "no such folder, and no such model on the hub; give a folder that holds the model, or a .gguf",
    }.items():
        status, line = found[f"mia/{name}"]
        assert status == 2 and line.startswith(f"error: --from mia/{name}: {message}"), line
    assert "'mia/adapter'" in found["mia/adapter"][1] and "'mia/whole'" in found["mia/adapter"][1]

    # Without a network, what was downloaded is there.
    closed = {**environment, "HF_ENDPOINT": "http://127.0.0.1:9"}
    again = configured("mia/whole", "mia/parts", "mia/other", cwd=tmp_path, environment=closed)
    assert [status for status, _ in again.values()] == [0, 0, 2], again
    assert again["mia/other"][1].startswith(
        "error: --from mia/other: no such folder, and the Hugging Face hub cannot be reached; give a folder"
    )
