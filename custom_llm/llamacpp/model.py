"""A GGUF file in memory."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence
from pathlib import Path

from custom_llm.common.errors import UserError
from custom_llm.common.seal import check_seal
from custom_llm.common.steps import step
from custom_llm.common.text import without_added_spaces
from custom_llm.llamacpp.adapter import Lora, is_adapter
from custom_llm.llamacpp.bindings import REDO, Owned, c, error_lines, ggml, load_failure
from custom_llm.tokenizer.base import ENDS_OF_TEXT

_MIN_PIECE_BYTES = 64
# Bytes of a file that is read. A larger one is mapped, which begins to write up to 2 ms sooner for each MB; but if it
# is cut short while it is used, that ends the process (SIGBUS).
_MOST_READ = 64 << 20


class Model(Owned):
    """A GGUF file in memory: its weights, vocabulary and metadata.

    Raises UserError when the file is missing, unreadable, or no model that llama.cpp can generate text with.
    """

    _free = staticmethod(c.llama_model_free)

    def __init__(
        self, path: str | os.PathLike[str], n_gpu_layers: int = 0, vocab_only: bool = False, loras: Sequence[Lora] = ()
    ) -> None:
        """`n_gpu_layers`: how many layers to keep on the GPU; -1 means all of them. `vocab_only`: no weights.

        `loras`: adapters that every `Context` of the model applies.
        """
        self.path = Path(path)
        _check_file(self.path, step("convert_to_gguf"))
        if is_adapter(self.path):
            raise UserError(f"{self.path}: an adapter, which writes nothing alone; give its model, and this as --lora")
        params = c.llama_model_default_params()
        params.n_gpu_layers, params.vocab_only = n_gpu_layers, vocab_only
        params.use_extra_bufts = not _may_crash_with_amx()
        if self.path.stat().st_size <= _MOST_READ:
            params.load_mode = c.LLAMA_LOAD_MODE_NONE
        self.on_gpu = n_gpu_layers != 0
        error_lines.clear()
        self.ptr = c.llama_model_load_from_file(os.fsencode(self.path), params)
        if not self.ptr:
            raise UserError(f"{self.path}: not a model llama.cpp can read: {load_failure()}; {REDO}")
        if c.llama_model_has_encoder(self.ptr) or not c.llama_model_has_decoder(self.ptr):
            self.close()
            raise UserError(f"{self.path}: not a model that continues a text; give a decoder-only model")
        self.vocab = c.llama_model_get_vocab(self.ptr)
        if not self._spells_all_bytes():
            self.close()
            raise UserError(f"{self.path}: its vocabulary cannot spell every text, on which llama.cpp gives up; {REDO}")
        self._pieces: dict[int, bytes] = {}  # token → its bytes
        self.n_vocab: int = c.llama_vocab_n_tokens(self.vocab)
        self.n_ctx_train: int = c.llama_model_n_ctx_train(self.ptr)
        self.is_f32: bool = self.metadata("general.file_type") == str(c.LLAMA_FTYPE_ALL_F32)
        self.n_params: int = c.llama_model_n_params(self.ptr)
        # Without RoPE positions come from a table (gpt2, starcoder) or a bias on the scores (mpt): a cached
        # key cannot be moved to another position, and the table has n_ctx_train rows and not one more.
        self.learned_positions: bool = c.llama_model_rope_type(self.ptr) == c.LLAMA_ROPE_TYPE_NONE
        # Tables are exported padded to a multiple of 256 rows; our own key holds the window that was trained.
        trained = self.metadata("custom_llm.block_size") or ""
        window = int(trained) if re.fullmatch("[0-9]{1,9}", trained) else 0
        self.block_size: int = min(window or self.n_ctx_train, self.n_ctx_train)
        self.adds_space: bool = (
            c.llama_vocab_type(self.vocab) == c.LLAMA_VOCAB_TYPE_SPM
            and self.metadata("tokenizer.ggml.add_space_prefix") != "false"
        )
        self.eos = self._end_of_text()  # -1 where there is none
        # What it expects before each text; -1 where that is nothing.
        self.begin_of_text: int = c.llama_vocab_bos(self.vocab) if c.llama_vocab_get_add_bos(self.vocab) else -1
        self.loras = tuple(loras)
        self.adapters: list[tuple[int, float]] = []  # llama.cpp's, with the scale of each; they go with the model
        try:
            for lora in loras:
                self.adapters.append((self._load_adapter(lora.path), lora.scale))
        except UserError:
            self.close()
            raise

    def _end_of_text(self) -> int:
        """The token that ends a document: not that which ends a turn of a chat, which many files name."""
        for name in ENDS_OF_TEXT:
            token, *more = self.tokenize(name)
            if not more and self._special(token) == c.LLAMA_TOKEN_ATTR_CONTROL:
                return token
        # llama.cpp assumes id 11 when a file names none: in a character vocabulary, some letter.
        eos = c.llama_vocab_eos(self.vocab)
        return eos if eos >= 0 and c.llama_vocab_is_control(self.vocab, eos) else -1

    def _special(self, token: int) -> int:
        """By which of llama.cpp's attributes a token is found in a text before all others; 0 for the others."""
        attributes = c.LLAMA_TOKEN_ATTR_CONTROL | c.LLAMA_TOKEN_ATTR_USER_DEFINED | c.LLAMA_TOKEN_ATTR_UNKNOWN
        return c.llama_vocab_get_attr(self.vocab, token) & attributes

    def _load_adapter(self, path: Path) -> int:
        """Have llama.cpp read an adapter; UserError where it is none, or not for this model."""
        try:
            _check_file(path, f"{step('convert_to_gguf')} --adapter")
            check_seal(path)
        except UserError as error:
            raise UserError(f"--lora {error}") from None
        error_lines.clear()
        adapter = c.llama_adapter_lora_init(self.ptr, os.fsencode(path))
        if not adapter:
            said = " ".join(error_lines)
            known = [words for part, words in NOT_APPLIED.items() if part in said]
            why = known[0] if known else f"cannot be read ({said}); {ANEW}"
            model = f"{self.path} ({self.metadata('general.architecture')})"
            raise UserError(f"--lora {path} {why.replace('MODEL', model)}")
        if c.llama_adapter_get_alora_n_invocation_tokens(adapter):
            raise UserError(f"--lora {path} is an aLoRA, which certain words switch on; that cannot be done here")
        return adapter

    def _spells_all_bytes(self) -> bool:
        """Whether a vocabulary of SentencePiece has a token for each byte; without one, to read a text is fatal."""
        if c.llama_vocab_type(self.vocab) != c.LLAMA_VOCAB_TYPE_SPM:
            return True
        attributes = (c.llama_vocab_get_attr(self.vocab, token) for token in range(c.llama_vocab_n_tokens(self.vocab)))
        return sum(bool(each & c.LLAMA_TOKEN_ATTR_BYTE) for each in attributes) >= 256

    @property
    def quantization(self) -> str:
        """The type of the weights in llama.cpp's words: "F32", "Q8_0", "Q4_K - Medium"."""
        buffer = ctypes.create_string_buffer(256)
        c.llama_model_desc(self.ptr, buffer, len(buffer))  # "gpt2 ?B Q4_K - Medium", "qwen3 0.6B all F32"
        return buffer.value.decode("utf-8", "replace").split(" ", 2)[-1].replace("all F32", "F32")

    def metadata(self, key: str) -> str | None:
        """The scalar metadata value `key` as text, or None when the file has none."""
        name = key.encode()
        length = c.llama_model_meta_val_str(self.ptr, name, None, 0)
        if length < 0:
            return None
        buffer = ctypes.create_string_buffer(length + 1)
        c.llama_model_meta_val_str(self.ptr, name, buffer, length + 1)
        return buffer.value.decode("utf-8", "replace")

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens such as <|endoftext|> recognized, none added.

        llama.cpp silently leaves out what the vocabulary cannot express.
        """
        data = text.encode("utf-8")
        room = len(data) + 8  # a token covers at least one byte; some vocabularies put a space in front
        while True:
            ids = (c.llama_token * room)()
            count = c.llama_tokenize(self.vocab, data, len(data), ids, room, False, True)
            if count >= 0:
                return ids[:count]
            room = -count

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that `token` stands for, maybe part of a character; of a control token those of its name.

        So a text that holds control tokens is read as the tokens it was written with.
        """
        piece = self._pieces.get(token)
        room = _MIN_PIECE_BYTES
        while piece is None:
            buffer = ctypes.create_string_buffer(room)
            length = c.llama_token_to_piece(self.vocab, token, buffer, room, 0, True)
            if length >= 0:
                piece = self._pieces[token] = buffer.raw[:length]
            room = -length
        return piece

    def spell(self, tokens: Sequence[int]) -> bytes:
        """What `tokenize` read to give `tokens`."""
        if self.adds_space:
            return without_added_spaces((self.token_bytes(token), bool(self._special(token))) for token in tokens)
        return b"".join([self.token_bytes(token) for token in tokens])

    def is_control(self, token: int) -> bool:
        """Whether `token` means something and is no text."""
        return bool(c.llama_vocab_is_control(self.vocab, token))

    def ends_text(self, token: int) -> bool:
        """Whether `token` says that the document is finished."""
        return bool(c.llama_vocab_is_eog(self.vocab, token)) and self.is_control(token)


def _may_crash_with_amx() -> bool:
    """Whether weights must not be repacked for Intel's AMX.

    Compiled by GCC 12, llama.cpp's kernels for AMX end the process: the compiler leaves out most of the tiles'
    configuration as never read (https://github.com/ggml-org/llama.cpp/issues/20824).
    """
    has_amx = getattr(ggml, "ggml_cpu_has_amx_int8", None)  # None: kernels are chosen when they are loaded
    return has_amx is None or bool(has_amx())


ANEW = f"copy it again, or write it again with {step('convert_to_gguf')} --adapter"
# What llama.cpp says of an adapter that it does not apply → the same for a person about a MODEL.
NOT_APPLIED = {
    "expect general.type": "is a model and no adapter; give it as --gguf_path, without --lora",
    "expect adapter.type": "is an adapter of another kind; give one of type lora",
    "arch mismatch": "is for another architecture than MODEL; give the one that it was trained on",
    "does not exist in base": "is for another model than MODEL; give the one that it was trained on",
    "incorrect shape": "is for a model of other sizes than MODEL; give the one that it was trained on",
    "file bounds": f"is damaged: it ends too early; {ANEW}",
    "failed to load": f"is damaged: its header cannot be read; {ANEW}",
    "missing one component": f"is damaged: half of a pair of its tensors is missing; {ANEW}",
    "unexpected suffix": f"is damaged, or changes more than matrices; {ANEW}",
}


def _check_file(path: Path, writer: str) -> None:
    """Raise UserError for what is certainly not a GGUF file, before llama.cpp words it less clearly.

    writer: what writes such files.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; give a .gguf file")
    if not path.exists():
        raise UserError(f"{path}: no such file; write one with {writer}")
    if not path.is_file():  # reading a pipe or a device could wait for ever
        raise UserError(f"{path}: not a regular file; give a .gguf file")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except PermissionError:
        raise UserError(f"{path}: permission denied; make it readable (chmod u+r {path})") from None
    if not magic:
        raise UserError(f"{path}: an empty file; write it again with {writer}")
    if magic != b"GGUF":
        raise UserError(f"{path}: not a GGUF file; give the .gguf that {writer} wrote")


def quantize_file(source: str | os.PathLike[str], target: str | os.PathLike[str], file_type: int) -> None:
    """Write the GGUF file `source` to `target` in llama.cpp's `enum llama_ftype` `file_type`. Raises UserError."""
    params = c.llama_model_quantize_default_params()
    params.ftype = file_type
    error_lines.clear()
    if c.llama_model_quantize(os.fsencode(source), os.fsencode(target), params) != 0:
        raise UserError(f"{source} cannot be quantized: {load_failure()}")
