"""The page in a browser: Debian's chromium driven by Playwright; skipped by name without either."""

import runpy
import shutil
import threading
import time
from pathlib import Path

import pytest
import uvicorn

from communique.model.service import create_app
from communique.model.settings import Settings

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (the dev extra)")
TOOLS = runpy.run_path(str(Path(__file__).with_name("service_tools.py")))
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path"),
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TEXT = "Ardenia urges Belmar to stop 🕊️. It lifts the fees. Both agreed to talk. They met. It condemns war."
ATTACK = 'Ardenia urges <img src=x onerror="document.title=1"> <script>document.title=2</script> Belmar.'


class Running:
    """The service in a thread, on a free port."""

    def __init__(self, settings):
        config = uvicorn.Config(create_app(settings), port=0, log_level="error", lifespan="on", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture(scope="module")
def address(toy_model):
    with Running(Settings(model=str(toy_model), threads=1)) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    context = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(5000)
    said, asked = [], []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: said.append(str(e)))
    page.on("request", lambda r: asked.append(r.url))
    page.goto(address)
    yield page
    elsewhere = [u for u in asked if not u.startswith((address, "blob:"))]
    context.close()
    assert not said and not elsewhere


def label(page, text=TEXT):
    page.fill("#text", text)
    page.click("#go")
    page.wait_for_selector("#result:not([hidden]) .s")


def labels(page):
    return [c.split()[1] for c in page.eval_on_selector_all(".s", "all => all.map(e => e.className)")]


def test_prose_marks_and_lists(page):
    label(page)
    assert labels(page) == ["demand", "concession", "agreement", "none", "position"]
    shown = page.eval_on_selector(
        "#prose", "p => [...p.querySelectorAll('.said')].forEach(e => e.remove()) || p.textContent"
    )
    assert shown == TEXT
    assert page.text_content("#list-demand") == "Ardenia urges Belmar to stop 🕊️."
    assert page.text_content("#list-concession") == "It lifts the fees."
    assert "1 demand" in page.get_attribute("#composition", "aria-label")


def test_html_in_a_statement_is_text(page):
    label(page, ATTACK)
    assert "<img src=x" in page.text_content("#prose") and "<script>" in page.text_content("#list-demand")
    assert not page.query_selector("#result img, #prose script")
    page.hover(".s .mark")
    assert page.title().startswith("communique")


def test_a_dropped_page_is_reduced_to_prose_and_runs_nothing(page, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(
        "<html><nav>Menu</nav><script>document.title=3</script><main><h1>Readout</h1>"
        "<p>Ardenia <b>urges</b> peace &amp; calm.<img src=x onerror='document.title=4'></p></main></html>"
    )
    page.set_input_files("#file", file)
    page.wait_for_selector("#prose .s")
    assert page.input_value("#text") == "Readout\n\nArdenia urges peace & calm."
    assert page.title().startswith("communique")


def drop(page, target, name, data):
    """Drop a file on an element, as from a file manager."""
    page.evaluate(
        """([target, name, data]) => {
            const moved = new DataTransfer();
            moved.items.add(new File([Uint8Array.from(data)], name));
            const options = { dataTransfer: moved, bubbles: true, cancelable: true };
            document.querySelector(target).dispatchEvent(new DragEvent("drop", options));
        }""",
        [target, name, list(data)],
    )


def test_word_and_pdf_files_are_dropped_and_labelled(page):
    import io

    import docx

    document = docx.Document()
    document.add_paragraph("Ardenia urges Belmar to stop.")
    document.add_paragraph("It lifts the fees.")
    out = io.BytesIO()
    document.save(out)
    drop(page, "#entry", "statement.docx", out.getvalue())
    page.wait_for_selector("#prose .s", timeout=20_000)
    assert page.input_value("#text") == "Ardenia urges Belmar to stop.\n\nIt lifts the fees."
    assert labels(page) == ["demand", "concession"]
    drop(page, "#entry", "statement.PDF", TOOLS["pdf"](["Both agreed to talk."]))
    page.wait_for_selector("#prose .s.agreement", timeout=20_000)
    assert page.input_value("#text") == "Both agreed to talk."


def test_a_file_that_cannot_be_read_is_told(page, address):
    page.goto(address + "/compare")
    drop(page, "#side-1", "notes.txt", b"It lifts the fees.")
    playwright.expect(page.locator("#text-1")).to_have_value("It lifts the fees.")
    drop(page, "#side-0", "picture.bin", b"\x00\x01")
    playwright.expect(page.locator("#status")).to_contain_text("is a binary file")
    assert page.input_value("#text-0") == ""


def test_demands_are_copied(page, browser):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    label(page, "Ardenia urges calm. They met. Belmar urges peace.")
    page.click("[data-copy=demand]")
    playwright.expect(page.locator("#status")).to_have_text("2 copied.")
    assert page.evaluate("navigator.clipboard.readText()") == "Ardenia urges calm.\nBelmar urges peace."
    assert page.is_disabled("[data-copy=concession]")


def test_probabilities_never_cover_the_prose_on_a_wide_screen(page):
    label(page)
    page.hover(".s.demand .mark")
    prose, detail = page.locator("#prose").bounding_box(), page.locator("#detail").bounding_box()
    assert detail["x"] >= prose["x"] + prose["width"]
    page.set_viewport_size({"width": 360, "height": 740})
    page.focus(".s.demand")
    detail = page.locator("#detail").bounding_box()
    assert detail["x"] >= 0 and abs(detail["y"] + detail["height"] - 740) < 3  # at the bottom of a phone


def test_filter_threshold_and_detail(page):
    label(page)
    page.uncheck("#show-demand")
    assert not page.is_visible(".s.demand") and page.is_visible(".s.agreement")
    page.check("#show-demand")
    page.hover(".s.demand .mark")
    told = page.text_content("#detail")
    assert "demand" in told and "runner-up" in told and "%" in told
    before = labels(page)
    assert before.count("none") == 1
    page.fill("#threshold", "1")
    assert labels(page) == ["none"] * len(before) and "1.00" in page.text_content("#threshold-value")
    page.fill("#threshold", "0.01")
    assert labels(page)[0] == "demand"


def hold(page, address, told, path="/v1/label"):
    """Keep back answers whose request tells this; the list of those that are kept."""
    held = []

    def decide(route):
        if told in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route(address + path, decide)
    return held


def wait_for(page, held):
    for _ in range(200):
        if held:
            return
        page.wait_for_timeout(20)
    raise AssertionError("nothing was asked")


@pytest.mark.parametrize("last", ["example", "drop"])
def test_the_last_request_wins(page, address, last):
    held = hold(page, address, "condemns the storm")
    page.fill("#text", "It condemns the storm.")
    page.click("#go")
    wait_for(page, held)
    if last == "example":
        page.click("#example")
    else:
        drop(page, "#entry", "statement.txt", b"Ardenia urges calm.")
    page.wait_for_selector("#result:not([hidden]) .s")
    before = page.text_content("#prose")
    with page.expect_response(lambda r: "/v1/label" in r.url):
        held[0].continue_()
    page.wait_for_timeout(200)
    assert page.text_content("#prose") == before and "storm" not in before
    assert "storm" not in page.input_value("#text") and page.is_enabled("#go")
    assert "labelled" in page.text_content("#status")


def test_a_file_read_too_late_changes_nothing(page, address):
    held = hold(page, address, "%PDF", "/v1/extract")
    drop(page, "#entry", "statement.pdf", TOOLS["pdf"](["Both agreed to talk."]))
    wait_for(page, held)
    label(page, "Ardenia urges calm.")
    with page.expect_response(lambda r: "/v1/extract" in r.url):
        held[0].continue_()
    page.wait_for_timeout(200)
    assert page.input_value("#text") == "Ardenia urges calm." and labels(page) == ["demand"]


def test_the_last_comparison_wins(page, address):
    page.goto(address + "/compare")
    held = hold(page, address, "condemns the storm")
    for side in ("#text-0", "#text-1"):
        page.fill(side, "It condemns the storm.")
    page.click("#go")
    wait_for(page, held)
    page.click("#example")
    page.wait_for_selector("#result:not([hidden])")
    with page.expect_response(lambda r: "/v1/label" in r.url):
        held[0].continue_()
    page.wait_for_timeout(200)
    assert "condemns the storm" not in page.text_content("#result")


def test_downloads(page):
    import csv
    import io
    import json

    label(page, 'Ardenia urges "peace", now. They met.')
    with page.expect_download() as first:
        page.click("#jsonl")
    rows = [json.loads(line) for line in Path(first.value.path()).read_text(encoding="utf-8").splitlines()]
    with page.expect_download() as second:
        page.click("#csv")
    table = list(csv.DictReader(io.StringIO(Path(second.value.path()).read_bytes().decode(), newline="")))
    assert [r["label"] for r in rows] == [r["label"] for r in table] == ["demand", "none"]
    assert table[0]["text"] == rows[0]["text"] == 'Ardenia urges "peace", now.'


def test_keyboard_only(page):
    page.focus("#text")
    page.keyboard.insert_text(TEXT)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#prose .s")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('s')"):
            break
    seen = []
    for _ in range(3):
        seen.append(page.text_content("#detail strong"))
        page.keyboard.press("ArrowRight")
    assert seen == ["demand", "concession", "agreement"]
    page.keyboard.press("Escape")
    assert not page.is_visible("#detail")


def test_phone_width_has_no_sideways_scroll(page, address):
    page.set_viewport_size({"width": 360, "height": 740})
    label(page)
    for path in ("/", "/compare#example", "/docs"):
        page.goto(address + path)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_compare(page, address):
    page.goto(address + "/compare")
    page.fill("#text-0", "Ardenia urges calm. " + ATTACK)
    page.fill("#text-1", "Belmar lifts the fees.")
    page.click("#go")
    page.wait_for_selector("#result:not([hidden])")
    columns = page.eval_on_selector_all(".row-of-two .pair > div", "all => all.map(e => e.textContent)")
    assert "urges calm" in columns[0] and "<img src=x" in columns[0]
    assert "Nothing found" in columns[1] and "lifts the fees" in columns[3]
    assert not page.query_selector("#result img")


@pytest.mark.parametrize("token", ["secret", "gehüllt-в-тайну"])
def test_a_token_is_asked_for(browser, toy_model, monkeypatch, token):
    monkeypatch.setenv("COMMUNIQUE_TOKEN", token)
    with Running(Settings(model=str(toy_model), threads=1)) as address:
        page = browser.new_page()
        page.goto(address)
        page.fill("#text", TEXT)
        page.click("#go")
        page.fill("#token", token)
        page.keyboard.press("Enter")
        page.wait_for_selector("#prose .s")
        assert not page.is_visible("#token-form")
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/#example", "/compare#example", "/docs"])
def test_axe_finds_nothing_serious(browser, address, path, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    context = browser.new_context(bypass_csp=True, color_scheme=scheme)
    page = context.new_page()
    page.goto(address + path)
    page.wait_for_load_state("networkidle")
    if path == "/#example":
        page.focus(".s")  # with the detail open
    found = axe.Axe().run(page).response["violations"]
    context.close()
    told = [(v["id"], v["impact"], [n["html"][:120] for n in v["nodes"]]) for v in found]
    assert not [t for t in told if t[1] in ("serious", "critical")], told
