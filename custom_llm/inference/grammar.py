"""What a grammar allows next, as tokens of a vocabulary: in Python, so that its work is bounded and Ctrl-C ends it.

A state is a set of places in the rules at which a character is expected, each in a frame, which knows where it goes on
once its rule is over. As in Tomita's parser (1985) frames are shared: all places that expect the same rule have one, so
that a text which fits in 2^30 ways takes no longer than others. Equal frames and states are made once, and a state
remembers what follows each character: a grammar soon becomes a table to look things up in.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

import numpy as np

from custom_llm.common.errors import UserError
from custom_llm.inference.gbnf import LAST, Characters, Rule, Token, nullable, read_grammar

if TYPE_CHECKING:
    from custom_llm.inference.sampler import Sampler  # or llama.cpp's
    from custom_llm.llamacpp import Model

MAX_WORK = 200_000  # places looked at for one token: about half a second; what is no attack takes some thousands
MAX_KEPT = 500_000  # places of all states and frames that are remembered: about 100 MB
OVER = 0  # the place behind all rules


class Frame:
    """Where a rule goes on once it is over: places, each in a frame."""

    __slots__ = ("returns",)

    def __init__(self, returns: frozenset[Item]) -> None:
        self.returns = returns


Item = tuple[int, Frame]


class State:
    """What a text may go on with: items at which a character or token is expected, or the text may be over."""

    __slots__ = ("after", "allowed", "items")

    def __init__(self, items: frozenset[Item]) -> None:
        self.items = items
        self.after: dict[str, State | None] = {}  # character → what follows it; None: it is not allowed
        self.allowed: dict[bytes, np.ndarray] = {}  # what is there of a character → (n_vocab,) of bool


class Vocabulary:
    """The tokens of a model by their text, in order: those that begin alike stand together."""

    def __init__(self, model: Model) -> None:
        tokens = range(model.n_vocab)
        self.n_vocab, self.tokenize = model.n_vocab, model.tokenize
        self.spelled = [model.token_bytes(token) for token in tokens]
        self.ends = [token for token in tokens if model.ends_text(token)]
        texts = {token for token in tokens if self.spelled[token]} - {*self.ends}
        self._continuing = [token for token in texts if 0x80 <= self.spelled[token][0] < 0xC0]
        self._sorted = {b"": Texts(self.spelled, b"", texts - {*self._continuing})}

    def after(self, begun: bytes) -> Texts:
        """The tokens that may follow these bytes of a character."""
        if begun not in self._sorted:
            self._sorted[begun] = Texts(self.spelled, begun, self._continuing)
        return self._sorted[begun]


class Texts:
    """Tokens in the order of their texts.

    A row: the text, the token, bytes of one more character, and in how many characters it is as the text before it.
    """

    def __init__(self, spelled: list[bytes], begun: bytes, tokens: Iterable[int]) -> None:
        rows = sorted((*parts, token) for token in tokens if (parts := split(begun + spelled[token])) is not None)
        self.texts = [text for text, _, _ in rows]
        shared = [n_shared(*pair) for pair in zip(["", *self.texts], self.texts, strict=False)]
        self.rows = [(text, token, rest, n) for (text, rest, token), n in zip(rows, shared, strict=True)]


class Grammar:
    """A text that is to fit a grammar, token by token."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        """Raises UserError for a grammar that cannot be used."""
        if not vocabulary.ends:
            raise UserError("--grammar: this model has no end-of-text token, so what fits could never end")
        root, rules = read_grammar(text, vocabulary.tokenize)
        self._vocabulary, self._empty = vocabulary, nullable(rules)
        self._symbols: list[Characters | Token | Rule | None] = [None]  # at each place; None behind an alternative
        self._starts: list[list[int]] = []  # of each rule: the places at which its alternatives begin
        for alternatives in rules:
            self._starts.append([])
            for parts in alternatives:
                self._starts[-1].append(len(self._symbols))
                self._symbols += [*parts, None]
        self._frames: dict[frozenset[Item], Frame] = {}
        self._states: dict[frozenset[Item], State] = {}
        self._settled: dict[frozenset[Item], State] = {}
        self._kept = self._work = 0
        bottom = Frame(frozenset())
        self._over = (OVER, bottom)
        whole = self._frame(frozenset([self._over]))
        self._state = self._settle(frozenset((place, whole) for place in self._starts[root]))
        self._begun = b""  # the bytes of a character that are there

    def allowed(self) -> np.ndarray:
        """(n_vocab,) of bool: the tokens that may follow."""
        self._work = 0
        found = self._state.allowed.get(self._begun)
        if found is None:
            found = self._state.allowed[self._begun] = self._look_up()
            self._keep(len(found) // 100)
        return found

    def accept(self, token: int) -> None:
        """Go on with one of them."""
        parts = split(self._begun + self._vocabulary.spelled[token])
        text, begun = parts or ("", b"")
        state = self._state if parts else None
        for char in text:
            state = state and self._after(state, char)
        as_token = [] if self._begun else [item for item in self._state.items if self._is_named(item[0], token)]
        if as_token:  # and not for its characters, or for them too
            named = self._settle(frozenset((place + 1, frame) for place, frame in as_token))
            state = named if begun or state is None else self._make(named.items | state.items)
            begun = b""
        self._state, self._begun = state or State(frozenset()), begun
        if self._kept > MAX_KEPT:
            self._kept = 0
            for remembered in (self._frames, self._states, self._settled):
                remembered.clear()
            self._state = State(self._state.items)

    def _is_named(self, place: int, token: int) -> bool:
        symbol = self._symbols[place]
        return isinstance(symbol, Token) and (symbol.token == token) != symbol.is_other

    def _look_up(self) -> np.ndarray:
        """`allowed` by trying all tokens, of those that begin with what is not allowed only the first."""
        vocabulary, allowed = self._vocabulary, np.zeros(self._vocabulary.n_vocab, bool)
        if not self._begun:
            for place, _ in self._state.items:
                if isinstance(symbol := self._symbols[place], Token):
                    allowed |= (np.arange(len(allowed)) == symbol.token) != symbol.is_other
            allowed[vocabulary.ends] = self._over in self._state.items
        path = [self._state]  # after each character of a text that may be
        texts, rows, row = (found := vocabulary.after(self._begun)).texts, found.rows, 0
        while row < len(rows):
            text, token, begun, shared = rows[row]
            row += 1
            del path[shared + 1 :]
            for char in text[len(path) - 1 :]:
                if (state := self._after(path[-1], char)) is None:
                    row = bisect_left(texts, text[: len(path) - 1] + chr(min(ord(char) + 1, LAST)), row)
                    break
                path.append(state)
            else:
                if not begun or self._may_begin(path[-1], begun):
                    allowed[token] = True
        return allowed

    def _may_begin(self, state: State, begun: bytes) -> bool:
        """Whether a character may come that begins with these bytes."""
        low, high = code_points(begun)
        symbols = (self._symbols[place] for place, _ in state.items)
        return any(isinstance(symbol, Characters) and symbol.has_one_of(low, high) for symbol in symbols)

    def _after(self, state: State, char: str) -> State | None:
        try:
            return state.after[char]
        except KeyError:
            code, symbols = ord(char), self._symbols
            self._count(len(state.items))
            items = frozenset(
                (place + 1, frame)
                for place, frame in state.items
                if isinstance(symbols[place], Characters) and symbols[place].has_one_of(code, code)
            )
            found = state.after[char] = self._settle(items) if items else None
            return found

    def _settle(self, items: frozenset[Item]) -> State:
        """The state at these places: rules that begin there are gone into, and those that are over gone out of."""
        if found := self._settled.get(items):
            return found
        symbols, ready, seen, todo = self._symbols, set(), set(), [*items]
        # Of each rule that begins here, what will be its frame: for now, its number stands for it. It is made of items,
        # and of the frames of rules that are over when it is.
        returns: dict[int, set[tuple[int, Frame | int]]] = {}
        tails: dict[int, set[int]] = {}
        while todo:
            if (item := todo.pop()) in seen:
                continue
            seen.add(item)
            place, frame = item
            symbol = symbols[place]
            if place == OVER or isinstance(symbol, (Characters, Token)):
                ready.add(item)
            elif symbol is None:  # the rule is over; one that began here is gone over below, where it may be empty
                todo += frame.returns if isinstance(frame, Frame) else ()
            else:
                rule = symbol.number
                if rule not in returns:
                    returns[rule], tails[rule] = set(), set()
                    todo += [(start, rule) for start in self._starts[rule]]
                if symbols[place + 1] is not None:
                    returns[rule].add((place + 1, frame))
                elif isinstance(frame, Frame):
                    returns[rule] |= frame.returns
                else:
                    tails[rule].add(frame)
                if rule in self._empty:
                    todo.append((place + 1, frame))
            self._count(1)
        frames: dict[int, Frame] = {}
        order = {
            rule: tails[rule] | {frame for _, frame in returns[rule] if isinstance(frame, int)} for rule in returns
        }
        for rule in TopologicalSorter(order).static_order():  # without left recursion there is an order
            made = {(place, frames.get(frame, frame)) for place, frame in returns[rule]}
            made.update(*(frames[tail].returns for tail in tails[rule]))
            self._count(len(made))
            frames[rule] = self._frame(frozenset(made))
        found = self._settled[items] = self._make(frozenset((place, frames.get(f, f)) for place, f in ready))
        self._keep(len(items))
        return found

    def _frame(self, returns: frozenset[Item]) -> Frame:
        if returns not in self._frames:
            self._frames[returns] = Frame(returns)
            self._keep(len(returns))
        return self._frames[returns]

    def _make(self, items: frozenset[Item]) -> State:
        if items not in self._states:
            self._states[items] = State(items)
            self._keep(len(items))
        return self._states[items]

    def _keep(self, places: int) -> None:
        self._kept += places

    def _count(self, places: int) -> None:
        self._work += places
        if self._work > MAX_WORK:
            raise UserError(
                "--grammar allows so many ways here that to follow them would take too long; make it simpler"
            )


class GrammarSampler:
    """Lets another sampler choose among the tokens that a grammar allows."""

    def __init__(self, sampler: Sampler, grammar: Grammar) -> None:
        self._sampler, self._grammar = sampler, grammar
        self.accept, self.close = sampler.accept, sampler.close

    def choose(self, logits: np.ndarray) -> int:
        """Choose a token by logits of shape (n_vocab,). Raises UserError where none is allowed."""
        allowed = self._grammar.allowed()
        token = self._sampler.choose(np.where(allowed, logits, np.float32(-np.inf))) if allowed.any() else None
        if token is None or not allowed[token]:
            raise UserError("--grammar: nothing that the vocabulary can spell fits it here; check what it allows")
        self._grammar.accept(token)
        return token


def n_shared(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    n = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        n += 1
    return n


def split(data: bytes) -> tuple[str, bytes] | None:
    """The characters that bytes are, and those of one more that has begun; None where they are no UTF-8."""
    try:
        return data.decode(), b""
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return None
        return data[: error.start].decode(), data[error.start :]


def code_points(begun: bytes) -> tuple[int, int]:
    """The first and the last character that can begin with these bytes."""
    length = 2 if begun[0] < 0xE0 else 3 if begun[0] < 0xF0 else 4
    value = begun[0] & (0xFF >> (length + 1))
    for byte in begun[1:]:
        value = value << 6 | byte & 0x3F
    bits = 6 * (length - len(begun))
    return max(value << bits, (0x80, 0x800, 0x10000)[length - 2]), min((value + 1 << bits) - 1, LAST)
