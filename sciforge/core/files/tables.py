"""Reports of demos and audits: sections of text, tables and pictures, as text or one
self-contained HTML page.
"""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sciforge.core.files.output_files import write_whole


@dataclass(frozen=True)
class Table:
    """Rows of text under column heads; `note` is printed below."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def text(self) -> str:
        """Return the table in monospaced columns."""
        widths = [
            max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))
        ]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in (self.columns, *self.rows)
        ]
        lines.insert(1, "  ".join("-" * w for w in widths))
        return "\n".join([*lines, *([self.note] if self.note else [])])


@dataclass(frozen=True)
class Section:
    """A part of a report: title, paragraphs, tables, PNG pictures with captions."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[tuple[Path, str], ...] = ()

    def text(self) -> str:
        """Return the section for a terminal."""
        return "\n\n".join([self.title, *self.paragraphs, *(table.text() for table in self.tables)])


@dataclass(frozen=True)
class AuditReport:
    """What an audit found; `warnings` are the reasons not to rely on a metric."""

    section: Section
    metrics: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


_STYLE = """
:root{color-scheme:light dark;
--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--card:#fff;--page:#f6f8fa}
@media(prefers-color-scheme:dark){:root{
--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--card:#151b23;--page:#0d1117}}
body{font:16px/1.55 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;
color:var(--ink);background:var(--page)}nav a{margin-right:1.2rem}a{color:#0969da}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:.5rem 1.6rem 1.2rem;margin:1.5rem 0}
h2{font-size:1.3rem}p{max-width:54rem}
.table{overflow-x:auto}table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--line);text-align:left}
td{font-variant-numeric:tabular-nums}figure{margin:1.2rem 0}
img{max-width:100%;background:#fff;border-radius:6px}
figcaption,.note{color:var(--soft);font-size:.9rem}"""


def write_html(path: Path, title: str, sections: Sequence[Section]) -> Path:
    """Write one page that needs no other file and no network.

    Args:
        path: of the page; it is replaced whole.
        title: of the page.
        sections: in their order; their pictures are embedded.

    Returns:
        The path.

    Raises:
        DataError: the disk is full or may not be written.
    """
    head = (
        "<!doctype html><html lang=en><meta"
        f" charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    )
    parts = [
        head,
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<h1>{html.escape(title)}</h1>",
    ]
    if len(sections) > 1:
        links = (
            f'<a href="#s{i}">{html.escape(s.title.split(":")[0])}</a>'
            for i, s in enumerate(sections)
        )
        parts.append(f"<nav>{' '.join(links)}</nav>")
    parts += [_html_section(section, f"s{i}") for i, section in enumerate(sections)]
    page = "\n".join(parts) + "\n"
    return write_whole(path, lambda work: work.write_text(page, encoding="utf-8"))


def _html_section(section: Section, anchor: str) -> str:
    parts = [f'<section id="{anchor}"><h2>{html.escape(section.title)}</h2>']
    parts += [f"<p>{html.escape(paragraph)}</p>" for paragraph in section.paragraphs]
    parts += [html_table(table) for table in section.tables]
    for picture, caption in section.pictures:
        data = base64.b64encode(picture.read_bytes()).decode()
        alt = html.escape(caption, quote=True)
        image = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
        parts.append(f"<figure>{image}<figcaption>{alt}</figcaption></figure>")
    return "\n".join([*parts, "</section>"])


def html_table(table: Table) -> str:
    """Return a table as HTML, its note below."""
    head = "".join(f"<th>{html.escape(c)}</th>" for c in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in table.rows
    )
    note = (
        f'<p class="note">{html.escape(table.note).replace(chr(10), "<br>")}</p>'
        if table.note
        else ""
    )
    return f'<div class="table"><table><tr>{head}</tr>{rows}</table></div>{note}'
