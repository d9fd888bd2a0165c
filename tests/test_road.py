"""The whole road at once: quickstart.py, the README's commands, and what happens when one is stopped on the way."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ENVIRONMENT, ROOT, STORY, configure, run_script, train

from custom_llm.common.steps import STEPS
from custom_llm.inference.engine import Engine
from custom_llm.model.files import load_model, save_config, save_weights


def test_quickstart_on_the_bundled_stories(tmp_path):
    result = run_script("quickstart.py", "--minutes", "0.02", "--quant_type", "Q8_0,Q4_0", cwd=tmp_path, timeout=300)
    assert result.status == 0, result.stderr
    folder = tmp_path / "quickstart"
    files = {"stories.txt", "model_config.pth", "trained_model.pth", "hf_model", "model.gguf"}
    files |= {"model_config.yaml", "trained_model.yaml", "model.gguf.yaml"}  # the options of the three
    files |= {"Modelfile", "conversion.log"}  # for Ollama; what the conversion measured
    files |= {"trained_model.checkpoint.pth"}  # to go on with
    files |= {"trained_model.loss.csv", "trained_model.loss.png", "trained_model.report.html"}  # to look at
    assert {path.name for path in folder.iterdir()} == files | {"model.gguf.Q8_0.gguf", "model.gguf.Q4_0.gguf"}
    for step in range(1, 5):
        assert f"[{step}/4] python " in result.stdout
    commands = result.stdout.split("The four commands that repeat it:\n")[1].splitlines()
    assert [shlex.split(command)[:2] for command in commands] == [
        ["python", script] for script in ("llm_model.py", "train_llm.py", "convert_to_gguf.py", "inference_gguf.py")
    ]


def test_quickstart_on_a_short_file(tmp_path):
    (tmp_path / "my notes.txt").write_text("Buy milk. Call Anna! 3 eggs; ½ cup of sugar.\n" * 9, encoding="utf-8")
    # A name in parts, as `make run ARGS="my notes.txt"` gives it, and options of the steps.
    words = "my notes.txt --minutes 0.02 --preset modern --seed 3 --author=Mia --no_bias --max_chars 300".split()
    result = run_script("quickstart.py", *words, cwd=tmp_path, timeout=300)
    assert result.status == 0, result.stderr
    commands = result.stdout.split("The four commands that repeat it:\n")[1].splitlines()
    assert "--dataset_path 'my notes.txt'" in commands[1] and commands[1].endswith(" --seed 3 --max_chars 300")
    assert commands[0].endswith(" --preset modern --no_bias") and commands[2].endswith(" --author Mia")
    assert "next: " not in result.stdout + result.stderr, "it follows by itself"
    for command in (commands[0], commands[3]):  # they do repeat it, as those between them would
        _, script, *flags = shlex.split(command)
        again = run_script(script, *flags, cwd=tmp_path, timeout=300)
        assert again.status == 0, again.stderr


def test_ctrl_c_in_quickstart_ends_the_training_and_makes_the_file(tmp_path):
    (tmp_path / "notes.txt").write_text(STORY * 50, encoding="utf-8")
    command = [sys.executable, ROOT / "quickstart.py", "notes.txt", "--minutes", "9", "--eval_interval", "3"]
    pipes = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    child = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, text=True, **pipes)
    next(line for line in child.stdout if line.startswith("Epoch 1"))
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 0, out
    assert "going on to the file, with what was learnt until now" in out
    said = run_script("inference_gguf.py", "--query", "Mia", cwd=tmp_path)
    assert said.stdout.startswith("Mia") and "using quickstart/model.gguf.Q8_0.gguf" in said.stderr
    scored = run_script("evaluate_llm.py", "--max_tokens", "99", cwd=tmp_path)
    assert scored.status == 0 and "quickstart/model.gguf.Q8_0.gguf" in scored.stdout, scored.stderr


@pytest.mark.slow
def test_text_far_past_the_context(tmp_path):
    """300 tokens and more from a model that sees 64."""
    train(tmp_path, STORY * 20, epochs=1, block_size=64)
    assert run_script("convert_to_gguf.py", "--llama_cpp_path", "none", cwd=tmp_path).status == 0
    said = run_script("inference_gguf.py", "--query", "Mia", "--max_tokens", "300", "--ignore_eos", cwd=tmp_path)
    assert said.status == 0, said.stderr
    assert said.stdout.startswith("Mia") and len(said.stdout) >= 300
    with Engine(tmp_path / "model.gguf.Q4_0.gguf") as engine:
        assert len("".join(engine.generate("The wind", 1000, ignore_eos=True))) >= 1000


def start_training(folder, *flags):
    """A training without end that has just finished its first epoch."""
    command = [sys.executable, ROOT / "train_llm.py", "--max_epochs", "100000", *flags]
    pipes = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, text=True, **pipes)
    next(line for line in child.stdout if line.startswith("Epoch 1/"))
    return child


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_keeps_what_it_learnt(tmp_path, number):
    (tmp_path / "input.txt").write_text(STORY * 50, encoding="utf-8")
    configure(tmp_path, n_embd=32, block_size=16)
    child = start_training(tmp_path, "--batch_size", "4")
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 128 + number, "what a shell reports"
    assert "stopped; the best of what the model has learnt so far is in trained_model.pth" in err
    assert "Traceback" not in err
    assert torch.load(tmp_path / "trained_model.pth", weights_only=True)["head.weight"].isfinite().all()
    assert run_script("convert_to_gguf.py", "--llama_cpp_path", "none", cwd=tmp_path).status == 0


@pytest.mark.slow
def test_kill_9_leaves_no_half_written_file(tmp_path):
    """Killed at random moments while it writes without pause, a training leaves files that load."""
    (tmp_path / "input.txt").write_text(STORY * 3, encoding="utf-8")
    configure(tmp_path, n_embd=32, block_size=16)
    for wait in (0.0, 0.11, 0.23):
        child = start_training(tmp_path, "--batch_size", "64")
        time.sleep(wait)
        child.kill()
        child.wait()
        child.stdout.close()
        child.stderr.close()
        for name in ("trained_model.pth", "model_config.pth"):
            assert torch.load(tmp_path / name, weights_only=True)
    model, saved = load_model(tmp_path / "trained_model.pth", tmp_path / "model_config.pth")
    save_config(tmp_path / "model_config.pth", saved)
    save_weights(tmp_path / "trained_model.pth", model)
    left = [path.name for path in tmp_path.glob(".*") if path.suffix != ".lock"]  # these are free, and locked again
    assert not left, "what the killed ones left is cleared away by the next"


def readme_commands():
    """The lines of the README's shell blocks, in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def test_the_readmes_commands_work_as_written(tmp_path):
    """In the order they stand there, on a short text; `make` and installing are what CI itself does."""
    shutil.copytree(ROOT / "custom_llm", tmp_path / "custom_llm", ignore=shutil.ignore_patterns("__pycache__"))
    for script in ROOT.glob("*.py"):
        shutil.copy(script, tmp_path)
    for text in ("input.txt", "notes.txt"):
        (tmp_path / text).write_text(STORY * 30, encoding="utf-8")
    commands = readme_commands()
    assert sum(command.startswith("python ") for command in commands) >= 4
    environment = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path), "VIRTUAL_ENV": sys.prefix}
    with contextlib.ExitStack() as stack:
        address = ""  # of the server, which has a port of its own here
        for command in commands:
            if command.startswith(("git clone", "cd ", "source ", "pip ", "pipx ", "make ", "custom-llm ")):
                if command.startswith("make "):
                    subprocess.run(["make", "-n", command.split()[1]], cwd=ROOT, check=True, capture_output=True)
                elif command.startswith("custom-llm "):
                    assert command.split()[1] in STEPS.values()
                continue
            command = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", command)
            command = command.replace("HuggingFaceTB/SmolLM2-135M", "trained_model.pth")  # which is there without a hub
            command = re.sub(r"--minutes \S+", "--minutes 0.02", command)
            options = dict(cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, text=True)
            if "serve_gguf.py" in command:
                server = subprocess.Popen([*shlex.split(command), "--port", "0"], **options, stdout=subprocess.PIPE)
                stack.enter_context(server)
                stack.callback(server.terminate)
                address = re.search(r"http://\S+", server.stdout.readline())[0]
                continue
            command = command.replace("http://127.0.0.1:8000", address)
            for _ in range(5 if "curl" in command else 1):  # so small a model may end its text at once
                done = subprocess.run(command, shell=True, **options, capture_output=True, timeout=300)
                assert done.returncode == 0, f"{command}\n{done.stderr}"
                if text := "curl" in command and json.loads(done.stdout)["choices"][0]["text"]:
                    break
            assert "curl" not in command or text, done.stdout
