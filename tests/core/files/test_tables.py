"""Tables of text and the page that needs no other file."""

import re

from sciforge.core.files.tables import Section, Table, write_html

TABLE = Table(("method", "x"), (("a", "1.5"), ("longer name", "")), "One\nnote.")


def test_text_has_aligned_columns_a_rule_and_the_note():
    assert TABLE.text() == "\n".join(
        ["method       x", "-----------  ---", "a            1.5", "longer name", "One\nnote."]
    )
    assert Table(("a",), ()).text() == "a\n-"


def test_a_page_holds_its_pictures_and_replaces_the_old_one_whole(tmp_path):
    picture, page = tmp_path / "p.png", tmp_path / "page.html"
    picture.write_bytes(b"\x89PNG")
    page.write_text("old")
    sections = [
        Section("Genomes: few <labels>", ("A & B",), (TABLE,), ((picture, 'A "curve"'),)),
        Section("Heat"),
    ]
    assert write_html(page, "Report <1>", sections) == page
    text = page.read_text()
    for part in (
        "<title>Report &lt;1&gt;</title>",
        '<a href="#s0">Genomes</a> <a href="#s1">Heat</a>',
        '<section id="s0"><h2>Genomes: few &lt;labels&gt;</h2>',
        "<p>A &amp; B</p>",
        "<tr><th>method</th><th>x</th></tr><tr><td>a</td><td>1.5</td></tr>",
        '<p class="note">One<br>note.</p>',
        'src="data:image/png;base64,iVBORw=="',
        "<figcaption>A &quot;curve&quot;</figcaption>",
    ):
        assert part in text, part
    assert not re.search(r"https?://|<nav>", write_html(page, "One", sections[1:]).read_text())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.png", "page.html"]
