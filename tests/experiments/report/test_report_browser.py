"""The report in headless Chromium, read from the file system, at the widths of a phone and of a desktop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import BEYOND, PICTURES, WIDTHS, Watched, faults, launched

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with launched() as browser:
        yield browser


@pytest.fixture(params=WIDTHS.values(), ids=WIDTHS)
def watched(chromium, request) -> Iterator[Watched]:
    watching = Watched(chromium, request.param)
    yield watching
    watching.page.close()


def test_every_page_shows_all_of_itself(committed, watched):
    """No error, nothing from a network, no picture missing, and nothing wider than the window."""
    paths = sorted(committed.rglob("*.html"))
    assert len(paths) > 40
    found = {}
    for path in paths:
        if path.name == "404.html":  # for servers: its links begin at their root
            continue
        if (wrong := faults(watched, path)) is not None:
            found[path.name] = wrong
    assert found == {}


def test_faults_are_seen(chromium, tmp_path):
    """The checks above find a missing picture, an error of a script, a request to a server and a wide page."""
    (tmp_path / "bad.html").write_text(
        "<p style='width: 3000px'>wide</p><img src='none.png'><img src='http://127.0.0.1:9/x.png'>"
        "<script>console.error('told'); undefined.name</script>"
    )
    watching = Watched(chromium, WIDTHS["phone"])
    page = watching.open(tmp_path / "bad.html")
    assert any("none.png" in source for source in page.evaluate(PICTURES))
    assert page.evaluate(BEYOND) > 2000
    wrong = "\n".join(watching.wrong)
    assert all(word in wrong for word in ("none.png", "http://127.0.0.1:9/x.png", "told", "undefined"))
    page.close()


def test_a_figure_is_found_by_clicks(committed, watched):
    page = watched.open(committed / "index.html")
    page.get_by_role("link", name="Change of basis (Armenta et al. 2023)").click()
    page.locator(".card a", has_text="Figure 7, rates").first.click()
    assert page.url.endswith("figures/neural/fig7_rates.html")
    with page.expect_download() as got:
        page.locator("a[download]").first.click()
    assert Path(got.value.path()).read_bytes() == (committed / "figures/neural/fig7_rates/fig7_rates.csv").read_bytes()
    assert watched.wrong == []


def test_the_filter_keeps_what_has_the_words_and_the_label(committed, watched):
    page = watched.open(committed / "figures" / "nullspace.html")
    cards = page.locator(".card:visible")
    everything = cards.count()
    page.get_by_placeholder("Filter figures by words").fill("sequential mnist")
    kept = cards.count()
    assert 0 < kept < everything
    assert all("sequential mnist" in text.lower() for text in cards.all_inner_texts())
    page.get_by_placeholder("Filter figures by words").fill("")
    page.locator(".filter select").select_option("not measured")
    assert 0 < cards.count() < everything
    assert all("not measured" in text for text in cards.all_inner_texts())
    assert watched.wrong == []


def test_the_search_works_without_a_server(committed, watched):
    page = watched.open(committed / "index.html")
    if page.viewport_size["width"] < 600:
        page.locator("label[for=__search].md-header__button").click()
    page.locator(".md-search__input").press_sequentially("torchvision coverage")  # it listens to keys
    result = page.locator(".md-search-result__link").first
    result.wait_for()
    result.click()
    page.wait_for_load_state("load")
    assert "torchvision" in page.locator("article").inner_text()
    assert watched.wrong == []
