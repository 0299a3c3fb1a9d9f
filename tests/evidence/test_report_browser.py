"""The page in a real browser: on a phone, on a desk, in light and in dark."""

import json
import re
import shutil
from html import escape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lightning_dlopt.evidence.report import write_report
from tests.evidence.browser import chromium
from tests.evidence.report_reader import Reader
from tests.evidence.report_studies import fail, make_study

LONG = "a_name_without_any_place_to_break_it_" * 4
HEADINGS = [
    *("Comparison on test_accuracy", "Effects", "Time, memory and failed runs", "Learning curves"),
    *("Failures", "What each arm changes", "How it was measured", "How to read it"),
]
#: Takes the measures of a page in a frame of the size of a screen.
MEASURE = """
<script>
addEventListener("load", () => {
  document.body.dataset.measures = JSON.stringify([...document.querySelectorAll("iframe")].map(
    frame => {
      const page = frame.contentDocument, view = frame.contentWindow;
      const shown = element => element.getClientRects().length > 0;
      return {
        width: view.innerWidth,
        scroll: page.documentElement.scrollWidth,
        headings: [...page.querySelectorAll("h1, h2")].filter(shown).map(x => x.textContent),
        images: [...page.images].map(x => [x.complete, x.naturalWidth, x.clientWidth]),
        wide: [...page.querySelectorAll("main *")].filter(x => !x.closest(".scroll, pre, thead"))
          .filter(x => x.getBoundingClientRect().right > view.innerWidth).map(x => x.outerHTML),
        cards: view.getComputedStyle(page.querySelector("tbody tr")).display,
        scripts: page.scripts.length,
        title: page.title,
        ran: view.ran === true,
        text: page.querySelector("tbody").innerText,
      };
    }));
});
</script>
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of arms with names that could do harm, one of them failed in part."""
    script = "<script>window.ran = true</script><img src=x onerror='window.ran = true'>"
    study, analysis = make_study(
        {
            "LabelSmoothing": (0.0041, 0.0023, "helps"),
            script: (0.0019, 0.0029, "can't tell"),
            LONG: (-0.0094, 0.0031, "hurts"),
        }
    )
    study.changes[LONG] = [LONG, f"trainer:\n  callbacks:\n    - {LONG}"]
    study, analysis = fail(study, analysis, LONG, 2)
    return write_report(study, tmp_path_factory.mktemp("report"), analysis)[-1]


@pytest.fixture(scope="module")
def measures(report: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """The measures of the page by the width of its screen.

    A window of chromium isn't narrower than 500 pixels, but a frame in it is.
    """
    page = escape(report.read_text(encoding="utf-8"))
    sizes = [(390, 844), (720, 900), (1280, 800)]
    frames = [f'<iframe width="{w}" height="{h}" srcdoc="{page}"></iframe>' for w, h in sizes]
    harness = tmp_path_factory.mktemp("harness") / "frames.html"
    style = "<style>iframe { border: 0 }</style>"
    harness.write_text(f"<!doctype html>{style}<body>{''.join(frames)}{MEASURE}</body>", "utf-8")
    printed = chromium("--window-size=1400,1800", "--dump-dom", harness.as_uri())
    (body,) = [attrs for tag, attrs in Reader(printed).tags if "data-measures" in attrs]
    return {found["width"]: found for found in json.loads(body["data-measures"] or "")}


def test_the_page_has_what_it_needs_and_runs_nothing(measures: dict[int, dict[str, Any]]) -> None:
    assert set(measures) == {390, 720, 1280}
    for found in measures.values():
        assert found["headings"] == HEADINGS
        assert found["title"] == HEADINGS[0]
        assert found["scripts"] == 0
        assert not found["ran"]
        assert "<script>window.ran = true</script><img src=x" in found["text"]


def test_every_picture_is_decoded_and_fits(measures: dict[int, dict[str, Any]]) -> None:
    for width, found in measures.items():
        assert len(found["images"]) == 3
        for complete, natural, shown in found["images"]:
            assert complete
            # the narrow pictures on a phone, the wide ones on a desk, none blown up
            assert natural == (576 if width == 390 else 1440)
            assert 0 < shown <= min(width, natural)


@pytest.mark.parametrize("width", [390, 720, 1280])
def test_the_page_does_not_scroll_sideways(width: int, measures: dict[int, dict[str, Any]]) -> None:
    assert measures[width]["scroll"] <= width
    assert measures[width]["wide"] == []
    assert measures[width]["cards"] == ("block" if width == 390 else "table-row")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_page_is_dark_where_the_reader_likes_it(
    scheme: str, report: Path, tmp_path: Path
) -> None:
    output = tmp_path / "page.png"
    chromium(
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
        *("--window-size=900,1600", f"--screenshot={output}", report.as_uri()),
    )
    image = Image.open(output).convert("L")
    assert image.size == (900, 1600)
    counts = image.histogram()
    total = sum(counts)
    dark, light = sum(counts[:64]) / total, sum(counts[192:]) / total
    # nearly all is ground, that of the pictures too, and there is text on it
    ground, ink = (dark, light) if scheme == "dark" else (light, dark)
    assert ground > 0.85
    assert 0.005 < ink < 0.15


def test_the_page_needs_no_other_file(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    for tag, attributes in Reader(text).tags:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name in ("src", "srcset", "href"):
            if name in attributes:
                assert (attributes[name] or "").startswith("data:image/png;base64,")
        assert not [name for name in attributes if name.startswith("on")]
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    assert "@import" not in style
    assert "url(" not in style
    viewport = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    assert ("meta", viewport) in Reader(text).tags


def test_a_missing_browser_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(AssertionError, match="apt-get install chromium"):
        chromium("--version")
