"""Training that starts from another model: all weights, LoRA, or the last layers."""

from __future__ import annotations

import copy
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import EXPERTS, tiny, windows
from conftest import STORY, Result, configure

import train_llm
from custom_llm.common.errors import run
from custom_llm.config.model import ModelConfig
from custom_llm.config.training import TrainConfig, complete_from_base
from custom_llm.data.dataset import GENERAL_TEXT, TextDataset, WindowLoader
from custom_llm.model import GPTLanguageModel
from custom_llm.model.costs import training_bytes
from custom_llm.model.files import Origin, SavedConfig, load_base, load_config, load_model, save_base
from custom_llm.model.lora import add_lora, freeze, keep_frozen, merge, trained_state
from custom_llm.tokenizer.bpe import BPETokenizer
from custom_llm.training.checkpoint import form_of_state, misfit
from custom_llm.training.clock import Clock
from custom_llm.training.loop import Trainer
from custom_llm.training.speed import autocast
from custom_llm.training.step import Step

CPU = torch.device("cpu")
LLAMA: dict[str, Any] = dict(
    pos_emb="rope", norm="rms", bias=False, non_linearity="swiglu", attn="gqa", n_kv_heads=2, up_dim=48
)
LATENT = dict(attn="mla", q_latent_dim=12, kv_latent_dim=10)
TEXT = "".join(f"Mia found {i} red kites. She ran up the hill, and kite {i * 7} flew high!\n" for i in range(150))


def adapted(rank: int = 4, alpha: float = 8.0, seed: int = 1, **architecture: Any) -> GPTLanguageModel:
    """A small model with LoRA that is not at its start any more."""
    model = tiny(**architecture)
    add_lora(model, rank, alpha)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(std=0.1)
    return model


@pytest.mark.parametrize(
    "architecture", [{}, LLAMA, LATENT, EXPERTS["aux_free"], dict(LLAMA, tie_embeddings=True)],
    ids=["classic", "llama", "mla", "experts", "tied"],
)  # fmt: skip
def test_an_adapter_begins_as_nothing_and_merged_is_what_it_is_applied(architecture):
    base, (x, _) = tiny(**architecture), windows()
    model = tiny(**architecture)
    add_lora(model, 4, 8.0)
    torch.testing.assert_close(model.eval()(x)[0], base.eval()(x)[0], rtol=1e-5, atol=1e-5)
    model = adapted(**architecture)
    applied = model.eval()(x)[0]
    assert (applied - base(x)[0]).abs().max() > 0.01
    merged = tiny(**architecture).eval()
    merged.load_state_dict(merge(base.state_dict(), trained_state(model), 8.0))
    torch.testing.assert_close(merged(x)[0], applied, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):  # a training in bfloat16 keeps its best weights as exactly
        again = merge(base.state_dict(), trained_state(model), 8.0)
    assert all(torch.equal(weight, again[name]) for name, weight in merged.state_dict().items())


def test_lora_is_that_of_peft(tmp_path):
    """The same matrices give the same logits, and the same gradients."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    ours, (x, y) = adapted(**LLAMA), windows()
    config = LlamaConfig(
        vocab_size=23, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=16, rms_norm_eps=1e-5, attn_implementation="eager",
    )  # fmt: skip
    names = {
        "attn.query": "self_attn.q_proj", "attn.key": "self_attn.k_proj", "attn.value": "self_attn.v_proj",
        "attn.proj": "self_attn.o_proj", "ffn.": "mlp.", "gate.": "gate_proj.", "up.": "up_proj.",
        "down.": "down_proj.", "ln1": "input_layernorm", "ln2": "post_attention_layernorm", "blocks": "model.layers",
        "token_embedding": "model.embed_tokens", "ln_f": "model.norm", "head.": "lm_head.",
    }  # fmt: skip

    def theirs(name: str) -> str:
        for own, other in names.items():
            name = name.replace(own, other)
        return name

    llama = LlamaForCausalLM(config)
    llama.load_state_dict({theirs(name): value for name, value in ours.state_dict().items() if "lora" not in name})
    projections = [f"{part}_proj" for part in "q k v o gate up down".split()]
    peft = get_peft_model(llama, LoraConfig(r=4, lora_alpha=8, target_modules=projections))
    adapters = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    parameters = {name: p for name, p in peft.named_parameters() if p.requires_grad}
    pairs = {name: parameters[f"base_model.model.{theirs(name)}.default.weight"] for name in adapters}
    assert len(pairs) == len(parameters) == 2 * 2 * 7
    with torch.no_grad():
        for name, parameter in pairs.items():
            parameter.copy_(adapters[name])
    logits, loss = ours(x, y)
    expected = peft(input_ids=x).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    loss.backward()
    torch.nn.functional.cross_entropy(expected.flatten(0, 1), y.flatten()).backward()
    for name, parameter in pairs.items():
        torch.testing.assert_close(adapters[name].grad, parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("partial", [dict(lora=4), dict(train_layers=1)], ids=str)
def test_frozen_matrices_in_bfloat16_give_what_autocast_gives_to_the_bit(partial):
    results = []
    for kept in (torch.float32, torch.bfloat16):
        model = with_frozen(tiny(**LLAMA, dropout=0.0), TrainConfig(**partial))
        keep_frozen(model, kept)
        model.act_recomp = True
        with autocast(CPU, "bfloat16"):
            _, loss = model(*windows())
        loss.backward()
        results.append([loss, *(p.grad for p in model.parameters() if p.grad is not None)])
        assert model(windows()[0])[0].dtype == torch.float32, "a sample is written without autocast"
    assert len(results[0]) > 4 and all(map(torch.equal, *results))


def with_frozen(model: GPTLanguageModel, config: TrainConfig) -> GPTLanguageModel:
    if config.lora:
        add_lora(model, config.lora, config.alpha, config.lora_dropout, last=config.train_layers)
    else:
        freeze(model, config.train_layers)
    return model


def make_trainer(**options: Any) -> tuple[Trainer, list[dict]]:
    """A training of a part of a small model, and where its states go."""
    config = TrainConfig(batch_size=4, learning_rate=1e-3, max_epochs=2, **options)
    dataset = TextDataset(STORY * 4, 16)
    torch.manual_seed(0)
    model = with_frozen(tiny(**LLAMA, vocab_size=dataset.vocab_size), config)
    states: list[dict] = []
    loader = WindowLoader(dataset, 4, None, seed=3)
    trainer = Trainer(model, loader, config, CPU, save=lambda state: states.append(copy.deepcopy(state)))
    trainer.step.keep_frozen()
    return trainer, states


@pytest.mark.parametrize(
    "options",
    [
        dict(lora=3, lora_dropout=0.2, optimizer="adamw", ema=0.9),
        dict(lora=3, optimizer="muon", train_layers=1, precision="bfloat16"),
        dict(train_layers=1, optimizer="muon"),
    ],
    ids=str,
)
def test_a_part_of_a_model_is_resumed_to_the_bit_and_the_rest_stays(options):
    torch.set_num_threads(1)
    first, _ = make_trainer(**options)
    before = {name: p.clone() for name, p in first.model.named_parameters()}
    trainer, states = make_trainer(ckpt_interval=1, **options)
    trainer.run()
    for name, p in trainer.model.named_parameters():
        assert torch.equal(p, before[name]) != p.requires_grad, name
    state = states[len(states) // 2]
    assert misfit(state, form_of_state(trainer), "trainer") is None
    assert state["step"]["model"].keys() == trained_state(trainer.model).keys(), "frozen weights are not in it"
    torch.manual_seed(9)
    first.load_state_dict(state)
    first.run()
    assert first.clock.steps == trainer.clock.steps
    assert all(map(torch.equal, first.model.parameters(), trainer.model.parameters()))


def test_less_memory_is_halved_batch_by_batch_with_lora_too(monkeypatch):
    trainer, _ = make_trainer(lora=3)
    step = trainer.step
    work, sizes = step._called, []

    def called(x, y, **options):
        sizes.append(len(x))
        if len(x) > 2:
            raise MemoryError
        return work(x, y, **options)

    monkeypatch.setattr(step, "_called", called)
    step([windows(4)], 1e-3)
    assert sizes == [4, 2, 2] and step.rows == 2


def test_the_last_layers_and_the_norm_behind_them_are_trained():
    model = tiny(**LLAMA, n_layer=3)
    freeze(model, 2)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {name for name, _ in model.named_parameters() if name.startswith(("blocks.1", "blocks.2", "ln_f"))}
    assert trained == expected
    add_lora(model, 2, 4.0, targets="attention", last=1)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        f"blocks.2.attn.{part}.lora_{matrix}" for part in ("key", "query", "value", "proj") for matrix in "AB"
    }


def test_an_optimizer_keeps_states_of_the_adapter_only():
    model = adapted(**LLAMA)
    step = Step(model, TrainConfig(optimizer="adamw", ema=0.0), CPU)
    step([windows()], 1e-3)
    kept = sum(value.numel() for each in step.optimizers for state in each.state.values() for value in state.values())
    assert kept == 2 * sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_time_and_epochs_both_end_a_training_from_a_base():
    now = [0.0]
    config = TrainConfig(minutes=10, max_epochs=3)
    for seconds, expected in ((1.0, 30), (100.0, 6)):
        now[0] = 0.0
        clock = Clock(config, 10, lambda: now[0], starts_from_base=True)
        while not clock.done:
            clock.add(1, 1)
            now[0] += seconds
        assert clock.steps == expected and clock.progress == 1.0, "the learning rate has come down"


def test_memory_is_foretold():
    config = ModelConfig(vocab_size=10_000, n_embd=512, n_head=8, n_layer=8, block_size=2048)
    full, lora, last = (training_bytes(config, 64, 4, *part) for part in ((), (16,), (None, 2)))
    n = GPTLanguageModel.outline(config).n_parameters()
    assert lora < last < full and 20 * n < full < 30 * n and 12 * n < lora < 15 * n
    assert training_bytes(config, 64, 64) > full < training_bytes(config, 1024, 4)


def test_a_flag_wins_over_what_is_right_for_a_base():
    values = complete_from_base({"lora": 8, "batch_size": 2})
    assert values["batch_size"] == 2 and values["tokenizer"] == "base"
    assert values["learning_rate"] > complete_from_base({})["learning_rate"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A folder with the configuration of a small model that knows something already. Do not write into it."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = BPETokenizer.train([TEXT, GENERAL_TEXT.read_text(encoding="utf-8")], 320)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, n_embd=32, n_head=4, n_layer=3, block_size=64, dropout=0.0,
        tie_embeddings=True, **LLAMA,
    )  # fmt: skip
    torch.manual_seed(0)
    weights = GPTLanguageModel(config).state_dict()
    saved = SavedConfig(config, tokenizer.to_dict(), base=Origin("tiny/base", "mit", "Q8_0"))
    save_base(folder / "model_config.pth", saved, weights)
    (folder / "input.txt").write_text(TEXT, encoding="utf-8")
    return folder


@pytest.fixture
def folder(base, tmp_path) -> Path:
    for path in base.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture
def train(folder, monkeypatch, capsys):
    """Step 2 in this process, whose imports take longer than such trainings."""
    monkeypatch.chdir(folder)
    torch.set_num_threads(1)

    def run_step(*flags: str) -> Result:
        monkeypatch.setattr("sys.stdin", io.StringIO())
        status = run(train_llm.main, ["--sample_tokens", "0", *flags])
        return Result(status, *capsys.readouterr())

    return run_step


def test_enter_everywhere_trains_a_base_and_says_what_it_gained_and_forgot(folder, train):
    done = train("--sample_tokens", "10")
    assert done.status == 0, done.stderr
    assert "one of --lora 16" in done.stderr
    before = float(re.search(r"Before: ([\d.]+) bits per byte, which tiny/base has", done.stderr)[1])
    own, now = map(
        float, re.search(r"had ([\d.]+) bits per byte on before and .* has ([\d.]+) on", done.stderr).groups()
    )
    assert before == own > now
    assert re.search(r"on general text it .* \([\d.]+ bits per byte before, [\d.]+ now\)", done.stderr)
    _, saved = load_model(folder / "trained_model.pth", folder / "model_config.pth")
    assert saved.base == Origin("tiny/base", "mit", "Q8_0")
    assert "general bits per byte before" in (folder / "trained_model.report.html").read_text()
    again = train("--config", "trained_model.yaml", "--max_iters", "1", "--max_epochs", "1")
    assert again.status == 0, again.stderr
    assert f"Before: {before:.3f} bits" in again.stderr, "it starts from the base again"


def test_lora_leaves_ordinary_weights_and_an_adapter_beside_them(folder, train):
    done = train("--lora", "4", "--max_iters", "12", "--learning_rate", "0.02", "--precision", "float32")
    assert done.status == 0, done.stderr
    assert re.search(r"with 0.0\dM parameters, 0.0\dM of which are trained", done.stdout)
    config_path = folder / "model_config.pth"
    base = load_base(config_path, load_config(config_path))
    model, _ = load_model(folder / "trained_model.pth", config_path)
    adapter = torch.load(folder / "trained_model.lora.pth", weights_only=True)
    assert (adapter["rank"], adapter["alpha"], len(adapter["weights"])) == (4, 8.0, 2 * 3 * 7)
    changed = 0
    for name, weight in model.state_dict().items():
        layer = name.removesuffix(".weight")
        if f"{layer}.lora_A" in adapter["weights"]:
            a, b = (adapter["weights"][f"{layer}.lora_{matrix}"] for matrix in "AB")
            torch.testing.assert_close(weight, base[name] + 2 * b @ a, rtol=1e-5, atol=1e-6)
            changed += not torch.equal(weight, base[name])
        else:
            assert torch.equal(weight, base[name]), name
    assert changed == 3 * 7


def test_a_training_with_lora_is_resumed_and_not_as_another_one(folder, train):
    flags = ["--lora", "4", "--max_iters", "8", "--schedule", "constant", "--precision", "bfloat16"]
    assert train(*flags).status == 0
    refused = train("--resume", "--lora", "8")
    assert refused.status == 2 and "is a training with --lora 4" in refused.stderr
    resumed = train("--resume", "--max_iters", "16")
    assert resumed.status == 0, resumed.stderr
    assert "Gained: " in resumed.stderr
    saved = load_config(folder / "model_config.pth")
    weights = load_base(folder / "model_config.pth", saved)
    weights["ln_f.weight"] += 1
    save_base(folder / "model_config.pth", saved, weights)
    refused = train("--resume", "--max_iters", "24")
    assert refused.status == 2 and "base weights" in refused.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tokenizer", "gpt2"], "has its own tokens"),
        (["--vocab_size", "300"], "has its own tokens"),
        (["--train_layers", "9"], "--train_layers 9: this model has 3"),
        (["--window", "65"], "--window 65: this model reads 64 tokens at once"),
        (["--lora_alpha", "3"], "lora_alpha 3.0 has no meaning without lora"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_does_not_fit_to_a_base_is_said(folder, train, flags, said):
    done = train(*flags)
    assert done.status == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "trained_model.pth").exists()


def test_what_a_training_starts_from_must_be_there(folder, train):
    (folder / "model_config.base.pth").unlink()
    done = train("--lora", "4")
    assert done.status == 2 and done.stderr.count("\n") == 1 and "llm_model.py --from tiny/base" in done.stderr
    configure(folder, n_embd=32, n_layer=1, block_size=16)
    done = train("--lora", "4")
    assert done.status == 2 and "--lora 4 needs a model to start from" in done.stderr
