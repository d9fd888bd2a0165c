"""Several processes on one machine, started by torchrun, train what one process trains."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from conftest import ENVIRONMENT, ROOT, STORY, configure, run_script
from hypothesis import given, settings
from hypothesis import strategies as st
from train_together import ARCHITECTURES, Case

from custom_llm.config.training import TrainConfig
from custom_llm.data.dataset import TextDataset, WindowLoader
from custom_llm.model.files import load_model
from custom_llm.training.distributed.processes import Processes


def torchrun(n: int, script: str, *args: str | Path, cwd: Path) -> subprocess.Popen:
    """Start `n` processes of a script of the repository."""
    # It finds a port by itself: one that is found free here may be taken by another test before it is opened.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    return subprocess.Popen(
        [*command, str(ROOT / script), *map(str, args)], cwd=cwd, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip


def run_together(n: int, cases: list[Case], folder: Path) -> list[dict]:
    """The results of cases in `n` processes."""
    torch.save(cases, folder / "cases.pt")
    process = torchrun(n, "tests/train_together.py", "cases.pt", "results.pt", cwd=folder)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return torch.load(folder / "results.pt", weights_only=False)


def assert_same(result: dict, expected: dict) -> None:
    """The same losses and weights but for rounding."""
    n = len(result["losses"])
    assert result["losses"] == pytest.approx(expected["losses"][-n:], rel=1e-5)
    assert result["held_out"] == pytest.approx(expected["held_out"], rel=1e-5)
    ours, theirs = (which["states"][-1]["step"]["model"] for which in (result, expected))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        if not name.endswith("key.bias"):  # attention does not depend on it: its gradient is rounding alone
            torch.testing.assert_close(weight, theirs[name], rtol=1e-4, atol=1e-5, msg=lambda m, name=name: name + m)


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_go_on_with_each_others_work(tmp_path):
    ways = [("classic", "adamw", "ddp"), ("aux_free", "muon", "fsdp"), ("softmax", "muon", "ddp")]
    alone = [Case(architecture, optimizer).run() for architecture, optimizer, _ in ways]
    assert len(alone[0]["losses"]) == 8, "each epoch ends with a step of one batch, which is one process's"
    cases = [Case(*way) for way in ways]
    cases += [
        Case("aux_free", "muon", "fsdp", resumed=alone[1]["states"][1]),  # from one process to two
        Case("aux_free", "muon", "ddp", resumed=(1, 1)),  # from fsdp to ddp
        Case("classic", "adamw", "fsdp", resumed=(0, 5)),  # from ddp to fsdp
        Case("classic", "adamw", dropout=0.3),
        Case("classic", "adamw", dropout=0.3, resumed=(6, 1)),
        Case("modern", "adamw", "ddp", masked=True),
        Case("modern", "adamw", "fsdp", masked=True),
    ]
    results = run_together(2, cases, tmp_path)
    for result, expected in zip(results, [*alone, alone[1], alone[1], alone[0]], strict=False):
        assert_same(result, expected)
    for place in (0, 1):  # from two processes to one
        assert_same(Case(*ways[place][:2], resumed=results[place]["states"][2]).run(), alone[place])
    for result in results[8:]:
        assert_same(result, Case("modern", "adamw", masked=True).run())
    whole, rest = results[6:8]
    assert len(rest["losses"]) == 6
    assert rest["losses"] == whole["losses"][-6:], "as many processes as before drop the same at random"


@pytest.mark.slow
def test_two_processes_train_a_part_of_a_model_as_one_does(tmp_path):
    partial = [dict(lora=3), dict(lora=3, train_layers=1), dict(train_layers=1)]
    cases = [
        Case("modern", optimizer, strategy, partial=part)
        for part, optimizer in zip(partial, ("adamw", "muon", "muon"), strict=True) for strategy in ("ddp", "fsdp")
    ]  # fmt: skip
    cases += [Case("modern", "adamw", "ddp", partial=partial[0], resumed=(1, 2))]  # from fsdp to ddp
    for case, result in zip(cases, run_together(2, cases, tmp_path), strict=True):
        assert_same(result, Case(case.architecture, case.optimizer, partial=case.partial).run())


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3])
def test_every_strategy_optimizer_and_architecture(n, tmp_path):
    cases = [
        Case(architecture, optimizer, strategy, batches=n)
        for architecture in ARCHITECTURES for optimizer in ("adamw", "muon") for strategy in ("ddp", "fsdp")
    ]  # fmt: skip
    for case, result in zip(cases, run_together(n, cases, tmp_path), strict=True):
        alone = Case(case.architecture, case.optimizer, batches=n).run()
        pairs = zip(result["losses"], alone["losses"], strict=True)
        off = max(abs(ours - theirs) / theirs for ours, theirs in pairs)
        last = f"{result['losses'][-1]:.7f} | {alone['losses'][-1]:.7f} | {off:.1e}"
        print(f"| {n} × {case.strategy} | {case.architecture} | {case.optimizer} | {last} |")
        assert_same(result, alone)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 20))
@settings(deadline=None)
def test_each_batch_is_read_by_one_process(n_tokens, batch_size, size, per_process, n_read):
    def loader(rank: int = 0, size: int = 1):
        made = WindowLoader(TextDataset("ab" * (n_tokens + 4), 4), batch_size, None, 5, rank, size)
        made.sampler.load_state_dict({"before": made.sampler.generator.get_state(), "read": n_read * batch_size})
        return list(made)

    whole, parts = loader(), [loader(rank, size) for rank in range(size)]
    assert {len(part) for part in parts} == {len(whole)}
    for start in range(0, len(whole), size * per_process):
        step = slice(start, start + size * per_process)
        own = [Processes(rank, size).part(part[step]) for rank, part in enumerate(parts)]
        assert len({len(batches) for batches in own}) == 1, "no process waits for another one's batch"
        read = [x for batches in own for x, _ in batches if not x.is_meta]
        assert len(read) == len(whole[step])
        for place, (x, _) in enumerate(whole[step]):
            assert torch.equal(own[place % size][place // size][0], x)
            assert all(part[step][place][1].shape == x.shape for part in parts), "the tokens of a step count the same"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "input.txt").write_text(STORY * 60, encoding="utf-8")
    configure(tmp_path, n_embd=32, n_head=4, n_layer=1, block_size=16, dropout=0.1)
    return tmp_path


FLAGS = "--dataset_path input.txt --batch_size 4 --learning_rate 0.001 --cache_dir cache".split()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_signal_to_torchrun_stops_all_after_the_step_and_one_process_goes_on(folder, strategy):
    flags = [*FLAGS, "--strategy", strategy, "--total_batch_size", "4 * 16 * 2", "--max_iters", "2_000"]
    process = torchrun(2, "train_llm.py", *flags, "--ckpt_interval", "5", cwd=folder)
    checkpoint = folder / "trained_model.checkpoint.pth"
    wait_for(checkpoint)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert output.count(f"Training on cpu in 2 processes ({strategy})") == 1
    assert errors.count("stopped; the best of what the model has learnt so far is in trained_model.pth") == 1, errors
    steps = torch.load(checkpoint, weights_only=True)["trainer"]["clock"]["steps"]
    assert 5 <= steps < 2000
    rest = run_script("train_llm.py", "--resume", "--max_iters", str(steps + 20), "--cache_dir", "cache", cwd=folder)
    assert rest.status == 0, rest.stderr
    assert torch.load(checkpoint, weights_only=True)["trainer"]["clock"]["steps"] == steps + 20
    assert "Generated text:" in rest.stdout


@pytest.mark.slow
def test_a_divided_model_is_trained_to_the_end_and_is_an_ordinary_one_in_its_files(folder):
    flags = [*FLAGS, "--strategy", "fsdp", "--max_iters", "20"]
    process = torchrun(2, "train_llm.py", *flags, cwd=folder)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.count("Generated text:") == 1
    assert len(re.findall(r"^Epoch \d+, Loss: .* Held-out: ", output, re.MULTILINE)) == 4
    load_model(folder / "trained_model.pth", folder / "model_config.pth")  # or their names or shapes would be wrong


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others(folder):
    process = torchrun(2, "train_llm.py", *FLAGS, "--max_iters", "100_000", "--ckpt_interval", "2", cwd=folder)
    wait_for(folder / "trained_model.checkpoint.pth")
    workers = [child for child in psutil.Process(process.pid).children() if "train_llm.py" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[1].kill()
    start = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and time.monotonic() - start < 30
    assert "Root Cause" in errors and "Signal 9 (SIGKILL)" in errors
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.slow
def test_where_torchrun_is_killed_the_others_stop_and_keep_what_they_have(folder):
    process = torchrun(2, "train_llm.py", *FLAGS, "--max_iters", "100_000", "--ckpt_interval", "2000", cwd=folder)
    wait_for(folder / "trained_model.pth")
    workers = [child for child in psutil.Process(process.pid).children() if "train_llm.py" in " ".join(child.cmdline())]
    assert len(workers) == 2
    process.kill()
    start = time.monotonic()
    _, errors = process.communicate(timeout=60)  # until nobody writes there
    assert time.monotonic() - start < 20
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    assert "stopped; the best of what" in errors, errors
    checkpoint = torch.load(folder / "trained_model.checkpoint.pth", weights_only=True)
    assert checkpoint["trainer"]["clock"]["steps"] % 2000
    rest = run_script("train_llm.py", "--resume", "--max_iters", "2", "--cache_dir", "cache", cwd=folder)
    assert rest.status == 0, rest.stderr


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "the variable WORLD_SIZE is '', beside LOCAL_RANK"),
        ({"WORLD_SIZE": "two"}, "the variable WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "the variable RANK is '2'"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "the processes do not find each other"),
    ],
    ids=str,
)
def test_variables_that_torchrun_has_not_set(folder, variables, message):
    result = run_script("train_llm.py", *FLAGS, cwd=folder, environment={"LOCAL_RANK": "0", **variables})
    assert result.status == 2
    assert result.stderr.startswith(f"error: {message}") and result.stderr.count("\n") == 1, result.stderr


def test_what_is_wrong_is_said_once(folder):
    process = torchrun(2, "train_llm.py", *FLAGS, "--max_epochs", "1", "--total_batch_size", "3 * 64", cwd=folder)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and output == ""
    assert re.findall(r"^error: .*", errors, re.MULTILINE) == [
        "error: --total_batch_size 3 * 64 is no multiple of the 128 tokens in a batch of 4 windows of 16 in each of 2 "
        "processes; give 256"
    ]
    assert "exitcode  : 2" in errors
    assert not (folder / "trained_model.pth").exists()


def test_without_a_total_each_process_has_one_batch():
    config = TrainConfig(batch_size=4)
    assert [config.accumulation(16, size) for size in (1, 2, 5)] == [1, 2, 5]
