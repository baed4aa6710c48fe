"""The report in a browser, at a desk, on a phone and printed: no network, nothing cut off."""

import json
import shutil

import numpy as np
import pytest

from communique.eval.report import Head, Settings, build
from communique.eval.report_page import write
from communique.eval.table import read_table
from communique.model.labels import LABELS

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (the dev extra)")
for package in ("sklearn", "statsmodels", "jinja2", "crepes"):
    pytest.importorskip(package, reason="needs the eval extra")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path"),
]
NAMES = list(map(str, LABELS))


def table(folder, seed, documents):
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(200):
        p = rng.dirichlet(np.ones(5)).round(4)
        p[4] = round(1 - p[:4].sum(), 4)
        where = {"doc_id": f"{documents}-{i % 25}", "sent_id": i, "issuer": f"Ministry of {i % 3}"}
        words = {
            "text": f"Sentence {i} of a rather long statement that Belmar made.",
            "date": f"{2015 + i % 5}",
        }
        named = {f"p_{name}": float(v) for name, v in zip(NAMES, p, strict=True)}
        lines.append(where | words | named | {"gold": NAMES[rng.integers(5)], "model": "ours", "weight": 2.0})
    path = folder / f"{documents}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_table(path)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    head = Head("communique eval", "2024-01-01", {"t.jsonl": "0" * 64}, {"Python": "3"})
    report = build(
        [table(folder, 0, "t")], head, calibration=table(folder, 1, "dev"), settings=Settings(50, min_rows=10)
    )
    return write(report, folder / "out")[0].as_uri()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.mark.parametrize("width, height", [(1280, 900), (390, 844)])
def test_the_page_fits_and_asks_for_nothing(browser, address, width, height):
    page = browser.new_page(viewport={"width": width, "height": height})
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert set(asked) == {address} and not said
    sections = page.eval_on_selector_all("section", "all => all.map(s => s.getBoundingClientRect().height)")
    assert len(sections) == 7 and min(sections) > 50
    figures = page.eval_on_selector_all("svg", "all => all.map(s => s.getBoundingClientRect().width)")
    assert min(figures) > 200
    # No words of a figure lie outside it.
    outside = page.evaluate(
        """() => [...document.querySelectorAll('svg')].flatMap(svg => {
            const box = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].filter(t => {
                const r = t.getBoundingClientRect();
                return r.left < box.left - 2 || r.right > box.right + 2 || r.bottom > box.bottom + 2;
            }).map(t => t.textContent);
        })"""
    )
    assert outside == []
    page.close()


def test_print_cuts_no_table_off(browser, address):
    page = browser.new_page(viewport={"width": 718, "height": 1040})  # A4 less margins, at 96 a inch
    page.emulate_media(media="print")
    page.goto(address)
    wide = page.eval_on_selector_all(
        "table",
        "all => all.filter(t => t.getBoundingClientRect().right > innerWidth + 1).map(t => t.innerText)",
    )
    assert wide == []
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()
