"""Numbers written as people think of them, 2**15 or 8 * 1024, read without running anything."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable

LARGEST = 10**15
LONGEST = 100  # characters
OPERATORS: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}


def parse_count(text: str) -> int:
    """A whole number of at least 1, or + - * // ** of such.

    Raises:
        ValueError: it is none, ready to follow the name and the text.

    >>> parse_count("4 * 2**15")
    131072
    """
    try:
        if len(text) > LONGEST:
            raise ValueError
        value = _evaluate(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, RecursionError, MemoryError):
        raise ValueError("is not a whole number, or + - * // ** of such, like 2**15") from None
    if not 1 <= value <= LARGEST:
        raise ValueError(f"is not from 1 to {LARGEST:.0e}")
    return value


def _evaluate(node: ast.AST) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        value = node.value
    elif isinstance(node, ast.BinOp):
        left, right = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.Pow) and not 0 <= right <= 64:
            raise ValueError
        value = OPERATORS[type(node.op)](left, right)
    else:
        raise ValueError
    if abs(value) > LARGEST**2:  # before the next power of it
        raise ValueError
    return value
