"""`sciforge demo`: every domain's section, one table after the other, and one report."""

import sys
import traceback
from pathlib import Path

from sciforge import catalog
from sciforge.core.domain import discover, get_domain
from sciforge.core.files.tables import write_html
from sciforge.errors import SciforgeError


def demo(*, out: Path = Path("sciforge-demo"), domain: str | None = None) -> int:
    """Run every domain's demo offline and write report.html.

    Args:
        out: folder of the report and of everything that the demos make.
        domain: run this one only.

    Returns:
        0, or 1 where a demo failed; the others still run.
    """
    chosen = discover() if domain is None else {domain: get_domain(domain)}
    out.mkdir(parents=True, exist_ok=True)
    sections, failed = [], []
    for name, found in chosen.items():
        if found.demo is None:
            continue
        folder = out / name
        folder.mkdir(exist_ok=True)
        try:
            section = found.demo(folder, catalog.find)
        except Exception as error:  # one domain's trouble must not hide the others
            failed.append(name)
            print(f"sciforge: the demo of {name} failed: {error}", file=sys.stderr)
            if not isinstance(error, SciforgeError):
                traceback.print_exc()
            continue
        print(section.text(), flush=True)
        print()
        sections.append(section)
    report = write_html(out / "report.html", "sciforge demo", sections)
    print(f"report: {report}")
    return 1 if failed else 0
