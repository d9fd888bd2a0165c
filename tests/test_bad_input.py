"""What people get wrong: each answered in one line that names the flag or file, with status 2, and nothing lost."""

from __future__ import annotations

import gzip
import importlib
import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from conftest import digest, run_script
from pyarrow.parquet import write_table

from custom_llm.common.errors import describe_os_error, run

MODEL, TRAIN, CONVERT, INFER, QUICK = (
    "llm_model", "train_llm", "convert_to_gguf", "inference_gguf", "quickstart",
)  # fmt: skip
TRAINING = "--batch_size 4 --learning_rate 0.001 --max_epochs 1 --dataset_path"
TOKENIZER = f"{TRAINING} input.txt --tokenizer t"
CONVERSION = "--llama_cpp_path none"
CHECKPOINT = "trained_model.checkpoint.pth"


def torch_file(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def parquet(texts: list) -> bytes:
    buffer = io.BytesIO()
    write_table(pyarrow.table({"text": texts}), buffer, compression="none", write_statistics=False)
    return buffer.getvalue()


def pickled(_: Path) -> bytes:
    """A file that would run code if it were unpickled."""
    import pickle

    class Exploit:
        def __reduce__(self):
            return (os.system, ("touch exploited",))

    return pickle.dumps(Exploit())


def altered_config(folder: Path, **changes: object) -> bytes:
    return torch_file({**torch.load(folder / "model_config.pth", weights_only=True), **changes})


def altered_weights(folder: Path, name: str, tensor: torch.Tensor | None) -> bytes:
    weights = torch.load(folder / "trained_model.pth", weights_only=True)
    if tensor is None:
        del weights[name]
    else:
        weights[name] = tensor
    return torch_file(weights)


def altered_checkpoint(part: str | None = None, **changes: object):
    """The checkpoint of the trained model with other content, or with another content of a part of it."""

    def alter(folder: Path) -> bytes:
        values = torch.load(folder / CHECKPOINT, weights_only=True)
        return torch_file({**values, **(changes if part is None else {part: {**values[part], **changes}})})

    return alter


def flipped(name: str, tensor: str, of_best: bool = False):
    """A file in which a byte of a tensor is another one."""

    def flip(folder: Path) -> bytes:
        values = torch.load(folder / name, weights_only=True)
        found = (values["best_model"] if of_best else values)[tensor].numpy().tobytes()
        content = bytearray((folder / name).read_bytes())
        content[content.rindex(found)] ^= 1
        return bytes(content)

    return flip


def letter_changed(folder: Path) -> bytes:
    """A configuration with another letter in its vocabulary: `fried` for `tried`, and so on."""
    return (folder / "model_config.pth").read_bytes().replace(b"fghi", b"fzhi")


def deeper(*path: str, value: object):
    """The checkpoint of the trained model with another value far inside."""

    def alter(folder: Path) -> bytes:
        values = torch.load(folder / CHECKPOINT, weights_only=True)
        part = values
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value
        return torch_file(values)

    return alter


def cut(name: str, share: float):
    return lambda folder: (folder / name).read_bytes()[: int(share * (folder / name).stat().st_size)]


# (script, arguments, files to write first as name → content or function of the folder, part of the message)
CASES = [
    # flags
    (MODEL, "--n_embd abc", {}, "--n_embd 'abc' is not a whole number"),
    (MODEL, "--n_embd 0", {}, "--n_embd 0 is not a whole number from 1 to 65536"),
    (MODEL, "--n_embd -5", {}, "--n_embd -5 is not"),
    (MODEL, "--n_embd 1e3", {}, "--n_embd '1e3' is not a whole number"),
    (MODEL, "--n_embd 999999999999", {}, "--n_embd 999999999999 is not"),
    (MODEL, "--n_embd 100 --n_head 8", {}, "n_embd 100 is not a multiple of n_head 8"),
    (MODEL, "--n_head 7", {}, "n_embd 256 is not a multiple of n_head 7"),
    (MODEL, "--dropout 1", {}, "--dropout 1.0 is not a number from 0.0 to 0.99"),
    (MODEL, "--dropout nan", {}, "--dropout nan is not"),
    (MODEL, "--n_layer 1000", {}, "--n_layer 1000 is not a whole number from 1 to 512"),
    (MODEL, "--non_linearity tanhh", {}, "--non_linearity 'tanhh' is not one of gelu, relu"),
    (MODEL, "--n_emb 64", {}, "unrecognized arguments: --n_emb 64"),
    (MODEL, "--n_embd", {}, "--n_embd: expected one argument"),
    (MODEL, "extra", {}, "unrecognized arguments: extra"),
    (MODEL, "--config_path nowhere/c.pth", {}, "the folder nowhere does not exist"),
    (MODEL, "--config_path .", {}, ". is a folder"),
    (TRAIN, "--batch_size 0", {}, "--batch_size 0 is not a whole number from 1"),
    (TRAIN, "--learning_rate fast", {}, "--learning_rate 'fast' is not a number"),
    (TRAIN, "--learning_rate inf", {}, "--learning_rate inf is not a number from"),
    (TRAIN, "--learning_rate 0", {}, "--learning_rate 0.0 is not a number from"),
    (TRAIN, "--max_epochs 2.5", {}, "--max_epochs '2.5' is not a whole number"),
    (TRAIN, "--minutes -1", {}, "--minutes -1.0 is not a number from"),
    (TRAIN, "--stride 0", {}, "--stride 0 is not a whole number from 1"),
    (TRAIN, "--seed -1", {}, "--seed -1 is not"),
    (TRAIN, f"{TRAINING} input.txt --tokenizer words", {}, "--tokenizer words: "),
    (TRAIN, f"{TRAINING} input.txt --vocab_size 300", {}, "vocab_size 300 has no meaning with tokenizer char"),
    (TRAIN, f"{TRAINING} input.txt --tokenizer bpe --vocab_size 256", {}, "--vocab_size 256: "),
    (TRAIN, f"{TRAINING} input.txt --resume --model_path other.pth", {},
     "other.checkpoint.pth is not there: the first checkpoint is written after a minute"),
    (TRAIN, f"{TRAINING} input.txt --resume", {"trained_model.checkpoint.pth": b""}, "checkpoint.pth is damaged"),
    (TRAIN, f"{TRAINING} input.txt --resume", {"trained_model.checkpoint.pth": torch_file({"a": 1})},
     "trained_model.checkpoint.pth is no checkpoint of a training"),
    (TRAIN, f"{TRAINING} input.txt --total_batch_size 2**", {}, "total_batch_size '2**' is not a whole number, or + -"),
    (TRAIN, f"{TRAINING} input.txt --total_batch_size 9**9**9", {}, "total_batch_size '9**9**9' is not a whole number"),
    (TRAIN, f"{TRAINING} input.txt --total_batch_size print(1)", {}, "total_batch_size 'print(1)' is not a whole"),
    (TRAIN, f"{TRAINING} input.txt --total_batch_size 0", {}, "total_batch_size '0' is not from 1 to 1e+15"),
    (TRAIN, f"{TRAINING} input.txt --total_batch_size 100", {}, "total_batch_size 100 is no multiple of the"),
    (TRAIN, f"{TRAINING} input.txt --max_iters 5 --minutes 1", {}, "minutes 1.0 and max_iters 5 both end the training"),
    (TRAIN, f"{TRAINING} input.txt --min_lr 1", {}, "min_lr 1.0 is above learning_rate 0.001; give a lower one"),
    (TRAIN, "--schedule sine", {}, "--schedule 'sine' is not one of cosine, linear, wsd, constant"),
    (TRAIN, "--optimizer sgd", {}, "--optimizer 'sgd' is not one of muon, adamw"),
    (TRAIN, "--warmup_steps -1", {}, "--warmup_steps -1 is not a whole number from 0"),
    (TRAIN, "--grad_clip nan", {}, "--grad_clip nan is not a number from 0.0"),
    (TRAIN, "--weight_decay -1", {}, "--weight_decay -1.0 is not a number from 0.0"),
    (TRAIN, "--eval_interval 0", {}, "--eval_interval 0 is not a whole number from 1"),
    (TRAIN, "--ckpt_interval 1.5", {}, "--ckpt_interval '1.5' is not a whole number"),
    (TRAIN, "--max_iters 0", {}, "--max_iters 0 is not a whole number from 1"),
    (TRAIN, f"{TRAINING} input.txt --device tpu", {}, "--device tpu: this machine has cpu"),
    (TRAIN, f"{TRAINING} input.txt --encoding klingon", {}, "--encoding klingon: no such encoding"),
    (CONVERT, "--quant_type Q9_9", {}, "--quant_type Q9_9: no such type; known are F32, F16"),
    (CONVERT, "--quant_type ,", {}, "--quant_type is empty"),
    (CONVERT, "--quant_type IQ1_S", {}, "--quant_type IQ1_S needs an importance matrix"),
    (INFER, "--max_tokens many", {}, "--max_tokens"),
    (INFER, "--temp -1", {}, "--temp"),
    (INFER, "--top_p 2", {}, "--top_p"),
    (INFER, "--seed x", {}, "--seed"),
    (QUICK, "--minutes 0", {}, "--minutes"),
    (QUICK, "nowhere.txt", {}, "nowhere.txt: no such file"),
    (QUICK, "--quant_type Q9_9", {}, "--quant_type Q9_9: no such type"),
    (QUICK, "--output_dir input.txt", {}, "--output_dir input.txt is a file"),
    # files that would be destroyed
    (MODEL, "--config_path input.txt", {}, "input.txt is there and is no PTH file"),
    (MODEL, "--config_path /dev/null", {}, "/dev/null is not a regular file"),
    (TRAIN, f"{TRAINING} input.txt --model_path input.txt", {}, "--dataset_path and --model_path are both input.txt"),
    (TRAIN, f"{TRAINING} input.txt --model_path model_config.pth", {}, "--config_path and --model_path are both"),
    (CONVERT, f"{CONVERSION} --gguf_output trained_model.pth", {}, "trained_model.pth is there and is no GGUF file"),
    (CONVERT, f"{CONVERSION} --gguf_output input.txt", {}, "input.txt is there and is no GGUF file"),
    (CONVERT, f"{CONVERSION} --output_dir other", {"other/config.json": b'{"architectures": ["LlamaForCausalLM"]}'},
     "not a model this program exported"),
    (MODEL, "--n_embd 4 --n_head 4", {}, "n_embd 4 is less than 2 for each of n_head 4"),
    # texts
    (TRAIN, f"{TRAINING} nowhere.txt", {}, "nowhere.txt: no such file"),
    (TRAIN, f"{TRAINING} notes", {"notes/.hidden.txt": b"x"}, "notes is a folder without a text but has 1 hidden"),
    (TRAIN, f"{TRAINING} *.tex", {}, "*.tex: no file has such a name"),
    (TRAIN, f"{TRAINING} input.txt,nowhere.txt", {}, "nowhere.txt: no such file"),
    (TRAIN, f"{TRAINING} a.jsonl", {"a.jsonl": b'{"text": "a"}\n{"text": }'}, "a.jsonl, line 2 is not JSON"),
    (TRAIN, f"{TRAINING} a.jsonl", {"a.jsonl": b"[1]"}, "a.jsonl, line 1 is not an object with a text"),
    (TRAIN, f"{TRAINING} a.jsonl", {"a.jsonl": b'{"story": "a"}'}, "a.jsonl, line 1 has no text; it has story"),
    (TRAIN, f"{TRAINING} a.jsonl", {"a.jsonl": b'{"text": 1}'}, "a.jsonl, line 1: its text is no text"),
    (TRAIN, f"{TRAINING} a.jsonl", {"a.jsonl": b"[" * 100_000}, "a.jsonl, line 1 is not JSON"),
    (TRAIN, f"{TRAINING} a.jsonl", {"a.jsonl": b""}, "a.jsonl is empty"),
    (TRAIN, f"{TRAINING} a.jsonl", {"a.jsonl": b'{"text": "a\\u0000b"}'}, "a.jsonl, line 1 is not plain text"),
    (TRAIN, f"{TRAINING} a.jsonl", {"a.jsonl": b'{"text": "a\\ud800b"}'}, "a.jsonl, line 1 has half a surrogate"),
    (TRAIN, f"{TRAINING} a.csv", {"a.csv": b"id,story\n1,abc\n"}, "a.csv, line 2 has no text; it has id, story"),
    (TRAIN, f"{TRAINING} a.csv", {"a.csv": b"text,id\n"}, "a.csv is empty"),
    (TRAIN, f"{TRAINING} a.csv", {"a.csv": b"id,text\n1\n"}, "a.csv holds no text; left out: 1 row of a.csv"),
    (TRAIN, f"{TRAINING} a.txt.gz", {"a.txt.gz": b"no gzip"}, "a.txt.gz is not a whole .gz file"),
    (TRAIN, f"{TRAINING} a.txt.gz", {"a.txt.gz": gzip.compress(b"abc" * 999)[:-9]}, "a.txt.gz is not a whole .gz"),
    (TRAIN, f"{TRAINING} a.parquet", {"a.parquet": b"no parquet"}, "a.parquet"),
    (TRAIN, f"{TRAINING} input.txt --text_field story --stride 0", {}, "--stride 0"),
    (TRAIN, f"{TRAINING} bad.txt", {"bad.txt": b""}, "bad.txt is empty"),
    (TRAIN, f"{TRAINING} bad.txt", {"bad.txt": b"\xef\xbb\xbf"}, "bad.txt is empty"),
    (TRAIN, f"{TRAINING} bad.txt", {"bad.txt": b"abc"}, "bad.txt is too short"),
    (TRAIN, f"{TRAINING} bad.txt", {"bad.txt": b"ab" * 15}, "bad.txt is too short: 28 tokens are left"),
    (TRAIN, f"{TRAINING} bad.txt", {"bad.txt": b"a" * 9000}, "bad.txt has only one distinct character"),
    (TRAIN, f"{TRAINING} bad.txt", {"bad.txt": b"<|endoftext|>" * 900}, "bad.txt has only one distinct character"),
    (TRAIN, f"{TRAINING} bad.txt", {"bad.txt": b"text\x00text" * 900}, "bad.txt is not plain text (NUL byte"),
    (TRAIN, f"{TRAINING} bad.txt", {"bad.txt": b"caf\xe9 " * 900}, "bad.txt is not utf-8 text (byte 0xe9 at offset 3)"),
    (TRAIN, f"{TRAINING} bad.txt", {"bad.txt": os.urandom(9000)}, "bad.txt is not"),
    (TRAIN, f"{TRAINING} bad.txt", {"bad.txt": b"\xff\xfea"}, "bad.txt is not utf-16 text"),
    (TRAIN, f"{TRAINING} input.txt --encoding undefined", {}, "--encoding undefined: no such encoding"),
    (TRAIN, f"{TRAINING} input.txt --encoding punycode", {}, "--encoding punycode: no such encoding"),
    (TRAIN, f"{TRAINING} input.txt --encoding idna", {}, "--encoding idna: no such encoding"),
    (TRAIN, f"{TRAINING} bad.txt --encoding utf-7", {"bad.txt": b"half +2AE- pair " * 99}, "bad.txt"),
    (TRAIN, f"{TRAINING} input.txt --model_path nowhere/m.pth", {}, "the folder nowhere does not exist"),
    (TRAIN, f"{TRAINING} input.txt --model_path .", {}, ". is a folder"),
    (TRAIN, f"{TRAINING} input.txt --config_path nowhere.pth", {}, "nowhere.pth: no such file; make it"),
    (TRAIN, [*TRAINING.split(), ""], {}, "--dataset_path '' names no text"),
    (TRAIN, f"{TRAINING} ,", {}, "--dataset_path ',' names no text"),
    (TRAIN, [*TRAINING.split(), "a\0b"], {}, "--dataset_path 'a\\x00b' is not the name of a file"),
    (TRAIN, f"{TRAINING} {'x' * 300}", {}, "file name too long"),
    (TRAIN, f"{TRAINING} [[*", {}, "[[*: no file has such a name"),
    (TRAIN, f"{TRAINING} /dev/zero", {}, "/dev/zero is not a regular file"),
    (TRAIN, f"{TRAINING} /proc/self/mem", {}, "cannot read /proc/self/mem: input/output error"),
    (TRAIN, f"{TRAINING} bad.txt --inspect", {"bad.txt": b""}, "bad.txt is empty"),
    (TRAIN, f"{TRAINING} input.txt --inspect --vocab_size 300", {}, "vocab_size 300 has no meaning"),
    (TRAIN, [*TRAINING.split(), "input.txt", "--tokenizer", ""], {}, "tokenizer is empty"),
    (TRAIN, [*TRAINING.split(), "input.txt", "--tokenizer", "", "--inspect"], {}, "tokenizer is empty"),
    (TRAIN, f"{TRAINING} input.txt --max_tokens 1", {}, "--max_tokens 1 is not a whole number from 2"),
    (TRAIN, f"{TRAINING} input.txt --max_tokens 2", {}, "input.txt is too short: 0 tokens are left"),
    (TRAIN, f"{TRAINING} input.txt --max_chars 0", {}, "--max_chars 0 is not a whole number from 1"),
    (TRAIN, f"{TRAINING} input.txt --max_chars 1", {}, "input.txt has only one distinct character"),
    (TRAIN, f"{TRAINING} input.txt --max_chars 1e6", {}, "--max_chars '1e6' is not a whole number"),
    (TRAIN, f"{TRAINING} input.txt --max_chars {10**16}", {}, "is not a whole number from 1 to"),
    # files that are not what their names say, at a place far in
    (TRAIN, f"{TRAINING} a.txt", {"a.txt": b"abc d\n" * 400_000 + b"\xff"}, "byte 0xff at offset 2400000"),
    (TRAIN, f"{TRAINING} a.txt", {"a.txt": b"abc d\n" * 400_000 + b"\0"}, "NUL byte at character 2400000"),
    (TRAIN, f"{TRAINING} a.txt", {"a.txt": "text ".encode("utf-16-le") * 99}, "a.txt is not plain text (NUL byte"),
    (TRAIN, f"{TRAINING} a.txt.gz", {"a.txt.gz": gzip.compress(gzip.compress(b"ab" * 99))}, "is no text but packed"),
    (TRAIN, f"{TRAINING} a.txt.gz", {"a.txt.gz": gzip.compress(b"ab" * 99) + b"end"}, "a.txt.gz is not a whole .gz"),
    (TRAIN, f"{TRAINING} a.txt.gz", {"a.txt.gz": gzip.compress(b"ab" * 99)[:-8] + bytes(8)}, "CRC check failed"),
    (TRAIN, f"{TRAINING} a.jsonl", {"a.jsonl": b'{"text": NaN}'}, "a.jsonl, line 1: its text is no text"),
    (TRAIN, f"{TRAINING} a.jsonl", {"a.jsonl": b'{"text": 1' + b"0" * 9999 + b"}"}, "a.jsonl, line 1 is not JSON"),
    (TRAIN, f"{TRAINING} a.jsonl", {"a.jsonl": b'[\n {"text": "a"}\n]'}, "a.jsonl, line 1 is not JSON"),
    (TRAIN, f"{TRAINING} a.csv", {"a.csv": b'text\nb\n"c\n' + b"d\n" * 99}, "the row that begins at line 3 is not CSV"),
    (TRAIN, f"{TRAINING} a.csv", {"a.csv": b'text\n"b" c\n'}, "the row that begins at line 2 is not CSV"),
    (TRAIN, f"{TRAINING} a.tsv", {"a.tsv": b'id\ttext\n1\t"b\n2\tc\n'}, "the row that begins at line 2 is not CSV"),
    (TRAIN, f"{TRAINING} a.csv", {"a.csv": b"text,text\na,b\n"}, "a.csv has several columns text"),
    (TRAIN, f"{TRAINING} a.csv", {"a.csv": b"\n\ntext\na\n"}, "a.csv, line 3 has no text; nothing in it is one"),
    (TRAIN, f"{TRAINING} a.parquet", {"a.parquet": parquet(["ab"] * 99)[:-9]}, "a.parquet is not a whole Parquet file"),
    (TRAIN, f"{TRAINING} a.parquet", {"a.parquet": parquet([b"ab"])}, "a.parquet, row 1: its text is no text"),
    (TRAIN, f"{TRAINING} a.parquet", {"a.parquet": parquet([["ab"]])}, "a.parquet, row 1: its text is no text"),
    (TRAIN, f"{TRAINING} a.parquet", {"a.parquet": parquet([None, "a\0b"])}, "a.parquet, row 2 is not plain text"),
    (TRAIN, f"{TRAINING} a.parquet", {"a.parquet": parquet(["abcd"]).replace(b"abcd", b"a\xffcd")},
     "a.parquet is not a whole Parquet file"),
    # caches and tokenizers
    (TRAIN, f"{TRAINING} input.txt --cache_dir input.txt", {}, "name a folder to write to with --cache_dir"),
    (TRAIN, f"{TRAINING} input.txt --cache_dir c", {"c/tokens": b""}, "name a folder to write to with --cache_dir"),
    (TRAIN, f"{TRAINING} input.txt --cache_dir /dev/null", {}, "name a folder to write to with --cache_dir"),
    (TRAIN, f"{TRAINING} input.txt --tokenizer .", {}, "--tokenizer .: it has neither tokenizer.json nor vocab.json"),
    (TRAIN, f"{TRAINING} input.txt --tokenizer input.txt", {}, "--tokenizer input.txt: a file; give the folder"),
    (TRAIN, f"{TRAINING} input.txt --tokenizer a/b/c", {}, "--tokenizer a/b/c: no such folder"),
    (TRAIN, TOKENIZER, {"t/tokenizer.json": b""}, "--tokenizer t: it cannot be read"),
    (TRAIN, TOKENIZER, {"t/tokenizer.json": b"{}"}, "--tokenizer t: it cannot be read"),
    (TRAIN, TOKENIZER, {"t/tokenizer.json": b"[" * 100_000}, "--tokenizer t: it cannot be read"),
    (TRAIN, TOKENIZER, {"t/vocab.json": b"[]", "t/merges.txt": b""}, "--tokenizer t: it cannot be read"),
    (TRAIN, TOKENIZER, {"t/vocab.json": b'{"a": 0}', "t/merges.txt": b""}, "of the 256 bytes are no tokens"),
    *((TRAIN, TOKENIZER, {"t/vocab.json": b'{"a": 0}', "t/merges.txt": b"#version\n",
      "t/tokenizer_config.json": f'{{"tokenizer_class": "{name}"}}'.encode()}, "--tokenizer t: it cannot be read")
      for name in ("CTRLTokenizer", "ByT5Tokenizer", "CLIPTokenizer")),
    # checkpoints
    (CONVERT, f"{CONVERSION} --model_path nowhere.pth", {}, "nowhere.pth: no such file; make it with python train"),
    (CONVERT, f"{CONVERSION} --config_path nowhere.pth", {}, "nowhere.pth: no such file; make it with python llm"),
    (CONVERT, f"{CONVERSION} --model_path .", {}, "cannot read .: is a directory"),
    (CONVERT, CONVERSION, {"trained_model.pth": b""}, "trained_model.pth is damaged"),
    (CONVERT, CONVERSION, {"trained_model.pth": b"not a checkpoint"}, "trained_model.pth is damaged"),
    (CONVERT, CONVERSION, {"trained_model.pth": cut("trained_model.pth", 0.5)}, "trained_model.pth is damaged"),
    (CONVERT, CONVERSION, {"trained_model.pth": cut("trained_model.pth", 0.99)}, "trained_model.pth is damaged"),
    (CONVERT, CONVERSION, {"trained_model.pth": pickled}, "trained_model.pth is damaged or not a file of this project"),
    (CONVERT, CONVERSION, {"trained_model.pth": torch_file([1, 2])}, "trained_model.pth is not a state dict"),
    (CONVERT, CONVERSION, {"trained_model.pth": torch_file({"epoch": 3})}, "trained_model.pth is not a state dict"),
    (CONVERT, CONVERSION, {"trained_model.pth": torch_file({"a.weight": torch.ones(2)})}, "lacks token_embedding"),
    (CONVERT, CONVERSION, {"trained_model.pth": lambda f: altered_weights(f, "ln_f.bias", None)}, "lacks ln_f.bias"),
    (CONVERT, CONVERSION, {"trained_model.pth": lambda f: altered_weights(f, "ln_f.bias", torch.ones(3))},
     "ln_f.bias is 3 where model_config.pth says 32"),
    (CONVERT, CONVERSION, {"trained_model.pth": lambda f: altered_weights(f, "extra", torch.ones(3))},
     "has extra, which model_config.pth does not ask for"),
    (CONVERT, CONVERSION, {"trained_model.pth": lambda f: altered_weights(f, "ln_f.bias", torch.ones(32) / 0)},
     "ln_f.bias holds NaN or infinity"),
    (CONVERT, CONVERSION, {"trained_model.pth": flipped("trained_model.pth", "head.weight")}, "model.pth is damaged"),
    (CONVERT, CONVERSION, {"model_config.pth": letter_changed}, "model_config.pth is damaged"),
    (CONVERT, CONVERSION, {"model_config.pth": b"{}"}, "model_config.pth is damaged"),
    (CONVERT, CONVERSION, {"model_config.pth": pickled}, "model_config.pth is damaged"),
    (CONVERT, CONVERSION, {"model_config.pth": torch_file({})}, "lacks vocab_size, n_embd"),
    (CONVERT, CONVERSION, {"model_config.pth": torch_file([1])}, "model_config.pth is not a model configuration"),
    (CONVERT, CONVERSION, {"model_config.pth": lambda f: altered_config(f, n_embd=-1)}, "n_embd -1 is not"),
    (CONVERT, CONVERSION, {"model_config.pth": lambda f: altered_config(f, magic=1)}, "unknown key: 'magic'"),
    (CONVERT, CONVERSION, {"model_config.pth": lambda f: altered_config(f, n_embd=64)}, "where model_config.pth says"),
    (CONVERT, CONVERSION, {"model_config.pth": lambda f: altered_config(f, n_layer=3)}, "lacks blocks.2."),
    (CONVERT, CONVERSION, {"model_config.pth": lambda f: altered_config(f, tokenizer={"kind": "magic"})},
     "model_config.pth: not a tokenizer description"),
    (CONVERT, CONVERSION, {"model_config.pth": lambda f: altered_config(f, tokenizer=7)}, "not a token"),
    (CONVERT, CONVERSION, {"model_config.pth": lambda f: altered_config(
        f, tokenizer={"kind": "char", "chars": "ab", "end_of_text": True})}, "the vocabulary has 3 tokens"),
    (CONVERT, CONVERSION, {"model_config.pth": lambda f: altered_config(
        f, tokenizer={"kind": "char", "chars": "aa", "end_of_text": True})}, "a character twice"),
    (CONVERT, f"{CONVERSION} --output_dir input.txt", {}, "input.txt"),
    (CONVERT, f"{CONVERSION} --gguf_output nowhere/m.gguf", {}, "the folder nowhere does not exist"),
    (CONVERT, f"{CONVERSION} --gguf_output .", {}, ". is a folder"),
    (CONVERT, "", {"llama.cpp/convert_hf_to_gguf.py": b"import nothing_of_the_kind"}, "convert_hf_to_gguf.py failed: "),
    (CONVERT, "", {"llama.cpp/convert_hf_to_gguf.py": b"}{"}, "convert_hf_to_gguf.py failed: "),
    (CONVERT, CONVERSION, {"trained_model.pth": lambda f: altered_weights(f, "ln_f.bias", torch.ones(32).bool())},
     "not a state dict of numbers"),
    (CONVERT, CONVERSION, {"trained_model.pth": torch_file({3: torch.ones(3)})}, "not a state dict of numbers"),
    (CONVERT, CONVERSION, {"model_config.pth": lambda f: altered_config(f, sample=7)}, "its sample is not a text"),
    (CONVERT, CONVERSION, {"model_config.pth": lambda f: altered_config(
        f, tokenizer={"kind": "char", "chars": ["a"], "end_of_text": True})}, "chars must be a text"),
    (CONVERT, CONVERSION, {"model_config.pth": lambda f: altered_config(
        f, tokenizer={"kind": "char", "chars": "a\ud800", "end_of_text": True})}, "half of a surrogate pair"),
    # GGUF files
    (INFER, "--query x", {}, "convert_to_gguf.py"),
    (INFER, "--query x --gguf_path nowhere.gguf", {}, "nowhere.gguf: no such file"),
    (INFER, "--query x --gguf_path .", {}, "a folder"),
    (INFER, "--query x --gguf_path m.gguf", {"m.gguf": b""}, "m.gguf: an empty file"),
    (INFER, "--query x --gguf_path m.gguf", {"m.gguf": b"GGUF"}, "m.gguf: "),
    (INFER, "--query x --gguf_path m.gguf", {"m.gguf": b"GGUF" + b"\xff" * 99}, "m.gguf: "),
    (INFER, "--query x --gguf_path input.txt", {}, "input.txt: not a GGUF file"),
]  # fmt: skip

# (flags of a training on input.txt, files to write first, part of the message)
TRAININGS = [
    ("--ema 1", {}, "--ema 1.0 is not a number from 0.0 to 0.9999"),
    ("--ema nan", {}, "--ema nan is not a number"),
    ("--ema=-0.1", {}, "--ema -0.1 is not a number"),
    ("--ema", {}, "--ema: expected one argument"),
    ("--patience -1", {}, "--patience -1 is not a whole number from 0"),
    ("--patience 1e3", {}, "--patience '1e3' is not a whole number"),
    ("--precision float16", {}, "--precision 'float16' is not one of auto, float32, bfloat16"),
    ("--precision Auto", {}, "--precision 'Auto' is not one of"),
    ("--tracker mlflow", {}, "--tracker 'mlflow' is not one of none, tensorboard, wandb"),
    ("--tracker tensorboard", {"trained_model.tensorboard": b""}, "move trained_model.tensorboard away"),
    ("--sample_tokens -1", {}, "--sample_tokens -1 is not a whole number from 0"),
    ("--sample_tokens 100001", {}, "--sample_tokens 100001 is not"),
    ("--strategy zero3", {}, "--strategy 'zero3' is not one of ddp, fsdp"),
    ("--act_recomp yes", {}, "unrecognized arguments: yes"),
    ("--threads 0", {}, "--threads 0 is not a whole number from 1 to 4096"),
    ("--threads two", {}, "--threads 'two' is not a whole number"),
    ("--seed 9223372036854775808", {}, "--seed 9223372036854775808 is not a whole number from 0"),
    ("--max_iters 1e4", {}, "--max_iters '1e4' is not a whole number"),
    ("--max_iters 9999999999999", {}, "--max_iters 9999999999999 is not a whole number from 1"),
    ("--max_epochs 0", {}, "--max_epochs 0 is not a whole number from 1"),
    ("--minutes 0.0001", {}, "--minutes 0.0001 is not a number from 0.001"),
    ("--minutes nan", {}, "--minutes nan is not a number"),
    ("--learning_rate 1e308", {}, "--learning_rate 1e+308 is not a number from 1e-12 to 10.0"),
    ("--learning_rate -0", {}, "--learning_rate -0.0 is not a number"),
    ("--min_lr nan", {}, "--min_lr nan is not a number from 0.0 to 10.0"),
    ("--min_lr 0.0011", {}, "min_lr 0.0011 is above learning_rate 0.001"),
    ("--grad_clip 1e308", {}, "--grad_clip 1e+308 is not a number"),
    ("--weight_decay 11", {}, "--weight_decay 11.0 is not a number from 0.0 to 10.0"),
    ("--stride 1048577", {}, "--stride 1048577 is not a whole number"),
    ("--batch_size 1048577", {}, "--batch_size 1048577 is not a whole number"),
    ("--eval_interval ten", {}, "--eval_interval 'ten' is not a whole number"),
    ("--ckpt_interval 0", {}, "--ckpt_interval 0 is not a whole number from 1"),
    ("--device cuda:7", {}, "--device cuda:7: this machine has cpu"),
    *((f"--total_batch_size={text}", {}, f"total_batch_size {text!r} is not a whole number, or + - * // ** of such")
      for text in ("", "-64", "64.0", "1e3", "True", "1//0", "2**-1", "[64]", "(lambda:1)()", "__import__('os')")),
    ("--total_batch_size 10**16", {}, "total_batch_size '10**16' is not from 1 to 1e+15"),
    ("--total_batch_size 65", {}, "--total_batch_size 65 is no multiple of the"),
    # one file for two things
    ("--model_path m.pth --config_path m.checkpoint.pth", {"m.checkpoint.pth": altered_config},
     "--config_path and --model_path are both m.checkpoint.pth"),
    ("--config_path fifo", {}, "fifo is not a regular file; make one with python llm_model.py"),
    ("--model_path fifo", {}, "fifo is not a regular file"),
    ("--resume --model_path .", {}, ".checkpoint.pth is not there"),
    # checkpoints
    ("--resume", {CHECKPOINT: cut(CHECKPOINT, 0.5)}, f"{CHECKPOINT} is damaged"),
    ("--resume", {CHECKPOINT: cut(CHECKPOINT, 0.999)}, f"{CHECKPOINT} is damaged"),
    ("--resume", {CHECKPOINT: pickled}, f"{CHECKPOINT} is damaged"),
    ("--resume", {CHECKPOINT: cut("trained_model.pth", 1)}, f"{CHECKPOINT} is no checkpoint of a training"),
    ("--resume", {CHECKPOINT: torch_file([1])}, f"{CHECKPOINT} is no checkpoint of a training"),
    ("--resume --model_path m.pth", {"m.checkpoint.pth/a": b""}, "cannot read m.checkpoint.pth: is a directory"),
    ("--resume --model_path fifo", {}, "fifo.checkpoint.pth is not a regular file"),
    ("--resume", {CHECKPOINT: altered_checkpoint(version=1)}, "of another version; start anew without --resume"),
    ("--resume", {CHECKPOINT: altered_checkpoint(magic=1)}, "is no checkpoint of this version"),
    ("--resume", {CHECKPOINT: altered_checkpoint("config", magic=1)}, "unexpected keyword argument 'magic'); start"),
    ("--resume", {CHECKPOINT: altered_checkpoint("config", ema=2.0)}, "(ema 2.0 is not a number from 0.0 to 0.9999)"),
    ("--resume", {CHECKPOINT: altered_checkpoint(record="r")}, "is no checkpoint of a training"),
    ("--resume", {CHECKPOINT: altered_checkpoint(best_model=[1])}, "is no checkpoint of a training"),
    ("--resume", {CHECKPOINT: altered_checkpoint("trainer", clock={})}, "needs: trainer.clock is something else"),
    ("--resume", {CHECKPOINT: altered_checkpoint("trainer", random=[{}])}, "needs: trainer.random[0] is something"),
    ("--resume", {CHECKPOINT: deeper("trainer", "clock", "steps", value="x")}, "needs: trainer.clock.steps is some"),
    ("--resume", {CHECKPOINT: deeper("trainer", "sampler", "read", value=-1)}, "needs: trainer.sampler.read is some"),
    ("--resume", {CHECKPOINT: deeper("trainer", "sampler", "before", value=torch.zeros(5056, dtype=torch.uint8))},
     "does not hold what this training needs"),
    ("--resume", {CHECKPOINT: deeper("best_model", "head.weight", value=torch.zeros(2))}, "head.weight is 2 where"),
    ("--resume", {CHECKPOINT: altered_checkpoint(best_model={"x": torch.zeros(2)})}, "lacks token_embedding.weight"),
    ("--resume", {CHECKPOINT: altered_checkpoint(best_model={"x": 1})}, "needs: best_model is something else"),
    ("--resume", {CHECKPOINT: flipped(CHECKPOINT, "head.weight", of_best=True)}, f"{CHECKPOINT} is damaged"),
    ("--resume", {"model_config.pth": letter_changed}, "model_config.pth is damaged"),
    ("--resume --optimizer adamw", {}, f"{CHECKPOINT} is a training with --optimizer muon; resume it so"),
    ("--resume --tokenizer bpe", {}, "is the training of a model with vocab_size"),
    ("--resume --max_chars 2000", {}, f"{CHECKPOINT} is the training"),
    ("--resume", {"model_config.pth": lambda f: altered_config(f, n_layer=1)}, "of a model with n_layer 2, and this"),
    # files of options
    ("--config run.yaml", {"run.yaml": b"train_llm: {ema: 2}"}, "run.yaml: ema 2.0 is not a number from 0.0"),
    ("--config run.yaml", {"run.yaml": b"patience: [1, 2]"}, "run.yaml: patience is a list"),
    ("--config run.yaml", {"run.yaml": b"act_recomp: 1"}, "run.yaml: act_recomp '1' is not yes or no"),
    ("--config run.yaml", {"run.yaml": b"presicion: float32"}, "no option presicion; did you mean precision?"),
    ("--config run.yaml", {"run.yaml": b"total_batch_size: 2**"}, "total_batch_size '2**' is not a whole number"),
]  # fmt: skip
CASES += [(TRAIN, f"{TRAINING} input.txt {flags}", files, message) for flags, files, message in TRAININGS]


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A folder of a trained model, one that is lost if anything in it changes."""
    for path in trained.folder.iterdir():
        shutil.copy(path, tmp_path)
    for name in ("fifo", "fifo.checkpoint.pth"):
        os.mkfifo(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the logs and the Hugging Face directory, which a conversion writes before it can fail."""
    files = (path for path in folder.rglob("*") if path.is_file())
    kept = (path for path in files if path.suffix not in (".log", ".pyc") and path.parent.name != "hf_model")
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


@pytest.mark.parametrize(("script", "arguments", "files", "message"), CASES)
def test_one_line_and_status_2(folder, capsys, script, arguments, files, message):
    for name, content in files.items():
        content = content if isinstance(content, bytes) else content(folder)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    before = contents(folder)
    status = run(importlib.import_module(script).main, arguments if isinstance(arguments, list) else arguments.split())
    stderr = capsys.readouterr().err
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert status == 2
    assert len(errors) == 1 and stderr.endswith(errors[0] + "\n"), stderr
    assert message in errors[0]
    assert "Traceback" not in stderr
    after = contents(folder)
    new = set(after) - set(before)
    assert {name: after[name] for name in before} == before
    assert new <= {"quickstart/stories.txt"}, f"half-written: {new}"


def test_there_are_enough_cases():
    assert len(CASES) >= 150 and len(TRAININGS) >= 50


def test_another_end_takes_the_place_of_that_in_a_checkpoint(folder):
    Path(CHECKPOINT).write_bytes(altered_checkpoint("config", max_iters=10**6)(folder))
    assert run(importlib.import_module(TRAIN).main, ["--resume", "--minutes", "0.001"]) == 0


def test_a_folder_without_permission(folder):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    folder.chmod(0o500)
    result = run_script("llm_model.py", cwd=folder)
    folder.chmod(0o700)
    assert result.status == 2
    assert result.stderr == "error: cannot write model_config.pth: permission denied in the folder .\n"


def test_a_full_disk(folder):
    """/dev/full answers every write with "no space left on device"."""
    import subprocess

    from conftest import ENVIRONMENT, ROOT

    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, ROOT / "llm_model.py"], stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
            text=True, env=ENVIRONMENT, cwd=folder,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: no space left on device\n"


def test_a_disk_that_fills_up_while_numpy_writes():
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError) as caught:
        np.zeros(100_000).tofile(full)
    assert describe_os_error(caught.value) == "it could not be written to its end; is the disk full?"


def test_a_learning_rate_that_blows_up_is_named(folder, capsys):
    flags = f"{TRAINING} input.txt --learning_rate 10"
    before = digest(folder / "trained_model.pth")
    status = run(importlib.import_module(TRAIN).main, flags.replace("--learning_rate 0.001 ", "").split())
    stderr = capsys.readouterr().err
    assert status == 2
    assert "error: --learning_rate 10.0: the " in stderr
    (kept,) = folder.glob("trained_model.2*-????.pth")
    assert digest(kept) == before


@pytest.mark.slow
def test_the_way_out_of_damaged_files_works(folder, capsys):
    """Each error names a step; that step is taken, and what failed goes."""
    training = f"{TRAINING} input.txt"
    model = "--vocab_size 50 --n_embd 16 --n_head 2 --n_layer 1 --block_size 16 --dropout 0"
    ways_out = [
        (
            CHECKPOINT,
            (TRAIN, f"{training} --resume"),
            "anew with python train_llm.py, without --resume",
            [(TRAIN, training)],
        ),
        ("trained_model.pth", (CONVERT, CONVERSION), "anew with python train_llm.py", [(TRAIN, training)]),
        ("model_config.pth", (TRAIN, training), "anew with python llm_model.py", [(MODEL, model)]),
    ]  # fmt: skip
    for name, failed, told, steps in ways_out:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 3] ^= 1
        (folder / name).write_bytes(content)
        for script, arguments, status in [(*failed, 2), *((*step, 0) for step in steps), (*failed, 0)]:
            assert run(importlib.import_module(script).main, arguments.split()) == status
            if status:
                assert (
                    f"error: {name} is damaged or not a file of this project; make it {told}" in capsys.readouterr().err
                )
