"""Files of options: what --config reads, what it refuses, and the file beside an output, which repeats the run."""

from __future__ import annotations

import importlib
import io
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, STORY, digest, run_script
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_model
from custom_llm.cli.parser import given as given_flags
from custom_llm.cli.parser import read_options
from custom_llm.cli.run_file import MARK, write_run_file
from custom_llm.commands import train
from custom_llm.common.errors import UserError, run
from custom_llm.common.steps import STEPS as SCRIPTS
from custom_llm.config.presets import PRESETS
from custom_llm.config.training import TrainConfig

STEPS = list(SCRIPTS)[:4]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
TINY = "n_embd: 16\nn_head: 2\nn_layer: 1\nblock_size: 8\ndropout: 0\nvocab_size: 50\n"
ROAD = """\
llm_model: {n_embd: 16, n_head: 2, n_layer: 1, block_size: 8, dropout: 0, vocab_size: 50}
train_llm: {batch_size: 4, learning_rate: 1e-3, max_epochs: 1, dataset_path: input.txt}
convert_to_gguf: {quant_type: [Q8_0, F16], llama_cpp_path: none, no_verify: yes}
"""


def parser_of(script: str):
    return importlib.import_module(f"custom_llm.commands.{SCRIPTS[script]}").make_parser()


@pytest.fixture(autouse=True)
def one_thread():
    """Training takes as many threads as are fastest just then, and two of them add up in another order than one."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, where nobody answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return tmp_path


@pytest.fixture
def call(folder, capsys):
    """Run a script in the folder: (script, flags) → (status, stdout, stderr)."""

    def run_it(script: str, flags: str = "") -> tuple[int, str, str]:
        status = run(importlib.import_module(script).main, flags.split())
        return status, *capsys.readouterr()

    return run_it


def options_of(text: str, script: str = "train_llm") -> dict:
    Path("run.yaml").write_text(text, encoding="utf-8")
    return read_options("run.yaml", parser_of(script))


# --- what is read -----------------------------------------------------------------------------------------------------

READ = [
    ("train_llm", "learning_rate: 1e-4", {"learning_rate": 0.0001}),  # a text in YAML 1.1
    ("train_llm", "learning_rate: 3.E-4", {"learning_rate": 0.0003}),
    ("train_llm", "learning_rate: '0.5'", {"learning_rate": 0.5}),
    ("train_llm", "learning_rate: 1", {"learning_rate": 1.0}),
    ("train_llm", "max_chars: 20_000_000", {"max_chars": 20_000_000}),
    ("train_llm", "seed: 010", {"seed": 10}),  # 8 in YAML 1.1
    ("train_llm", "seed: !!str 7", {"seed": 7}),
    ("train_llm", "seed:", {}),
    ("train_llm", "seed: null\nminutes: ~", {}),
    ("train_llm", "tokenizer: no", {"tokenizer": "no"}),
    ("train_llm", "tokenizer: 'null'", {"tokenizer": "null"}),
    ("train_llm", "dataset_path: 2024-01-01", {"dataset_path": "2024-01-01"}),  # a date in YAML
    ("train_llm", "dataset: tinystories", {"dataset_path": "tinystories"}),
    ("train_llm", "dataset: [a.txt, 'b c.md']", {"dataset_path": "a.txt,b c.md"}),
    ("train_llm", "stream: off", {"stream": False}),
    ("train_llm", "stream: yes\nfallback: True", {"stream": True, "fallback": True}),
    ("train_llm", "\ufeffseed: 1", {"seed": 1}),
    ("train_llm", "---\nseed: 1\n...\n", {"seed": 1}),
    ("train_llm", "%YAML 1.1\n---\nseed: 1", {"seed": 1}),
    ("train_llm", "seed: 1\r\nstride: 2\r\n", {"seed": 1, "stride": 2}),
    ("train_llm", '{"seed": 1, "stride": 2}', {"seed": 1, "stride": 2}),  # JSON is YAML
    ("train_llm", "{}", {}),
    ("train_llm", "model_path: &a x.pth\ntext_field: *a", {"model_path": "x.pth", "text_field": "x.pth"}),
    ("train_llm", "llm_model:\n  n_embd: 8\ntrain_llm:\n  seed: 1", {"seed": 1}),
    ("train_llm", "llm_model:\n  n_embd: 8\n", {}),
    ("train_llm", "train_llm:\nllm_model:\n", {}),
    ("llm_model", "bias: no\nmoe: Yes", {"bias": False, "moe": True}),
    ("llm_model", 'layer_configs: \'[{"attn": "mha"}]\'', {"layer_configs": '[{"attn": "mha"}]'}),
    ("convert_to_gguf", "quant_type: [Q4_0, Q8_0]\nno_verify: true", {"quant_type": "Q4_0,Q8_0", "no_verify": True}),
    ("inference_gguf", "query: |\n  one\n  two\n", {"query": "one\ntwo\n"}),
    ("inference_gguf", "query: ''\nstop: JULIET", {"query": "", "stop": ["JULIET"]}),
    (
        "inference_gguf",
        "stop: ['a, b', no]\ntemp: 0\nuse_gpu: n",
        {"stop": ["a, b", "no"], "temp": 0.0, "use_gpu": False},
    ),
    ("quickstart", "file: notes.txt\nminutes: 0.5", {"file": "notes.txt", "minutes": 0.5}),
]


@pytest.mark.parametrize(("script", "text", "expected"), READ)
def test_a_value_is_what_would_be_typed(folder, script, text, expected):
    options = options_of(text, script)
    assert options == expected
    assert {name: type(value) for name, value in options.items()} == {k: type(v) for k, v in expected.items()}
    args = parser_of(script).parse_args(["--config", "run.yaml"])
    assert expected.items() <= vars(args).items()


def test_a_flag_wins_over_the_file(folder):
    Path("run.yaml").write_text("max_tokens: 5\nstop: [a, b]\nquery: q\nuse_gpu: yes")
    args = parser_of("inference_gguf").parse_args("--max_tokens 7 --config run.yaml --stop c --stop d".split())
    assert (args.max_tokens, args.stop, args.query, args.use_gpu) == (7, ["c", "d"], "q", True)
    Path("run.yaml").write_text("stream: yes\nseed: 1\ndataset_path: a.txt")
    args = parser_of("train_llm").parse_args("--config run.yaml --no_stream --dataset b.txt --seed 2".split())
    assert (args.stream, args.dataset_path, args.seed) == (False, "b.txt", "2")
    Path("run.yaml").write_text("file: a.txt")
    assert parser_of("quickstart").parse_args(["--config", "run.yaml", "b.txt"]).file == "b.txt"


@pytest.mark.parametrize("end", ["minutes", "max_iters", "max_epochs"])
def test_a_flag_that_ends_a_training_takes_the_place_of_all_that_the_file_says_of_it(folder, end):
    Path("run.yaml").write_text("max_iters: 5\nmax_epochs: 3\nseed: 1")
    args = parser_of("train_llm").parse_args(["--config", "run.yaml", f"--{end}", "7"])
    found = {name: getattr(args, name) for name in ("minutes", "max_iters", "max_epochs")}
    assert {name: value for name, value in found.items() if value is not None} == {end: "7"}
    assert args.seed == 1


def test_what_the_file_says_is_not_asked(call):
    Path("run.yaml").write_text("llm_model:\n  n_embd: 64\n  n_layer: 2\n")
    status, out, err = call("llm_model", "--config run.yaml --dropout 0")
    assert (status, err) == (0, "")
    assert out.splitlines()[:4] == [
        "Configure your LLM model:",
        "Enter vocabulary size (e.g., 10000 for small models): ",
        "Enter number of attention heads (e.g., 8): ",
        "Enter max sequence length (e.g., 128): ",
    ]
    Path("run.yaml").write_text(TINY)
    assert call("llm_model", "--config run.yaml")[1].startswith("Model initialized with 0.01M parameters\n")


# --- what is refused --------------------------------------------------------------------------------------------------

LAUGHS = "a: &a x\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abc", "bcd", strict=True)
)
BAD = [
    ("train_llm", "learning_rate: fast", "run.yaml: learning_rate 'fast' is not a number"),
    ("train_llm", "learning_rate: .inf", "run.yaml: learning_rate '.inf' is not a number"),
    ("train_llm", "learning_rate: nan", "run.yaml: learning_rate nan is not a number from"),
    ("train_llm", "batch_size: 0", "run.yaml: batch_size 0 is not a whole number from 1"),
    ("train_llm", "batch_size: 2.0", "run.yaml: batch_size '2.0' is not a whole number"),
    ("train_llm", "batch_size: yes", "run.yaml: batch_size 'yes' is not a whole number"),
    ("train_llm", "seed: 0x10", "run.yaml: seed '0x10' is not a whole number"),
    ("train_llm", "seed: 1:30", "run.yaml: seed '1:30' is not a whole number"),
    ("train_llm", "seed: " + "9" * 5000, "run.yaml: seed '999"),
    ("train_llm", "seed: [1, 2]", "run.yaml: seed is a list; give one value"),
    ("train_llm", "dataset: ['a,b', c]", "run.yaml: dataset has an item with a comma, 'a,b'"),
    ("train_llm", "dataset: [a, [b]]", "run.yaml: dataset has an item that is a list (line 1)"),
    ("train_llm", "dataset: [a, null]", "run.yaml: dataset has an item that is null"),
    ("train_llm", "stream: maybe", "run.yaml: stream 'maybe' is not yes or no"),
    ("train_llm", "stream: 1", "run.yaml: stream '1' is not yes or no"),
    ("train_llm", "dataset: a\ndataset_path: b", "run.yaml, line 2: dataset_path is an option of the lines above, too"),
    ("train_llm", "lerning_rate: 1", "line 1: train_llm has no option lerning_rate; did you mean learning_rate?"),
    ("train_llm", "seed: 1\nzzz: 1", "line 2: train_llm has no option zzz; see python train_llm.py --help"),
    ("train_llm", "config: other.yaml", "train_llm has no option config; did you mean config_path?"),
    ("train_llm", "help: yes", "train_llm has no option help"),
    ("train_llm", "no_stream: yes", "there is no option no_stream; write stream: no"),
    ("llm_model", "no_bias: true", "there is no option no_bias; write bias: no"),
    ("train_llm", "1: 2", "train_llm has no option 1;"),
    ("train_llm", "null: 2", "train_llm has no option null;"),
    ("train_llm", "[a, b]: 2", "line 1: a key is not the plain name of an option or section"),
    ("train_llm", "? {a: b}\n: 2", "line 1: a key is not the plain name of an option or section"),
    ("train_llm", "*a : 2", "a key is not the plain name"),
    ("train_llm", "seed: 1\n\nseed: 2", "run.yaml, line 3: seed stands there twice, first in line 1"),
    ("train_llm", "train_llm: {seed: 1}\ntrain_llm: {}", "line 2: train_llm stands there twice"),
    ("train_llm", "train: {seed: 1}", "run.yaml, line 1: there is no section train; did you mean train_llm?"),
    ("train_llm", "llm_model: {}\nconvert: {}", "line 2: there is no section convert; did you mean convert_to_gguf?"),
    ("train_llm", "llm_model: {}\nqqq: {}", "there is no section qqq; there are llm_model, train_llm"),
    ("train_llm", "train_llm: {}\nseed: 1", "line 2: outside of the sections stands seed"),
    ("train_llm", "train_llm: 5", "line 1: train_llm is a section; give its options"),
    ("train_llm", "llm_model: [5]", "line 1: llm_model is a section; give its options"),
    ("train_llm", "train_llm: {seed: {a: 1}}", "run.yaml: seed is a mapping"),
    ("train_llm", "train_llm: {dataset: [[[1]]]}", "line 1: lists or mappings are nested too deep"),
    ("train_llm", "[" * 100_000, "line 1: lists or mappings are nested too deep"),
    ("train_llm", "- " * 100_000, "line 1: lists or mappings are nested too deep"),
    ("train_llm", "", "run.yaml: it is empty; give options"),
    ("train_llm", "# seed: 1\n", "run.yaml: it is empty; give options"),
    ("train_llm", "--- \n", "run.yaml: it is empty; give options"),
    ("train_llm", "---\n# nothing\n", "run.yaml: it is empty; give options"),
    ("train_llm", "seed", "run.yaml, line 1: not options; give options, one a line"),
    ("train_llm", "- seed: 1", "run.yaml, line 1: not options"),
    ("train_llm", "seed: 1\n---\nseed: 2", "run.yaml, line 2: a second document begins (---)"),
    ("train_llm", "train_llm:\n\tseed: 1", "run.yaml, line 2: not YAML: found character"),
    ("train_llm", "train_llm:\n\tseed: 1", "there is a tab in the line"),
    ("train_llm", "seed: 1: 2", "run.yaml, line 1: not YAML: mapping values are not allowed"),
    ("train_llm", "seed: [1", "not YAML: "),
    ("train_llm", "seed: 'x", "not YAML: "),
    ("train_llm", "%YAML 9.9\n---\nseed: 1", "not YAML: "),
    ("train_llm", "seed: \x00", "not YAML: control characters are not allowed"),
    ("train_llm", "seed: !!python/object/apply:os.system [touch exploited]", "the tag 'tag:yaml.org,2002:python/obj"),
    ("train_llm", "seed: !env HOME", "the tag '!env' is not read here"),
    ("train_llm", "seed: *nothing", "line 1: *nothing repeats no single value of the lines above"),
    ("train_llm", "dataset: &a [*a]", "*a repeats no single value"),
    ("train_llm", LAUGHS, "*b repeats no single value of the lines above"),
    ("train_llm", f"tokenizer: &a {'x' * 5000}\ndataset: [{'*a, ' * 999}*a]", "aliases repeat too much text"),
    ("train_llm", "train_llm: &a {seed: 1}\nllm_model:\n  <<: *a", "<< (merging) is not read here"),
    ("train_llm", b"seed: \xff", "run.yaml: not UTF-8 text"),
    ("train_llm", "seed: 1".encode("utf-16"), "run.yaml: not UTF-8 text"),
    ("train_llm", b"#" * (1 << 20) + b"#", "run.yaml: more than 1,048,576 bytes"),
    ("llm_model", TINY.replace("n_embd: 16", "n_embd: 15"), "n_embd 15 is not a multiple of n_head 2"),
    ("llm_model", "coeff: 1", "coeff 1.0 has no meaning here"),
    ("llm_model", "preset: modren", "run.yaml: preset modren: no such preset; there are classic"),
    ("llm_model", "attn: mhaa", "run.yaml: attn 'mhaa' is not one of mha"),
    ("llm_model", "layer_configs: [{attn: mha}]", "run.yaml: layer_configs is a list"),
    ("convert_to_gguf", "quant_type: [Q4_0, Q9_9]", "run.yaml: quant_type Q9_9: no such type; known are F32"),
    ("convert_to_gguf", "quant_type: []", "run.yaml: quant_type is empty"),
    ("inference_gguf", "temp: -1", "run.yaml: temp -1.0 is not a number from 0 to 100"),
    ("inference_gguf", "stop: [a, '']", "run.yaml: stop empty, it would stop at once"),
    ("quickstart", "minutes: 0", "run.yaml: minutes '0' is not a number from 0.01"),
]


MEANINGLESS = [content for _, content, message in BAD if "multiple of" in message or "no meaning" in message]


def check_refused(result: tuple[int, str, str], message: str) -> None:
    status, out, err = result
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert message in err


@pytest.mark.parametrize(("script", "content", "message"), BAD)
def test_a_bad_file_is_one_line_and_nothing_is_written(folder, call, script, content, message):
    Path("run.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    check_refused(call(script, "--config run.yaml"), message)
    assert [path.name for path in folder.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--config nowhere.yaml", "--config nowhere.yaml: no such file or directory"),
        ("--config .", "--config .: is a directory"),
        ("--config /dev/zero", "/dev/zero: more than 1,048,576 bytes"),
        ("--config", "argument --config: expected one argument"),
    ],
)
def test_a_file_that_cannot_be_had(call, flags, message):
    check_refused(call("train_llm", flags), message)


def test_the_parser_without_libyaml_refuses_the_same(folder, monkeypatch):
    monkeypatch.delattr(yaml, "CSafeLoader")
    for script, text, expected in READ:
        if not text.startswith("%"):
            assert options_of(text, script) == expected
    for script, content, _ in BAD:
        if isinstance(content, str) and len(content) < 1000 and content not in MEANINGLESS:
            with pytest.raises(UserError):
                options_of(content, script)


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.text() | st.integers(), max_size=3)
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_mapping_of_options_loads_or_is_one_user_error(tmp_path_factory, data):
    script = data.draw(st.sampled_from(sorted(SCRIPTS)))
    parser = parser_of(script)
    names = st.sampled_from([action.dest for action in parser._actions]) | st.text()
    options = data.draw(st.dictionaries(names, PLAIN, max_size=4) | st.dictionaries(names, st.just({}) | PLAIN))
    wrapped = data.draw(st.booleans())
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    text = yaml.safe_dump({script: options} if wrapped else options, allow_unicode=data.draw(st.booleans()))
    path.write_text(text, encoding="utf-8")
    try:
        found = read_options(str(path), parser)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert set(found) <= {action.dest for action in parser._actions}


MARKUP = st.lists(
    st.sampled_from([*"seed:&a*-[]{},#|>'!%@`?\t\n\r \\\"\x85\u2028", "seed: ", "<<: ", "---\n", "\n  ", "!!str "])
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=50) | MARKUP.map("".join) | st.text(), st.booleans())
def test_any_file_loads_or_is_one_user_error(tmp_path_factory, content, with_libyaml):
    path = tmp_path_factory.getbasetemp() / "anything.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
    with pytest.MonkeyPatch.context() as patch:
        if not with_libyaml:
            patch.delattr(yaml, "CSafeLoader")
        try:
            read_options(str(path), parser_of("train_llm"))
        except UserError as error:
            assert str(error).startswith(str(path))


# --- the file that repeats a run --------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_resolved_file_read_back_gives_the_same_options(tmp_path_factory, data):
    """Of the kinds of values an option has: flags, numbers, texts of any characters."""
    script = data.draw(st.sampled_from(STEPS))
    parser = parser_of(script)
    values = vars(parser.parse_args([]))
    numbers = {
        "learning_rate": st.floats(1e-12, 10.0),
        "seed": st.integers(0, 2**32 - 2),
        "n_embd": st.integers(1, 65_536),
    }
    texts = ("query", "text_field", "dataset_path", "tokenizer", "model_path", "config_path", "encoding")
    for name, value in values.items():
        if name in texts:
            values[name] = data.draw(TEXT)
        elif name in numbers and script != "inference_gguf":
            values[name] = data.draw(numbers[name])
        elif name == "stop":
            values[name] = data.draw(st.lists(TEXT.filter(bool), max_size=3))
        elif name == "lora" and script == "inference_gguf":
            values[name] = data.draw(st.lists(st.just("a.gguf:0.5"), max_size=2))
        elif isinstance(value, bool) or name in ("bias", "moe", "stream"):
            values[name] = data.draw(st.booleans())
    path = tmp_path_factory.getbasetemp() / "resolved.yaml"
    write_run_file(path, parser, values)
    again = vars(parser_of(script).parse_args(["--config", str(path)]))
    assert {**again, "config": None} == values


@pytest.mark.parametrize(
    "flags",
    [
        *(f"--preset {preset}{more}" for preset in PRESETS for more in ("", " --advanced", " --bias --up_dim 40")),
        "--preset modern --layer_configs_jsonl layers.jsonl",
    ],
)
def test_step_1_repeats(call, flags):
    shutil.copy(ROOT / "configs" / "narrow_to_wide.jsonl", "layers.jsonl")
    status, _, err = call("llm_model", f"{flags} --n_embd 128 --vocab_size 300")
    assert (status, err) == (0, "")
    first = torch.load("model_config.pth", weights_only=True), Path("model_config.yaml").read_text()
    Path("model_config.pth").unlink()
    status, out, err = call("llm_model", "--config model_config.yaml")
    assert (status, err) == (0, "")
    assert "Enter" not in out
    assert (torch.load("model_config.pth", weights_only=True), Path("model_config.yaml").read_text()) == first


@pytest.mark.slow
def test_the_whole_road_repeats(folder, call, monkeypatch):
    Path("input.txt").write_text(STORY * 30)
    Path("run.yaml").write_text(ROAD)
    names = ["model_config.pth", "trained_model.pth", "model.gguf", "model.gguf.Q8_0.gguf", "model.gguf.F16.gguf"]
    for step in STEPS[:3]:
        status, _, err = call(step, "--config run.yaml")
        assert status == 0, err
    before = torch.load("trained_model.pth", weights_only=True)
    files = [digest(name) for name in names[2:]]
    resolved = ["model_config.yaml", "trained_model.yaml", "model.gguf.yaml"]
    texts = [Path(name).read_text() for name in resolved]
    for name in names:
        Path(name).unlink()
    for step, name in zip(STEPS, resolved, strict=False):
        assert f"python {step}.py --config {name}\n" in Path(name).read_text()
        assert call(step, f"--config {name}")[0] == 0
    weights = torch.load("trained_model.pth", weights_only=True)
    assert all(torch.equal(weights[name], before[name]) for name in before)
    assert [digest(name) for name in names[2:]] == files
    assert [Path(name).read_text() for name in resolved] == texts
    Path("all.yaml").write_text("\n".join(texts))  # sections of one file
    assert parser_of("train_llm").parse_args(["--config", "all.yaml"]).batch_size == 4


def test_a_learnt_vocabulary_repeats_with_the_number_it_had(call):
    Path("input.txt").write_text(STORY * 30)
    Path("run.yaml").write_text(ROAD)
    assert call("llm_model", "--config run.yaml --vocab_size 300")[0] == 0
    assert call("train_llm", "--config run.yaml --tokenizer bpe")[0] == 0
    size = torch.load("model_config.pth", weights_only=True)["vocab_size"]
    assert f"\n  vocab_size: {size}\n" in Path("trained_model.yaml").read_text()
    before = torch.load("trained_model.pth", weights_only=True)
    assert call("llm_model", "--config run.yaml --vocab_size 5000")[0] == 0  # which would be another vocabulary
    assert call("train_llm", "--config trained_model.yaml")[0] == 0
    weights = torch.load("trained_model.pth", weights_only=True)
    assert all(torch.equal(weights[name], before[name]) for name in before)


def test_a_text_repeats(trained, tmp_path):
    for name in ("model_config.pth", "trained_model.pth"):
        shutil.copy(trained.folder / name, tmp_path)
    assert run_script("convert_to_gguf.py", "--llama_cpp_path", "none", cwd=tmp_path).status == 0
    flags = ["--max_tokens", "40", "--stop", "zzz", "--save_config", "said.yaml"]
    first = run_script("inference_gguf.py", *flags, cwd=tmp_path, stdin="Mia: 'no'\n")
    assert first.status == 0, first.stderr
    saved = yaml.safe_load((tmp_path / "said.yaml").read_text())["inference_gguf"]
    assert saved["query"] == "Mia: 'no'" and saved["seed"] is not None and saved["stop"] == ["zzz"]
    assert saved["gguf_path"] == "model.gguf.Q4_0.gguf"
    again = run_script("inference_gguf.py", "--config", "said.yaml", cwd=tmp_path)
    assert again.stdout == first.stdout
    (tmp_path / "mine.yaml").write_text("query: mine\n")
    refused = run_script("inference_gguf.py", "--save_config", "mine.yaml", "--query", "x", cwd=tmp_path)
    assert (refused.status, refused.stdout) == (2, "")
    assert "mine.yaml is there and was not written by this program" in refused.stderr


def test_a_file_of_the_persons_own_stays(call):
    Path("model_config.yaml").write_text(TINY)
    status, out, err = call("llm_model", "--config model_config.yaml")
    assert status == 0 and out.startswith("Model initialized")
    assert err.startswith("note: the options of this run are not kept: model_config.yaml is there and was not written")
    assert err.count("\n") == 1
    assert Path("model_config.yaml").read_text() == TINY
    Path("model_config.yaml").unlink()
    Path("model_config.yaml").mkdir()
    Path("run.yaml").write_text(TINY)
    status, _, err = call("llm_model", "--config run.yaml")
    assert (status, err.count("\n")) == (0, 1) and "is a folder" in err


def test_the_file_names_the_output_and_repeats_flags_over_the_file(call):
    Path("run.yaml").write_text(TINY)
    assert call("llm_model", "--config run.yaml --config_path a.model --n_layer 3")[0] == 0
    text = Path("a.model.yaml").read_text()
    assert text.startswith(MARK) and "python llm_model.py --config a.model.yaml\n" in text
    values = yaml.safe_load(text)["llm_model"]
    assert (values["n_layer"], values["config_path"], values["n_kv_heads"]) == (3, "a.model", None)
    help_text = parser_of("llm_model").format_help()
    places = [re.search(rf"^  --{name}\b", help_text, re.MULTILINE).start() for name in values]
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["a b.pth", "a\nb: 'c'.pth", "é\u2028.pth", "#.pth", "no.pth"])
def test_any_file_name_repeats(folder, name):
    Path("run.yaml").write_text(TINY)
    assert run(llm_model.main, ["--config", "run.yaml", "--config_path", name]) == 0
    before = Path(name).read_bytes()
    Path(name).unlink()
    assert run(llm_model.main, ["--config", name.replace(".pth", ".yaml")]) == 0
    assert Path(name).read_bytes() == before


def test_a_file_name_that_is_no_text_is_a_note(folder, capsys):
    Path("run.yaml").write_text(TINY)
    assert run(llm_model.main, ["--config", "run.yaml", "--config_path", "a\udcff.pth"]) == 0
    assert "note: the options of this run are not kept: config_path" in capsys.readouterr().err


# --- configs/ ---------------------------------------------------------------------------------------------------------

SMALL = ("tutorial", "shakespeare_cpu", "shakespeare_fast")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_starts(call, path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"llm_model", "train_llm"} <= set(content) <= set(STEPS)
    for step in content:
        parser_of(step).parse_args(["--config", str(path)])
    status, out, err = call("llm_model", f"--config {path} --require_export")  # the outline and the plan
    assert (status, err) == (0, "") and "Enter" not in out
    args = parser_of("train_llm").parse_args(["--config", str(path)])
    config = train.get_training_config(given_flags(TrainConfig, args))
    assert config["learning_rate"] == float(content["train_llm"]["learning_rate"])
    if path.stem in SMALL:
        Path("tiny.txt").write_text(STORY * 20)
        length = torch.load("model_config.pth", weights_only=True)["block_size"] * 2
        flags = f"--dataset_path tiny.txt --max_chars {length} --batch_size 1 --max_iters 2"
        status, out, err = call("train_llm", f"--config {path} {flags}")
        assert status == 0, err
        assert "Held-out: " in out and Path("trained_model.yaml").exists()


def test_every_configuration_is_in_the_list():
    listed = re.findall(r"`(\w+\.yaml)`", (ROOT / "configs" / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == [path.name for path in CONFIGS]


def test_no_script_reads_yaml_unless_it_has_to(tmp_path):
    import subprocess

    from conftest import ENVIRONMENT

    code = (
        "import sys; from custom_llm.commands import model, write; model.make_parser(); write.make_parser(); "
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert not {"yaml", "torch", "numpy"} & set(done.stdout.split())


def test_main_is_called_with_a_file_as_with_flags(call):
    Path("run.yaml").write_text(TINY)
    assert call("llm_model", "--config run.yaml")[0] == 0
    from_file = torch.load("model_config.pth", weights_only=True)
    flags = " ".join(f"--{line.replace(': ', ' ')}" for line in TINY.splitlines())
    assert run(llm_model.main, flags.split()) == 0
    assert torch.load("model_config.pth", weights_only=True) == from_file
