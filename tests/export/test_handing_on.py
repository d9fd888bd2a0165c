"""What goes with a model: what its files say of themselves, the model card, the Modelfile, and the push to a hub."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ENVIRONMENT, ROOT, Result, digest, run_script
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st
from upload_server import UploadHub

import convert_to_gguf
from custom_llm.common.errors import UserError
from custom_llm.config.model import ModelConfig
from custom_llm.export.about import About, clean_line, clean_text, describe_training
from custom_llm.export.proof import FileReport
from custom_llm.export.share.card import ModelCard, escape, fenced, license_note
from custom_llm.export.share.companions import make_modelfile
from custom_llm.inference.card import card_of
from custom_llm.llamacpp import Model
from custom_llm.model.files import Provenance, SavedConfig, load_config, save_config
from custom_llm.training.provenance import public_name

MODEL = ("trained_model.pth", "model_config.pth", "trained_model.loss.png")
ORIGIN = Provenance(
    "letters.txt", characters=400_000, tokens=400_000, held_out_tokens=40_000, tokenizer="char", epochs=3.0, steps=100,
    kept_step=100, tokens_seen=10**6, minutes=2.04, batch_size=8, learning_rate=0.003, optimizer="muon", loss=0.2,
    held_out_loss=0.19, bits_per_byte=0.28, text="Once upon a time.",
)  # fmt: skip


FLAGS = ("--name", "Kites 🪁 | <b>", "--author", "Mia", "--license", "CC-BY-4.0")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with UploadHub(tmp_path_factory.mktemp("hub")) as server:
        yield server


@dataclass
class HandedOn:
    """A folder in which step 3 was run, and what it said."""

    folder: Path
    result: Result

    @property
    def readme(self) -> str:
        return (self.folder / "hf_model" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def handed_on(trained, hub, tmp_path_factory):
    """A model that was converted and pushed. Do not write into its folder."""
    folder = copy_of(trained, tmp_path_factory.mktemp("handed on"))
    (folder / "hf_model").mkdir()
    (folder / "hf_model" / "passwords.txt").write_text("secret")
    flags = ("--quant_type", "Q4_0,Q8_0", "--llama_cpp_path", "none", "--push_to_hub", "mia/kites", "--verbose", *FLAGS)
    result = run_script(
        "convert_to_gguf.py", *flags, cwd=folder, environment=hub.environment(tmp_path_factory.mktemp("home"))
    )
    assert result.status == 0, result.stderr
    return HandedOn(folder, result)


def copy_of(trained, folder: Path) -> Path:
    for name in MODEL:
        shutil.copy(trained.folder / name, folder)
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of a trained model, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return copy_of(trained, tmp_path)


def convert(*flags: str) -> None:
    """Step 3 in this process, without llama.cpp's tools."""
    convert_to_gguf.main(["--quant_type", "Q8_0", "--llama_cpp_path", "none", "--no_verify", *flags])


# --- training -------------------------------------------------------------------------------------------------------


def test_training_leaves_what_a_card_tells(trained):
    values = torch.load(trained.folder / "model_config.pth", weights_only=True)["training"]
    text = trained.training_output.partition("Generated text:\n")[2].removesuffix("\n")
    *_, loss = re.findall(r"Loss: (\S+), Held-out: (\S+) \((\S+) bits", trained.training_output)
    assert values["dataset"] == "input.txt", "which stood there with its folder, or without"
    assert (values["epochs"], values["batch_size"], values["learning_rate"]) == (3.0, 16, 0.003)
    assert (f"{values['held_out_loss']:.4f}", f"{values['bits_per_byte']:.3f}") == loss[1:]
    assert values["text"] == text and values["torch"] == torch.__version__
    assert values["characters"] == len(trained.text) + len("<|endoftext|>"), "which stands before the text"
    assert values["steps"] == values["kept_step"] > 0 and values["tokens_seen"] > values["tokens"]
    assert len(repr(values)) < 2000


@pytest.mark.parametrize(
    ("spec", "name", "hub"),
    [
        ("/home/mia/private/letters.txt", "letters.txt", ""),
        ("../a/notes.txt, b/*.md,c/", "notes.txt, *.md, c", ""),
        ("tinystories", "tinystories", "roneneldan/TinyStories"),
        ("hf:owner/name:config:field", "owner/name:config:field", "owner/name"),
        (",".join(f"/x/{i}.txt" for i in range(9)), "0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 4 more", ""),
    ],
)
def test_the_text_is_named_without_its_folders(spec, name, hub):
    assert public_name(spec) == (name, hub)


@pytest.mark.parametrize(
    "training", [None, 7, [], {"epochs": "many", "text": 3}, {"loss": float("nan"), "steps": -1, "of a later": 1}]
)
def test_a_config_without_a_known_training_still_loads(tmp_path, training):
    config = ModelConfig(10, 8, 2, 1, 4, 0.0)
    save_config(tmp_path / "c.pth", SavedConfig(config, {"kind": "char"}, "x"))
    values = torch.load(tmp_path / "c.pth", weights_only=True)
    del values["training"]
    torch.save(values | ({} if training is None else {"training": training}), tmp_path / "c.pth")
    assert load_config(tmp_path / "c.pth").training == Provenance()


@given(st.dictionaries(st.sampled_from(sorted(vars(ORIGIN))), st.none() | st.integers() | st.floats() | st.text()))
@settings(deadline=None)
def test_a_training_that_anybody_wrote_makes_a_card(values):
    origin = Provenance.from_dict(values)
    assert Provenance.from_dict(origin.to_dict()) == origin
    text = card(origin=origin).text()
    assert yaml.safe_load(text.split("---\n")[1])["pipeline_tag"] == "text-generation"


# --- GGUF -----------------------------------------------------------------------------------------------------------


def test_the_files_say_whose_they_are(handed_on):
    origin = load_config(handed_on.folder / "model_config.pth").training
    for name in ("model.gguf", "model.gguf.Q4_0.gguf", "model.gguf.Q8_0.gguf"):
        with Model(handed_on.folder / name) as model:
            told = card_of(model)
            assert (told.name, told.author, told.license) == (FLAGS[1], "Mia", "CC-BY-4.0")
            of = f"{origin.n_parameters:,} parameters over {model.n_vocab} characters"
            assert told.description == f"A language model of {of}, trained from scratch on input.txt."
            assert told.trained_on == "input.txt" and model.metadata("general.dataset.count") == "1"
            assert told.training == describe_training(origin)
            assert told.example == clean_text(origin.text) and told.example


def test_a_training_in_a_line():
    assert describe_training(ORIGIN) == "3 epochs of 0.40 M characters; held-out loss 0.19 (0.28 bits per byte)"
    assert describe_training(Provenance(epochs=1.0, minutes=0.5)) == "1 epoch"
    assert describe_training(Provenance(held_out_loss=2.0)) == "held-out loss 2.00"
    assert describe_training(Provenance()) == ""


def test_both_ways_of_converting_say_the_same(handed_on, tmp_path):
    checkout = ROOT / "llama.cpp"
    if not (checkout / "convert_hf_to_gguf.py").is_file():
        pytest.skip("no llama.cpp checkout here; `make test` brings one")
    hf_dir = str(handed_on.folder / "hf_model")
    convert_to_gguf.convert_to_gguf(hf_dir, str(tmp_path / "model.gguf"), "Q8_0", str(checkout))
    for name in ("model.gguf", "model.gguf.Q8_0.gguf"):
        inside, outside = words_of(handed_on.folder / name), words_of(tmp_path / name)
        assert inside == outside
    assert set(inside) == {
        "general.architecture", "general.type", "general.name", "general.author", "general.license",
        "general.description", "general.size_label", "general.file_type", "general.quantization_version",
        "general.dataset.count", "general.dataset.0.name",
        "custom_llm.block_size", "custom_llm.training", "custom_llm.example",
    }  # fmt: skip


def words_of(path: Path) -> dict[str, object]:
    fields = GGUFReader(path).fields.values()
    words = {field.name: field.contents() for field in fields if field.name.startswith(("general.", "custom_llm."))}
    assert words.pop("custom_llm.seal").startswith(f"{path.stat().st_size:16} ")
    return words


def test_a_model_of_which_nothing_is_known_claims_nothing(folder):
    values = torch.load(folder / "model_config.pth", weights_only=True)
    del values["training"]
    torch.save(values, folder / "model_config.pth")
    (folder / "trained_model.loss.png").unlink()
    convert()
    with Model(folder / "model.gguf.Q8_0.gguf") as model:
        told = card_of(model)
    assert told.name == "model" and told.description.endswith(" characters, trained from scratch.")
    assert not (told.author or told.license or told.trained_on or told.training)
    assert not told.example, "its text is the person's own, and nothing of it is put into files that are handed on"
    readme = (folder / "hf_model" / "README.md").read_text()
    assert "Nothing is known of its training" in readme and "loss.png" not in readme
    assert "none was given; ask before you use the model" in readme


def test_a_model_is_called_as_its_text(folder, capsys):
    """And not "model", where nobody gave a name."""
    convert("--quant_type", "Q8_0")
    assert words_of(folder / "model.gguf")["general.name"] == "input"
    assert "# input\n" in (folder / "hf_model" / "README.md").read_text()
    assert "ollama create input " in (folder / "hf_model" / "README.md").read_text()


def _foreign_model(folder: Path) -> None:
    (folder / "hf_model").mkdir()
    (folder / "hf_model" / "config.json").write_text("{}")


def _failing_tool(folder: Path) -> None:
    (folder / "llama.cpp").mkdir()
    (folder / "llama.cpp" / "convert_hf_to_gguf.py").write_text("raise SystemExit('no such module')")


@pytest.mark.parametrize(
    ("make", "flags", "advice"),
    [
        (None, ["--quant_type", "IQ1_S"], r"take (?P<quant_type>\w+)"),
        (None, ["--quant_type", "Q9"], r"known are F32, (?P<quant_type>\w+)"),
        (_foreign_model, [], r"name another with --(?P<output_dir>output_dir)"),
        (_failing_tool, ["--llama_cpp_path", "llama.cpp"], r"--llama_cpp_path (?P<llama_cpp_path>none)"),
        (lambda folder: (folder / "model.gguf").write_text("mine"), [], r"give another (?P<gguf_output>name) to write"),
        (lambda folder: (folder / "model.gguf").mkdir(), [], r"give the (?P<gguf_output>name) of a file"),
        (None, ["--gguf_output", "new/m.gguf"], "the folder new does not exist; make it first"),
    ],
)
def test_what_an_error_advises_works(folder, make, flags, advice):
    if make:
        make(folder)
    with pytest.raises(UserError, match=advice) as error:
        convert(*flags)
    found = re.search(advice, str(error.value)).groupdict()
    if not found:
        (folder / "new").mkdir()
    convert(*(flags if not found else ()), *(word for flag, value in found.items() for word in (f"--{flag}", value)))


def test_a_conversion_that_fails_at_its_second_file_says_what_runs(folder, capsys):
    (folder / "model.gguf.Q8_0.gguf").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        convert()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("what is there already runs: python inference_gguf.py --gguf_path model.gguf --query ")
    said = run_script(*shlex.split(line.partition(": python ")[2]), cwd=folder)
    assert said.status == 0 and said.stdout


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--name", "two\nlines", r"has '\n' in it"),
        ("--name", "\0", r"has '\x00' in it"),
        ("--name", "\ud800", r"has '\ud800' in it"),
        ("--author", "a\x1b[31m", r"has '\x1b' in it"),
        ("--author", "\u202eevil", r"has '\u202e' in it"),
        ("--license", "x" * 1_000_000, "has 1,000,000 characters; give at most 200"),
        ("--name", "  ", "is empty"),
    ],
)
def test_what_no_card_can_hold_is_refused_in_a_line(folder, flag, value, said):
    with pytest.raises(UserError) as error:
        convert(f"{flag}={value}")
    assert said in str(error.value) and len(str(error.value)) < 200
    assert not (folder / "hf_model").exists()


def test_nothing_is_public_that_is_not_pushed(folder):
    with pytest.raises(UserError, match=r"^--public is about what is pushed"):
        convert("--public")
    assert not (folder / "hf_model").exists()


@given(st.text())
@settings(deadline=None)
def test_any_text_is_a_clean_line_and_an_example(text):
    line, example = clean_line(text), clean_text(text)
    for cleaned in (line, example.replace("\n", "").replace("\t", "")):
        assert all(char.isprintable() or char in "\u200c\u200d\u00a0\u3000" for char in cleaned)
        cleaned.encode()
    assert len(line) <= 200 and len(example) <= 300


def test_licenses_are_looked_up_gently():
    assert license_note("MIT") is license_note("Apache-2.0") is license_note("GPL-3.0-only") is license_note("") is None
    assert license_note("apache2").endswith("so the card says `other`; did you mean apache-2.0?")
    values = card(About("m", license="our own")).front_matter()
    assert (values["license"], values["license_name"]) == ("other", "our own")
    assert "license" not in card().front_matter()


# --- the model card -------------------------------------------------------------------------------------------------


def card(about: About = About("m"), origin: Provenance = ORIGIN, hf_class: str | None = "GPT2LMHeadModel") -> ModelCard:  # noqa: B008
    rows = [
        FileReport(Path("model.gguf"), "F32", 2_000_000, None),
        FileReport(Path("model.gguf.Q8_0.gguf"), "Q8_0", 500_000, None),
    ]
    return ModelCard(about, origin, ModelConfig(), 1000, "gpt2", hf_class, rows, "hf_model")


def test_the_model_card_is_one_for_the_hub(handed_on):
    from huggingface_hub import ModelCard as HubCard

    read = HubCard(handed_on.readme)
    assert "ollama create kites-b -f Modelfile\nollama run kites-b\n" in handed_on.readme
    assert read.data.to_dict() == {
        "license": "cc-by-4.0", "library_name": "transformers", "pipeline_tag": "text-generation",
        "tags": ["gguf", "custom-llm-scripts"],
    }  # fmt: skip
    assert HubCard(str(read)).data.to_dict() == read.data.to_dict()
    assert "# Kites 🪁 \\| \\<b\\>\n" in handed_on.readme
    picture = handed_on.folder / "hf_model" / "loss.png"
    assert digest(picture) == digest(handed_on.folder / "trained_model.loss.png")
    rows = [line.split() for line in handed_on.result.stdout.splitlines() if line.startswith("model.gguf")]
    assert len(rows) == 3
    for name, size, _, kl, _, on_text, on_random in rows:  # what was just measured stands in it
        assert f"| {name} | {size} MB | {kl} | {on_text} | {on_random} |" in handed_on.readme


@pytest.mark.slow
def test_the_lines_of_the_card_run(handed_on, hub, tmp_path):
    """For whoever finds it on the hub: what they download is what was pushed."""
    [code] = re.findall(r"```python\n(.*?)\n```", handed_on.readme, re.DOTALL)
    code += "\nfrom huggingface_hub import hf_hub_download\nprint(hf_hub_download('mia/kites', 'model.gguf'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**ENVIRONMENT, **hub.environment(tmp_path)},
        capture_output=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    prompt = json.loads(re.search(r"tokenizer\((\".*?\")", code)[1])
    text, _, path = done.stdout.strip().rpartition("\n")
    assert text.startswith(prompt) and len(text) > len(prompt) + 5
    assert digest(path) == digest(handed_on.folder / "model.gguf")
    [line] = re.findall(r"^python inference_gguf\.py (.*)$", handed_on.readme, re.MULTILINE)
    said = run_script("inference_gguf.py", *shlex.split(line), cwd=handed_on.folder)
    assert said.status == 0 and said.stdout.startswith(prompt)


def test_the_prompt_of_a_card_is_one_that_the_model_can_read():
    text = card(About("m", example="“🐱，春天来了。小猫…”")).text()
    assert 'tokenizer("春天来了", ' in text and "--query 春天来了\n" in text


def test_a_figure_is_claimed_only_for_a_text_that_others_have():
    origin = Provenance.from_dict(
        ORIGIN.to_dict() | {"dataset": "tinystories", "hub_dataset": "roneneldan/TinyStories"}
    )
    values = card(About("m", dataset="tinystories"), origin).front_matter()
    assert values["datasets"] == ["roneneldan/TinyStories"]
    [result] = values["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.28 and result["dataset"]["type"] == "roneneldan/TinyStories"
    assert not {"datasets", "model-index"} & card().front_matter().keys()
    without_class = card(hf_class=None)
    assert "library_name" not in without_class.front_matter() and "```python" not in without_class.text()


@given(st.text() | st.sampled_from(["---", "| a | b |", "<script>alert(1)</script>", "# x", "`", "![](x)", "a_b _c_"]))
@settings(deadline=None)
def test_nothing_that_was_typed_means_anything_in_markdown(text):
    escaped = escape(text)
    assert not re.search(r"(?<!\\)(?:\\\\)*[<>`|*\[\]]", escaped), "or a table, a link or a tag would begin"
    assert re.sub(r"\\([\\`*_{}\[\]()<>#!|~&$@:])", r"\1", escaped) == clean_line(text)
    head, *_, last = fenced(text).split("\n")
    assert head == last and head not in text
    read = card(About(text or "m", author=text, license=text, dataset=text, example=text)).text()
    assert isinstance(yaml.safe_load(read.split("---\n")[1]), dict)


def test_a_card_that_a_person_has_made_their_own_stays(folder, capsys):
    convert()
    for path in (folder / "hf_model" / "README.md", folder / "Modelfile"):
        path.write_text("mine")
    convert()
    assert capsys.readouterr().err.count("it stays as it is\n") == 2
    assert (folder / "Modelfile").read_text() == (folder / "hf_model" / "README.md").read_text() == "mine"


# --- Ollama ---------------------------------------------------------------------------------------------------------


def test_the_modelfile():
    """Checked against Ollama's documentation and its parser; Ollama itself does not run here."""
    text = make_modelfile(["/x/my model.gguf", '/x/my "model".gguf.Q8_0.gguf'], 48, "<|endoftext|>", "mit")
    assert text.splitlines()[1:] == [
        "# FROM ./my model.gguf",
        'FROM ./my "model".gguf.Q8_0.gguf',
        'TEMPLATE "{{ .Prompt }}"',
        "PARAMETER num_ctx 48",
        "PARAMETER num_predict 24",
        "PARAMETER temperature 0.8",
        "PARAMETER top_k 40",
        "PARAMETER top_p 0.95",
        "PARAMETER min_p 0.05",
        "PARAMETER repeat_penalty 1.0",
        'PARAMETER stop "<|endoftext|>"',
        'LICENSE "mit"',
    ]
    assert "stop" not in make_modelfile(["m.gguf"], 48, None)


def test_the_modelfile_is_for_the_last_type(handed_on):
    lines = (handed_on.folder / "Modelfile").read_text().splitlines()
    assert lines[1:3] == ["# FROM ./model.gguf", "# FROM ./model.gguf.Q4_0.gguf"]
    assert lines[3] == "FROM ./model.gguf.Q8_0.gguf" and "PARAMETER num_ctx 32" in lines


# --- the hub --------------------------------------------------------------------------------------------------------


def test_a_push_arrives_byte_for_byte(handed_on, hub):
    folder = handed_on.folder
    assert re.fullmatch(r"pushing 12 files, \d\.\d MB, to mia/kites \(private\)\n", handed_on.result.stderr)
    assert handed_on.result.stdout.endswith(f"{hub.endpoint}/mia/kites\n") and hub.private["mia/kites"]
    there = {path.name: digest(path) for path in (hub.folder / "models/mia/kites").iterdir()}
    here = [folder / "Modelfile", *folder.glob("*.gguf"), *(folder / "hf_model").iterdir()]
    assert there == {path.name: digest(path) for path in here if path.name != "passwords.txt"}


CHILD = """
import json, pathlib, sys
from huggingface_hub.utils import _http
_http.time.sleep = lambda seconds: None  # it waits longer and longer before it tries again
from custom_llm.common.errors import UserError
from custom_llm.export.share.hub import check_push, push
for repo, public, folder in json.loads(sys.argv[1]):
    try:
        check_push(repo)
        files = {path.name: path for path in pathlib.Path(folder).iterdir()}
        print(json.dumps(push(repo, files, public, "Upload")), flush=True)
    except UserError as error:
        print(json.dumps(f"error: {error}"), flush=True)
"""


def pushes(hub: UploadHub, folder: Path, *calls: tuple[str, bool], **environment: str) -> list[str]:
    """What `push` says to each of these (repository, public), in a process of its own."""
    what = json.dumps([(repo, public, str(folder)) for repo, public in calls])
    variables = {**ENVIRONMENT, **hub.environment(folder.parent / "home"), **environment}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, what], env=variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# m\n")
    (folder / "model.gguf").write_bytes(b"GGUF" * 1000)
    return folder


def test_a_push_that_cannot_succeed_is_refused_before_the_work(hub, files):
    calls = [(name, False) for name in ("a/b/c", "../../etc", "", "mia/a b", "mia/\n", "x" * 10_000, "mia/tiny")]
    *wrong, no_token = pushes(hub, files, *calls, HF_TOKEN="")
    assert all("is no name of a repository; give owner/name" in said and len(said) < 300 for said in wrong)
    assert "there is no token; make a token that may write at huggingface.co/settings/tokens" in no_token


WAYS_OUT = {
    401: "hf auth login", 402: "billing", 403: "is the owner right", 404: "check the name", 409: "another name",
    413: "push fewer types", 429: "wait some minutes", 500: "the hub answers 500",
}  # fmt: skip


def test_a_push_that_fails_says_why_in_a_line(hub, files):
    for status in WAYS_OUT:
        place = ".git/large/" if status in (413, 500) else "/commit/"
        hub.refusals[f"/mia/m{status}{place}"] = status
    said = pushes(hub, files, *((f"mia/m{status}", False) for status in WAYS_OUT))
    for status, line in zip(WAYS_OUT, said, strict=True):
        assert line.startswith(f"error: --push_to_hub mia/m{status}: ") and WAYS_OUT[status] in line
        assert "\n" not in line and len(line) < 400
    assert not list((hub.folder / "models/mia").glob("m*/*")), "all files arrive, or none"


def test_a_connection_that_breaks(hub, files):
    hub.cuts.update({"/mia/once.git/large/": 1, "/mia/never.git/large/": 100})
    once, never = pushes(hub, files, ("mia/once", False), ("mia/never", False))
    assert once == f"{hub.endpoint}/mia/once", "the library tries again"
    assert digest(hub.folder / "models/mia/once/model.gguf") == digest(files / "model.gguf")
    assert never.startswith("error: --push_to_hub mia/never: the hub was not reached, or not to the end (")
    assert never.endswith("the files are here; the same command tries again")
    assert not list((hub.folder / "models/mia/never").iterdir())
    [nobody] = pushes(hub, files, ("mia/m", False), HF_ENDPOINT="http://127.0.0.1:1")
    [offline] = pushes(hub, files, ("mia/m", False), HF_HUB_OFFLINE="1")
    assert "the hub was not reached" in nobody
    assert "the hub was not reached" in offline and "HF_HUB_OFFLINE" in offline


def test_only_what_is_meant_to_be_public_is(hub, files):
    said = pushes(hub, files, ("mia/open", True), ("mia/open", False), ("mia/open", True), ("closed", False))
    address = f"{hub.endpoint}/mia/open"
    assert said[::2] == [address, address] and not hub.private["mia/open"]
    assert said[1].endswith("it is there and all may see it; give --public if this model is for all")
    assert said[3] == f"{hub.endpoint}/mia/closed" and hub.private["mia/closed"]
    [said] = pushes(hub, files, ("mia/open", True), HF_TOKEN="hf_of_nobody")
    assert "the hub does not know this token" in said
