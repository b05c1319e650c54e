"""Hooks of the documentation site: pages made from other files, and links that leave the folder
of the docs.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
# Pages of the site that are made from a file elsewhere in the repository.
ELSEWHERE = {"benchmarks/RESULTS.md": "benchmarks.md"}
DECISIONS = """# Decisions

One record for each choice that shaped the code: context, decision, consequences. They are kept as
they were written; names in old records are those of their time.

"""
LINK = re.compile(r"(?P<bang>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages made from other files.

    Args:
        files: the files of the site.
        config: the configuration of MkDocs.

    Returns:
        the files, the generated ones among them.
    """
    for source, page in ELSEWHERE.items():
        text = rewrite(
            ROOT / source, (ROOT / source).read_text(encoding="utf-8"), ROOT / "docs" / page
        )
        files.append(File.generated(config, page, content=text))
    files.append(
        File.generated(config, "decisions/index.md", content=DECISIONS + "\n".join(decisions()))
    )
    return files


def decisions() -> list[str]:
    """Return a line of Markdown for each decision record, in order."""
    lines = []
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return lines


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of a page that lead out of the docs."""
    if page.file.generated_by is not None:
        return markdown
    path = Path(page.file.abs_src_path)
    return rewrite(path, markdown, path)


def rewrite(source: Path, markdown: str, page: Path) -> str:
    """Return the text with links that hold on the site.

    Args:
        source: the file that the links are relative to.
        markdown: its text.
        page: where the page stands, as if in `docs`.

    Returns:
        links to pages of the site made relative to `page`; files that are not on the site named by
        their path instead.
    """

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match["target"].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        path = (source.parent / target).resolve()
        if not path.is_relative_to(ROOT) or not path.exists():
            return match[0]  # MkDocs reports it
        inside = path.relative_to(ROOT).as_posix()
        place = ROOT / "docs" / ELSEWHERE[inside] if inside in ELSEWHERE else path
        if place.is_relative_to(ROOT / "docs") and "slurm" not in place.parts:
            relative = Path(os.path.relpath(place, page.parent)).as_posix()
            return f"{match['bang']}[{match['text']}]({relative}{'#' + anchor if anchor else ''})"
        return (
            f"{match['text'].strip('`')} (`{inside}`)"
            if match["text"].strip("`") != inside
            else f"`{inside}`"
        )

    return LINK.sub(link, markdown)
