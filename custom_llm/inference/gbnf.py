"""Grammars in llama.cpp's GBNF, read into rules (its grammars/README.md describes the language)."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from custom_llm.common.errors import UserError
from custom_llm.common.text import as_read, counted, shown

MAX_SYMBOLS = 100_000  # of all rules together, where what is repeated counts as often as it is
LAST = 0x10FFFF  # code point
ESCAPES = {"t": "\t", "r": "\r", "n": "\n", **{char: char for char in '\\"[]-'}}
HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


class Characters(NamedTuple):
    """One character of some; ranges of code points, disjoint and in order."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]  # which belong to them

    def has_one_of(self, low: int, high: int) -> bool:
        """Whether a character from `low` to `high` is among them."""
        place = bisect_right(self.starts, high) - 1
        return place >= 0 and self.ends[place] >= low


class Token(NamedTuple):
    """A token of the vocabulary, or any but it."""

    token: int
    is_other: bool


class Rule(NamedTuple):
    """What stands for a rule, by its number."""

    number: int


Symbol = Characters | Token | Rule
Alternatives = list[list[Symbol]]


def read_grammar(text: str, tokenize: Callable[[str], list[int]]) -> tuple[int, list[Alternatives]]:
    """The number of the rule `root`, and all rules, each as its alternatives.

    tokenize: makes ids of a text. Raises UserError where the grammar cannot be read or is too large, or a rule begins
    with itself.
    """
    reader = _Reader(as_read(text), tokenize)
    try:
        root = reader.read()
    except RecursionError:
        raise UserError("--grammar has too many parentheses in each other; give them names as rules") from None
    _refuse_left_recursion(reader.rules, reader.names)
    return root, reader.rules


def nullable(rules: list[Alternatives]) -> set[int]:
    """The rules that nothing at all fits."""
    found: set[int] = set()
    size = -1
    while len(found) > size:
        size = len(found)
        for number in reversed(range(len(rules))):
            if any(all(isinstance(part, Rule) and part.number in found for part in parts) for parts in rules[number]):
                found.add(number)
    return found


class _Reader:
    def __init__(self, text: str, tokenize: Callable[[str], list[int]]) -> None:
        self.text, self.place, self.tokenize = text, 0, tokenize
        self.rules: list[Alternatives] = []
        self.names: dict[str, int] = {}
        self.size = 0  # symbols so far

    def read(self) -> int:
        if not self.text.strip():  # llama.cpp would allow everything
            raise UserError("--grammar is empty; see grammars/README.md of llama.cpp for what it may be")
        self.space(True)
        while self.place < len(self.text):
            number = self.named(self.take(r"[a-zA-Z0-9-]+", "the name of a rule"))
            self.space(False)
            self.take("::=", "::=")
            self.space(True)
            self.rules[number] = self.alternatives(False)
            if self.place < len(self.text):
                self.take("\n", "the end of the line")
            self.space(True)
        for name, number in self.names.items():
            if not self.rules[number]:
                raise UserError(f"--grammar cannot be read: there is no rule {shown(name)[1:-1]}, which another needs")
        if "root" not in self.names:
            raise UserError("--grammar cannot be read: it has no rule root, with which a text begins")
        return self.names["root"]

    def named(self, name: str) -> int:
        return self.names[name] if name in self.names else self.names.setdefault(name, self.new([]))

    def new(self, alternatives: Alternatives) -> int:
        self.count(sum(map(len, alternatives)) + 1)
        self.rules.append(alternatives)
        return len(self.rules) - 1

    def count(self, symbols: int) -> None:
        self.size += symbols
        if self.size > MAX_SYMBOLS:
            raise UserError(f"--grammar has more than {counted(MAX_SYMBOLS, 'symbol')}, with repetitions; repeat less")

    def alternatives(self, is_nested: bool) -> Alternatives:
        found = [self.sequence(is_nested)]
        while self.next("|"):
            self.space(True)
            found.append(self.sequence(is_nested))
        return found

    def sequence(self, is_nested: bool) -> list[Symbol]:
        symbols: list[Symbol] = []
        begin = 0  # of what a repetition is about
        while self.place < len(self.text):
            char = self.text[self.place]
            if char in "*+?{":
                self.repeat(symbols, begin)
            elif (item := self.item(char)) is not None:
                begin = len(symbols)
                symbols += item
                self.count(len(item))
            else:
                break
            self.space(is_nested)
        return symbols

    def item(self, char: str) -> list[Symbol] | None:
        if self.next('"'):
            found = []
            while not self.next('"'):
                found.append(_characters([(code := self.code(), code)]))
            return found
        if self.next("["):
            is_other, ranges = self.next("^"), []
            while not self.next("]"):
                low = high = self.code()
                if self.text.startswith("-", self.place) and not self.text.startswith("-]", self.place):
                    self.place += 1
                    high = self.code()
                ranges.append((low, high))
            return [_characters(ranges, is_other)]
        if self.next("."):
            return [_characters([], True)]
        if char in "<!":
            is_other = self.next("!")
            spelled = self.take(r"<[^>]*>", "a token such as <|end|>")
            found = re.fullmatch(r"<\[([0-9]{1,9})\]>", spelled)
            ids = [int(found[1])] if found else self.tokenize(spelled)
            if len(ids) != 1:
                self.fail(f"one token, which {shown(spelled)} is not,")
            return [Token(ids[0], is_other)]
        if self.next("("):
            self.space(True)
            group = self.new(self.alternatives(True))
            self.take(r"\)", "a closing parenthesis")
            return [Rule(group)]
        if re.match("[a-zA-Z0-9-]", char):
            return [Rule(self.named(self.take(r"[a-zA-Z0-9-]+", "the name of a rule")))]
        return None

    def repeat(self, symbols: list[Symbol], begin: int) -> None:
        """Let what stands from `begin` on be repeated: S{2,4} is S S S', where S' ::= S S'' | and S'' ::= S |"""
        repeated = symbols[begin:]
        if not repeated:
            self.fail("something to repeat before it")
        sign = self.take(r"[*+?]|\{[ \t\n]*[0-9]{1,9}[ \t\n]*(,[ \t\n]*([0-9]{1,9})?[ \t\n]*)?\}", "a repetition")
        numbers = [int(number) for number in re.findall("[0-9]+", sign)]
        least = numbers[0] if numbers else int(sign == "+")
        most = 1 if sign == "?" else numbers[-1] if numbers and not sign.rstrip(" \t\n}").endswith(",") else None
        if most is not None and most < least:
            raise UserError(f"--grammar: in {' '.join(sign.split())} the second number is smaller than the first")
        self.count(len(repeated) * max(0, least - 1))
        symbols[begin:] = repeated * least
        if most is None:
            more = self.new([[], []])
            self.rules[more][0] = [*repeated, Rule(more)]
            symbols.append(Rule(more))
            return
        rest: list[Symbol] = []
        for _ in range(most - least):
            rest = [Rule(self.new([[*repeated, *rest], []]))]
        symbols += rest

    def code(self) -> int:
        """A character of a text or a set."""
        char = self.take(r"(?s:\\.|.)", "more: it ends within quotes or brackets")
        if len(char) == 1:
            return ord(char)
        if digits := HEX_DIGITS.get(char[1]):
            return int(self.take(rf"[0-9a-fA-F]{{{digits}}}", f"{digits} hexadecimal digits"), 16)
        if char[1] not in ESCAPES:
            self.fail(f"a known escape, which {char} is not,")
        return ord(ESCAPES[char[1]])

    def space(self, newline_too: bool) -> None:
        pattern = r"(?:[ \t\n]|#[^\n]*)*" if newline_too else r"(?:[ \t]|#[^\n]*)*"
        self.place = re.compile(pattern).match(self.text, self.place).end()

    def next(self, char: str) -> bool:
        """Pass over `char` if it is next."""
        found = self.text.startswith(char, self.place)
        self.place += found
        return found

    def take(self, pattern: str, words: str) -> str:
        found = re.compile(pattern).match(self.text, self.place)
        if not found:
            self.fail(words)
        self.place = found.end()
        return found[0]

    def fail(self, words: str) -> None:
        line = self.text.count("\n", 0, self.place) + 1
        rest = self.text[self.place :].partition("\n")[0]
        raise UserError(
            f"--grammar cannot be read: line {line} should have {words} at {shown(rest) if rest else 'its end'}; see "
            "grammars/README.md of llama.cpp"
        )


def _characters(ranges: Iterable[tuple[int, int]], is_other: bool = False) -> Characters:
    """The characters of some ranges; or all others, but for NUL, which is in no text."""
    merged: list[list[int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1][1] = max(high, merged[-1][1])
        elif low <= high:
            merged.append([low, high])
    if is_other:
        gaps, low = [], 1
        for start, end in merged:
            if low < start:
                gaps.append([low, start - 1])
            low = max(low, end + 1)
        merged = [*gaps, [low, LAST]] if low <= LAST else gaps
    return Characters(tuple(low for low, _ in merged), tuple(high for _, high in merged))


def _refuse_left_recursion(rules: list[Alternatives], names: dict[str, int]) -> None:
    """Raise UserError where a rule begins with itself, maybe after others that nothing fits: it would never end."""
    empty, firsts = nullable(rules), {}
    for number, alternatives in enumerate(rules):
        firsts[number] = set()
        for parts in alternatives:
            for part in parts:
                if isinstance(part, Rule):
                    firsts[number].add(part.number)
                if not (isinstance(part, Rule) and part.number in empty):
                    break
    try:
        TopologicalSorter(firsts).prepare()
    except CycleError as error:
        named = [name for name, number in names.items() if number in error.args[1]]
        what = f"the rule {shown(named[0])[1:-1]} begins with itself" if named else "what may be nothing is repeated"
        raise UserError(
            f"--grammar: {what} (left recursion), so reading it would never end; write it otherwise"
        ) from None
