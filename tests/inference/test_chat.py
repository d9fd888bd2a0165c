"""Writing together with a model at a terminal: a real one (a pseudo-terminal), and a real (random) model."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ENVIRONMENT, ROOT
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tiny_gguf import write_gpt2

from custom_llm.common.errors import UserError
from custom_llm.config.sampling import Sampling
from custom_llm.inference.card import Card, card_lines
from custom_llm.inference.chat import Chat
from custom_llm.inference.engine import Engine
from custom_llm.inference.settings import NAMES, Settings

ENGLISH = "abcdefghijklmnopqrstuvwxyz ABC.,\n"
GREEDY = Settings(Sampling(temp=0), max_tokens=30)
ENTER, ALT_ENTER, UP, CTRL_C, CTRL_D = "\r", "\x1b\r", "\x1b[A", "\x03", "\x04"
PROMPT = r"\n> ?$"
STREAMING = r"\n[^>]{40}"
SECONDS = 10  # to wait for what is expected


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("english") / "english.gguf", ENGLISH)


@pytest.fixture(scope="module")
def engine(english: Path):
    with Engine(english) as engine:
        yield engine


@pytest.fixture
def chat(engine, tmp_path, monkeypatch) -> Chat:
    monkeypatch.chdir(tmp_path)
    return Chat(engine, GREEDY)


def continued(engine: Engine, text: str, count: int = 30) -> str:
    return "".join(engine.generate(text, count, GREEDY.sampling))


# Commands


def test_what_is_typed_is_continued_and_stays(engine, chat, capsys):
    chat.answer("the cat")
    first = "the cat" + continued(engine, "the cat")
    assert chat.text == first
    chat.answer("")
    second = first + continued(engine, first)
    assert chat.text == second
    shown = capsys.readouterr().out
    first_time, again = (
        "(cut after 30 tokens; Enter alone goes on, and /set max_tokens 90 makes texts longer)\n",
        "(cut after 30 tokens)\n",
    )
    assert shown.count(first_time) == shown.count(again) == 1 and shown.endswith(again)
    shown = shown.replace(first_time, "").replace(again, "")
    assert shown.replace("\n", "") == second.removeprefix("the cat").replace("\n", "")
    chat.answer("/set max_tokens 90")
    assert "90" in capsys.readouterr().out
    chat.answer("/reset")
    assert chat.text == ""


def test_what_people_type_to_leave_or_to_be_helped_is_understood(engine, capsys):
    chat = Chat(engine, Settings(max_tokens=0))
    chat.answer("help")
    assert "/save FILE" in capsys.readouterr().out and chat.text == ""
    chat.answer(" exit")
    assert chat.text == " exit", "with a space before it, it is text"
    for word in ("exit", "quit", "Exit ", "/exit"):
        typed = iter([word])
        chat = Chat(engine, Settings(max_tokens=0))
        chat.run(SimpleNamespace(read=lambda typed=typed: next(typed)))  # raises StopIteration if it is not left


def test_a_word_typed_after_a_word_gets_its_space(engine):
    chat = Chat(engine, Settings(max_tokens=0))
    for typed in ("one two", "three", ", four", " five\n", "six"):
        chat.answer(typed)
    assert chat.text == "one two three, four five\nsix"
    chat.answer("/reset")
    for typed in ("ab", "cd"):  # a language without spaces
        chat.answer(typed)
    assert chat.text == "abcd"
    chat.answer("/reset")
    for typed in ("hi there<|bot|>", "fine"):
        chat.answer(typed)
    assert chat.text == "hi there<|bot|>fine"


def test_settings_change_the_next_text(engine, chat, capsys):
    chat.answer("/set max_tokens 5")
    chat.answer("/set seed 7")
    chat.answer("/set temp 2")
    chat.answer("a")
    assert chat.text == "a" + "".join(engine.generate("a", 5, Sampling(temp=2, seed=7)))
    chat.answer("/set temp default")
    chat.answer("/set stop a\\nb")
    capsys.readouterr()
    chat.answer("/set")
    shown = dict(re.findall(r"^  (\w+) +(.*)$", capsys.readouterr().out, re.MULTILINE))
    assert tuple(shown) == NAMES
    assert (shown["temp"], shown["max_tokens"], shown["stop"], shown["seed"]) == ("0", "5", "'a\\nb'", "7")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/set temp hot", "temp 'hot' is not a number"),
        ("/set temp 101", "temp 101.0 is not a number from 0 to 100"),
        ("/set max_tokens -1", "max_tokens '-1' is not a whole number of at least 0"),
        ("/set tempo 1", "there is no setting tempo; there are temp, top_k,"),
        ("/set temp", "/set temp VALUE, or /set temp default; it is 0"),
        ("/set grammar root ::= (", "--grammar cannot be read"),
        ("/set grammar roof ::= 'a'", "--grammar cannot be read"),
        ("/save", "/save FILE: give the name of a file to write"),
        ("/save x.txt", "/save: there is no text yet"),
        ("/stats", "/stats: there is no text yet"),
        ("/sav x", "there is no command /sav; did you mean /save?"),
        ("/xyzzy", "there is no command /xyzzy; /help lists them"),
        ("/", "there is no command /; /help lists them"),
    ],
)
def test_bad_commands_are_explained(chat, line, message):
    with pytest.raises(UserError) as caught:
        chat.answer(line)
    assert str(caught.value).startswith(message)
    chat.answer("abc")
    assert len(chat.text) == 33, "and the settings are as they were"


@pytest.mark.parametrize("typed", ["/usr/bin", "// a comment", "/* a", "a /set temp 1", " /help"])
def test_a_text_may_begin_like_a_command(engine, typed):
    chat = Chat(engine, Settings(max_tokens=0))
    chat.answer(typed)
    assert chat.text == typed


def test_the_text_is_saved_whole_and_nothing_is_lost_for_it(chat, tmp_path):
    chat.answer("the cat")
    chat.answer("/save a story.txt")
    assert (tmp_path / "a story.txt").read_text() == chat.text
    chat.answer("the dog")
    chat.answer("/save a story.txt")  # it is the chat's own
    assert (tmp_path / "a story.txt").read_text() == chat.text
    (tmp_path / "mine.txt").write_text("mine")
    for name, reason in {
        "mine.txt": "is there; move it away",
        ".": "is a folder",
        "no/where.txt": "does not exist; make it first",
        "x" * 300: "name too long",
        "~nobody_of_this_name/x": "home",
        "\0": "not the name of a file",
    }.items():
        with pytest.raises(UserError, match=reason):
            chat.answer(f"/save {name}")
    assert (tmp_path / "mine.txt").read_text() == "mine"


@given(st.sampled_from(NAMES), st.text(max_size=30))
@hypothesis_settings(max_examples=60, deadline=None)
def test_no_value_of_a_setting_ends_the_chat(engine, name, value):
    chat = Chat(engine, Settings(max_tokens=0))
    for line in (f"/set {name} {value}", f"/{value}", f"/set {value}"):
        try:
            chat.answer(line)
        except UserError as error:
            assert len(str(error)) < 500
    chat.answer("abc")


def test_a_grammar_that_cannot_go_on_ends_only_the_text(chat):
    chat.answer('/set grammar root ::= "ab" "ß"')
    with pytest.raises(UserError, match="nothing that the vocabulary can spell"):
        chat.answer("c")
    assert chat.text == "cab", "what was shown stays"
    chat.answer("/set grammar default")
    chat.answer("c")
    assert len(chat.text) == 4 + 30


def test_a_model_that_ends_its_text_says_so(tmp_path, capsys):
    with Engine(write_gpt2(tmp_path / "x.gguf", ENGLISH, end_bias=50.0)) as engine:
        Chat(engine, GREEDY).answer("the cat")
    assert "(the text ends here; type on" in capsys.readouterr().out


def test_a_card_leaves_out_what_is_not_known_and_fits_the_terminal():
    card = Card("m\x1b[2J", "gpt2", 371_040, 256, 56, "Q8_0", example="Once upon a time.\n" * 50)
    lines = card_lines(card, 40)
    assert lines[:2] == ["model         m[2J", "architecture  gpt2"]
    assert all(len(line) < 40 for line in lines) and lines[-1].endswith("…")
    assert not any(line.startswith(("trained on", "license")) for line in lines)
    assert card_lines(card, 0)


# At a terminal


class Terminal:
    """A script whose controlling terminal is one that the test holds the other end of."""

    def __init__(self, *flags: str | Path, cwd: Path, columns: int = 80, code: str = "", **environment: str) -> None:
        self._leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        script = ["-c", code] if code else [ROOT / "inference_gguf.py"]
        given = {**ENVIRONMENT, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **environment}
        self._child = subprocess.Popen(
            [sys.executable, *script, *flags], cwd=cwd, stdin=follower, stdout=follower, stderr=follower,
            env={name: value for name, value in given.items() if value is not None},
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(follower)
        self.shown = ""

    def read_until(self, pattern: str) -> str:
        """What is shown from here to the first match of `pattern`, without colours and the like."""
        before, end = len(self.shown), time.monotonic() + SECONDS
        while not re.search(pattern, plain(self.shown[before:])):
            ready, _, _ = select.select([self._leader], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {pattern!r} in {self.shown[before:][-300:]!r}"
            self.shown += os.read(self._leader, 4096).decode("utf-8", "replace")
        return plain(self.shown[before:])

    def type(self, text: str, until: str = PROMPT) -> str:
        os.write(self._leader, text.encode())
        return self.read_until(until)

    def leave(self, keys: str = CTRL_D) -> int:
        os.write(self._leader, keys.encode())
        return self.status()

    def status(self) -> int:
        """The exit status, reading what is still written."""
        while self._child.poll() is None:
            try:
                if select.select([self._leader], [], [], 0.05)[0]:
                    self.shown += os.read(self._leader, 4096).decode("utf-8", "replace")
            except OSError:  # the child has closed the terminal
                break
        return self._child.wait(SECONDS)

    def hang_up(self) -> int:
        """Close the terminal, as closing its window does."""
        os.close(self._leader)
        return self._child.wait(SECONDS)


def plain(shown: str) -> str:
    """What a terminal shows, in the order it was written."""
    return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])|\r|\x08", "", shown)


def test_a_session_at_a_terminal(english, engine, tmp_path):
    flags = ("--gguf_path", english, "--temp", "0", "--max_tokens", "40")
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    terminal = Terminal(*flags, cwd=tmp_path, **environment)
    card = terminal.read_until(PROMPT)
    assert re.search(r"architecture +gpt2\nparameters +[\d,]+\ncontext +64 tokens\nvocabulary +34 tokens\n", card)
    assert "/help tells the rest, /quit leaves" in card

    assert "there is no command /foo" in terminal.type("/foo" + ENTER)
    terminal.type("the cat" + ENTER)
    terminal.type("a" + ALT_ENTER + "b\\" + ENTER + "c" + ENTER)  # several lines
    terminal.type("\x1b[200~d\ne\x1b[201~" + ENTER)  # and pasted ones
    terminal.type("/save story.txt" + ENTER, "characters in story.txt")
    text = "the cat" + continued(engine, "the cat", 40)
    for typed in ("a\nb\nc", "d\ne"):
        text += (" " if " " in text and not text[-1].isspace() else "") + typed
        text += continued(engine, text, 40)
    assert (tmp_path / "story.txt").read_text() == text

    terminal.type("/set max_tokens 100000000" + ENTER)
    terminal.type("endless" + ENTER, STREAMING)
    assert re.fullmatch("(?s).*" + PROMPT, terminal.type(CTRL_C)), "Ctrl-C stops the text and not the program"
    terminal.type("/set max_tokens 3" + ENTER)
    assert "Ctrl-C once more" in terminal.type("half typed" + CTRL_C + CTRL_C, "(?s)leaves.*" + PROMPT)
    assert terminal.leave() == 0

    terminal = Terminal(*flags, "--stats", cwd=tmp_path, **environment)
    terminal.read_until(PROMPT)
    assert "half typed" not in terminal.type(UP * 2, "endless"), "what was typed before is remembered"
    assert "40 tokens, " in terminal.type(ENTER, r"peak memory \d+ MB" + PROMPT)
    terminal.type("\x12the c" + ENTER + ENTER, r"MB" + PROMPT)  # Ctrl-R finds it, too
    assert oct((tmp_path / "cache/custom-llm-scripts/prompt_history").stat().st_mode)[-3:] == "600"
    assert terminal.leave(CTRL_C + CTRL_C) == 0


def test_a_closed_terminal_ends_the_program(english, tmp_path):
    terminal = Terminal("--gguf_path", english, "--max_tokens", "100000000", cwd=tmp_path)
    terminal.read_until(PROMPT)
    terminal.type("the cat" + ENTER, STREAMING)
    assert terminal.hang_up() == -signal.SIGHUP


def test_a_narrow_terminal_and_no_place_for_a_history(english, tmp_path):
    (tmp_path / "file").write_text("no folder")
    environment = {"HOME": None, "XDG_CACHE_HOME": str(tmp_path / "file")}
    terminal = Terminal("--gguf_path", english, "--max_tokens", "5", cwd=tmp_path, columns=12, **environment)
    assert "note: what you type is not remembered: " in terminal.read_until(PROMPT)
    terminal.type("the cat is on a long line" + ENTER)
    assert terminal.leave("/quit" + ENTER) == 0


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(english, tmp_path):
    terminal = Terminal("--gguf_path", english, "--max_tokens", "5", cwd=tmp_path, TERM="dumb")
    terminal.read_until(PROMPT)
    terminal.type("the cat" + ENTER)
    time.sleep(0.2)  # Python misses a signal between its prompt and its read
    assert "once more" in terminal.type(CTRL_C)
    assert terminal.leave() == 0
    assert "\x1b" not in terminal.shown


def test_without_prompt_toolkit_there_is_still_a_prompt(english, tmp_path):
    code = (
        "import sys; sys.modules['prompt_toolkit'] = None; import inference_gguf; "
        "from custom_llm.common.errors import run; sys.exit(run(inference_gguf.main))"
    )
    terminal = Terminal("--gguf_path", english, "--max_tokens", "5", cwd=tmp_path, code=code)
    assert "pip install prompt_toolkit" in terminal.read_until(PROMPT)
    terminal.type("one\\" + ENTER, "\n  $")
    terminal.type("two" + ENTER)
    terminal.type("/save x.txt" + ENTER)
    assert (tmp_path / "x.txt").read_text().startswith("one\ntwo")
    assert terminal.leave() == 0


def test_with_stdout_in_a_file_no_prompt_is_shown(english, tmp_path):
    """As `python inference_gguf.py > text.txt` does at a terminal: it writes from an empty page."""
    leader, follower = pty.openpty()
    command = [sys.executable, ROOT / "inference_gguf.py", "--gguf_path", english, "--max_tokens", "5"]
    done = subprocess.run(command, stdin=follower, capture_output=True, cwd=tmp_path, text=True, timeout=SECONDS)
    os.close(leader)
    os.close(follower)
    assert (done.returncode, len(done.stdout)) == (0, 5 + 1)
