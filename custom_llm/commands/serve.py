"""A GGUF model as a server that speaks OpenAI's language, with a page to try it on.

    python serve_gguf.py                                     # the newest .gguf here, on http://127.0.0.1:8000
    python serve_gguf.py --gguf_path model.gguf.Q8_0.gguf --port 8080
    python serve_gguf.py --gguf_path base.gguf --lora model.lora.gguf
    CUSTOM_LLM_API_KEY=secret python serve_gguf.py --host 0.0.0.0
    curl http://127.0.0.1:8000/v1/completions -H "Content-Type: application/json" -d '{"prompt": "Once"}'

Ctrl-C ends it. docs/serving.md tells what it understands.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
from collections.abc import Sequence

from custom_llm.cli.parser import Repeatable, StepParser, number
from custom_llm.common.errors import UserError
from custom_llm.common.notes import warn
from custom_llm.common.steps import install
from custom_llm.common.text import shown
from custom_llm.inference.open import add_model_flags, choose_model, open_engine

KEY_VARIABLE = "CUSTOM_LLM_API_KEY"
ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://[^/?#\s]+|\*")  # as browsers send it: nothing behind the port
DEFAULT_PORTS = {"http": ":80", "https": ":443"}  # which browsers leave out


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; return the exit status."""
    args = make_parser().parse_args(argv)
    api_key = check_key(args.api_key, os.environ.get(KEY_VARIABLE))
    origins = [as_origin(origin) for origin in args.cors_origin]
    try:
        from custom_llm.server.app import make_app
        from custom_llm.server.run import LOCAL_NAMES, listen, serve
        from custom_llm.server.scheduler import Worker
    except ImportError as error:
        if error.name and error.name.startswith("custom_llm"):
            raise
        raise UserError(f"{error.name} is missing: {install('serve')}") from None

    with listen(args.host, args.port) as listener:
        host, port = listener.getsockname()[:2]
        is_local = ipaddress.ip_address(host).is_loopback
        host = f"[{host}]" if ":" in host else host
        if not is_local and api_key is None:
            raise UserError(
                f"--host {args.host} can be reached from other computers: set {KEY_VARIABLE} (or --api_key), "
                "or leave --host out"
            )
        path = choose_model(args.gguf_path)
        with open_engine(
            path, args.use_gpu, args.n_gpu_layers, args.threads, warn=warn, thorough=True, lora=args.lora
        ) as engine:
            for _ in engine.generate("", 1):  # a model that cannot write says so now
                pass
            worker = Worker(args.queue)
            app = make_app(
                engine, worker, max_body=args.max_body, max_tokens=args.max_tokens, grammars=args.grammars,
                api_key=api_key, hosts={*LOCAL_NAMES, host} if is_local else set(), cors_origins=origins,
            )  # fmt: skip
            serve(app, worker, listener, f"serving {engine.model.path.name} on http://{host}:{port} (Ctrl-C ends it)")
    return 0


def check_key(flag: str | None, variable: str | None) -> str | None:
    """The key that clients are asked for, by the flag or the environment; UserError where that cannot be one."""
    name, key = ("--api_key", flag) if flag is not None else (KEY_VARIABLE, variable)
    if key == "":  # of a variable that is not set; whoever asks for a key shall not go without one
        raise UserError(f"{name} is empty, and would let everybody in; give it a key, or leave it out")
    if key is not None and not re.fullmatch("[!-~]+", key):
        raise UserError(
            f"{name} has characters that no HTTP header can hold; take another, such as {secrets.token_hex(16)}"
        )
    return key


def as_origin(typed: str) -> str:
    """An origin as browsers send it; UserError where they would never send one like that."""
    found = ORIGIN.fullmatch(typed.lower())
    if not found:
        raise UserError(
            f"--cors_origin {shown(typed)[1:-1]} is no origin; give one such as https://their.address, without a path"
        )
    return found[0].removesuffix(DEFAULT_PORTS.get(found[1], ""))


def make_parser() -> StepParser:
    """The command line."""
    parser = StepParser(__doc__, "serve_gguf")
    add = parser.add_argument
    add("--gguf_path", metavar="FILE", help="the model (default: the newest .gguf in this folder); or a .pth")
    add("--host", default="127.0.0.1", metavar="HOST", help="where to listen (default: 127.0.0.1, this computer only)")
    add("--port", type=number(int, 0, 65535), default=8000, metavar="N", help="0: any that is free (default: 8000)")
    add("--api_key", metavar="KEY", help=f"ask clients for it (default: {KEY_VARIABLE} of the environment, if set)")
    add("--cors_origin", action=Repeatable, default=(), metavar="URL",
        help="let pages of this origin read answers; repeatable")  # fmt: skip
    add("--queue", type=number(int, 1, 100_000), default=256, metavar="N", help="requests that may wait (default: 256)")
    add("--max_body", type=number(int, 1000, 2**30), default=1_000_000, metavar="BYTES",
        help="largest request (default: 1000000)")  # fmt: skip
    add("--max_tokens", type=number(int, 1, 10**9), default=16384, metavar="N",
        help="tokens that a request may have written or scored, over all its texts (default: 16384)")  # fmt: skip
    add("--grammars", action="store_true",
        help="let requests have grammars; some take seconds for a token, so only for clients you trust")  # fmt: skip
    add_model_flags(parser)
    return parser
