"""A thin layer over llama.cpp's C interface: load a GGUF, tokenize, decode, read logits.

The only module that touches the `llama_cpp` bindings. It adds what the C interface leaves to the caller: a
failure is an exception instead of a dead process, and no position is ever asked for that the model's table of
learned positions does not hold (llama.cpp rounds a context up to a multiple of 256 and would abort).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from custom_llm.errors import EXIT_USER_ERROR, UserError

try:
    import llama_cpp as _c
    from llama_cpp._ggml import libggml as _ggml
except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: its shared library does not load
    raise UserError(f"llama-cpp-python cannot be loaded ({error}); pip install llama-cpp-python") from None

if TYPE_CHECKING:
    from typing_extensions import Self

_LOG_LEVEL_ERROR = 4  # GGML_LOG_LEVEL_ERROR
_FLASH_ATTENTION_AUTO, _FLASH_ATTENTION_OFF = -1, 0
_LONGEST_FLASH, _FLASH_WIDTH = 512, 32  # tokens; of heads, a multiple
_MIN_PIECE_BYTES = 64
_SMALLEST_TEMP = 1e-4  # below it float32 logits / temp can overflow; the likeliest token wins anyway
PENALTY_LAST_N = 64  # how far back the repeat penalty looks, in tokens; llama.cpp's default
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data
_MAX_NESTING = 500  # of parentheses in a grammar
_REDO = "write it again with convert_to_gguf.py"

_error_lines: deque[str] = deque(maxlen=8)


@_c.llama_log_callback
def _keep_errors(level: int, text: bytes, _user_data: object) -> None:
    if level == _LOG_LEVEL_ERROR:
        _error_lines.append(text.decode("utf-8", "replace").strip())


@ctypes.CFUNCTYPE(None, ctypes.c_char_p)
def _leave_in_one_line(message: bytes) -> None:
    """Called when llama.cpp is about to abort() with a stack dump, as it does for some damaged files."""
    failed = message.decode("utf-8", "replace").rsplit("/", 1)[-1]
    print(f"error: llama.cpp gave up: {failed}; if the .gguf is damaged, {_REDO}", file=sys.stderr, flush=True)
    os._exit(EXIT_USER_ERROR)


_ggml.ggml_set_abort_callback(_leave_in_one_line)
_c.llama_log_set(_keep_errors, ctypes.c_void_p(0))
_c.llama_backend_init()


def gpu_available() -> bool:
    """Whether this build of llama.cpp can put layers on a GPU."""
    return bool(_c.llama_supports_gpu_offload())


def _may_crash_with_amx() -> bool:
    """Whether weights must not be repacked for Intel's AMX.

    Compiled by GCC 12, llama.cpp's kernels for AMX end the process: the compiler leaves out most of the tiles'
    configuration as never read (https://github.com/ggml-org/llama.cpp/issues/20824).
    """
    has_amx = getattr(_ggml, "ggml_cpu_has_amx_int8", None)  # None: kernels are chosen when they are loaded
    return has_amx is None or bool(has_amx())


class _Owned:
    """Something that llama.cpp allocated, freed by `close` or at the end of a `with`."""

    _ptr: int | None
    _free: Callable[[int], None]  # the C function that frees it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory; what uses it must be closed first."""
        if self._ptr:
            self._free(self._ptr)
            self._ptr = None


class Model(_Owned):
    """A GGUF file in memory: its weights, vocabulary and metadata.

    Raises UserError when the file is missing, unreadable, or no model that llama.cpp can generate text with.
    """

    _free = staticmethod(_c.llama_model_free)

    def __init__(self, path: str | os.PathLike[str], n_gpu_layers: int = 0, vocab_only: bool = False) -> None:
        """`n_gpu_layers`: how many layers to keep on the GPU; -1 means all of them. `vocab_only`: no weights."""
        self.path = Path(path)
        _check_file(self.path)
        params = _c.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        params.vocab_only = vocab_only
        params.use_extra_bufts = not _may_crash_with_amx()
        self.on_gpu = n_gpu_layers != 0
        _error_lines.clear()
        self._ptr = _c.llama_model_load_from_file(os.fsencode(self.path), params)
        if not self._ptr:
            raise UserError(f"{self.path}: not a model llama.cpp can read: {_load_failure()}; {_REDO}")
        if _c.llama_model_has_encoder(self._ptr) or not _c.llama_model_has_decoder(self._ptr):
            self.close()
            raise UserError(f"{self.path}: not a model that continues a text; give a decoder-only model")
        self._vocab = _c.llama_model_get_vocab(self._ptr)
        self._pieces: dict[tuple[int, bool], bytes] = {}  # (token, special)
        self.n_vocab: int = _c.llama_vocab_n_tokens(self._vocab)
        self.n_ctx_train: int = _c.llama_model_n_ctx_train(self._ptr)
        self.is_f32: bool = self.metadata("general.file_type") == str(_c.LLAMA_FTYPE_ALL_F32)
        self.n_params: int = _c.llama_model_n_params(self._ptr)
        # Without RoPE positions come from a table (gpt2, starcoder) or a bias on the scores (mpt): a cached
        # key cannot be moved to another position, and the table has n_ctx_train rows and not one more.
        self.learned_positions: bool = _c.llama_model_rope_type(self._ptr) == _c.LLAMA_ROPE_TYPE_NONE
        # Tables are exported padded to a multiple of 256 rows; our own key holds the window that was trained.
        trained = self.metadata("custom_llm.block_size") or ""
        window = int(trained) if re.fullmatch("[0-9]{1,9}", trained) else 0
        self.block_size: int = min(window or self.n_ctx_train, self.n_ctx_train)
        # llama.cpp assumes id 11 when a file names no end token: in a character vocabulary, some letter.
        eos = _c.llama_vocab_eos(self._vocab)
        self.eos: int = eos if eos >= 0 and _c.llama_vocab_is_control(self._vocab, eos) else -1

    @property
    def quantization(self) -> str:
        """The type of the weights in llama.cpp's words: "F32", "Q8_0", "Q4_K - Medium"."""
        buffer = ctypes.create_string_buffer(256)
        _c.llama_model_desc(self._ptr, buffer, len(buffer))  # "gpt2 ?B Q4_K - Medium", "qwen3 0.6B all F32"
        return buffer.value.decode("utf-8", "replace").split(" ", 2)[-1].replace("all F32", "F32")

    def metadata(self, key: str) -> str | None:
        """The scalar metadata value `key` as text, or None when the file has none."""
        name = key.encode()
        length = _c.llama_model_meta_val_str(self._ptr, name, None, 0)
        if length < 0:
            return None
        buffer = ctypes.create_string_buffer(length + 1)
        _c.llama_model_meta_val_str(self._ptr, name, buffer, length + 1)
        return buffer.value.decode("utf-8", "replace")

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens such as <|endoftext|> recognized, none added.

        llama.cpp silently leaves out what the vocabulary cannot express.
        """
        data = text.encode("utf-8")
        room = len(data) + 8  # a token covers at least one byte; some vocabularies put a space in front
        while True:
            ids = (_c.llama_token * room)()
            count = _c.llama_tokenize(self._vocab, data, len(data), ids, room, False, True)
            if count >= 0:
                return ids[:count]
            room = -count

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that `token` stands for: maybe part of a character; none for a control token."""
        return self._piece(token, False)

    def spell(self, tokens: Sequence[int]) -> bytes:
        """What `tokenize` read to give `tokens`: control tokens are written out, as in <|endoftext|>."""
        return b"".join([self._piece(token, True) for token in tokens])

    def ends_text(self, token: int) -> bool:
        """Whether `token` says that the document is finished."""
        vocab = self._vocab
        return bool(_c.llama_vocab_is_eog(vocab, token) and _c.llama_vocab_is_control(vocab, token))

    def _piece(self, token: int, special: bool) -> bytes:
        piece = self._pieces.get((token, special))
        room = _MIN_PIECE_BYTES
        while piece is None:
            buffer = ctypes.create_string_buffer(room)
            length = _c.llama_token_to_piece(self._vocab, token, buffer, room, 0, special)
            if length >= 0:
                piece = self._pieces[token, special] = buffer.raw[:length]
            room = -length
        return piece


class Context(_Owned):
    """A model's working memory: the cache of what it has read, and the logits of what it read last.

    n_ctx: positions it may hold. n_batch: tokens computed in one go. f32_cache: cache in float32 instead of
    float16, for comparing logits.
    """

    _free = staticmethod(_c.llama_free)

    def __init__(self, model: Model, n_ctx: int, n_batch: int, n_threads: int, f32_cache: bool = False) -> None:
        if model.learned_positions and n_ctx > model.n_ctx_train:
            raise ValueError(f"n_ctx {n_ctx} > {model.n_ctx_train} rows in the model's table of positions")
        params = _c.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = params.n_ubatch = n_batch
        params.n_threads = params.n_threads_batch = n_threads
        params.no_perf = True
        params.flash_attn_type = _FLASH_ATTENTION_AUTO if _gains_by_flash(model, n_ctx) else _FLASH_ATTENTION_OFF
        if f32_cache:
            params.type_k = params.type_v = _c.GGML_TYPE_F32
            params.flash_attn_type = _FLASH_ATTENTION_OFF  # it casts such a cache to float16 on every read
        self._ptr = _c.llama_init_from_model(model._ptr, params)
        if not self._ptr:
            raise UserError(f"{model.path}: not enough memory for a context of {n_ctx} tokens")
        self.model = model  # also keeps the weights alive as long as the context
        self.n_ctx = n_ctx
        self.n_batch = n_batch
        self.n_past = 0  # positions 0 … n_past - 1 are in the cache
        self._memory = _c.llama_get_memory(self._ptr)
        # Batches live as long as the context: nothing is allocated for each token. Without positions and
        # sequence ids llama.cpp appends to sequence 0; without wishes it keeps the last token's logits.
        self._tokens = (_c.llama_token * n_batch)()
        every = (ctypes.c_int8 * n_batch)(*(1,) * n_batch)
        self._batch = _c.llama_batch(0, self._tokens, None, None, None, None, None)
        self._batch_all_logits = _c.llama_batch(0, self._tokens, None, None, None, None, every)

    def clear(self) -> None:
        """Forget everything that was read."""
        self._check_open()
        _c.llama_memory_clear(self._memory, False)
        self.n_past = 0

    def decode(self, tokens: Sequence[int], all_logits: bool = False) -> None:
        """Read `tokens` at positions n_past, n_past + 1, …: after what the cache holds.

        Logits are kept for the last token, or with `all_logits` for each (at most n_batch tokens then).
        """
        self._check_open()
        count = len(tokens)
        if not count or self.n_past + count > self.n_ctx:
            raise ValueError(f"{count} tokens, but {self.n_past} of {self.n_ctx} positions are taken")
        if all_logits and count > self.n_batch:
            raise ValueError(f"logits of {count} tokens, but n_batch is {self.n_batch}")
        batch = self._batch_all_logits if all_logits else self._batch
        for begin in range(0, count, self.n_batch):
            part = tokens[begin : begin + self.n_batch]
            self._tokens[: len(part)] = part
            batch.n_tokens = len(part)
            status = _c.llama_decode(self._ptr, batch)
            if status != 0:
                reason = _error_lines[-1] if _error_lines else "no reason given"
                raise RuntimeError(f"llama_decode returned {status}: {reason}")
            self.n_past += len(part)

    def _check_open(self) -> None:
        if not self._ptr:
            raise ValueError("the context is closed")  # llama.cpp would take the process down

    def logits(self, index: int = -1) -> np.ndarray:
        """(n_vocab,) float32: a view of the logits of batch token `index`, valid until the next `decode`."""
        row = _c.llama_get_logits_ith(self._ptr, index)
        return np.ctypeslib.as_array(row, shape=(self.model.n_vocab,))

    def sample(self, sampler: Sampler) -> int:
        """Let `sampler` choose the token that follows the last one decoded."""
        if sampler.may_fail:
            return sampler.choose(self.logits())
        return _c.llama_sampler_sample(sampler._ptr, self._ptr, -1)  # the same, quicker


def _gains_by_flash(model: Model, n_ctx: int) -> bool:
    """Whether flash attention writes faster than llama.cpp's other one, by what was measured.

    On a CPU it was 5 to 20 % faster in windows of up to 256 tokens, 30 % slower in one of 1,024, and half as fast with
    heads that are 24 wide, for whose odd end it has no instructions.
    """
    if model.on_gpu:
        return True
    width = _c.llama_model_n_embd(model._ptr) // max(1, _c.llama_model_n_head(model._ptr))
    return n_ctx <= _LONGEST_FLASH and width % _FLASH_WIDTH == 0


class Sampler(_Owned):
    """llama.cpp's own chain of samplers, in its usual order; see there for what each setting means.

    temp 0 always takes the likeliest token. logit_bias: token → what is added to its logit; -inf bans it. Same seed,
    same choices. Raises UserError for a grammar that llama.cpp cannot read.
    """

    _free = staticmethod(_c.llama_sampler_free)

    def __init__(
        self,
        model: Model,
        *,
        temp: float,
        top_k: int,
        top_p: float,
        min_p: float,
        repeat_penalty: float,
        frequency_penalty: float,
        presence_penalty: float,
        seed: int,
        grammar: str | None = None,
        logit_bias: Mapping[int, float] | None = None,
    ) -> None:
        self._candidates = np.zeros(model.n_vocab, _CANDIDATE)
        self._penalties: int | None = None
        self.may_fail = grammar is not None  # in `choose`, with an exception
        self._ptr = _c.llama_sampler_chain_init(_c.llama_sampler_chain_default_params())
        if logit_bias:
            biases = (_c.llama_logit_bias * len(logit_bias))(*logit_bias.items())
            self._add(_c.llama_sampler_init_logit_bias(model.n_vocab, len(logit_bias), biases))
        if grammar is not None:
            try:
                self._add(_grammar(model, grammar))
            except UserError:
                self.close()
                raise
        penalties = repeat_penalty, frequency_penalty, presence_penalty
        if penalties != (1.0, 0.0, 0.0):
            self._penalties = _c.llama_sampler_init_penalties(model.n_vocab, PENALTY_LAST_N, *penalties)
            self._add(self._penalties)
        if temp < _SMALLEST_TEMP:
            self._add(_c.llama_sampler_init_greedy())
            return
        self._add(_c.llama_sampler_init_top_k(top_k))
        self._add(_c.llama_sampler_init_top_p(top_p, 1))
        self._add(_c.llama_sampler_init_min_p(min_p, 1))
        self._add(_c.llama_sampler_init_temp(temp))
        self._add(_c.llama_sampler_init_dist(seed))

    def _add(self, sampler: int) -> None:
        _c.llama_sampler_chain_add(self._ptr, sampler)  # the chain owns it from here on

    def accept(self, tokens: Sequence[int]) -> None:
        """Take note of tokens that were read, not sampled: the penalties look back at them too."""
        if self._penalties is not None:  # only them: a grammar is about what is written
            for token in tokens:
                _c.llama_sampler_accept(self._penalties, token)

    def choose(self, logits: np.ndarray) -> int:
        """Choose a token by logits of shape (n_vocab,).

        Raises UserError when the grammar allows nothing that the vocabulary can spell.
        """
        candidates = self._candidates
        candidates["id"] = np.arange(len(candidates))
        candidates["logit"] = logits
        data = candidates.ctypes.data_as(_c.llama_token_data_p)
        array = _c.llama_token_data_array(data, len(candidates), -1, False)
        _c.llama_sampler_apply(self._ptr, ctypes.byref(array))
        chosen = array.data[array.selected]
        if chosen.logit == -np.inf:  # to accept it would take the process down
            raise UserError("--grammar: nothing that the vocabulary can spell fits it here; check what it allows")
        token = chosen.id
        _c.llama_sampler_accept(self._ptr, token)
        return token


def _grammar(model: Model, grammar: str) -> int:
    """A sampler that allows what a grammar does, from its rule `root`."""
    if model.eos < 0:
        raise UserError("--grammar: this model has no end-of-text token, so what fits could never end")
    _error_lines.clear()
    data = grammar.encode("utf-8", "replace")
    if not data.strip():  # llama.cpp would allow everything
        raise UserError("--grammar is empty; see llama.cpp/grammars/README.md for what it may be")
    if b"\0" in data:
        raise UserError("--grammar holds a NUL character; see llama.cpp/grammars/README.md for what it may be")
    if _nesting(data) > _MAX_NESTING:  # its parser calls itself for each, until the stack overflows
        raise UserError(f"--grammar has more than {_MAX_NESTING} parentheses in each other; give them names as rules")
    with _stderr_lines() as lines:
        sampler = _c.llama_sampler_init_grammar(model._vocab, data, b"root")
    if not sampler:
        reasons = [*lines, *_error_lines]
        reason = reasons[0].removeprefix("parse: error parsing grammar: ") if reasons else "no reason given"
        raise UserError(f"--grammar cannot be read: {reason}; see llama.cpp/grammars/README.md")
    return sampler


def _nesting(grammar: bytes) -> int:
    """How many parentheses are open at once, at most; those in texts count, too."""
    depths = accumulate((byte == ord("(")) - (byte == ord(")")) for byte in grammar)
    return max(depths, default=0)


@contextlib.contextmanager
def _stderr_lines() -> Iterator[list[str]]:
    """Collect, from here to the end of `with`, what C code prints to stderr."""
    lines: list[str] = []
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]


def score_windows(
    path: str | os.PathLike[str], windows: Sequence[Sequence[int]], f32_cache: bool = True
) -> Iterator[np.ndarray]:
    """Yield (len(window), n_vocab) float32 logits for each window of token ids, read from position 0 alone.

    The file is loaded once. Raises UserError for an unreadable file, ValueError for an empty window or one
    that is longer than the model's positions.
    """
    if not windows:
        return
    longest = max(len(window) for window in windows)
    with Model(path) as model, Context(model, longest, longest, n_threads=1, f32_cache=f32_cache) as context:
        for window in windows:
            context.clear()
            context.decode(window, all_logits=True)
            yield np.stack([context.logits(i) for i in range(len(window))])


def _check_file(path: Path) -> None:
    """Raise UserError for what is certainly not a GGUF file, before llama.cpp words it less clearly."""
    if path.is_dir():
        raise UserError(f"{path}: a folder; give a .gguf file")
    if not path.exists():
        raise UserError(f"{path}: no such file; write one with convert_to_gguf.py")
    if not path.is_file():  # reading a pipe or a device could wait for ever
        raise UserError(f"{path}: not a regular file; give a .gguf file")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except PermissionError:
        raise UserError(f"{path}: permission denied; make it readable (chmod u+r {path})") from None
    if not magic:
        raise UserError(f"{path}: an empty file; {_REDO}")
    if magic != b"GGUF":
        raise UserError(f"{path}: not a GGUF file; give the .gguf that convert_to_gguf.py wrote")


def _load_failure() -> str:
    """The first error llama.cpp logged while loading: the ones after it only say that loading failed."""
    if not _error_lines:
        return "no reason given"
    _function, _, message = _error_lines[0].partition(": ")
    return message.removeprefix("error loading model: ")


def quantize_file(source: str | os.PathLike[str], target: str | os.PathLike[str], file_type: int) -> None:
    """Write the GGUF file `source` to `target` in llama.cpp's `enum llama_ftype` `file_type`.

    Raises UserError, with llama.cpp's reason, when it refuses.
    """
    params = _c.llama_model_quantize_default_params()
    params.ftype = file_type
    _error_lines.clear()
    if _c.llama_model_quantize(os.fsencode(source), os.fsencode(target), params) != 0:
        raise UserError(f"{source} cannot be quantized: {_load_failure()}")
