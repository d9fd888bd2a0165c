"""Encoded texts: the same ids as encoding at once, kept, found again, and made anew when anything changed."""

from __future__ import annotations

import json
import os
import pickle
import random
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import digest, run_script, train
from hypothesis import given
from hypothesis import strategies as st

from custom_llm.common.errors import UserError
from custom_llm.data import cache as cache_module
from custom_llm.data import sources, token_file
from custom_llm.data.cache import content_digest, default_cache
from custom_llm.data.dataset import Shuffle, TextDataset, WindowLoader
from custom_llm.data.sources import open_corpus, read_text
from custom_llm.data.token_file import narrowest_type, open_tokens
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.bpe import sample
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.tokenizer.load import find_recipe

TEXT = "".join(f"Line {i}: é — 狐.\nAnd {i * i}, too.\n{END_OF_TEXT}" for i in range(300)) + "the end"
CHAR = find_recipe("char", 0)


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")
    os.utime(path, (1e9, 1e9))
    return path


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def passes(monkeypatch):
    """How often any text was read."""
    count = []
    read = sources.Corpus.read

    def counted(*args, **kwargs):
        count.append(args[0].name)
        return read(*args, **kwargs)

    monkeypatch.setattr(sources.Corpus, "read", counted)
    return count


def tokens_of(path, cache, recipe=CHAR, max_tokens=None, **options):
    return open_tokens(open_corpus(str(path), **options), recipe, cache, max_tokens)


@pytest.mark.parametrize("part", [1, 50, 1 << 20])
@pytest.mark.parametrize("name", ["char", "bpe"])
def test_ids_are_those_of_the_text_as_a_whole(text_file, cache, monkeypatch, name, part):
    monkeypatch.setattr(token_file, "PART", part)
    tokens = tokens_of(text_file, cache, find_recipe(name, 400))
    assert tokens.ids.tolist() == tokens.tokenizer.encode(END_OF_TEXT + TEXT).tolist()
    assert tokens.tokenizer.decode(tokens.ids) == END_OF_TEXT + TEXT
    assert tokens.sample == TEXT[: len(tokens.sample)]
    assert len(tokens.sample) == min(len(TEXT), token_file.SAMPLE_CHARACTERS)
    assert tokens.n_characters == len(END_OF_TEXT + TEXT)


def test_the_vocabulary_is_the_one_of_the_text(text_file, cache):
    assert tokens_of(text_file, cache).tokenizer.chars == CharTokenizer.from_text(TEXT).chars


@pytest.mark.parametrize(("vocab_size", "size"), [(2, 1), (256, 1), (257, 2), (65536, 2), (65537, 4)])
def test_the_narrowest_type_is_taken(vocab_size, size):
    assert narrowest_type(vocab_size).itemsize == size
    assert np.iinfo(narrowest_type(vocab_size)).max >= vocab_size - 1


def test_a_second_start_reads_no_text(text_file, cache, passes):
    first = tokens_of(text_file, cache)
    assert len(passes) == 2  # one for the vocabulary, one for the ids
    second = tokens_of(text_file, cache)
    assert len(passes) == 2
    assert second.ids.tolist() == first.ids.tolist()
    assert second.tokenizer.to_dict() == first.tokenizer.to_dict()
    assert second.sample == first.sample


def test_a_copy_under_another_name_reads_no_text_either(text_file, cache, passes):
    tokens_of(text_file, cache)
    copy = text_file.with_name("b.txt")
    copy.write_bytes(text_file.read_bytes())
    tokens_of(copy, cache)
    assert len(passes) == 2


def test_a_file_that_was_seen_is_not_even_looked_at(text_file, cache, monkeypatch):
    monkeypatch.setattr(cache_module, "FRESH", -1)
    cache.mkdir()
    first = content_digest([text_file], cache)
    assert content_digest([text_file], cache) == first
    monkeypatch.setattr(cache_module, "open_bytes", None)
    assert content_digest([text_file], cache) == first


def test_a_changed_file_is_noticed_though_its_size_and_time_are_the_same(text_file, cache):
    first = tokens_of(text_file, cache)
    text_file.write_text(TEXT.replace("too", "TOO"), encoding="utf-8")
    os.utime(text_file, (1e9, 1e9))
    second = tokens_of(text_file, cache)
    assert second.tokenizer.decode(second.ids) == END_OF_TEXT + TEXT.replace("too", "TOO")
    assert first.tokenizer.decode(first.ids) == END_OF_TEXT + TEXT  # whoever still reads the old one can


@pytest.mark.parametrize(
    "other",
    [
        dict(recipe=find_recipe("bpe", 400)),
        dict(recipe=find_recipe("bpe", 401)),
        dict(max_tokens=100),
        dict(max_chars=100),
        dict(encoding="latin-1"),
    ],
)
def test_other_settings_are_another_text(text_file, cache, other):
    plain = tokens_of(text_file, cache)
    assert tokens_of(text_file, cache, **other).ids.tolist() != plain.ids.tolist()
    assert tokens_of(text_file, cache).ids.tolist() == plain.ids.tolist()


def test_bounds(text_file, cache):
    tokens = tokens_of(text_file, cache, max_tokens=100)
    assert tokens.tokenizer.decode(tokens.ids) == END_OF_TEXT + TEXT.replace(END_OF_TEXT, "$")[:99].replace(
        "$", END_OF_TEXT
    )
    tokens = tokens_of(text_file, cache, max_chars=100)
    assert tokens.tokenizer.decode(tokens.ids) == END_OF_TEXT + TEXT[:100]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
@pytest.mark.parametrize("ending", [".npy", ".json"])
def test_a_damaged_token_file_is_made_anew(text_file, cache, damage, ending):
    expected = tokens_of(text_file, cache).ids.tolist()
    (path,) = (path for path in (cache / "tokens").glob(f"*{ending}") if path.stem != "digests")
    path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
    (cache / "tokens/digests.json").write_bytes(b"[")
    assert tokens_of(text_file, cache).ids.tolist() == expected


class Exploit:
    """Pickled, it would run code if it were unpickled."""

    def __reduce__(self):
        return (Path("exploited").touch, ())


def altered(ids: np.ndarray, place: int, value: int) -> np.ndarray:
    ids = ids.copy()
    ids[place] = value
    return ids


LIES = {
    "an id beyond the vocabulary": lambda ids: altered(ids, -5, 255),
    "other numbers": lambda ids: ids.astype(np.int64),
    "no whole numbers": lambda ids: ids.astype(np.float32),
    "a table": lambda ids: ids[: len(ids) // 2 * 2].reshape(-1, 2),
    "one number": lambda ids: np.uint8(3),
    "nothing": lambda ids: ids[:0],
    "truths": lambda ids: ids > 3,
    "texts": lambda ids: np.array(["a", "b"]),
    "records": lambda ids: np.zeros(9, [("a", "u1")]),
    "objects": lambda ids: np.array([Exploit()] * 9, dtype=object),
}


@pytest.mark.parametrize("lie", LIES)
def test_ids_that_cannot_be_are_made_anew(text_file, cache, lie, monkeypatch):
    monkeypatch.chdir(cache.parent)
    right = tokens_of(text_file, cache).ids.tolist()
    (path,) = (cache / "tokens").glob("*.npy")
    np.save(path, LIES[lie](np.load(path)), allow_pickle=True)
    assert tokens_of(text_file, cache).ids.tolist() == right
    assert not Path("exploited").exists()


@pytest.mark.parametrize("content", [b"PK\x03\x04junk", pickle.dumps(Exploit()), b"\x93NUMPY\x02\0\xff\xff\xff\x7fx"])
def test_other_files_in_place_of_ids_are_not_believed(text_file, cache, content, monkeypatch):
    monkeypatch.chdir(cache.parent)
    right = tokens_of(text_file, cache).ids.tolist()
    (path,) = (cache / "tokens").glob("*.npy")
    path.write_bytes(content)
    assert tokens_of(text_file, cache).ids.tolist() == right
    assert not Path("exploited").exists()


@pytest.mark.parametrize("changes", [
    dict(tokenizer={"kind": "char", "chars": "ab", "end_of_text": True}), dict(tokenizer={"kind": "bpe", "json": "{}"}),
    dict(tokenizer=None), dict(characters=None), dict(characters=1.5), dict(sample=7), None,
])  # fmt: skip
def test_a_lie_about_ids_is_not_believed(text_file, cache, changes):
    right = tokens_of(text_file, cache)
    (path,) = (path for path in (cache / "tokens").glob("*.json") if path.stem != "digests")
    deep = "[" * 100_000
    path.write_text(deep if changes is None else json.dumps({**json.loads(path.read_bytes()), **changes}))
    (cache / "tokens/digests.json").write_text(deep)
    again = tokens_of(text_file, cache)
    assert again.tokenizer.to_dict() == right.tokenizer.to_dict()
    assert (again.n_characters, again.sample) == (right.n_characters, right.sample)


@pytest.mark.parametrize("ending", [".npy", ".json"])
def test_no_changed_byte_is_read_as_another_text(text_file, cache, ending):
    right = tokens_of(text_file, cache, find_recipe("bpe", 300))
    ids, tokenizer = right.ids.tolist(), right.tokenizer.to_dict()
    (path,) = (path for path in (cache / "tokens").glob(f"*{ending}") if path.stem != "digests")
    content, generator = path.read_bytes(), random.Random(0)
    for _ in range(40):
        damaged = bytearray(content)
        for place in generator.sample(range(len(content)), generator.choice([1, 3])):
            damaged[place] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        found = token_file._open(path.with_suffix(".npy"))
        assert found is None or (found.ids.tolist(), found.tokenizer.to_dict()) == (ids, tokenizer)
    again = tokens_of(text_file, cache, find_recipe("bpe", 300))
    assert (again.ids.tolist(), again.tokenizer.to_dict()) == (ids, tokenizer)


def test_what_is_left_out_is_said_each_time(tmp_path, cache, capsys):
    (tmp_path / "a.jsonl").write_text('{"text": "ab"}\n{"text": null}\n', encoding="utf-8")
    for _ in range(2):
        tokens_of(tmp_path / "a.jsonl", cache)
        assert capsys.readouterr().err.endswith(f"a.jsonl: left out: 1 row of {tmp_path}/a.jsonl without a text\n")


def test_the_same_bytes_under_an_ending_that_is_read_otherwise_are_another_text(tmp_path, cache):
    for name in (".jsonl", "a.jsonl"):  # the first has no ending, and is plain text
        (tmp_path / name).write_text('{"text": "ab cd"}\n', encoding="utf-8")
    plain, rows = (tokens_of(tmp_path / name, cache) for name in (".jsonl", "a.jsonl"))
    assert (plain.n_characters, rows.n_characters) == (len(END_OF_TEXT) + 18, len(END_OF_TEXT) + 5)


def test_a_text_that_changes_while_it_is_read_is_refused(text_file, cache):
    def make(pieces):
        tokenizer = CHAR.make(pieces)
        text_file.write_text(TEXT + TEXT, encoding="utf-8")
        return tokenizer

    with pytest.raises(UserError, match="has changed while it was read; start again"):
        tokens_of(text_file, cache, token_file.Recipe("char", make))
    assert not list((cache / "tokens").glob("*.npy"))


def test_what_nothing_has_used_for_a_month_goes(text_file, cache):
    tokens_of(text_file, cache)
    (used,) = (cache / "tokens").glob("*.npy")
    made = time.time() - 29 * 86_400
    os.utime(used, (made, made))
    ours = (f"{0:032}.npy", f"{0:032}.json", ".x.99.tmp.npy", "a-0123456789ab.0.txt")
    old = [cache / "tokens" / name for name in ours]
    theirs = [cache / "tokens" / name for name in ("old.npy", "notes.txt", "stories-2019.txt", "0.json")]
    for path in old + theirs:
        path.write_bytes(b"x")
        os.utime(path, (time.time() - 31 * 86_400,) * 2)
    tokens_of(text_file, cache)
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in theirs)  # whoever named a folder with --cache_dir may have files in it
    assert time.time() - used.stat().st_atime < 60
    assert used.stat().st_mtime == pytest.approx(made)  # said as the age of a copy
    before = used.stat().st_ctime_ns
    tokens_of(text_file, cache)
    assert used.stat().st_ctime_ns == before  # one mark a day


def test_a_cache_that_cannot_be_written(text_file, tmp_path):
    with pytest.raises(UserError, match=r"name a folder to write to with --cache_dir"):
        tokens_of(text_file, text_file)


def test_a_cache_that_is_closed_to_us(text_file, cache, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"tokens: permission denied; name a folder to write to with --cache_dir"):
        tokens_of(text_file, cache)


@pytest.mark.parametrize("place", ["", "relative"])
def test_the_cache_of_a_user(monkeypatch, tmp_path, place):
    monkeypatch.setenv("XDG_CACHE_HOME", place)  # neither counts
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert default_cache() == tmp_path / ".cache/custom-llm-scripts"
    monkeypatch.setattr(Path, "home", mock.Mock(side_effect=RuntimeError("Could not determine home directory.")))
    with pytest.raises(UserError, match="no home folder to keep encoded texts in; name one with --cache_dir"):
        default_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "custom-llm-scripts"


@given(st.lists(st.integers(), max_size=50), st.integers(1, 20))
def test_a_sample_is_part_of_the_whole_in_its_order(items, n):
    pairs = list(enumerate(items))
    kept = sample(pairs, n)
    assert len(kept) == min(n, len(items))
    assert kept == sorted(set(kept) & set(pairs))


# --- windows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocab_size", [600, 70_000])
def test_windows_of_a_file_are_those_of_a_text(tmp_path, cache, vocab_size):
    text = "".join(map(chr, [*range(0x20, 0x7F), *range(0xA1, vocab_size)])).encode("utf-8", "ignore").decode()
    (tmp_path / "b.txt").write_text(text, encoding="utf-8", newline="")
    tokens = tokens_of(tmp_path / "b.txt", cache)
    mapped = TextDataset.of_tokens(tokens, 16)
    plain = TextDataset(END_OF_TEXT + read_text(str(tmp_path / "b.txt")), 16, tokens.tokenizer)
    assert len(mapped) == len(plain)
    assert mapped.data.dtype.itemsize == (2 if vocab_size == 600 else 4)
    for (x, y), (x0, y0) in zip(WindowLoader(mapped, 8, 3, 0), WindowLoader(plain, 8, 3, 0), strict=True):
        assert x.dtype == torch.int64
        assert torch.equal(x, x0) and torch.equal(y, y0)
    assert torch.equal(mapped[5][0], plain[5][0])
    assert torch.equal(mapped.split_off(0.1), plain.split_off(0.1))


def test_a_file_that_is_shortened_while_it_is_read_is_an_error_and_made_anew(text_file, cache):
    tokens = tokens_of(text_file, cache)
    expected = tokens.ids.tolist()
    dataset = TextDataset.of_tokens(tokens, 16)
    batches = iter(WindowLoader(dataset, 8, 3, 0))
    next(batches)
    (path,) = (cache / "tokens").glob("*.npy")
    os.truncate(path, 200)
    with pytest.raises(UserError, match=r"\.npy has been shortened while it was read; start again, a"):
        list(batches)
    assert tokens_of(text_file, cache).ids.tolist() == expected


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what is in memory")
def test_a_text_in_a_file_takes_no_memory(tmp_path, cache):
    (tmp_path / "b.txt").write_text("0123456789\n" * 2_000_000, encoding="utf-8")
    dataset = TextDataset.of_tokens(tokens_of(tmp_path / "b.txt", cache), 64)
    before = resident_bytes()
    for place, _ in zip(range(2000), WindowLoader(dataset, 32, 64, 0), strict=False):
        assert place or resident_bytes() - before < 10e6
    assert resident_bytes() - before < 10e6


def resident_bytes() -> int:
    with Path("/proc/self/status").open(encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


def test_held_out_text_is_bounded():
    dataset = TextDataset("ab" * 500, 8)
    assert len(dataset.split_off(0.1, 30)) == 30
    assert len(dataset.data) == 970


@given(st.integers(0, 3000), st.integers(0, 9))
def test_a_shuffle_is_an_order_of_all(n, seed):
    assert sorted(Shuffle(n, torch.Generator().manual_seed(seed))) == list(range(n))


def test_a_shuffle_looks_random():
    order = np.fromiter(Shuffle(200_000, torch.Generator().manual_seed(0)), np.int64)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.01
    firsts = [next(iter(Shuffle(10, torch.Generator().manual_seed(seed)))) for seed in range(2000)]
    assert min(np.bincount(firsts, minlength=10)) > 150
    assert list(Shuffle(9, torch.Generator().manual_seed(3))) == list(Shuffle(9, torch.Generator().manual_seed(3)))


# --- the script -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_from_the_cache_is_the_same_training(tmp_path):
    flags = "--max_epochs 1 --batch_size 8 --learning_rate 0.0005 --precision float32 --cache_dir c".split()
    flags += "--tokenizer bpe --vocab_size 300".split()
    folder = train(tmp_path, "The fox ran home. " * 99, epochs=1).folder
    results = []
    for _ in range(2):
        done = run_script("train_llm.py", "--dataset_path", "input.txt", *flags, cwd=folder)
        assert done.status == 0, done.stderr
        results.append((done.stdout, digest(folder / "trained_model.pth")))
    assert results[0] == results[1]


@pytest.mark.slow
def test_bounds_of_a_training(tmp_path):
    train(tmp_path, "abcdefgh ijkl. " * 999, epochs=1)
    for bound in ("--max_chars", "--max_tokens"):
        done = run_script("train_llm.py", "--inspect", bound, "500", cwd=tmp_path)
        assert done.status == 0, done.stderr
        assert "tokens      500 of" in done.stdout or "tokens      501 of" in done.stdout
