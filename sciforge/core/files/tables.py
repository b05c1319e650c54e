"""What a demo or an audit has to say: sections of text, tables and pictures, as text or one self-contained HTML page."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """Rows of text under column heads; `note` is printed below."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def text(self) -> str:
        """Return the table in monospaced columns."""
        widths = [max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]
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
    """What an audit found; `warnings` are the reasons not to believe a figure."""

    section: Section
    metrics: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;border-bottom:1px solid #d0d7de;text-align:left}
td{font-variant-numeric:tabular-nums}img{max-width:100%}figcaption,.note{color:#57606a;font-size:.9rem}"""


def write_html(path: Path, title: str, sections: Sequence[Section]) -> Path:
    """Write one page that needs no other file and no network."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    ]
    parts.append(f"<h1>{html.escape(title)}</h1>")
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += [f"<p>{html.escape(paragraph)}</p>" for paragraph in section.paragraphs]
        parts += [html_table(table) for table in section.tables]
        for picture, caption in section.pictures:
            data = base64.b64encode(picture.read_bytes()).decode()
            alt = html.escape(caption, quote=True)
            parts.append(
                f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"><figcaption>{alt}</figcaption></figure>'
            )
    temporary = path.with_name(f".{path.name}")
    temporary.write_text("\n".join(parts) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def html_table(table: Table) -> str:
    """Return a table as HTML, its note below."""
    head = "".join(f"<th>{html.escape(c)}</th>" for c in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in table.rows)
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return f"<table><tr>{head}</tr>{rows}</table>{note}"
