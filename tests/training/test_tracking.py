"""What a training leaves to look at: figures, a picture, a page, trackers."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import time
import unicodedata
import warnings
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT, STORY, configure, digest, run_script
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_llm.config.training import TrainConfig
from custom_llm.training.clock import POINTS, Clock
from custom_llm.training.display import WIDEST, in_a_line
from custom_llm.training.tracking.history import (
    COLUMNS,
    MOST_POINTS,
    About,
    History,
    Point,
    best,
    thin,
    to_csv,
)
from custom_llm.training.tracking.plot import draw_curves
from custom_llm.training.tracking.verdict import Verdict, explain, judge
from custom_llm.training.tracking.web_report import Live, make_page

# In one precision: which one is faster is measured, so that two trainings might differ in it.
FLAGS = "--dataset_path input.txt --batch_size 4 --learning_rate 0.001 --precision float32 --cache_dir cache".split()
MEASURED = {"seconds", "tokens_per_second"}  # columns that are never the same twice


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The configuration of a tiny model, and a text."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "input.txt").write_text(STORY * 30, encoding="utf-8")
    configure(folder, n_embd=16, n_head=2, n_layer=1, block_size=16, dropout=0.1)
    return folder


@pytest.fixture
def folder(model, tmp_path):
    for name in ("input.txt", "model_config.pth"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    return tmp_path


def train(folder: Path, *flags: str, **kwargs: object):
    result = run_script("train_llm.py", *FLAGS, *flags, cwd=folder, **kwargs)
    assert result.status == 0, result.stderr
    return result


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(set(row) == set(COLUMNS) and None not in row.values() for row in rows)
    return rows


def same(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def points_of(held_out: list[float | None], losses: list[float] | None = None) -> list[Point]:
    losses = losses or [5 - i * 4 / len(held_out) for i in range(len(held_out))]
    return [
        Point(10 * i, i / 2, 100 * i, float(i), 0.01, loss, 1.0, 100.0, value, value, None if value is None else "text")
        for i, (loss, value) in enumerate(zip(losses, held_out, strict=True), 1)
    ]


class Page(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.samples, self.text = [], [], [], ""
        self._is_sample = False
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._is_sample = tag == "pre"
        if self._is_sample:
            self.samples.append("")

    def handle_endtag(self, tag):
        self._is_sample = self._is_sample and tag != "pre"

    def handle_data(self, data):
        self.text += data
        if self._is_sample:
            self.samples[-1] += data


def test_a_training_leaves_figures_a_picture_and_a_page(folder):
    name = "my \"first\" <i>mödel</i> 'v1'".replace("/", "")
    result = train(folder, "--max_epochs", "4", "--model_path", f"{name}.pth")
    for word in ("FLOP", "nats", "logit", "KL", "KV", "bfloat16", "float32"):
        assert word not in result.stdout + result.stderr, "a beginner does not know it"
    rows = read_csv(folder / f"{name}.loss.csv")
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps)) and steps[0] == 1
    reported = [row for row in rows if row["held_out"]]
    lines = [line for line in result.stdout.splitlines() if line.startswith("Epoch")]
    assert [float(row["epoch"]) for row in reported] == [1, 2, 3, 4]
    for row, line in zip(reported, lines, strict=True):
        held_out, bits = map(float, re.search(r"Held-out: ([0-9.]+) \(([0-9.]+) bits per byte\)", line).groups())
        # Both are rounded from the same number, the row's to more places.
        assert held_out == pytest.approx(float(row["held_out"]), abs=6e-5)
        assert bits == pytest.approx(float(row["bits_per_byte"]), abs=6e-4)
    png = (folder / f"{name}.loss.png").read_bytes()
    assert png.startswith(b"\x89PNG") and struct.unpack(">2I", png[16:24]) == (1200, 675)
    source = (folder / f"{name}.report.html").read_text(encoding="utf-8")
    page = Page(source)
    assert not {"script", "link", "img", "iframe"} & set(page.tags) and "http:" not in source.replace("http-equiv", "")
    assert page.tags.count("h1") == 1 and page.tags.count("svg") == 1 and "i" not in page.tags
    assert any(key == "aria-label" and value.startswith("Loss over") for key, value in page.attributes)
    assert f"{name}.pth" in page.text and "finished after" in page.text and "learning_rate0.001" in page.text
    assert page.samples[-1] == result.stdout.split("Generated text:\n")[1].removesuffix("\n")
    said = result.stderr.splitlines()
    assert f"how it goes, to be opened in a browser: {name}.report.html" in said and "warning" not in result.stderr
    assert said[-2] == f"how it went: {name}.report.html"
    assert said[-1] == "next: " + shlex.join(["python", "convert_to_gguf.py", "--model_path", f"{name}.pth"])


@pytest.mark.slow
def test_samples_leave_the_weights_as_they_are(folder):
    with_samples = train(folder, "--max_epochs", "2", "--threads", "1")
    weights = digest(folder / "trained_model.pth")
    without = train(folder, "--max_epochs", "2", "--threads", "1", "--sample_tokens", "0")
    assert digest(folder / "trained_model.pth") == weights
    assert with_samples.stdout == without.stdout
    assert any(line.startswith("  ") for line in with_samples.stderr.splitlines())
    assert not any(line.startswith("  ") for line in without.stderr.splitlines())


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_in_its_file(folder):
    flags = "--max_epochs 8 --ckpt_interval 40 --threads 1".split()
    train(folder, *flags)
    path, checkpoint = folder / "trained_model.loss.csv", folder / "trained_model.checkpoint.pth"
    whole = read_csv(path)
    for left in folder.glob("trained_model*"):
        left.unlink()
    process = subprocess.Popen(
        [sys.executable, ROOT / "train_llm.py", *FLAGS, *flags], cwd=folder, env=ENVIRONMENT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = same(read_csv(path))
    assert left and left == same(whole)[: len(left)]
    rest = run_script("train_llm.py", "--resume", "--cache_dir", "cache", cwd=folder)
    assert rest.status == 0, rest.stderr
    rows = read_csv(path)
    assert same(rows) == same(whole)
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)


@given(st.integers(1, 3000))
@settings(max_examples=30, deadline=None)
def test_about_two_hundred_points_evenly(n_steps):
    clock = Clock(TrainConfig(max_iters=n_steps), 7)
    due = []
    while not clock.done:
        clock.add(1, 1)
        if clock.point_due():
            due.append(clock.steps)
    assert len(due) == min(n_steps, POINTS + 1) and due[-1] == n_steps
    if n_steps > POINTS:
        assert due[0] == 1
        gaps = [b - a for a, b in pairwise(due[1:])]
        assert max(gaps) - min(gaps) <= 1


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(1, 99), st.none() | st.floats(0, 9)), min_size=1, max_size=60))
def test_thinned_points_have_the_same_mean_and_the_same_best(steps):
    points, tokens = [], 0
    for i, (loss, n_tokens, held_out) in enumerate(steps, 1):
        tokens += n_tokens
        points.append(Point(i, i, tokens, i, 0.1, loss, 1.0, 1.0, held_out))
    thinned = thin(points)
    assert len(thinned) <= len(points) / 2 + 3
    assert [p.step for p in thinned] == sorted({p.step for p in thinned})
    assert thinned[-1].step == len(points)
    assert (best(thinned) and best(thinned).step) == (best(points) and best(points).step)
    before = [0, *(p.tokens for p in thinned)]
    total = sum(p.loss * (p.tokens - since) for p, since in zip(thinned, before, strict=False))
    assert total == pytest.approx(sum(loss * n for loss, n, _ in steps), abs=1e-6)


def test_thousands_of_epochs_stay_a_small_file():
    clock, told = Clock(TrainConfig(max_epochs=10_000), 1), []
    history = History(on_point=told.append)
    for epoch in range(1, 10_001):
        clock.add(5, 1)
        history.add(10.0, 5, 0.1, 1.0)
        history.log(clock, epoch, 2.0 + abs(epoch - 3000) / 1000, "text")
    assert len(told) == 10_000 and MOST_POINTS / 2 < len(history.points) <= MOST_POINTS
    assert best(history.points).step == 3000 and {p.loss for p in history.points} == {2.0}
    again = History()
    again.load_state_dict(history.state_dict())
    assert again.points == history.points


def test_a_report_belongs_to_the_point_of_its_step():
    clock, history = Clock(TrainConfig(max_iters=4), 1), History(bytes_per_token=2.0)
    for _ in range(2):
        clock.add(8, 1)
        history.add(24.0, 8, 0.5, 1.5)
    history.log(clock, 0.5)
    history.log(clock, 0.5, held_out=math.log(2), sample="a\nb")
    history.log(clock, 0.5)
    (point,) = history.points
    assert (point.step, point.tokens, point.loss, point.learning_rate, point.grad_norm) == (2, 16, 3.0, 0.5, 1.5)
    assert (point.held_out, point.bits_per_byte, point.sample) == (math.log(2), 0.5, "a\nb")
    rows = list(csv.DictReader(io.StringIO(to_csv(history.points).decode())))
    assert len(rows) == 1 and rows[0]["bits_per_byte"] == "0.5"


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
ANY_POINT = st.builds(
    Point, st.integers(1, 10**15), NUMBERS, st.integers(0, 10**18), st.floats(0, 1e12), NUMBERS, NUMBERS, NUMBERS,
    NUMBERS,
)  # fmt: skip


@given(st.text(st.characters()), st.lists(ANY_POINT, min_size=1, max_size=5), NUMBERS)
def test_any_text_and_any_number_make_a_page(text, points, held_out):
    """Lone surrogates, controls, right-to-left overrides and tags included."""
    reported = Point(7, 1.0, 7, 7.0, 0.1, 2.0, 1.0, 1.0, held_out, held_out, text)
    about = About(text, text, 5, 9, text, text, text, text, {text: {text: text, "none": None}}, [text])
    end = f"</script><script>alert(1)</script>{text}"
    source = make_page(about, [*points, reported], text, None, None, end, Live(0.5, 3.0, "12:00:00"))
    page = Page(source.encode().decode())
    finished = Page(make_page(about, [*points, reported], "finished", None, text, text))
    assert finished.tags.count("pre") == 3 and "script" not in finished.tags
    assert ("http-equiv", "refresh") in page.attributes and ("http-equiv", "refresh") not in finished.attributes
    assert "script" not in page.tags and page.tags.count("pre") == 2
    assert page.samples[1].startswith("</script><script>alert(1)</script>")
    for char in page.samples[0]:
        assert char in "\n\t\u00ad\u200c\u200d" or unicodedata.category(char)[0] != "C", repr(char)
    shown = [char for char in text if char.isprintable()]
    assert [char for char in page.samples[0] if char.isprintable() and char != "\ufffd"] == [
        char for char in shown if char != "\ufffd"
    ]


@pytest.mark.parametrize(
    "points",
    [
        points_of([None]),
        points_of([2.0]),
        points_of([None, math.nan, math.inf, 3.0], [math.nan, math.inf, -math.inf, 1e300]),
        points_of([math.nan] * 3, [math.nan] * 3),
        points_of([1.0] * MOST_POINTS),
    ],
    ids=["one", "one report", "no numbers and huge ones", "no numbers at all", "many"],
)
def test_a_picture_of_any_training(points, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png, svg = draw_curves(points)
    assert png.startswith(b"\x89PNG") and svg.startswith("<svg viewBox") and "http" not in svg
    assert "#" not in svg.replace('href="#', "").replace("url(#", ""), "a colour that the page does not know"
    assert capfd.readouterr().err == ""


GUESSING = math.log(66)
ABOUT = About("m.pth", "notes.txt", 5, 66, "characters", "train longer", "train a smaller one", "train gently", {})
# name → held-out losses, training losses, what it came to
ENDS = {
    "rose": ([4.0, 3.0, 2.5, 2.6, 3.1], None, Verdict.MEMORISED),
    "rose a little": ([4.0, 3.0, 3.01], [3.9, 3.0, 2.95], Verdict.FINE),
    "rose a little, and the training loss fell on": ([4.0, 3.0, 3.01], None, Verdict.GAP_OPENING),
    "diverged": ([4.0, 3.0, 9.0], [4.0, 3.0, 9.0], Verdict.UNSTEADY),
    "became no number": ([3.0, 2.0, math.nan], [3.0, 2.0, 2.0], Verdict.UNSTEADY),
    "fell": ([3.5, 3.0, 2.9, 2.8], [4.0, 3.0, 2.9, 2.7], Verdict.TOO_SHORT),
    "fell, with more learnt than memorised": ([3.6, 3.0, 2.7, 2.6], [4.0, 3.0, 2.2, 2.1], Verdict.TOO_SHORT),
    "fell, with more memorised": ([3.6, 3.0, 2.9, 2.8], [4.0, 3.0, 2.6, 2.3], Verdict.GAP_OPENING),
    "hardly fell": ([3.6, 3.0, 2.96, 2.95], [4.0, 3.0, 2.9, 2.9], Verdict.FINE),
    "fell by what nobody notices": ([0.2, 0.19, 0.18, 0.1672, 0.1668], [0.2, 0.19, 0.18, 0.17, 0.17], Verdict.FINE),
    "fell by little at last": (
        [0.5534, 0.1495, 0.1340, 0.1250, 0.1235, 0.1235, 0.1214, 0.1203],
        [0.7543, 0.2140, 0.1763, 0.1471, 0.1468, 0.1565, 0.1614, 0.1212],
        Verdict.FINE,
    ),
    "is hardly better than guessing": ([4.1979, 4.1838], [4.2, 4.19], Verdict.HARDLY_BEGUN),
    "one report, of many steps": ([None, 3.6, None, 3.0], [4.0, 3.5, 3.2, 3.0], Verdict.TOO_SHORT),
    "one report, of one step": ([3.0], [3.1], Verdict.TOO_SHORT),
    "one report, nothing learnt since half of the time": ([None, None, None, 2.0], [3.0, 2.0, 2.0, 2.0], Verdict.FINE),
    "none": ([None, None], [3.0, 2.0], Verdict.UNKNOWN),
    "no numbers": ([math.nan], [math.nan], Verdict.UNKNOWN),
}


@pytest.mark.parametrize("held_out,losses,expected", ENDS.values(), ids=ENDS)
def test_every_end_has_its_verdict(held_out, losses, expected):
    points = points_of(held_out, losses)
    assert judge(points, GUESSING) is expected
    sentence, *meaning = explain(points, ABOUT)
    commands = {
        Verdict.MEMORISED: ABOUT.less, Verdict.GAP_OPENING: ABOUT.less, Verdict.UNSTEADY: ABOUT.gentler,
        Verdict.TOO_SHORT: ABOUT.longer, Verdict.HARDLY_BEGUN: ABOUT.longer,
    }  # fmt: skip
    assert sentence.endswith(commands.get(expected, ".")) and len(meaning) <= 1


LOSSES = st.lists(st.tuples(st.none() | st.floats(0.01, 9), st.floats(0.01, 9)), min_size=1, max_size=12)


@given(LOSSES, st.floats(0.01, 0.99), st.floats(0.3, 9))
def test_a_verdict_follows_the_losses(losses, share, guessing):
    """The last held-out loss, and the training loss with it, may be lower or higher than they were."""
    *before, (last, loss) = losses
    last = 2.0 if last is None else last

    def verdict(times: float) -> Verdict:
        held_out, training = zip(*before, (last * times, loss * times), strict=True)
        return judge(points_of(list(held_out), list(training)), guessing)

    now, lower, higher = verdict(1), verdict(share), verdict(1 / share)
    assert {now, lower, higher} <= set(Verdict) - {Verdict.UNKNOWN}
    learns = (Verdict.HARDLY_BEGUN, Verdict.TOO_SHORT)
    if now is Verdict.TOO_SHORT:
        assert lower is Verdict.TOO_SHORT, "a steeper fall is no end of it"
    if now in (Verdict.MEMORISED, Verdict.UNSTEADY):
        assert higher in (Verdict.MEMORISED, Verdict.UNSTEADY), "it rose all the more"
    lowest = min(value for value, _ in [*before, (last, loss)] if value is not None)
    assert (lower in learns or lower in (Verdict.FINE, Verdict.GAP_OPENING)) or last * share > lowest
    assert explain(points_of([last], [loss]), ABOUT)


def run_command(command: str, folder: Path):
    """What a message says, run as it stands there."""
    for single in command.split(" and then "):
        python, *words = shlex.split(single)
        assert python == "python"
        result = run_script(*words, cwd=folder)
        assert result.status == 0, result.stderr
    return result


def held_out_losses(result) -> list[float]:
    return [float(loss) for loss in re.findall(r"Held-out: (\S+) ", result.stdout)]


def test_the_command_that_goes_on_with_a_short_training_makes_it_better(folder):
    short = train(folder, "--max_iters", "20", "--learning_rate", "0.0003")
    (command,) = re.findall(
        r"(?:More training helps most|Train it for longer): (python .*)$", short.stderr, re.MULTILINE
    )
    assert command == "python train_llm.py --cache_dir cache --resume --max_iters 80"
    assert command in (folder / "trained_model.report.html").read_text(encoding="utf-8")
    longer = run_command(command, folder)
    assert held_out_losses(longer)[-1] < 0.9 * held_out_losses(short)[-1]


@pytest.mark.slow
def test_the_commands_after_a_training_that_memorised_train_another_model(folder):
    small = "--vocab_size 30 --n_embd 16 --n_head 2 --n_layer 1 --block_size 16 --dropout 0.1"
    assert run_script("llm_model.py", *small.split(), cwd=folder).status == 0
    (folder / "input.txt").write_text(STORY * 8 + STORY[::-1], encoding="utf-8")  # what is held out is another text
    long = train(folder, "--max_epochs", "30", "--learning_rate", "0.003", "--sample_tokens", "0")
    (command,) = re.findall(r"memorises less: (python .*)$", long.stderr, re.MULTILINE)
    assert run_command(command, folder).stdout.startswith("Training on cpu")
    assert "dropout: 0.2" in (folder / "model_config.yaml").read_text(encoding="utf-8")


@given(st.text(st.characters(), max_size=300))
def test_a_sample_is_one_line_that_steers_no_terminal(text):
    line = in_a_line(text)
    assert all(char.isprintable() for char in line) and len(line.splitlines()) <= 1
    widths = [2 if unicodedata.east_asian_width(char) in "WF" else not unicodedata.combining(char) for char in line]
    assert sum(widths) < WIDEST


def test_what_cannot_be_written_is_a_note_and_not_the_end(folder):
    for ending in ("loss.csv", "loss.png", "report.html"):
        (folder / f"trained_model.{ending}").mkdir()
    result = train(folder, "--max_iters", "30")
    for ending in ("loss.csv", "loss.png", "report.html"):
        note = f"note: trained_model.{ending} is a folder; give the name of a file to write\n"
        assert result.stderr.count(note) == 1
    assert "how it went" not in result.stderr
    assert "Generated text:" in result.stdout and (folder / "trained_model.pth").exists()


def test_without_matplotlib_there_is_a_page_without_a_picture(folder):
    absent = folder / "absent"
    absent.mkdir()
    (absent / "matplotlib.py").write_text("raise ImportError", encoding="utf-8")
    path = {"PYTHONPATH": f"{absent}:{ROOT}", "PATH": os.defpath}  # there is no python of that name, or another one
    result = train(folder, "--max_iters", "3", environment=path)
    assert "note: there is no picture of the loss; pip install matplotlib\n" in result.stderr
    assert not (folder / "trained_model.loss.png").exists()
    page = Page((folder / "trained_model.report.html").read_text(encoding="utf-8"))
    assert "svg" not in page.tags and len(page.samples) >= 1
    assert sys.executable in result.stderr, "a person needs it"
    for ending in ("report.html", "yaml"):  # and others do not
        written = (folder / f"trained_model.{ending}").read_text(encoding="utf-8")
        assert "python train_llm.py --" in written and sys.executable not in written


def test_a_home_that_cannot_be_written_and_a_style_of_ones_own(folder):
    (folder / "matplotlibrc").write_text("text.usetex: True\nfigure.dpi: 7\n", encoding="utf-8")
    nowhere = {"HOME": "/proc/none", "MPLCONFIGDIR": "/proc/none", "MPLBACKEND": "tkagg"}
    result = train(folder, "--max_iters", "1", environment=nowhere)
    assert "matplotlib" not in result.stderr.lower() and "note" not in result.stderr
    assert len(read_csv(folder / "trained_model.loss.csv")) == 1
    assert (folder / "trained_model.loss.png").read_bytes().startswith(b"\x89PNG")


def test_figures_are_no_text_to_learn_from(folder):
    (folder / "other.loss.csv").write_text("step,loss\n1,2\n", encoding="utf-8")
    train(folder, "--max_iters", "2", "--dataset_path", ".")
    result = run_script("train_llm.py", *FLAGS, "--dataset_path", "trained_model.loss.csv", cwd=folder)
    assert result.status == 2
    assert "trained_model.loss.csv: training writes its figures there; give the text another name" in result.stderr


@pytest.mark.slow
def test_tensorboard_shows_one_run_however_often_it_was_stopped(folder):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(folder, "--max_iters", "20", "--tracker", "tensorboard", "--ckpt_interval", "10")
    # Going on with it for longer, from its last checkpoint.
    rest = run_script("train_llm.py", "--resume", "--max_iters", "30", "--cache_dir", "cache", cwd=folder)
    assert rest.status == 0, rest.stderr
    (run,) = (folder / "trained_model.tensorboard").iterdir()
    events = EventAccumulator(str(run))
    events.Reload()
    rows = read_csv(folder / "trained_model.loss.csv")
    for tag, column in {
        "loss/training": "loss",
        "loss/held_out": "held_out",
        "training/grad_norm": "grad_norm",
    }.items():
        shown = {event.step: event.value for event in events.Scalars(tag)}
        expected = {int(row["step"]): float(row[column]) for row in rows if row[column]}
        assert shown == pytest.approx(expected, rel=1e-5)
    assert {"settings/text_summary", "sample/text_summary"} <= set(events.Tags()["tensors"])


@pytest.mark.slow
def test_wandb_keeps_a_run_without_asking(folder):
    pytest.importorskip("wandb").init  # noqa: B018 (a folder of runs can be imported, too)
    nobody = {"HOME": str(folder), "NETRC": str(folder / "netrc"), "WANDB_MODE": ""}
    environment = {key: value for key, value in ENVIRONMENT.items() if not key.startswith("WANDB")} | nobody
    del environment["WANDB_MODE"]
    command = [sys.executable, ROOT / "train_llm.py", *FLAGS, "--max_iters", "20", "--tracker", "wandb"]
    for flags in ([], ["--resume", "--max_iters", "30"]):
        done = subprocess.run(
            [*command, *flags], cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "wandb" not in done.stdout and "wandb:" not in done.stderr
    runs = list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 2 and len({run.name for run in runs}) == 1, "the same run, resumed"
    assert all(run.stat().st_size > 1000 for run in runs)


@pytest.mark.parametrize("tracker", ["tensorboard", pytest.param("wandb", marks=pytest.mark.slow)])
def test_a_tracker_that_is_not_installed_is_said_before_training(folder, tracker):
    absent = folder / "absent"
    absent.mkdir()
    (absent / f"{tracker}.py").write_text("raise ImportError", encoding="utf-8")
    path = {"PYTHONPATH": f"{absent}:{ROOT}"}
    result = run_script("train_llm.py", *FLAGS, "--tracker", tracker, "--max_iters", "1", cwd=folder, environment=path)
    assert (result.status, result.stdout) == (2, "")
    expected = f"--tracker {tracker} needs a package that is not installed; pip install -r requirements-track.txt"
    assert result.stderr == f"error: {expected}\n"
