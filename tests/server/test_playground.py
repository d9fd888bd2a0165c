"""The playground as a person uses it: serve_gguf.py's page in a real browser, with a real (random) model behind it."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ROOT
from playwright.sync_api import Browser, Page, Route, sync_playwright
from server_process import Served, served
from tiny_gguf import write_gpt2

PAGE = ROOT / "custom_llm" / "server" / "page.html"
IMAGE = "<img src=x onerror=hacked=1>"
SCRIPT = "</script><script>hacked=1</script>"
HEBREW, FAMILY = "שלום עולם", "👩‍👩‍👧"
HOSTILE = f"{IMAGE}{SCRIPT} {HEBREW}\n\t{FAMILY} e\N{COMBINING ACUTE ACCENT} & "
MIXED = f"Tom said {HEBREW} to her.\n{HEBREW}, (abc)!\n\n\tfinal office AVAVA  two\n{'w' * 120}"
KEY = "a-key"
REFUSED = "Failed to load resource"  # what chromium logs when the server answers 400 or 401, or is gone
EDITOR = "#text"
CONTROLS = {"button", "checkbox", "radio", "slider", "spinbutton", "textbox"}

# of what is shown: the least contrast of text to what is behind it, by the formula of WCAG 2
LEAST_CONTRAST = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => parse(colour).slice(0, 3)
    .map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const probe = document.body.appendChild(document.createElement("i"));
  const named = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
  const found = {};
  for (const [front, back] of [["ink", "paper"], ["model", "paper"], ["alarm", "paper"], ["muted", "paper"],
    ["strong", "mark"], ["strong", "rare-1"], ["strong", "rare-2"], ["strong", "rare-3"], ["strong", "rare-4"]])
    found[`${front} on ${back}`] = ratio(named(front), named(back)) / 4.5;
  found["typed beside written"] = ratio(named("ink"), named("model")) / 3;
  found["edges"] = ratio(named("edge"), named("paper")) / 3;
  probe.remove();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element);
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest(":disabled, .unseen, script")) continue;
    let back = element;
    while (back.parentElement && parse(getComputedStyle(back).backgroundColor)[3] === 0) back = back.parentElement;
    found[walker.currentNode.data] = ratio(style.color, getComputedStyle(back).backgroundColor) / 4.5;
  }
  return Object.entries(found).sort((a, b) => a[1] - b[1])[0];
}"""

# the characters of the mirror that are not where the text area, which lies over it, has them
MISPLACED = """() => {
  let at = 0;
  const wrong = [];
  for (const { firstChild: node } of document.querySelectorAll("#mirror div")) {
    for (let i = 0; i < node.length; i++) {
      const range = document.createRange();
      range.setStart(node, i);
      range.setEnd(node, i + 1);
      const box = range.getBoundingClientRect();
      const caret = document.caretPositionFromPoint(box.x + box.width / 2, box.y + box.height / 2);
      if (box.width && Math.abs((caret?.offset ?? NaN) - at - i - 0.5) !== 0.5) wrong.push([at + i, node.data[i]]);
    }
    at += node.length + 1;
  }
  return wrong;
}"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its name and what it says about itself are as hostile as the text that it can write."""
    card = {"general.description": SCRIPT, "custom_llm.example": HOSTILE, "general.license": f"<b>{HEBREW}"}
    path = tmp_path_factory.mktemp("model") / f"{IMAGE}.gguf"
    return write_gpt2(path, HOSTILE + "abcdefghijklmnopqrstuvwxyz.,", texts={"general.name": IMAGE, **card})


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Served]:
    with served(model, "--grammars") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser):
    """Opens the page; afterwards there must have been no error, no script of a text, and no request to elsewhere."""
    contexts, addresses, requested, logged, troubles = [], [], [], [], []

    def visit(server: Served, **options) -> Page:
        contexts.append(context := browser.new_context(**options))
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: logged.append(message.text))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on("request", lambda request: requested.append(request.url))
        page.goto(server.url)
        addresses.append(server.url + "/")
        return page

    yield visit
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("typeof hacked") == "undefined"
        context.close()
    assert not troubles
    assert not [url for url in requested if not url.startswith((*addresses, "data:"))]
    assert not [line for line in logged if REFUSED not in line]


def write(page: Page, text: str | None = None, **settings: object) -> str:
    """Let the model write on, and return the whole text."""
    start(page, text, **settings)
    page.locator("body:not(.writing)").wait_for()
    return page.input_value(EDITOR)


def start(page: Page, text: str | None = None, **settings: object) -> None:
    page.locator("#facts dd").first.wait_for(state="attached")
    if text is not None:
        page.fill(EDITOR, text)
    for name, value in {"max_tokens": 40, "seed": 1, **settings}.items():
        page.fill(f"#{name}", str(value))
    page.click("#write")


def requests(page: Page) -> list[dict]:
    """What the page will send for completions."""
    bodies: list[dict] = []
    page.on("request", lambda request: request.method == "POST" and bodies.append(request.post_data_json))
    return bodies


def occupy(server: Served) -> socket.socket:
    """Ask for a long text and do not read it: a place is taken until this is closed."""
    body = json.dumps({"prompt": "a", "max_tokens": 16000, "stream": True})
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = server.connect()
    connection.sendall((head + body).encode())
    return connection


def let_it_write(page: Page, text: str) -> None:
    """The model writes `text`, for a grammar that the page does not know of leaves it no choice."""

    def with_grammar(route: Route) -> None:
        body = route.request.post_data_json
        route.continue_(post_data={**body, "grammar": f"root ::= {json.dumps(text, ensure_ascii=False)}"})

    page.route("**/v1/completions", with_grammar)


def odds(page: Page) -> dict[str, float]:
    """What the panel says could stand there, and how likely it is."""
    rows = [row.split("\n") for row in page.locator("#odds_list button").all_inner_texts()]
    return {name: float(percent.removeprefix("< ").removesuffix(" %")) / 100 for name, percent in rows}


def point_at(page: Page, offset: int) -> None:
    """Put the pointer on a character of the first line."""
    page.evaluate("scrollTo(0, 0)")
    script = """(offset) => {
      const range = document.createRange(), node = document.querySelector("#mirror div").firstChild;
      range.setStart(node, offset);
      range.setEnd(node, offset + 1);
      const { x, y, width, height } = range.getBoundingClientRect();
      return [x + width / 2, y + height / 2];
    }"""
    page.mouse.move(*page.evaluate(script, offset))


def test_it_is_one_small_file():
    text = PAGE.read_text(encoding="utf-8")
    assert len(text.encode()) < 60_000
    assert "innerHTML" not in text
    assert re.findall(r"\w+://[\w./]+", text) == ["http://www.w3.org/2000/svg"]  # the name of a language


def test_text_streams_in_and_undo_takes_it_back(server, visit):
    page = visit(server)
    bodies = requests(page)
    first = write(page, "abc")
    assert first.startswith("abc")
    assert len(first) > 20
    assert page.inner_text("#mirror").rstrip("\n") == first.rstrip("\n")
    assert page.inner_text("#figures").startswith("40 tokens")
    assert page.text_content("#status").startswith("40 tokens")
    second = write(page, max_tokens=5)
    assert second.startswith(first)
    assert [body["prompt"] for body in bodies] == ["abc", first]
    for button, text in (("undo", first), ("undo", "abc"), ("redo", first), ("redo", second), ("undo", first)):
        page.click(f"#{button}")
        assert page.input_value(EDITOR) == text
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy")
    assert page.evaluate("navigator.clipboard.readText()") == first


def test_the_settings_reach_the_request_and_are_kept(server, visit):
    page = visit(server)
    bodies = requests(page)
    values = dict(temperature=1.5, top_k=7, top_p=0.5, min_p=0.1, repeat_penalty=1.1, max_tokens=3, seed=5)
    write(page, "a", **values, stop_at="zzz\n\\n\\n")
    assert values.items() <= bodies[0].items()
    assert bodies[0]["stop"] == ["zzz", "\n\n"]
    page.get_by_role("slider", name="Temperature").fill("0.25")
    assert page.input_value("#temperature") == "0.25"
    page.reload()
    write(page)
    assert bodies[1]["temperature"] == 0.25
    page.click("#defaults")
    assert page.input_value("#temperature") == "0.8"
    page.fill("#top_p", "2")
    page.click("#write")
    assert page.evaluate("document.activeElement.id") == "top_p"
    assert len(bodies) == 2


def test_stop_stops_and_the_place_is_free(server, visit):
    page = visit(server)
    start(page, "a", max_tokens=16000)
    page.locator("#figures").filter(has_text="tokens/s").wait_for()
    page.click("#stop")
    page.locator("body:not(.writing)").wait_for()
    assert page.inner_text("#figures").endswith(" · stopped")
    assert 1 < len(page.input_value(EDITOR)) < 15000
    began = time.monotonic()
    server.post(prompt="a", max_tokens=1).raise_for_status()
    assert time.monotonic() - began < 1


def test_probabilities_are_shown_for_what_is_pointed_at(server, visit):
    page = visit(server)
    let_it_write(page, "nobody came")
    assert write(page, "and ") == "and nobody came"
    for offset, character in ((4, "n"), (10, "␣"), (14, "e")):
        point_at(page, offset)
        page.locator("#odds_list .chosen bdi").filter(has_text=character).wait_for()
        shown = odds(page)
        assert len(shown) in (5, 6)
        assert 0 < sum(shown.values()) < 1.01
        assert list(shown.values())[:5] == sorted(shown.values(), reverse=True)[:5]
    page.unroute("**/v1/completions")
    point_at(page, 6)
    other = page.locator("#odds_list button:enabled").filter(has_text="%").first
    instead = other.locator("bdi").inner_text()
    other.click()
    page.locator("body:not(.writing)").wait_for()
    assert page.input_value(EDITOR).startswith("and no" + {"␣": " ", "↵": "\n", "⇥": "\t"}.get(instead, instead))
    page.click("#undo")
    assert page.input_value(EDITOR) == "and nobody came"


def test_the_widest_probability_fits_its_column(server, visit):
    page = visit(server)
    write(page, "and ")
    fits = """() => {
      const row = document.querySelector("#odds_list .chosen"), figure = row.querySelector("span");
      figure.textContent = "< 0.1 %";
      return figure.scrollWidth <= figure.clientWidth;
    }"""
    assert page.evaluate(fits)


def test_hostile_text_is_shown_and_never_run(server, visit):
    page = visit(server)
    page.locator("#facts dd").first.wait_for()
    assert page.inner_text("h1") == IMAGE
    assert page.inner_text("#summary") == SCRIPT
    assert "<b>" in page.inner_text("#facts")
    assert page.inner_text("#example") == HOSTILE
    page.click("#begin")
    assert page.input_value(EDITOR) == f"{IMAGE}{SCRIPT} {HEBREW}"
    let_it_write(page, HOSTILE)
    assert write(page, HOSTILE, max_tokens=200) == 2 * HOSTILE
    assert "\n".join(page.locator("#mirror div").all_text_contents()) == 2 * HOSTILE
    page.check("#colour")
    page.evaluate("(steps) => { while (steps--) document.getElementById('before').click(); }", len(HOSTILE) // 2)
    page.locator("#odds_list .chosen").wait_for()
    assert page.locator("img, main script, #mirror div *").count() == 0


def test_what_the_server_refuses_or_leaves_out_is_told(server, visit):
    page = visit(server)
    write(page, "abcß")
    assert page.inner_text("#problem") == "not in the model's vocabulary, left out: 'ß'"
    write(page, "abc", max_tokens=100_000)
    assert "max_tokens is too large" in page.inner_text("#problem")
    assert page.input_value(EDITOR) == "abc"
    write(page, "abc")
    assert page.inner_text("#problem") == ""


def test_it_can_be_used_with_the_keyboard_alone(server, visit):
    page = visit(server)
    page.locator("#facts dd").first.wait_for()
    page.fill("#max_tokens", "16000")
    page.focus(EDITOR)
    page.keyboard.type("abc")
    page.keyboard.press("Control+Enter")
    page.locator("#figures").filter(has_text=re.compile(r"\d\d tokens")).wait_for()
    page.keyboard.press("Escape")
    page.locator("body:not(.writing)").wait_for()
    page.keyboard.press("Control+Home")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.locator("#odds_list .chosen").wait_for()
    passed = []
    while "before" not in passed:
        page.keyboard.press("Tab")
        passed.append(page.evaluate("document.activeElement.id"))
    assert {"write", "undo", "copy"} <= set(passed)
    page.keyboard.press("ArrowRight")
    assert "%" in page.inner_text("#odds_spoken")
    page.focus(EDITOR)
    page.keyboard.press("Control+z")
    assert page.input_value(EDITOR) == "abc"


def test_every_control_has_a_name_and_every_text_contrast(server, visit):
    page = visit(server)
    write(page, "abc")
    papers = []
    for scheme, choice in (("light", "Auto"), ("light", "Dark"), ("dark", "Light"), ("dark", "Auto")):
        page.emulate_media(color_scheme=scheme)
        page.get_by_role("radio", name=choice).check(force=True)
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        what, contrast = page.evaluate(LEAST_CONTRAST)
        assert contrast >= 1, what
    assert papers[0] == papers[2] != papers[1] == papers[3]
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in tree if not node["ignored"] and node["role"]["value"] in CONTROLS]
    assert len(controls) > 25
    assert not [node for node in controls if not node["name"]["value"]]


def test_it_fits_a_narrow_screen_and_the_text_lies_over_its_mirror(server, visit):
    for width in (320, 1200):
        page = visit(server, viewport={"width": width, "height": 900})
        page.fill(EDITOR, MIXED)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        letters = HEBREW.replace(" ", "")
        turns = {at for at, (one, other) in enumerate(pairwise(MIXED)) if (one in letters) != (other in letters)}
        near = {at + step for at in turns for step in range(-4, 6)}  # where directions meet, a caret has two places
        assert {at for at, _ in page.evaluate(MISPLACED)} <= near


def test_a_key_is_asked_for_and_a_server_that_is_busy_or_dies_is_told(model, visit):
    with served(model, "--api_key", KEY, "--queue", "1") as server:
        page = visit(server)
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        page.locator("#problem").filter(has_text="does not know this key").wait_for()
        page.fill("#key", KEY)
        page.keyboard.press("Enter")
        page.locator("#key_form").wait_for(state="hidden")
        page.reload()
        with occupy(server) as written_for:
            written_for.recv(1)
            with occupy(server):  # and waits
                write(page, "abc")
            assert page.inner_text("#problem").startswith("The server is busy")
        start(page, "abc", max_tokens=16000)
        page.locator("#figures").filter(has_text="tokens/s").wait_for()
        server.process.kill()
    page.locator("#problem").filter(has_text="in the middle of the text").wait_for()
    kept = page.input_value(EDITOR)
    assert kept.startswith("abc")
    assert len(kept) > 3
    page.click("#write")
    page.locator("#problem").filter(has_text="cannot be reached").wait_for()
    assert page.input_value(EDITOR) == kept


@pytest.mark.slow
def test_a_long_text_stays_quick(server, visit):
    page = visit(server)
    longest_frame = """async (ms) => {
      const end = performance.now() + ms;
      let longest = 0;
      for (let last = performance.now(); last < end;) {
        const now = await new Promise((seen) => requestAnimationFrame(() => seen(performance.now())));
        longest = Math.max(longest, now - last);
        last = now;
      }
      return longest;
    }"""
    page.evaluate(
        """(text) => {
      const area = document.getElementById("text");
      area.value = text;
      area.dispatchEvent(new Event("input"));
    }""",
        "It was a quiet day, and nobody came.\n" * 2700,  # 100,000 characters
    )
    page.check("#colour")
    start(page, max_tokens=16000)
    assert page.evaluate(longest_frame, 1000) < 400
    page.click("#stop")
    page.focus(EDITOR)
    page.keyboard.press("Control+Home")
    began = time.monotonic()
    page.keyboard.type("a few words more")
    assert time.monotonic() - began < 16 * 0.2
