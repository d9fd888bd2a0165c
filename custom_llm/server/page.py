"""The playground: one page that may do nothing but talk to its own server."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from fastapi.responses import HTMLResponse

PAGE = Path(__file__).with_name("page.html")
SCRIPT = re.compile(r"<script\b[^>]*>(.*?)</script>", re.DOTALL)


def load_page() -> HTMLResponse:
    """The page, with headers that allow its own scripts, by their hashes, and its style, and nothing from elsewhere."""
    text = PAGE.read_text(encoding="utf-8")
    hashes = [hashlib.sha256(script.encode()).digest() for script in SCRIPT.findall(text)]
    scripts = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes) or "'none'"
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return HTMLResponse(text, headers=headers)
