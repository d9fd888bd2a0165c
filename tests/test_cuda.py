"""Training and generating on an NVIDIA GPU: the CPU's numbers, and what only a GPU can run out of."""

from __future__ import annotations

import copy

import pytest
import torch
from architectures import ATTENTIONS, EXPERTS, tiny, windows
from conftest import STORY, configure, run_script

from custom_llm.config.training import TrainConfig
from custom_llm.data.dataset import TextDataset, WindowLoader
from custom_llm.model import GPTLanguageModel
from custom_llm.training.autotune import use_fastest_settings
from custom_llm.training.loop import Trainer
from custom_llm.training.step import Step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def losses(device: torch.device, architecture: dict, **options: object) -> list[float]:
    """Of six steps, in nats per token."""
    step = Step(tiny(**architecture).train(), TrainConfig(**{"learning_rate": 0.001, **options}), device)
    updates = [step([windows(8, seed)], 0.001) for seed in range(6)]
    return [(update.loss / update.n_targets).item() for update in updates]


@pytest.mark.parametrize("experts", EXPERTS)
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("rest", [dict(), dict(pos_emb="rope", norm="rms", tie_embeddings=True)], ids=str)
def test_every_architecture_learns_as_on_the_cpu(experts, attention, rest):
    architecture = {**ATTENTIONS[attention], **EXPERTS[experts], **rest}
    on_cpu = losses(CPU, architecture, optimizer="adamw", precision="float32")
    assert losses(GPU, architecture, optimizer="adamw", precision="float32") == pytest.approx(on_cpu, rel=1e-3)
    assert losses(GPU, architecture, optimizer="muon", precision="bfloat16") == pytest.approx(
        losses(CPU, architecture, optimizer="muon", precision="float32"), rel=0.05
    )


def test_compiled_and_recomputed_it_is_the_same():
    architecture = dict(pos_emb="rope", norm="rms", non_linearity="swiglu", qk_norm=True)
    expected = losses(GPU, architecture, precision="float32")
    assert losses(GPU, architecture, precision="float32", act_recomp=True) == pytest.approx(expected, rel=1e-5)
    assert losses(GPU, architecture, precision="float32", compile=True, batch_size=8) == pytest.approx(
        expected, rel=1e-3
    )


def test_bfloat16_is_taken_for_a_large_model():
    torch.manual_seed(0)
    model = GPTLanguageModel(dict(vocab_size=99, n_embd=1024, n_head=16, n_layer=4, block_size=256, dropout=0.1))
    step = Step(model, TrainConfig(learning_rate=0.001), GPU)
    ids = torch.randint(99, (32, 257))
    use_fastest_settings(step, (ids[:, :-1], ids[:, 1:]))
    assert step.precision == "bfloat16"


def test_a_training_goes_on_from_its_checkpoint():
    dataset = TextDataset(STORY * 20, 16)
    six = dict(vocab_size=dataset.vocab_size, n_embd=32, n_head=2, n_layer=2, block_size=16, dropout=0.2)
    config = TrainConfig(batch_size=4, learning_rate=0.001, max_iters=40, ckpt_interval=10)
    saved: list[dict] = []

    def trainer() -> Trainer:
        torch.manual_seed(0)
        loader = WindowLoader(dataset, 4, None, 3)
        return Trainer(
            GPTLanguageModel(six), loader, config, GPU, save=lambda state: saved.append(copy.deepcopy(state))
        )

    whole = trainer()
    whole.run()
    rest = trainer()
    rest.load_state_dict(saved[1])
    rest.run()
    assert rest.clock.steps == whole.clock.steps == 40
    # On a GPU sums are not always made in the same order; with other dropout they would differ by 0.01 and more.
    for mine, other in zip(rest.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-4)


def test_out_of_memory_halves_what_is_read_at_once(capfd):
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(GPU).total_memory
    six = dict(vocab_size=30_000, n_embd=64, n_head=2, n_layer=1, block_size=256, dropout=0.0)
    step = Step(GPTLanguageModel(six).train(), TrainConfig(learning_rate=0.001), GPU)
    ids = torch.randint(30_000, (64, 257))  # 2 GB of logits
    try:
        torch.cuda.set_per_process_memory_fraction(2e9 / total)
        update = step([(ids[:, :-1], ids[:, 1:])], 0.001)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert update.n_targets == 64 * 256 and step.rows in (4, 8, 16)
    first = capfd.readouterr().err.splitlines()[0]
    assert first == "note: out of memory with 64 windows at once; going on with 32, and the same step in 2 parts"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "input.txt").write_text(STORY * 80, encoding="utf-8")
    configure(tmp_path, n_embd=32, n_head=4, n_layer=1, block_size=16, dropout=0.1)
    return tmp_path


FLAGS = "--dataset_path input.txt --batch_size 4 --max_epochs 3 --cache_dir cache --device cuda".split()


def test_the_script_trains_and_goes_on(folder):
    done = run_script("train_llm.py", *FLAGS, "--learning_rate", "0.001", cwd=folder)
    assert done.status == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Training on cuda with 0.02M parameters" and "Generated text:" in lines
    weights = torch.load(folder / "trained_model.pth", weights_only=True)
    assert all(tensor.device.type == "cpu" for tensor in weights.values()), "a machine without a GPU reads it"
    again = run_script("train_llm.py", "--resume", "--max_epochs", "4", "--cache_dir", "cache", cwd=folder)
    assert again.status == 0, again.stderr
    assert "Epoch 4/4, Loss: " in again.stdout


def test_weights_that_are_no_numbers_any_more_are_a_sentence(folder):
    done = run_script("train_llm.py", *FLAGS, "--learning_rate", "10", "--grad_clip", "0", cwd=folder)
    assert "Traceback" not in done.stderr
    assert done.status == 0 or (done.status, "error: --learning_rate 10" in done.stderr) == (2, True)  # some survive


def test_a_trained_model_writes_on_the_gpu(folder):
    assert run_script("train_llm.py", *FLAGS, "--learning_rate", "0.001", cwd=folder).status == 0
    texts = []
    for flags in ([], ["--use_gpu"]):
        command = ["--gguf_path", "trained_model.pth", "--query", "Mia", "--temp", "0", "--max_tokens", "60", *flags]
        done = run_script("inference_gguf.py", *command, cwd=folder)
        assert done.status == 0, done.stderr
        texts.append(done.stdout)
    assert texts[0] == texts[1] and texts[0].startswith("Mia")
