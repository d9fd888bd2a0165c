"""Datasets by name: the text files made of them, from a folder and from a hub on this machine; and what goes wrong.

The libraries read their environment when they are imported, so `fetch` runs in other processes here, several calls in
each, since importing takes a second.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow
import pytest
from conftest import ENVIRONMENT
from hub_server import Hub, branch_folder
from pyarrow import parquet

from custom_llm.common.errors import UserError
from custom_llm.data.hub.named import NAMED, HubDataset, articles, documents, find_dataset, lines
from custom_llm.data.sources import read_text
from custom_llm.tokenizer.base import END_OF_TEXT

CHILD = """
import dataclasses, json, pathlib, sys, time
from custom_llm.data.hub.named import NAMED, fetch, find_dataset
from custom_llm.data.hub.rows import Unavailable
from custom_llm.common.errors import UserError
for spec, cache, options in json.loads(sys.argv[1]):
    start, seen = time.monotonic(), []
    try:
        path, notes = fetch(find_dataset(spec), pathlib.Path(cache), on_progress=seen.append, **options)
        answer = dict(path=str(path), notes=notes, text=path.read_bytes().decode(), seen=seen)
    except UserError as error:
        answer = dict(error=str(error), unavailable=isinstance(error, Unavailable))
    print(json.dumps(dict(answer, seconds=time.monotonic() - start)), flush=True)
"""
STORIES = [f"Story {i}: the fox — »ж« 狐 — said {'ha' * (i % 7)}.\nThe end.\n" for i in range(400)]
CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: validation
    path: data/validation-*
dataset_info:
  features:
  - name: text
    dtype: string
---
# TinyStories
"""


@dataclass
class Answer:
    """What `fetch` gave in another process."""

    seconds: float
    path: str = ""
    notes: list[str] = field(default_factory=list)
    text: str = ""
    seen: list[int] = field(default_factory=list)
    error: str = ""
    unavailable: bool = False


def fetch(home: Path, *calls: tuple[str, Path, dict], cwd: Path | None = None, **environment: str) -> list[Answer]:
    """The answers to calls of `fetch` (dataset, cache folder, options) in a process of its own, which stays silent."""
    what = json.dumps([(spec, str(cache), options) for spec, cache, options in calls])
    # Without torch the library is imported in a third of the time.
    variables = {**ENVIRONMENT, "HF_HOME": str(home), "USE_TORCH": "0", **environment}
    command = [sys.executable, "-c", CHILD, what]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=variables, cwd=cwd, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return [Answer(**json.loads(line)) for line in done.stdout.splitlines()]


def today() -> str:
    return time.strftime("%Y-%m-%d")


def write_parquet(folder: Path, columns: dict, name: str = "train.parquet", rows_at_once: int = 30) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), folder / name, row_group_size=rows_at_once)


def write_stories(folder: Path, stories: list[str] = STORIES) -> Path:
    """A dataset that is laid out like roneneldan/TinyStories."""
    n = len(stories) // 4
    for i in range(4):
        write_parquet(folder / "data", {"text": stories[i * n : (i + 1) * n]}, f"train-0000{i}-of-00004-2d5a.parquet")
    write_parquet(folder / "data", {"text": ["not for training"]}, "validation-00000-of-00001-869c.parquet")
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder


def write_card(folder: Path, *configs: str) -> None:
    """The card of a dataset with a folder for each configuration."""
    lines = [f"- config_name: {name}\n  data_files: '{name}/*'" for name in configs]
    (folder / "README.md").write_text("\n".join(["---\nconfigs:", *lines, "---\n"]), encoding="utf-8")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """A hub with the datasets below, each test's own changes undone."""
    folder = tmp_path_factory.mktemp("hub")
    ours = folder / "datasets"
    write_stories(ours / "roneneldan/TinyStories")
    shakespeare = ours / "karpathy/tiny_shakespeare"
    shakespeare.mkdir(parents=True)
    (shakespeare / "tiny_shakespeare.py").write_text("raise SystemExit('run')", encoding="utf-8")
    for split, text in (("train", "First Citi"), ("validation", "zen:\nSpe"), ("test", "ak.\n")):
        write_parquet(branch_folder(shakespeare, "refs/convert/parquet") / "default" / split, {"text": [text]})
    wiki = ["", " = Fox = \n", "", " A fox . \n", " = = Home = = \n", " A den . \n", "", " = Owl = \n", "", " Hoo . \n"]
    write_parquet(ours / "Salesforce/wikitext/wikitext-2-raw-v1", {"text": wiki}, "train-00000-of-00001.parquet")
    write_parquet(ours / "Salesforce/wikitext/wikitext-103-raw-v1", {"text": [" = Fox = \n", " Red . \n"]})
    write_card(ours / "Salesforce/wikitext", "wikitext-103-raw-v1", "wikitext-2-raw-v1")
    write_parquet(ours / "HuggingFaceFW/fineweb/sample-10BT", {"id": range(400), "text": STORIES})
    write_card(ours / "HuggingFaceFW/fineweb", "sample-10BT")
    lines = "".join(json.dumps({"text": story, "url": "x"}) + "\n" for story in STORIES)
    (ours / "allenai/c4/en").mkdir(parents=True)
    (ours / "allenai/c4/en/c4-train.00000-of-01024.json.gz").write_bytes(gzip.compress(lines.encode()))
    write_card(ours / "allenai/c4", "en", "fr")
    messages = [{"role": "user", "content": "Hi"}]
    odd = {"text": [1, 2], "story": ["One\r\nday", "\0Two\0"], "empty": [None, " "], "messages": [messages, None]}
    write_parquet(ours / "odd/columns", odd)
    write_parquet(ours / "odd/splits", {"text": ["seen in the test"]}, "test.parquet")
    write_parquet(ours / "odd/two", {"text": ["a"]}, "test.parquet")
    write_parquet(ours / "odd/two", {"text": ["b"]}, "validation.parquet")
    write_parquet(ours / "odd/damaged", {"text": STORIES})
    damaged = ours / "odd/damaged/train.parquet"
    content = bytearray(damaged.read_bytes())
    content[200:400] = bytes(200)
    damaged.write_bytes(content)
    (ours / "odd/nothing").mkdir()
    (ours / "odd/nothing/README.md").write_text("# Soon\n", encoding="utf-8")
    write_parquet(ours / "odd/gated", {"text": ["secret"]})
    with Hub(folder) as hub:
        hub.gated.add("odd/gated")
        yield hub


@pytest.fixture
def hub(served):
    served.status = 0
    served.breaks.clear()
    served.answers.clear()
    return served


def test_find_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_dataset("tinystories") is NAMED["tinystories"]
    assert find_dataset("story.txt") is None
    assert find_dataset("hf:a/b") == HubDataset("hf:a/b", "a/b")
    full = "hf:a/b-1:en/test:story"
    assert find_dataset(full) == HubDataset(full, "a/b-1", "en", "test", "story")
    assert find_dataset("hf:a/b::story") == HubDataset("hf:a/b::story", "a/b", field="story")
    folder = HubDataset("hf:./c4:x", str(tmp_path / "c4"), "x", stream=True)
    (tmp_path / "c4").mkdir()
    assert find_dataset("hf:./c4:x") == folder
    assert find_dataset("c4") is None  # there is a folder of that name


@pytest.mark.parametrize(
    "spec, words",
    [
        ("hf:", "hf:: a dataset on the hub has an owner and a name, such as hf:roneneldan/TinyStories, or hf:./folder"),
        ("hf:wikitext", "has an owner and a name"),
        ("hf:a/b/c", "has an owner and a name"),
        ("hf:a/b:c:d:e", "is named hf:owner/name[:config[/split]][:field], such as"),
        ("hf:a/b\0", "is named"),
        ("hf:./nowhere", "hf:./nowhere: ./nowhere: no such folder"),
        (f"hf:{__file__}", "is a file, which is read without hf:"),
    ],
)
def test_what_names_no_dataset(spec, words):
    with pytest.raises(UserError) as error:
        find_dataset(spec)
    assert words in str(error.value)


def test_rows_become_documents():
    wiki = ["", " = Fox = \n", "", "Red . ", " = = Den = = \n", "", "", " = Owl = \n", " 1 = 2 \n", ""]
    assert "".join(articles(wiki)) == " = Fox = \n\nRed . \n = = Den = = \n<|endoftext|> = Owl = \n 1 = 2 \n"
    assert "".join(lines(["One", "", "Two\n"])) == "One\n\nTwo\n"
    assert "".join(documents(["", "One\n", " \n", "Two"])) == "One\n<|endoftext|>Two"


def test_a_folder_streamed_and_not(tmp_path):
    folder = write_stories(tmp_path / "TinyStories")
    spec = f"hf:{folder}"
    bound = len(STORIES[0]) + len(END_OF_TEXT) + 5
    streamed, copied, again, part, nearly = fetch(
        tmp_path / "home",
        (spec, tmp_path / "a", {}), (spec, tmp_path / "b", {"stream": False}), (spec, tmp_path / "b", {}),
        (spec, tmp_path / "a", {"max_chars": bound}), (spec, tmp_path / "a", {"max_chars": bound - 6}),
    )  # fmt: skip
    assert streamed.text == END_OF_TEXT.join(STORIES) == read_text(f"{folder}/data/train-*")
    assert streamed.seen == [len(streamed.text)]
    assert copied.text == streamed.text
    assert again.path == copied.path != streamed.path
    assert again.seen == []
    assert part.text == streamed.text[:bound]
    assert nearly.text == STORIES[0]  # no part of <|endoftext|>
    assert not streamed.notes + copied.notes + again.notes + part.notes
    assert len(list((tmp_path / "a").iterdir())) == 3


def test_a_folder_that_changes_and_other_files(tmp_path):
    for name, text in (("j/a.jsonl", '{"t": "one"}\n{"t": "two"}\n'), ("c/a.csv", 'id,text\n1,"one, two"\n2,three\n')):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/a.txt").write_bytes("One\r\n\r\n狐<|endoftext|>\nTwo".encode())
    cache = tmp_path / "cache"
    lines, rows, text = fetch(
        tmp_path / "home", ("hf:./j::t", cache, {}), ("hf:./c", cache, {}), ("hf:./t", cache, {}), cwd=tmp_path
    )
    assert lines.text == "one<|endoftext|>two"
    assert rows.text == "one, two<|endoftext|>three"
    assert text.text == "One\n\n狐<|endoftext|>\nTwo\n"
    (tmp_path / "j/b.jsonl").write_text('{"t": "three"}\n', encoding="utf-8")
    (changed,) = fetch(tmp_path / "home", ("hf:./j::t", cache, {}), cwd=tmp_path)
    assert changed.text == "one<|endoftext|>two<|endoftext|>three"
    assert changed.notes == [f"hf:./j::t has changed since the copy of {today()}, which is replaced"]
    assert not Path(lines.path).exists()


def test_the_named_datasets(hub, tmp_path):
    write_parquet(tmp_path / "roneneldan/TinyStories", {"text": ["in the working directory"]})
    stories, part, shakespeare, wikitext, larger, fineweb, c4, bounded = fetch(
        tmp_path / "home",
        ("tinystories", tmp_path, {}), ("tinystories", tmp_path, {"max_chars": 1000}),
        ("shakespeare", tmp_path, {}), ("wikitext", tmp_path, {}), ("wikitext-103", tmp_path, {}),
        ("fineweb", tmp_path, {}), ("c4", tmp_path, {}), ("c4", tmp_path, {"max_chars": 999}),
        cwd=tmp_path, **hub.environment(tmp_path / "home"),
    )  # fmt: skip
    assert stories.text == END_OF_TEXT.join(STORIES)
    assert part.text == stories.text[:1000]
    assert shakespeare.text == "First Citizen:\nSpeak.\n"
    fox, owl = " = Fox = \n\n A fox . \n = = Home = = \n A den . \n", " = Owl = \n\n Hoo . \n"
    assert wikitext.text == fox + END_OF_TEXT + owl
    assert larger.text == " = Fox = \n Red . \n"
    assert fineweb.text == c4.text == stories.text
    assert fineweb.notes == [
        "fineweb: only its first 100,000,000 characters are used; train_llm.py --max_chars sets the bound"
    ]
    assert (bounded.text, bounded.notes) == (stories.text[:999], [])


def test_columns_nobody_asked_for_are_not_downloaded(hub, tmp_path):
    pictures, captions = [os.urandom(1_000_000) for _ in range(40)], STORIES[:40]
    write_parquet(hub.folder / "datasets/own/pictures", {"picture": pictures, "text": captions}, rows_at_once=20)
    before = hub.bytes_sent
    (answer,) = fetch(
        tmp_path / "home", ("hf:own/pictures", tmp_path, {"max_chars": 10**6}), **hub.environment(tmp_path / "home")
    )
    assert answer.text == END_OF_TEXT.join(captions)
    assert hub.bytes_sent - before < 20_000_000  # of 40 million


@pytest.mark.slow
def test_a_hub_that_changes_breaks_and_vanishes(hub, tmp_path):
    home, environment = tmp_path / "home", hub.environment(tmp_path / "home")
    own = write_stories(hub.folder / "datasets/own/stories", STORIES[:40])
    calls = [("hf:own/stories", tmp_path / kind, {"stream": kind == "streamed"}) for kind in ("streamed", "copied")]
    hub.breaks.update({"train-00001": 1, "train-00002": 1})
    first = fetch(home, *calls, **environment)
    assert hub.breaks.total() == 0
    assert [answer.text for answer in first] == [END_OF_TEXT.join(STORIES[:40])] * 2
    write_stories(own, STORIES[40:80])
    second = fetch(home, *calls, **environment)
    assert [answer.text for answer in second] == [END_OF_TEXT.join(STORIES[40:80])] * 2
    change = f"hf:own/stories has changed since the copy of {today()}, which is replaced"
    assert [answer.notes for answer in second] == [[change]] * 2
    hub.status = 503
    (down,) = fetch(home, calls[0], **environment)
    hub.status = 404  # as a proxy says it, without the hub's own words
    (no_hub,) = fetch(home, ("hf:own/stories", tmp_path / "new", {}), **environment)
    hub.status = 0
    words = f"hf:own/stories: what answers at {hub.endpoint} is no hub (404); try again later"
    assert (no_hub.error[: len(words)], no_hub.unavailable) == (words, True)
    assert down.text == second[0].text
    assert down.notes == [f"hf:own/stories: the hub cannot answer now (503); using the copy of {today()}"]
    new = ("hf:own/stories", tmp_path / "new", {})
    offline, without = fetch(home, calls[0], new, **environment, HF_HUB_OFFLINE="1")
    assert without.error.startswith("hf:own/stories: HF_HUB_OFFLINE is set; unset it to download")
    assert offline.path == second[0].path
    assert offline.notes == [f"hf:own/stories: HF_HUB_OFFLINE is set; using the copy of {today()}"]
    here, nowhere = fetch(home, calls[0], new, **{**environment, "HF_ENDPOINT": "http://127.0.0.1:9"})
    gone = "hf:own/stories: http://127.0.0.1:9 cannot be reached (ConnectError: [Errno 111] Connection refused)"
    assert here.notes == [f"{gone}; using the copy of {today()}"]
    assert nowhere.error == f"{gone}; try again later, or give a local file or folder"
    assert nowhere.unavailable
    assert nowhere.seconds < 5


MISTAKES = {
    "hf:no/body": "hf:no/body: the hub has no dataset no/body, or it is private; look for its name on "
    "HUB/datasets, or log in with `hf auth login`",
    "hf:odd/gated": "hf:odd/gated is gated: accept its terms at HUB/datasets/odd/gated, "
    "then log in with `hf auth login`",
    "hf:Salesforce/wikitext": "hf:Salesforce/wikitext is several datasets, which are wikitext-103-raw-v1, "
    "wikitext-2-raw-v1: hf:owner/name:configuration names one",
    "hf:Salesforce/wikitext:wiki": "hf:Salesforce/wikitext:wiki has no configuration wiki; it has wikitext-103-raw-v1, "
    "wikitext-2-raw-v1: hf:owner/name:configuration names one",
    "hf:odd/two": "hf:odd/two has no split train; it has validation, test: "
    "hf:owner/name:/split or hf:owner/name:config/split names one",
    "hf:odd/splits:/dev": "hf:odd/splits:/dev has no split dev; it has test: "
    "hf:owner/name:/split or hf:owner/name:config/split names one",
    "hf:odd/columns": "hf:odd/columns: its column text is no text (int); "
    "--text_field names one that is (story, messages)",
    "hf:odd/columns::title": "hf:odd/columns::title has no column title; "
    "hf:owner/name:config:field names one that is (story, messages)",
    "hf:odd/columns::empty": "hf:odd/columns::empty: its column empty is empty; "
    "hf:owner/name:config:field names one that is not",
    "hf:karpathy/tiny_shakespeare": "hf:karpathy/tiny_shakespeare is a program to be run, which is not done here; "
    "look on the hub for a copy of it as data",
    "hf:odd/nothing": "hf:odd/nothing: there are no data in odd/nothing; Parquet, JSON, CSV and text files are read",
}  # fmt: skip


def test_what_people_get_wrong(hub, tmp_path):
    calls = [(spec, tmp_path / "cache", {"stream": stream}) for spec in MISTAKES for stream in (True, False)]
    answers = fetch(tmp_path / "home", *calls, **hub.environment(tmp_path / "home"))
    errors = [answer.error.replace(hub.endpoint, "HUB") for answer in answers]
    assert errors == [line for line in MISTAKES.values() for _ in range(2)]
    assert not any(answer.unavailable for answer in answers)
    assert list((tmp_path / "cache").iterdir()) == []


def test_odd_datasets_and_places(hub, tmp_path):
    (tmp_path / "file").write_text("")
    cleaned, chat, other_split, damaged, copied, two, none, no_folder = fetch(
        tmp_path / "home",
        ("hf:odd/columns", tmp_path, {"field": "story"}), ("hf:odd/columns::messages", tmp_path, {}),
        ("hf:odd/splits", tmp_path, {}),
        ("hf:odd/damaged", tmp_path, {"stream": True}), ("hf:odd/damaged", tmp_path, {"stream": False}),
        ("hf:odd/columns::story", tmp_path, {"field": "text"}), ("tinystories", tmp_path, {"max_chars": 0}),
        ("tinystories", tmp_path / "file", {}),
        **hub.environment(tmp_path / "home"),
    )  # fmt: skip
    assert cleaned.text == "One\nday<|endoftext|>Two"
    assert cleaned.notes == ["hf:odd/columns: left out 2 characters that no text has (NUL or half a pair)"]
    assert (chat.text, chat.notes) == ("user: Hi\n", ["hf:odd/columns::messages: left out: 1 row without a text"])
    assert other_split.text == "seen in the test"
    assert other_split.notes == ["hf:odd/splits has no split train; its only one, test, is used"]
    for answer in (damaged, copied):
        place = f"{hub.endpoint}/datasets/odd/damaged"
        assert answer.error.startswith("hf:odd/damaged cannot be read: ")
        assert answer.error.endswith(f"; look at its files in {place}, or give another dataset")
        assert "\n" not in answer.error
    assert two.error == "hf:odd/columns::story names the column story, --text_field text; give one of them"
    assert none.error == "--max_chars 0: must be at least 1"
    assert no_folder.error == (
        f"cannot keep what is read: {tmp_path / 'file'}: file exists; name a folder to write to with --cache_dir"
    )


STOPPED = """
import os, pathlib, resource, signal, sys
from custom_llm.data.hub import named as hub
from custom_llm.common.errors import run
hub.PROGRESS_EVERY = 1000
number = int(sys.argv[1])
if number == signal.SIGXFSZ:
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # a write that fails, as on a full disk
stop = lambda n: number == signal.SIGXFSZ or os.kill(os.getpid(), number)
sys.exit(run(lambda _: hub.fetch(hub.find_dataset("hf:./stories"), pathlib.Path("cache"), on_progress=stop) and None))
"""


def test_what_is_interrupted_leaves_nothing(tmp_path):
    write_stories(tmp_path / "stories")
    environment = {**ENVIRONMENT, "HF_HOME": str(tmp_path / "home"), "USE_TORCH": "0"}
    left = {}
    for number in (signal.SIGINT, signal.SIGXFSZ, signal.SIGKILL):
        command = [sys.executable, "-c", STOPPED, str(int(number))]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        names = sorted(path.name.split(".")[-2] for path in (tmp_path / "cache").iterdir())
        left[number] = done.returncode, done.stderr.strip()[-14:], names
    assert left[signal.SIGINT] == (130, "interrupted", [])
    assert left[signal.SIGXFSZ] == (2, "file too large", [])
    assert left[signal.SIGKILL] == (-signal.SIGKILL, "", ["tmp"])
    write_stories(tmp_path / "stories", STORIES[:40])
    (after,) = fetch(tmp_path / "home", ("hf:./stories", tmp_path / "cache", {}), cwd=tmp_path)
    assert list((tmp_path / "cache").iterdir()) == [Path(after.path)]


@pytest.mark.slow
def test_a_connection_that_stays_broken(hub, tmp_path):
    hub.breaks["train-00002"] = 1000
    calls = [("tinystories", tmp_path / "cache", {"stream": stream}) for stream in (True, False)]
    for answer in fetch(tmp_path / "home", *calls, **hub.environment(tmp_path / "home")):
        assert f"tinystories: {hub.endpoint} cannot be reached (" in answer.error
        assert answer.unavailable
        assert answer.seconds < 180  # 30 on a quiet machine
    assert not list((tmp_path / "cache").iterdir())


def test_without_the_library(tmp_path):
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub/datasets.py").write_text("raise ImportError(\"No module named 'datasets'\")")
    path = os.pathsep.join([str(tmp_path / "stub"), ENVIRONMENT["PYTHONPATH"]])
    (answer,) = fetch(tmp_path, ("tinystories", tmp_path / "cache", {}), PYTHONPATH=path)
    assert answer.error == (
        "tinystories: reading datasets by name needs the package datasets (No module named 'datasets'); "
        "pip install -r requirements-data.txt"
    )
    assert answer.unavailable
