"""Texts graded by another language model, as in TinyStories (Eldan & Li 2023, arXiv:2305.07759, section 3).

The model continues a beginning; a judge grades grammar, creativity and consistency from 1 to 10 and guesses the age of
the writer. A judge may answer anything: a grade that cannot be read in its answer is missing, and is counted as that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.text import as_read

QUALITIES = ("grammar", "creativity", "consistency")
LOWEST, HIGHEST = 1, 10
AGES = {"A": "3 or younger", "B": "4-5", "C": "6-7", "D": "8-9", "E": "10-12", "F": "13-16"}
PROMPT = Path(__file__).with_name("judge_prompt.txt")
PLACES = ("{beginning}", "{continuation}")
LONGEST_PROMPT = 1 << 16  # bytes of the file
LONGEST_ANSWER = 1 << 16  # characters that are read of an answer, from its end: there stand the grades
SHOWN = 80  # characters of an answer in which there is no grade
MOST_OBJECTS = 100  # beginnings of JSON objects that are tried

# For a judge that llama.cpp runs: what it writes can always be read.
GRAMMAR = r"""
root ::= "{\"grammar\": " grade ", \"creativity\": " grade ", \"consistency\": " grade ", \"age\": \"" [A-F] "\"}"
grade ::= "10" | [1-9]
"""

_WORDS = dict(zip("one two three four five six seven eight nine ten".split(), range(1, 11), strict=True))
_NUMBER = rf"(?P<number>[-+]?\d{{1,4}}(?:[.,]\d{{1,4}})?|\b(?:{'|'.join(_WORDS)})\b)(?![\w%]|[.,]\d)"
_GRADE = re.compile(rf"^[\s*]*{_NUMBER}[\s*]*(?:(?:/|out of)[\s*]*(?P<of>\d+|ten))?", re.IGNORECASE)
# "(1-10)" is no grade.
_SCALE = re.compile(r"\(?(?:on a scale )?(?:from |of )?\b1\s*(?:-|–|to)\s*10\b\)?", re.IGNORECASE)
_SIGNS = r"(?:(?!-\d)[^\w\n]){0,9}"  # a dash before a number may be its minus
_SEPARATOR = rf"{_SIGNS}(?:(?:is|as|at|of|score|grade|rating|a)\b{_SIGNS}){{0,4}}"
_AGE = re.compile(rf"\bage(?:[ _]group)?\b{_SEPARATOR}(?P<age>[A-F]\b|\d[^\n]{{0,9}})", re.IGNORECASE)


@dataclass(frozen=True)
class Grades:
    """Of one text; None is what could not be read."""

    grammar: float | None = None
    creativity: float | None = None
    consistency: float | None = None
    age: str | None = None  # a key of AGES
    problem: str = ""  # why there is not one grade; empty if there is


class NoAnswer(Exception):
    """This text got no answer; others may."""


def read_prompt(path: str | Path | None) -> str:
    """The prompt of a file, or ours. Raises UserError when it cannot be read, or what is judged has no place in it."""
    path = Path(path or PROMPT)
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"--judge_prompt {path} is not a regular file; give a text file")
        with path.open("rb") as file:
            prompt = as_read(file.read(LONGEST_PROMPT + 1))
    except OSError as error:
        raise UserError(f"--judge_prompt: cannot read {describe_os_error(error)}") from None
    except ValueError:  # bytes that are no UTF-8, a NUL in the name
        raise UserError(f"--judge_prompt {str(path)!r} is not a file of UTF-8 text") from None
    if len(prompt) > LONGEST_PROMPT:
        raise UserError(f"--judge_prompt {path} is longer than {LONGEST_PROMPT:,} characters; write a shorter one")
    missing = [place for place in PLACES if place not in prompt]
    if missing:
        raise UserError(f"--judge_prompt {path} has no {missing[0]} in it, which says where that is to stand")
    return prompt


def fill(prompt: str, beginning: str, continuation: str) -> str:
    """The prompt for one text, in which nothing is looked for once it is filled in."""
    texts = dict(zip(PLACES, (beginning, continuation), strict=True))
    return re.sub("|".join(map(re.escape, PLACES)), lambda found: texts[found[0]], prompt)


def mean_grade(grades: Sequence[Grades], quality: str) -> float | None:
    """Of the grades that could be read; None if none could."""
    found = [value for item in grades if (value := getattr(item, quality)) is not None]
    return mean(found) if found else None


def grade(
    ask: Callable[[str, str], str], texts: Sequence[tuple[str, str]], on_text: Callable[[int], object] = lambda n: None
) -> list[Grades]:
    """The grades of each text, which is a beginning and its continuation; `on_text` is told how many there are so far.

    ask: a beginning and its continuation → the judge's answer; raises `NoAnswer` where there is none.
    """
    grades = []
    for beginning, continuation in texts:
        try:
            answer = ask(beginning, continuation)
        except NoAnswer as error:
            grades.append(Grades(problem=f"no answer: {error}"))
        else:
            found = parse_grades(answer)
            if all(getattr(found, name) is None for name in QUALITIES):
                cut = "…" if len(answer) > SHOWN else ""
                found = replace(found, problem=f"no grade in {answer[:SHOWN]!r}{cut}")
            grades.append(found)
        on_text(len(grades))
    return grades


def parse_grades(answer: str) -> Grades:
    """What of the grades can be read in an answer, in JSON or in prose; the last of what is said twice.

    >>> parse_grades("Grammar: 8/10. Its creativity is seven; consistency: **11**. Age group: B (4-5)")
    Grades(grammar=8.0, creativity=7.0, consistency=None, age='B', problem='')
    """
    answer = answer[-LONGEST_ANSWER:]
    for values in _objects(answer):
        lowered = {str(key).lower().strip(): value for key, value in values.items()}
        if lowered.keys() & set(QUALITIES):
            age = lowered.get("age", lowered.get("age_group", lowered.get("age group")))
            return Grades(*(_grade(str(lowered.get(name))) for name in QUALITIES), _age(str(age)))
    prose = _SCALE.sub("", answer)
    grades = []
    for name in QUALITIES:
        places = [found.end() for found in re.finditer(rf"\b{name}\b{_SEPARATOR}", prose, re.IGNORECASE)]
        # What is only named ("its grammar, which …") has no grade behind it.
        grades.append(next((g for end in reversed(places) if (g := _grade(prose[end : end + 40])) is not None), None))
    ages = [found["age"] for found in _AGE.finditer(prose)]
    return Grades(*grades, _age(ages[-1]) if ages else None)


def _objects(answer: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in an answer, the last first."""
    decoder = json.JSONDecoder()
    end = len(answer)
    for _ in range(MOST_OBJECTS):
        end = answer.rfind("{", 0, end)
        if end < 0:
            return
        try:
            yield decoder.raw_decode(answer, end)[0]
        except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, brackets without end
            continue


def _grade(text: str) -> float | None:
    """`8`, `8.5`, `8/10`, `eight out of ten` as a number; None for what is none from LOWEST to HIGHEST."""
    found = _GRADE.match(text)
    if not found or (found["of"] or "10").lower() not in ("10", "ten"):
        return None
    number = found["number"].lower()
    value = float(_WORDS.get(number) or number.replace(",", "."))
    return value if LOWEST <= value <= HIGHEST else None


def _age(text: str) -> str | None:
    """`B`, `b: 4-5`, `4–5 years` or `5` as the letter of the group."""
    if letter := re.match(r"\s*([A-Fa-f])\b", text):
        return letter[1].upper()
    if years := re.match(r"\s*(\d{1,2})\b", text):
        lasts = {"A": 3, "B": 5, "C": 7, "D": 9, "E": 12, "F": 16}
        return next((group for group, last in lasts.items() if int(years[1]) <= last), None)
    return None
