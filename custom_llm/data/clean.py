"""What can be left out of documents before they are learnt (`--clean`), and what in a text would be.

markdown    front matter, pictures and other bytes spelled in base64, and links that track their reader
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from custom_llm.data.conversations import WHATSAPP
from custom_llm.data.text import lines
from custom_llm.tokenizer.base import END_OF_TEXT

LOOKED_AT = 1 << 18  # characters of a text in which is looked for what could be left out
FRONT_LINES = 200  # at most, of front matter
FENCES = ("---", "+++")  # of YAML and of TOML
# A line of front matter: `key: value`, `key = value`, an item or what goes on with the line before, or a comment.
FRONT = re.compile(r"[A-Za-z_][\w -]{0,40}:(\s|$)|[A-Za-z_][\w.-]* *=|\s+\S|- |-$|#|\[|\]|\}|$")
# Its first key is no word that a sentence begins with, as `Monday: rain.` between two rules does.
FIRST_KEY = re.compile(r"#|\[|([a-z_]\w*|(?i:title|date|tags|author|aliases|categories|created|type))\s*[:=]")
DATA = re.compile(
    r"!?\[[^\]\n]*\]\(\s*<?data:[^)\s]*>?[^)\n]*\)"  # a picture in Markdown
    r"|^\[[^\]\n]+\]:\s*<?data:\S+"  # its definition at the end of a document
    r"|<img\b[^>]*?\bsrc=[\"']data:[^>]*>"
    r"|data:[\w.+/-]+;base64,[A-Za-z0-9+/=]+",
    re.MULTILINE,
)
BASE64 = re.compile(r"[ \t]*(?=\S*[A-Z])(?=\S*[a-z])(?=\S*\d)[A-Za-z0-9+/]{60,}={0,2}\s*")  # a line of nothing else
ITS_END = re.compile(r"[ \t]*[A-Za-z0-9+/]+={0,2}\s*")
TRACKING = re.compile(r"(?:utm_\w+|fbclid|gclid|dclid|msclkid|yclid|igshid|mc_[ce]id|_hsenc|_hsmi|mkt_tok)=")
LINK = re.compile(r"https?://[^\s<>()\[\]\"']*\?[^\s<>()\[\]\"']*")
FRONT_MATTER, BLOBS, LINKS = "front matter", "base64", "tracking links"


def clean_markdown(pieces: Iterable[str], seen: Counter[str] | None = None) -> Iterator[str]:
    """A document without those three, line by line; `seen` counts what is left out, by FRONT_MATTER, BLOBS and LINKS.

    What lies between the two rules of an opening `---` is front matter only if each line of it looks so.

    >>> "".join(clean_markdown(["---\\ntitle: Rain\\n---\\nIt rains, https://a.org/b?utm_source=x&p=1 says."]))
    'It rains, https://a.org/b?p=1 says.'
    """
    seen = Counter() if seen is None else seen
    in_base64 = False
    for line in _without_front(lines(pieces, "a document"), seen):
        in_base64 = bool(BASE64.fullmatch(line) or (in_base64 and ITS_END.fullmatch(line)))
        cleaned = "" if in_base64 else DATA.sub("", line) if "data:" in line else line
        seen[BLOBS] += cleaned != line
        if cleaned != line and not cleaned.strip():
            continue
        if "?" in cleaned and "://" in cleaned:
            untracked = LINK.sub(_untracked, cleaned)
            seen[LINKS] += untracked != cleaned
            cleaned = untracked
        yield cleaned


def _without_front(rest: Iterator[str], seen: Counter[str]) -> Iterator[str]:
    """The lines behind front matter and the empty ones behind that, or all."""
    held: list[str] = []
    for line in rest:
        held.append(line)
        text, place = line.rstrip(), len(held)
        if place > 2 and text in (held[0].rstrip(), "..."):
            seen[FRONT_MATTER] += 1
            held = [next((line for line in rest if line.strip()), "")]
            break
        fits = text in FENCES if place == 1 else (FIRST_KEY if place == 2 else FRONT).match(text)
        if not fits or place > FRONT_LINES:
            break
    yield from chain(held, rest)


def _untracked(link: re.Match[str]) -> str:
    """A link without the parameters that track."""
    start, _, query = link[0].partition("?")
    query, hash_, fragment = query.partition("#")
    kept = [each for each in query.split("&") if not TRACKING.match(each)]
    return start + ("?" + "&".join(kept) if kept else "") + hash_ + fragment


def advice(text: str) -> Iterator[str]:
    """What a person may want to know about the beginning of a text that is learnt as it is, a line each."""
    seen: Counter[str] = Counter()
    for document in text.split(END_OF_TEXT):
        for _ in clean_markdown([document], seen):
            pass
    if found := ", ".join(f"{what} ({n:,}×)" for what, n in seen.items() if n):
        yield f"the text has {found}; --clean markdown leaves that out"
    if len(WHATSAPP.findall(text[:10_000])) > 2:
        yield "this looks like a chat; it is learnt as plain text, with its dates and names"


CLEANERS: dict[str, Callable[[Iterable[str]], Iterable[str]]] = {"none": iter, "markdown": clean_markdown}
