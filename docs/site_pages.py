"""A hook of MkDocs (`mkdocs.yml`): what people read where it lies is a page of the site, too.

README and its neighbours are pages, and so is each file outside `docs/` that a page links to.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "reporting.md",
    "LICENSE": "license.md",
}
"""Files beside `docs/` that are pages, by what the site calls them."""
_LINK: Final = re.compile(r"(!?\[[^\]]*\])\(([^)\s#]+)(#[^)\s]*)?\)")
_LANGUAGES: Final = {".yaml": "yaml", ".py": "python", ".json": "json"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere, and rewrite links between the two."""
    wanted = {source: _text_of(ROOT / source) for source in PAGES}
    for file in list(files.documentation_pages()):
        wanted[f"docs/{file.src_uri}"] = Path(str(file.abs_src_path)).read_text(encoding="utf-8")
    _put(files, config, "adr/index.md", decisions())
    for source, text in list(wanted.items()):
        page, linked = rewrite(source, text)
        _put(files, config, place_of(source), page)
        for each in linked:
            _put(files, config, place_of(each), _shown(each))
    return files


def rewrite(source: str, text: str) -> tuple[str, set[str]]:
    """A page whose links lead to places of the site.

    Args:
        source: where the page lies in the repository.
        text: its Markdown.

    Returns:
        The page, and files of the repository outside `docs/` that it links to and that are no pages yet.
    """
    folder, linked = posixpath.dirname(source), set()

    def place(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        found = posixpath.normpath(posixpath.join(folder, target))
        if not (ROOT / found).exists():
            return match[0]
        if not found.startswith("docs/") and found not in PAGES:
            linked.add(found)
        start = posixpath.dirname(place_of(source)) or "."
        return f"{label}({posixpath.relpath(place_of(found), start)}{anchor})"

    return _LINK.sub(place, text), linked


def decisions() -> str:
    """A page that lists the records of decisions by their titles."""
    records = sorted((ROOT / "docs/adr").glob("0*.md"))
    titles = [(each.name, each.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")) for each in records]
    return "# Decisions\n\n" + "".join(f"- [{title}]({name})\n" for name, title in titles)


def place_of(source: str) -> str:
    """Where the site has a file of the repository, relative to its root."""
    if source in PAGES:
        return PAGES[source]
    if source.startswith("docs/"):
        return source.removeprefix("docs/") + ("/index.md" if (ROOT / source).is_dir() else "")
    return f"source/{source}" if source.endswith(".md") else f"source/{source}.md"


def _text_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return text if path.suffix == ".md" else f"# {path.name.capitalize()}\n\n```text\n{text}\n```\n"


def _shown(source: str) -> str:
    """A page that shows a file, or lists a folder's."""
    path = ROOT / source
    if path.is_dir():
        return f"# {source}\n\n" + "".join(f"- `{each.name}`\n" for each in sorted(path.iterdir()))
    if path.suffix == ".md":
        return rewrite(source, path.read_text(encoding="utf-8"))[0]
    return f"# {source}\n\n```{_LANGUAGES.get(path.suffix, 'text')}\n{path.read_text(encoding='utf-8')}\n```\n"


def _put(files: Files, config: MkDocsConfig, place: str, content: str) -> None:
    present = files.get_file_from_path(place)
    if present is not None:
        files.remove(present)
    files.append(File.generated(config, place, content=content))
