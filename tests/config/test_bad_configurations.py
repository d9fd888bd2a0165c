"""Architectures that cannot be: each refused in one line that names the key, the value and the rule."""

from __future__ import annotations

import io
import json
import shlex
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_model
from custom_llm.common.errors import run
from custom_llm.config.block import ATTENTIONS, NON_LINEARITIES, BlockConfig, make_block
from custom_llm.config.layers import parse_layers, read_jsonl
from custom_llm.config.model import ModelConfig

MOE = "--moe --n_exp 8 --n_act 2"
MLA = "--attn mla --q_latent_dim 64 --kv_latent_dim 32"

FLAGS = [
    # sizes
    ("--n_embd 100 --n_head 8", "n_embd 100 is not a multiple of n_head 8"),
    ("--n_embd 16 --n_head 16", "n_embd 16 is less than 2 for each of n_head 16, llama.cpp's least"),
    ("--up_dim 0", "--up_dim 0 is not a whole number from 1 to 262144"),
    ("--up_dim 1000000000", "--up_dim 1000000000 is not a whole number from 1 to 262144"),
    ("--n_embd 1000000", "--n_embd 1000000 is not a whole number from 1 to 65536"),
    ("--n_layer 513", "--n_layer 513 is not a whole number from 1 to 512"),
    (f"--n_layer {'9' * 5000}", "999… is not a whole number"),
    ("--dropout -0.1", "--dropout -0.1 is not a number from 0.0 to 0.99"),
    # words
    ("--attn flash", "--attn 'flash' is not one of mha, mqa, gqa, mla"),
    ("--norm batch", "--norm 'batch' is not one of layer, rms"),
    ("--pos_emb alibi", "--pos_emb 'alibi' is not one of learn, sin, rope"),
    ("--non_linearity SwiGLU", "--non_linearity 'SwiGLU' is not one of gelu, relu"),
    ("--preset gpt5", "--preset gpt5: no such preset; there are classic, modern, moe, mla"),
    ("--preset", "--preset: expected one argument"),
    ("--bias no", "unrecognized arguments: no"),
    ("--no_norm", "unrecognized arguments: --no_norm"),
    # positions
    ("--n_embd 60 --n_head 4 --pos_emb rope", "rope turns pairs, and heads of n_embd 60 / n_head 4 = 15 are odd"),
    ("--n_embd 45 --n_head 3 --pos_emb sin", "pos_emb sin takes pairs of sine and cosine, and n_embd 45 is odd"),
    ("--n_embd 60 --n_head 4 --preset modern", "heads of n_embd 60 / n_head 4 = 15 are odd"),
    # kinds of attention
    ("--attn gqa", "n_kv_heads is missing, which attn gqa needs"),
    ("--attn gqa --n_kv_heads 3", "n_head 8 is not a multiple of n_kv_heads 3"),
    ("--attn gqa --n_kv_heads 16", "n_head 8 is not a multiple of n_kv_heads 16"),
    ("--attn gqa --n_kv_heads 0", "--n_kv_heads 0 is not a whole number from 1"),
    ("--n_kv_heads 2", "n_kv_heads 2 has no meaning here; it belongs to attn gqa"),
    ("--attn mqa --n_kv_heads 1", "n_kv_heads 1 has no meaning here; it belongs to attn gqa"),
    ("--kv_latent_dim 64", "kv_latent_dim 64 has no meaning here; it belongs to attn mla"),
    ("--q_latent_dim 0", "q_latent_dim 0 has no meaning here; it belongs to attn mla"),
    ("--attn mla --q_latent_dim 64", "kv_latent_dim is missing, which attn mla needs"),
    ("--attn mla --kv_latent_dim 64", "q_latent_dim is missing, which attn mla needs"),
    (f"{MLA} --pos_emb rope", "rope_head_dim is missing, which attn mla with pos_emb rope needs"),
    (f"{MLA} --rope_head_dim 8", "rope_head_dim 8 has no meaning here; it belongs to attn mla with pos_emb rope"),
    (f"{MLA} --rope_head_dim 7 --pos_emb rope", "rope_head_dim 7 is odd; rotations turn pairs"),
    (f"{MLA} --qk_norm", "qk_norm True has no meaning with attn mla, whose latents are normalised already"),
    ("--preset mla --qk_norm", "qk_norm True has no meaning with attn mla"),
    ("--preset mla --n_kv_heads 2", "n_kv_heads 2 has no meaning here; it belongs to attn gqa"),
    # experts
    ("--n_exp 8 --n_act 2", "n_exp 8 has no meaning here; it belongs to moe"),
    ("--coeff 0.1", "coeff 0.1 has no meaning here; it belongs to moe with aux_free False"),
    ("--aux_free", "aux_free True has no meaning here; it belongs to moe"),
    ("--moe", "n_exp is missing, which moe needs"),
    ("--moe --n_exp 8", "n_act is missing, which moe needs"),
    ("--moe --n_exp 8 --n_act 9", "n_act 9 is more than n_exp 8"),
    ("--moe --n_exp 1 --n_act 1", "--n_exp 1 is not a whole number from 2 to 512"),
    ("--moe --n_exp 8 --n_act 8", "n_act 8 of n_exp 8 experts with n_shared 0 are all of them"),
    (f"{MOE} --n_shared 2", "n_shared 2 is not less than n_act 2, so the router has nothing to choose"),
    (f"{MOE} --alpha 0.1", "alpha 0.1 has no meaning here; it belongs to moe with aux_free True"),
    (f"{MOE} --aux_free --coeff 0.1", "coeff 0.1 has no meaning here; it belongs to moe with aux_free False"),
    (f"{MOE} --coeff nan", "--coeff nan is not a number from 0.0 to 100.0"),
    (f"{MOE} --aux_free --gamma 2", "--gamma 2.0 is not a number from 0.0 to 1.0"),
    ("--preset moe --n_act 9", "n_act 9 is more than n_exp 8"),
    ("--preset moe --coeff 0.1", "coeff 0.1 has no meaning here; it belongs to moe with aux_free False"),
]  # fmt: skip

DENSE = {"attn": "mha", "n_head": 8, "moe": False, "up_dim": 64, "non_linearity": "relu"}
GQA = {**DENSE, "attn": "gqa", "n_kv_heads": 2}
LATENT = {**DENSE, "attn": "mla", "q_latent_dim": 0, "kv_latent_dim": 16, "rope_head_dim": 8}
EXPERTS = {**DENSE, "moe": True, "n_exp": 4, "n_shared": 1, "n_act": 2, "aux_free": False, "coeff": 0.01}


def altered(layer: dict, **changes: object) -> str:
    return json.dumps([DENSE, {key: value for key, value in {**layer, **changes}.items() if value is not ...}])


PLAIN = json.dumps([DENSE, DENSE])
DEEP = "[" * 100_000

# (the value of --layer_configs, other flags, the message)
LAYERS = [
    ("", "", "layer_configs '' is not JSON: Expecting value"),
    ("not json", "", "layer_configs 'not json' is not JSON: Expecting value: line 1 column 1"),
    (PLAIN[:-2], "", "is not JSON: Expecting ',' delimiter"),
    (DEEP, "", "…  is not JSON: lists or objects are nested too deep"),
    ("{}", "", "layer_configs '{}' is not a JSON list, such as [{"),
    ("null", "", "layer_configs 'null' is not a JSON list"),
    ("7", "", "layer_configs '7' is not a JSON list"),
    (json.dumps(DENSE), "", "is not a JSON list"),
    ("[]", "", "layer_configs [] describes no layer; give an object for each"),
    ('["mha"]', "", "layer_configs, layer 1: 'mha' is not a JSON object"),
    (f"[{json.dumps(DENSE)}, null]", "", "layer_configs, layer 2: None is not a JSON object"),
    (altered(DENSE, up_dim=...), "", "layer_configs, layer 2: up_dim is missing, which every layer needs"),
    (altered(DENSE, attn=...), "", "layer_configs, layer 2: attn is missing, which every layer needs"),
    (altered(DENSE, aux_free=False), "", "layer 2: aux_free False has no meaning here; it belongs to moe"),
    (altered(DENSE, n_kv_heads=2), "", "layer 2: n_kv_heads 2 has no meaning here; it belongs to attn gqa"),
    (altered(DENSE, dropout=0.1), "", "layer 2: there is no option 'dropout' of a layer; there are attn, n_head"),
    (altered(DENSE, **{"n\nhead": 1}), "", r"layer 2: there is no option 'n\nhead' of a layer"),
    (altered(DENSE, n_head="8"), "", "layer 2: n_head '8' is not a whole number"),
    (altered(DENSE, n_head=8.0), "", "layer 2: n_head 8.0 is not a whole number"),
    (altered(DENSE, up_dim=True), "", "layer 2: up_dim True is not a whole number"),
    (altered(DENSE, moe=0), "", "layer 2: moe 0 is not True or False"),
    (altered(DENSE, moe="false"), "", "layer 2: moe 'false' is not True or False"),
    (altered(DENSE, up_dim=None), "", "layer 2: up_dim is null; leave it out, or give it a value"),
    (altered(DENSE, attn=["mha"]), "", "layer 2: attn ['mha'] is not a text"),
    (altered(DENSE, attn="MHA"), "", "layer 2: attn 'MHA' is not one of mha, mqa, gqa, mla"),
    (altered(DENSE, n_head=-8), "", "layer 2: n_head -8 is not a whole number from 1 to 1024"),
    (altered(DENSE, up_dim=10**12), "", "layer 2: up_dim 1000000000000 is not a whole number from 1 to 262144"),
    (altered(DENSE, n_head=7), "", "layer 2: n_embd 256 is not a multiple of n_head 7"),
    (altered(GQA, n_kv_heads=...), "", "layer 2: n_kv_heads is missing, which attn gqa needs"),
    (altered(GQA, n_kv_heads=3), "", "layer 2: n_head 8 is not a multiple of n_kv_heads 3"),
    (altered(LATENT), "", "layer 2: rope_head_dim 8 has no meaning here; it belongs to attn mla with pos_emb rope"),
    (altered(LATENT, rope_head_dim=9), "--pos_emb rope", "layer 2: rope_head_dim 9 is odd"),
    (altered(LATENT, rope_head_dim=...), "--pos_emb rope", "layer 2: rope_head_dim is missing"),
    (altered(LATENT), "--preset modern", "qk_norm True has no meaning with attn mla"),
    (altered(EXPERTS, coeff=...), "", "layer 2: coeff is missing, which moe with aux_free False needs"),
    (altered(EXPERTS, n_shared=2), "", "layer 2: n_shared 2 is not less than n_act 2"),
    (altered(EXPERTS, n_act=4), "", "layer 2: n_act 4 of n_exp 4 experts with n_shared 1 are all of them"),
    (altered(EXPERTS, aux_free=True), "", "layer 2: alpha is missing, which moe with aux_free True needs"),
    (altered(EXPERTS, coeff=float("nan")), "", "is not JSON: NaN is no JSON number"),
    (altered(EXPERTS, coeff=float("inf")), "", "is not JSON: Infinity is no JSON number"),
    (altered(EXPERTS).replace("0.01", "1e999"), "", "layer 2: coeff inf is not a number from 0.0 to 100.0"),
    (altered(EXPERTS).replace("0.01", "9" * 5000), "", "is not JSON: Exceeds the limit"),
    (PLAIN.replace('"up_dim": 64', '"up_dim": 64, "up_dim": 32'), "", "the key 'up_dim' stands twice in one object"),
    (PLAIN, "--n_layer 3", "--n_layer 3: the layer configs describe 2 layers; leave it out"),
    (PLAIN, "--n_head 4", "--n_head 4 beside layer configs, which say it for each layer; give it in one place only"),
    (PLAIN, "--moe", "--moe beside layer configs, which say it for each layer"),
    (PLAIN, "--no_moe", "--no_moe beside layer configs, which say it for each layer"),
    (PLAIN, "--attn mqa", "--attn mqa beside layer configs, which say it for each layer"),
    (PLAIN, "--preset moe --n_exp 4", "--n_exp 4 beside layer configs, which say it for each layer"),
    (PLAIN, "--layer_configs_jsonl layers.jsonl", "--layer_configs and --layer_configs_jsonl both describe the layers"),
    (json.dumps([DENSE] * 513), "", "n_layer 513 is not a whole number from 1 to 512"),
]  # fmt: skip

LINE = json.dumps(DENSE)
# (the content of layers.jsonl, or None for no such file, the message)
FILES = [
    (None, "--layer_configs_jsonl layers.jsonl: no such file or directory"),
    (b"", "--layer_configs_jsonl layers.jsonl: it has no lines; give a JSON object for each layer"),
    (b"\xef\xbb\xbf\n \n", "layers.jsonl: it has no lines"),
    (f"{LINE}\n\nnot json\n".encode(), "layers.jsonl: line 3 'not json' is not JSON: Expecting value"),
    (f"{LINE}\n[]\n".encode(), "layers.jsonl: line 2 '[]' is not a JSON object"),
    (f"[{LINE}]\n".encode(), "layers.jsonl: line 1 "),
    (json.dumps(DENSE, indent=1).encode(), "layers.jsonl: line 1 '{' is not JSON"),
    (f"{LINE} {LINE}\n".encode(), "is not JSON: Extra data"),
    (LINE.replace("64", "64\x00").encode(), "layers.jsonl: line 1 "),
    (LINE.encode("utf-16"), "--layer_configs_jsonl layers.jsonl is not UTF-8 text"),
    (LINE.replace("relu", "rel\u00fc").encode("latin-1"), "layers.jsonl is not UTF-8 text"),
    (LINE.replace("64", "NaN").encode(), "line 1 "),
    (DEEP.encode(), "[[[… is not JSON: lists or objects are nested too deep"),
    (f"{LINE}\n{LINE[:-1]}, \"moe\": true}}\n".encode(), "line 2 "),
    (f"{LINE}\n\n{LINE.replace('relu', 'rela')}\n".encode(), "layer 2: non_linearity 'rela' is not one of gelu"),
]  # fmt: skip


@pytest.fixture
def refusal(tmp_path, monkeypatch, capsys):
    """Run step 1 in an empty folder and return its one line; nothing may be written."""
    monkeypatch.chdir(tmp_path)

    def call(*argv: str) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        before = sorted(tmp_path.iterdir())
        status = run(llm_model.main, argv)
        stderr = capsys.readouterr().err
        assert status == 2
        assert stderr.startswith("error: ") and stderr.count("\n") == 1 and stderr.endswith("\n")
        assert len(stderr) < 400, "more than a person reads"
        assert sorted(tmp_path.iterdir()) == before
        return stderr

    return call


@pytest.mark.parametrize(("flags", "message"), FLAGS, ids=[flags[:60] for flags, _ in FLAGS])
def test_flags_that_contradict_each_other(refusal, flags, message):
    assert message in refusal(*flags.split())


@pytest.mark.parametrize(("layers", "flags", "message"), LAYERS)
def test_layers_that_cannot_be(refusal, layers, flags, message):
    assert " ".join(message.split()) in refusal("--layer_configs", layers, *shlex.split(flags))


@pytest.mark.parametrize(("content", "message"), FILES)
def test_files_of_layers_that_cannot_be(refusal, tmp_path, content, message):
    if content is not None:
        (tmp_path / "layers.jsonl").write_bytes(content)
    assert message in refusal("--layer_configs_jsonl", "layers.jsonl")


def test_a_folder_is_no_file_of_layers(refusal, tmp_path):
    (tmp_path / "layers.jsonl").mkdir()
    assert "--layer_configs_jsonl layers.jsonl: is a directory" in refusal("--layer_configs_jsonl", "layers.jsonl")
    assert "--layer_configs_jsonl" in refusal("--layer_configs_jsonl", "a\0b")


def test_there_are_enough_cases():
    assert len(FLAGS) + len(LAYERS) + len(FILES) >= 40


@pytest.mark.parametrize("flags", ["--attn gqa", "--moe --n_exp 4", "--n_kv_heads 2", "--preset mla --qk_norm"])
def test_what_no_answer_can_mend_is_refused_before_the_first_question(tmp_path, monkeypatch, capsys, flags):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n" * 9))
    assert run(llm_model.main, flags.split()) == 2
    assert "Enter" not in capsys.readouterr().out


# --- at random --------------------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(0, 16) | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(list(BlockConfig.__dataclass_fields__))
NEARLY = st.sampled_from([*ATTENTIONS, *NON_LINEARITIES[:4], True, False, 1, 2, 4, 8, 0.1])
LAYER = st.sampled_from([DENSE, GQA, LATENT, EXPERTS]).flatmap(
    lambda layer: st.dictionaries(KEYS | st.text(max_size=4), NEARLY | ANYTHING, max_size=3).map(
        lambda changes: {**layer, **changes}
    )
)


@given(LAYER | st.dictionaries(KEYS, ANYTHING), st.integers(1, 300) | st.none(), st.sampled_from(["learn", "rope"]))
@settings(max_examples=300, deadline=None)
def test_any_dict_is_a_block_or_refused(values, n_embd, pos_emb):
    try:
        block = make_block(values, n_embd, pos_emb)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
    else:
        assert block.n_head == values["n_head"]


JSON_TEXTS = st.lists(LAYER | ANYTHING, max_size=3).map(json.dumps) | ANYTHING.map(json.dumps)
CUT = st.tuples(JSON_TEXTS, st.integers(0, 400), st.text(max_size=3)).map(
    lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] :]
)


@given(JSON_TEXTS | CUT | st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_describes_layers_or_is_refused(text):
    for parse in (lambda: parse_layers(text, 64, "learn"), lambda: parse_layers(read_jsonl(text), None, "rope")):
        try:
            assert parse()
        except ValueError as error:
            assert len(str(error)) < 400


@given(st.dictionaries(st.sampled_from(list(ModelConfig.__dataclass_fields__)), NEARLY | ANYTHING, max_size=5))
@settings(max_examples=200, deadline=None)
def test_any_dict_is_a_model_or_refused(values):
    try:
        config = ModelConfig(**values)
    except ValueError as error:
        assert len(str(error)) < 400
    else:
        assert len(config.blocks) == config.n_layer
