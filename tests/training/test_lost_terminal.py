"""A training whose terminal or reader goes away: it ends as by SIGTERM, and what it had to say is in a log."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT, STORY, configure, run_script

FLAGS = "--learning_rate 0.001 --max_epochs 100000 --patience 0 --sample_tokens 0 --threads 1 --precision float32"
COMMAND = [
    sys.executable,
    str(ROOT / "train_llm.py"),
    "--dataset_path",
    "input.txt",
    "--batch_size",
    "4",
    *FLAGS.split(),
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "input.txt").write_text(STORY * 30, encoding="utf-8")
    configure(tmp_path, n_embd=16, n_head=2, n_layer=1, block_size=16, dropout=0.1)
    return tmp_path


def start(folder: Path, *before: str, flags: Sequence[str] = (), **streams: object) -> subprocess.Popen:
    return subprocess.Popen(
        [*before, *COMMAND, *flags], cwd=folder, **{"env": ENVIRONMENT, "stdin": subprocess.DEVNULL, **streams}
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def ended_well(folder: Path, messages: str, resumes: bool = False) -> None:
    """It said how to go on, and that works."""
    assert "stopped; the best of what the model has learnt so far is in trained_model.pth" in messages
    assert "Traceback" not in messages and "rror" not in messages
    _, *words = shlex.split(re.search(r"^to go on: (python .*)$", messages, re.MULTILINE)[1])
    assert words == ["train_llm.py", "--resume"] and (folder / "trained_model.checkpoint.pth").is_file()
    if resumes:
        resumed = run_script(*words, "--max_iters", "1", cwd=folder)  # it has made more
        assert resumed.status == 0, resumed.stderr


@pytest.mark.parametrize(
    ("lost", "unbuffered"),
    [
        ("stdout", ""),
        pytest.param("stdout", "1", marks=pytest.mark.slow),
        pytest.param("stderr", "", marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_has_enough(folder, lost, unbuffered):
    """`train_llm.py | head -n 3`"""
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = start(folder, flags=["--sample_tokens", "5"], env=environment, **pipes)  # samples are written to stderr
    streams = {"stdout": process.stdout, "stderr": process.stderr}
    read = [streams[lost].readline() for _ in range(3)]
    streams.pop(lost).close()
    (left,) = streams.values()
    left = left.read()
    assert process.wait(60) == 129 and all(read)
    log = (folder / "trained_model.log").read_text(encoding="utf-8")
    assert log.splitlines()[0].endswith("nobody reads this any more; it goes on here:")
    if lost == "stdout":
        assert read[0].startswith("Training on cpu") and re.search("^Epoch ", log, re.MULTILINE)
        epochs = [int(number) for number in re.findall(r"^Epoch (\d+)/", "".join(read) + log, re.MULTILINE)]
        assert epochs == list(range(1, epochs[-1] + 1)) and epochs[-1] >= 3, "the one without a reader is in the log"
    ended_well(folder, left if lost == "stdout" else log, resumes=bool(unbuffered))


def test_a_terminal_that_is_closed(folder):
    child, leader = pty.fork()  # the training is the first in a session, and this its terminal
    if child == 0:
        os.chdir(folder)
        os.execve(sys.executable, COMMAND, ENVIRONMENT)
    shown = b""
    while b"Epoch 1/" not in shown:
        shown += os.read(leader, 4096)
    os.close(leader)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129
    ended_well(folder, (folder / "trained_model.log").read_text(encoding="utf-8"))


def test_nohup_stays(folder):
    process = start(folder, "nohup", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(folder / "trained_model.pth")
    page = (folder / "trained_model.report.html").read_text(encoding="utf-8")
    assert '<meta http-equiv="refresh"' in page and "under way" in page and "Settings" in page, (
        "it is there from the first"
    )
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 143 and not (folder / "trained_model.log").exists()
    page = (folder / "trained_model.report.html").read_text(encoding="utf-8")
    assert '<meta http-equiv="refresh"' not in page and "stopped after" in page and "<svg" in page
    ended_well(folder, messages.replace("nohup: ignoring input", ""))
