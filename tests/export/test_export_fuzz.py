"""Models drawn at random: what was planned is what happens, in llama.cpp and in `transformers`; and damaged files."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import ENVIRONMENT, ROOT, run_script
from gguf import GGUFReader

from benchmarks.architectures import SMALL, TOKENIZER, export, random_model
from custom_llm.common.errors import UserError
from custom_llm.common.seal import check_seal
from custom_llm.config.model import ModelConfig
from custom_llm.export.gguf.quantize import FILE_TYPES
from custom_llm.export.graph.check import expected_shapes
from custom_llm.export.graph.graph import Graph
from custom_llm.export.huggingface.classes import in_directory
from custom_llm.export.huggingface.directory import write_hf_directory
from custom_llm.export.pipeline import convert_to_gguf
from custom_llm.export.plan import plan_export
from custom_llm.export.suggest import apply_changes, nearest_changes
from custom_llm.inference.open import open_engine
from custom_llm.llamacpp import quantize_file, score_windows

ACTIVATIONS = ("gelu", "relu", "relu2", "silu", "swiglu", "geglu", "reglu", "leaky_relu", "mish")


def draw_block(draw: random.Random, n_embd: int, pos_emb: str, attentions: list[str]) -> dict[str, Any]:
    """The options of a layer."""
    heads = [
        n for n in range(1, 9) if n_embd % n == 0 and n_embd // n > 1 and (pos_emb != "rope" or n_embd // n % 2 == 0)
    ]
    block = dict(attn=draw.choice(attentions), n_head=draw.choice(heads or [1]), moe=draw.random() < 0.35)
    if block["attn"] == "gqa":
        block["n_kv_heads"] = draw.choice([n for n in range(1, 9) if block["n_head"] % n == 0])
    if block["attn"] == "mla":
        block |= dict(q_latent_dim=draw.choice([0, 3, 32]), kv_latent_dim=draw.choice([1, 3, 32]))
        block |= dict(rope_head_dim=draw.choice([2, 6, 16])) if pos_emb == "rope" else {}
    if block["moe"]:
        n_shared, n_chosen = draw.choice([0, 0, 1, 3]), draw.choice([1, 2, 3])
        n_exp = n_shared + n_chosen + draw.choice([1, 4, 13])
        block |= dict(n_exp=n_exp, n_shared=n_shared, n_act=n_shared + n_chosen, aux_free=draw.random() < 0.5)
    return block | dict(up_dim=draw.choice([1, 7, 32, 100]), non_linearity=draw.choice(ACTIVATIONS))


def draw_config(seed: int) -> ModelConfig:
    """A configuration that is possible."""
    draw = random.Random(seed)
    while True:
        values = dict(
            vocab_size=TOKENIZER.vocab_size,
            n_embd=draw.choice([4, 30, 63, 64, 66, 96]),
            n_layer=draw.choice([1, 2, 3]),
            n_head=1,
            block_size=draw.choice([1, 33, 256, 257]),
            dropout=0.0,
            pos_emb=draw.choice(["learn", "sin", *["rope"] * 4]),
            norm=draw.choice(["layer", "rms"]),
            bias=draw.random() < 0.4,
            qk_norm=draw.random() < 0.2,
            tie_embeddings=draw.random() < 0.3,
            head_bias=draw.random() < 0.2,
        )
        attentions = draw.choice([["mha", "mqa", "gqa"], ["mla"]])
        block = draw_block(draw, values["n_embd"], values["pos_emb"], attentions)
        if draw.random() < 0.6:
            values |= block
        else:
            blocks = [block]
            for _ in range(values["n_layer"] - 1):
                other = draw_block(draw, values["n_embd"], values["pos_emb"], attentions)
                blocks.append(draw.choice([other, block, block | {"up_dim": other["up_dim"]}]))
            for listed in blocks:
                if listed["moe"]:
                    listed |= dict(alpha=1e-4, gamma=1e-3) if listed["aux_free"] else dict(coeff=0.01)
            values |= dict(layer_configs=json.dumps(blocks))
        try:
            return ModelConfig(**values)
        except ValueError:  # such as rotations of an odd width
            continue


@pytest.mark.parametrize("seed", range(24))
def test_what_was_planned_happens(tmp_path: Path, seed):
    config = draw_config(seed)
    plan = plan_export(config)
    outcome = export(random_model(config.to_dict(), seed), tmp_path)
    assert (outcome.architecture, outcome.hf_class) == (plan.architecture, plan.hf_class), config
    if outcome.hf_class:
        assert outcome.hf_difference <= 1e-4, config
    if outcome.architecture:
        assert outcome.parity.kl_clear <= 1e-6 and outcome.parity.top1_clear == 1.0, config
        shapes = {t.name: tuple(map(int, t.shape[::-1])) for t in GGUFReader(tmp_path / "model.gguf").tensors}
        assert shapes == plan.shapes, config
        return
    nearest = apply_changes(config, nearest_changes(config))
    outcome = export(random_model(nearest.to_dict(), seed), tmp_path)
    assert outcome.parity.kl_clear <= 1e-6, nearest


@pytest.mark.parametrize("seed", range(40))
def test_the_shapes_of_a_graph_follow_from_its_structure(seed):
    graph = Graph.of_config(draw_config(seed))
    for each in (graph, in_directory(graph)[1]):
        assert {name: tuple(x.shape) for name, x in each.tensors.items()} == expected_shapes(each.s)


def places(value: Any, place: tuple = ()) -> Iterator[tuple]:
    """Where there are values in nested lists and objects."""
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*place, key))


DAMAGE = (None, 0, 1, -1, 3, 7, 10**9, 2.5, "x", "relu", "softmax", True, False, [], {}, [1, 2], float("nan"))


@pytest.mark.parametrize("name", ["classic", "experts", "latent"])
def test_an_altered_structure_is_a_file_or_one_line(tmp_path: Path, name):
    options = {
        "classic": {},
        "experts": dict(pos_emb="rope", norm="rms", bias=False, non_linearity="silu", moe=True, n_exp=5, n_act=2),
        "latent": dict(pos_emb="rope", bias=False, attn="mla", q_latent_dim=8, kv_latent_dim=8, rope_head_dim=4),
    }[name]
    if name == "latent":
        options |= dict(non_linearity="swiglu", moe=True, n_exp=5, n_shared=1, n_act=3, aux_free=True)
    model = random_model(dict(SMALL, **options, up_dim=32))
    write_hf_directory(model, TOKENIZER, tmp_path / "hf")
    path, draw = tmp_path / "hf" / "config.json", random.Random(0)
    text = path.read_text()
    (tmp_path / "hf" / "SHA256SUMS").unlink()  # as its own error says, if one changed a file
    for _ in range(100):
        config = json.loads(text)
        *way, last = draw.choice([p for p in places(config) if p and p[0] in ("custom_llm", "architectures")])
        target = config
        for key in way:
            target = target[key]
        target[last] = draw.choice(DAMAGE)
        path.write_text(json.dumps(config))
        try:
            convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / "model.gguf"), "F32", None)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 400
            assert not list(tmp_path.glob("*.gguf"))
            continue
        assert [x.shape for x in score_windows(tmp_path / "model.gguf", [[1, 2, 3]])] == [(3, 40)]
        for written in tmp_path.glob("*.gguf"):
            written.unlink()


def test_a_changed_byte_of_the_directory_is_noticed(tmp_path: Path):
    """76 of 200 altered safetensors once became a GGUF file of another model without a word."""
    folder, draw = tmp_path / "hf", random.Random(0)
    write_hf_directory(random_model(SMALL), TOKENIZER, folder)
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("OK") == 5, done
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for _ in range(8):
            place = draw.randrange(len(content))
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :])
            with pytest.raises(UserError, match=r"convert_to_gguf\.py") as error:
                convert_to_gguf(str(folder), str(tmp_path / "model.gguf"), "F32", None)
            assert "\n" not in str(error.value)
        path.write_bytes(content)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize("quant_type", ["F32", "Q4_0"])
def test_a_changed_byte_of_a_gguf_file_is_noticed(tmp_path: Path, quant_type):
    """59 of 877 altered files were once read with another result, and nobody was told."""
    write_hf_directory(random_model(SMALL), TOKENIZER, tmp_path / "hf")
    path = Path(convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / "model.gguf"), quant_type, None)[0])
    content, draw = path.read_bytes(), random.Random(0)
    check_seal(path)
    start = content.index(b"custom_llm.seal")
    for _ in range(60):
        place = draw.choice([draw.randrange(start), draw.randrange(start + 120, len(content))])
        changed = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
        path.write_bytes(changed)
        with pytest.raises(UserError, match="is damaged: it is not what was written; copy it again"):
            open_engine(path, warn=print)
    # What llama.cpp makes of it is another file, of which the copied seal says nothing.
    quantize_file(tmp_path / "model.gguf", tmp_path / "other.gguf", FILE_TYPES["Q8_0"])
    open_engine(tmp_path / "other.gguf", warn=print).close()


def test_a_window_that_is_not_the_tables_is_refused(tmp_path: Path):
    """evaluate_llm.py asked the table for rows that it does not have."""
    write_hf_directory(random_model(SMALL), TOKENIZER, tmp_path / "hf")
    path = tmp_path / "hf" / "config.json"
    config = json.loads(path.read_text())
    config["custom_llm"]["block_size"] = 1 << 20
    path.write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"config\.json is not what was written; if you changed it, remove .*SHA256SUMS"
    ):
        convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / "model.gguf"), "F32", None)
    (tmp_path / "hf" / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="block_size is 1048576 and n_positions"):
        convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / "model.gguf"), "F32", None)
    (tmp_path / "text.txt").write_text("abc" * 400)
    done = run_script("evaluate_llm.py", "--model", "hf", "--dataset_path", "text.txt", cwd=tmp_path)
    assert done.status == 2 and done.stderr.count("\n") == 1 and "block_size" in done.stderr, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize("checkout", [None, ROOT / "llama.cpp"])
def test_a_file_that_finds_no_room_does_not_get_its_name(tmp_path: Path, checkout):
    """NumPy keeps silent about the last bytes of a tensor: of 147,808 bytes 147,456 were written, and that was it."""
    import resource

    write_hf_directory(random_model(SMALL), TOKENIZER, tmp_path / "hf")
    base = tmp_path / "model.gguf"
    convert_to_gguf(str(tmp_path / "hf"), str(base), "Q8_0", None)
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("*.gguf"))]
    for path in tmp_path.glob("*.gguf"):
        path.unlink()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limits = [sizes[0] - n for n in (1, 31, 100, 352, 1000, 5000)] if checkout is None else [sizes[0] - 100]
    for limit in limits:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(UserError):
                convert_to_gguf(str(tmp_path / "hf"), str(base), "Q8_0", checkout and str(checkout))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert [path.name for path in tmp_path.iterdir()] == ["hf"], limit


def test_a_vocabulary_of_another_model_is_refused(tmp_path: Path):
    write_hf_directory(random_model(SMALL), TOKENIZER, tmp_path / "hf")
    path = tmp_path / "hf" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"].clear()
    path.write_text(json.dumps(content))
    (tmp_path / "hf" / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json has 39 tokens and the model 40"):
        convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / "model.gguf"), "F32", None)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_a_conversion_that_is_ended_takes_its_child_with_it(tmp_path: Path, number: str):
    checkout = ROOT / "llama.cpp"
    if not (checkout / "convert_hf_to_gguf.py").is_file():
        pytest.skip("no llama.cpp checkout here; `make test` brings one")
    write_hf_directory(random_model(SMALL), TOKENIZER, tmp_path / "hf")
    code = f"import convert_to_gguf; convert_to_gguf.convert_to_gguf('hf', 'model.gguf', 'F32', {str(checkout)!r})"
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    process = psutil.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    while process.is_running() and not (children := process.children()):
        time.sleep(0.01)
    process.send_signal(getattr(signal, number))
    assert process.wait(20) == 128 + getattr(signal, number)
    assert not psutil.wait_procs(children, 5)[1], "what runs on"
    assert [item.name for item in tmp_path.iterdir()] == ["hf"]


def test_what_a_killed_conversion_left_is_removed_by_the_next(tmp_path: Path):
    checkout = ROOT / "llama.cpp"
    if not (checkout / "convert_hf_to_gguf.py").is_file():
        pytest.skip("no llama.cpp checkout here; `make test` brings one")
    (tmp_path / ".converting-999999999").mkdir()
    (tmp_path / ".converting-999999999" / "model.safetensors").touch()
    (tmp_path / ".model.12ab.tmp.gguf").touch()
    write_hf_directory(random_model(SMALL), TOKENIZER, tmp_path / "hf")
    convert_to_gguf(str(tmp_path / "hf"), str(tmp_path / "model.gguf"), "F32", str(checkout))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["hf", "model.gguf", "model.gguf.F32.gguf"]
