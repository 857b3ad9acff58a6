"""The report on small results: what is missing or damaged ends in one sentence, and the rest is as the files say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import markdown
import pytest

from experiments.errors import UserError
from experiments.report import documents, ledger
from experiments.report.figures import read
from experiments.report.site import build, make, write_pages
from tests.experiments.report.html_pages import pages_of

ROOT = Path(__file__).parents[3]
COLUMNS = "paper,claim,case,at,place,figure,quantity,n,effect,low,high,unit,verdict,rule_first,reason,command"
JUDGED = f"""{COLUMNS}
Wu et al. 2025,product,,equal epochs,Figure 11,nullspace/fig11,value,5,0.25,0.125,0.5,relative,does not hold,no,,x.py
Wu et al. 2025,product,,tuned control,Figure 11,nullspace/fig11,value,,,,,relative,undecided,yes,2 pairs,python x.py
"""
TUNED = """\
tuned:
  digits:
    mlp:
      sgd: {none: {optimizer.lr: 0.25}, nullspace: {optimizer.lr: 0.125, teleport.cap: 7.0}, how: 8 trials}
      adam: not tuned
"""
CLAIMS = """\
claims:
  - {id: product, place: Figure 11, claim: A convolution *is* a product., figure: nullspace/fig11}
  - {id: faster, place: Figure 8, claim: It falls faster., figure: nullspace/fig8}
"""


def damaged(path: str, content: bytes | None) -> None:
    """Put ``content`` in place of a file, or remove it."""
    if content is None:
        Path(path).unlink()
    else:
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_bytes(content)


PNG = "results/nullspace/fig11/fig11.png"
FAULTS = {
    "no picture": (PNG, None, "fig11.png' is missing"),
    "half a picture": (PNG, (ROOT / PNG).read_bytes()[:3000], "fig11.png' is damaged"),
    "no PNG": (PNG, b"nothing", "fig11.png' is damaged"),
    "no table": ("results/nullspace/fig11/fig11.csv", None, "fig11.csv' cannot be read"),
    "another table": ("results/neural/outputs/outputs.csv", b"a,b\n1,2\n", "outputs.csv' lacks the column 'scale'"),
    "binary table": ("results/neural/outputs/outputs.csv", b"\xff\xfe\x00", "outputs.csv' is damaged"),
    "no origin": ("results/nullspace/fig11/provenance.json", b"[]", "provenance.json' is damaged"),
    "origin of none": (
        "results/nullspace/fig11/provenance.json",
        b'{"figure": "nullspace/other", "overrides": []}',
        "is of the figure 'nullspace/other', which is not in",
    ),
    "origin without a checksum": (
        "results/neural/outputs/provenance.json",
        b'{"figure": "neural/outputs", "overrides": [], "runs": [1]}',
        "provenance.json' is damaged: no page can be made from them (AttributeError)",
    ),
    "no findings": ("results/README.md", None, "README.md' cannot be read"),
    "dead link": ("results/README.md", b"# A\n\n[b](#nowhere)\n", "MkDocs cannot build the report"),
    "no YAML": ("conf/figure/nullspace/fig8.yaml", b"claim: [", "fig8.yaml' cannot be read as YAML"),
    "no claim": ("conf/figure/nullspace/fig8.yaml", b"title: A\n", "fig8.yaml' lacks its title or its claim"),
    "no ledger": ("results/claims.csv", b"\xff\xfe", "claims.csv' is not a table"),
    "empty ledger": ("results/claims.csv", b"", "claims.csv' is not a table"),
    "other ledger": ("results/claims.csv", b"claim,figure\na,b\n", "claims.csv' lacks the column 'verdict'"),
    "no claims": ("conf/claims/wu.yaml", b"claims: [{id: 1}]\n", "wu.yaml' cannot be read: each needs an id"),
    "no settings": ("conf/rates/tuned.yaml", b"tuned: [a]\n", "tuned.yaml' cannot be read: they go from data set"),
    "no trials": ("results/tuning/mnist.csv", b"", "mnist.csv' are not a table"),
    "benchmark": ("results/benchmark/landing-m.csv", b"method\nall\n", "landing-m.csv' is damaged: it lacks"),
    "no rows": ("results/benchmark/basis-m.csv", b"method,sine\n", "basis-m.csv' has no row for a check"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_and_the_last_report_stays(fault, small, tmp_path):
    conf, results, written = small
    (conf / "claims").mkdir()
    (conf / "claims" / "wu.yaml").write_text(CLAIMS)
    earlier = tmp_path / "report"
    (earlier / "assets").mkdir(parents=True)
    (earlier / "assets" / "report.css").write_text("earlier")
    path, content, told = FAULTS[fault]
    damaged(str(tmp_path / path), content)
    with pytest.raises(UserError) as caught:
        make(results, earlier, conf, written)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in earlier.rglob("*.css")] == ["report.css"]
    assert not list(tmp_path.glob(".report-*"))


def test_verdicts_stand_where_they_belong(small, tmp_path):
    conf, results, written = small
    (conf / "claims").mkdir()
    (conf / "claims" / "wu.yaml").write_text(CLAIMS)
    (results / "claims.csv").write_text(JUDGED)
    (results / "claims.md").write_text("# V\n\nHow it is judged.\n\n| a |\n|---|\n| not this |\n")
    pages = pages_of(make(results, tmp_path / "report", conf, written).parent)
    page = pages["figures/nullspace/fig11.html"]
    assert "A convolution *is* a product. (Figure 11)" in page.text
    lines = [" ".join(" ".join(cells).split()) for cells in page.cells]
    assert "does not hold (older table) equal epochs value 5 0.25 [0.125, 0.5] relative" in lines
    assert "undecided tuned control value 2 pairs" in lines
    assert "does not hold 1 undecided 1" in page.text
    assert "No claim of the ledger" in pages["figures/neural/outputs.html"].text
    assert "How it is judged." in pages["claims.html"].text
    assert "not this" not in pages["claims.html"].text
    assert (tmp_path / "report" / "claims.csv").read_text() == JUDGED


def test_before_the_first_judgement_claims_are_not_judged(small, tmp_path):
    conf, results, written = small
    (conf / "claims").mkdir()
    (conf / "claims" / "wu.yaml").write_text(CLAIMS)
    write_pages(results, tmp_path / "pages", conf, written)
    assert list(ledger.read(conf, results)["verdict"]) == ["not judged yet"] * 2
    text = (tmp_path / "pages/figures/nullspace/fig8.md").read_text()
    assert "It falls faster." in text
    assert "not judged yet" in text
    assert "not measured" in text
    assert "make reproduce FIG=nullspace/fig8" in text


def test_another_scale_stands_on_the_page_of_its_figure(small, tmp_path):
    conf, results, written = small
    shutil.copytree(results / "nullspace/fig11", results / "nullspace/fig11-paper")
    rows = (results / "nullspace/fig11/fig11.csv").read_text().replace(",quick,", ",paper,")
    (results / "nullspace/fig11-paper/fig11.csv").write_text(rows)
    origin = json.loads((results / "nullspace/fig11/provenance.json").read_text())
    kept = {key: value for key, value in origin.items() if "sha256" not in key}
    (results / "nullspace/fig11-paper/provenance.json").write_text(json.dumps(kept | {"commit": "c0ffee" * 6 + "+"}))
    pages = pages_of(make(results, tmp_path / "report", conf, written).parent)
    page = pages["figures/nullspace/fig11.html"]
    assert "At paper scale (fig11-paper)" in page.text
    assert "c0ffeec0ffee with uncommitted changes" in page.text
    assert {"fig11/fig11.png", "fig11-paper/fig11.png"} <= set(page.loaded)
    assert set(page.downloads) == {"fig11/fig11.csv", "fig11-paper/fig11.csv"}


def test_trials_of_the_tuning_are_on_the_page_of_table_1(small, tmp_path):
    conf, results, written = small
    (results / "tuning").mkdir()
    (results / "tuning" / "mnist.csv").write_text("side,optimizer.lr,loss\nnone,0.125,0.5\nnullspace,0.25,0.75\n")
    (conf / "rates").mkdir()
    (conf / "rates" / "tuned.yaml").write_text(TUNED)
    page = pages_of(make(results, tmp_path / "report", conf, written).parent)["table1.html"]
    assert ["digits", "mlp", "sgd", "nullspace", "optimizer.lr=0.125, teleport.cap=7.0", "8 trials"] in page.cells
    assert ["digits", "mlp", "adam", "", "not tuned", ""] in page.cells
    assert ["nullspace", "0.25", "0.75"] in page.cells
    assert "not measured" in page.text
    assert page.downloads == ["tuning/mnist.csv"]


def test_the_same_bytes_at_any_time(small, tmp_path):
    conf, results, written = small
    first, second = (make(results, tmp_path / name, conf, written).parent for name in ("first", "second"))
    names = sorted(path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(second).as_posix() for path in second.rglob("*") if path.is_file())
    assert [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()] == []
    today = time.strftime("%Y-%m-%d").encode()
    assert [name for name in names if today in (first / name).read_bytes()] == []
    packed = (first / "sitemap.xml.gz").read_bytes()
    assert packed[4:8] == (315532800).to_bytes(4, "little")  # the date in it, RFC 1952


def test_a_later_report_replaces_an_earlier_one_and_nothing_else(small, tmp_path):
    conf, results, written = small
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else than a report"):
        make(results, tmp_path / "own", conf, written)
    assert (tmp_path / "own" / "thesis.txt").read_text() == "mine"
    (make(results, tmp_path / "report", conf, written).parent / "old.html").write_text("old")
    make(results, tmp_path / "report", conf, written)
    assert not (tmp_path / "report" / "old.html").exists()


def test_the_script_needs_no_torch_and_says_where_the_report_is(small, tmp_path):
    """Without mkdocs, too, it says what to install."""
    code = (
        "import runpy, sys; code = runpy.run_path(sys.argv[1])['main'](sys.argv[2:]); "
        "print('torch' in sys.modules); sys.exit(code)"
    )
    script = str(ROOT / "scripts" / "report.py")
    command = [sys.executable, "-c", code, script, str(tmp_path / "nowhere"), "--output", str(tmp_path / "report")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no folder")
    assert done.stderr.count("\n") == 1
    assert done.stdout == "False\n"


def test_without_mkdocs_the_sentence_says_what_to_install(monkeypatch, small, tmp_path):
    monkeypatch.setitem(sys.modules, "material", None)  # an import of it fails
    with pytest.raises(UserError, match=r"the report needs MkDocs .*pip install -e '\.\[report\]'"):
        make(small[1], tmp_path / "report", small[0])
    assert not (tmp_path / "report").exists()


def test_a_link_between_pages_that_leads_nowhere_is_refused(tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.md").write_text("# A\n\n[b](b.md)\n")
    with pytest.raises(UserError, match=r"contains a link 'b\.md'"):
        build(tmp_path / "pages", tmp_path / "site", [{"A": "index.md"}])


def test_labels_follow_the_names(small):
    assert {figure.name: figure.label for figure in read(small[0], small[1])} == {
        "neural/outputs": "Outputs",
        "nullspace/fig8": "Figure 8",
        "nullspace/fig11": "Figure 11",
    }
    assert [figure.label for figure in read(ROOT / "conf", small[1]) if figure.paper == "neural"][:10] == [
        *(f"Figure {number}" for number in range(1, 8)),
        "Figure 7, rates",
        "Figure 7, whole",
        "Figure 8",
    ]


def test_findings_are_taken_by_the_name_of_a_figure_alone():
    text = "# F\n\n- One `results/a/fig1`.\n\n  | t |\n- Two `results/a/fig11` and\n  figure=b/c.\n"
    text += "\n## H\n\n- Three figure=a/fig1_x.\n"
    assert documents.findings_on(text, "a/fig1") == ["- One `results/a/fig1`.\n\n  | t |"]
    assert documents.findings_on(text, "b/c") == ["- Two `results/a/fig11` and\n  figure=b/c."]


def test_items_of_several_blocks_stay_items():
    """Python-Markdown, which the site is built with, finds as many items as there are."""
    text = "- One\n  more.\n- Two:\n\n  | t |\n  |---|\n  | 1 |\n\n  After.\n- Three\n- Four\n\nNo item.\n"
    page = markdown.markdown(documents.indented(text), extensions=["tables"])
    assert page.count("<li>") == 4
    assert (
        page.index("<table>") < page.index("After.") < page.index("Three") < page.index("</ul>") < page.index("No item")
    )


def test_links_of_documents_are_those_of_the_site():
    text = "[a](../README.md#x) [b](benchmark/README.md) [c](https://hydra.cc) `results/a/f` `results/a/g`"
    assert documents.adapted(text, "", ["a/f"], "../../") == (
        "a [b](../../speed.md) [c](https://hydra.cc) [`results/a/f`](../../figures/a/f.md) `results/a/g`\n"
    )
    assert documents.adapted("[b](../mutation/README.md#x)", "robustness", []) == "[b](mutation.md#x)\n"
