"""Keep the docs site in one folder.

Files of the repository that pages link (``../jobs/…``) become pages of the site. A page that would load something from
another host fails the build.
"""

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_LINK = re.compile(r"\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}
_FOLDER = "files"
_LOADED = re.compile(
    r"""<(?:script|img|iframe|link(?![^>]*rel="?(?:canonical|prev|next)\b))\b[^>]*(?:src|href)="?(?:https?:)?//[^\s">]+"""
)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page for each linked file that is outside the folder of the docs."""
    docs = Path(config.docs_dir)
    linked = {
        path
        for page in files.documentation_pages()
        for target, _ in _LINK.findall(page.content_string)
        if (path := _outside(page, target)) is not None and (docs.parent / path).is_file()
    }
    for path in sorted(linked):
        content = (docs.parent / path).read_text(encoding="utf-8")
        files.append(File.generated(config, _page_of(path), content=_shown(path, content)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the text of a page with its links to such files led to their pages."""

    def to_page(link: re.Match[str]) -> str:
        path = _outside(page.file, link[1])
        if path is None or files.get_file_from_path(_page_of(path)) is None:
            return link[0]
        target = os.path.relpath(_page_of(path), PurePosixPath(page.file.src_uri).parent)
        return f"]({PurePosixPath(target)})"

    return _LINK.sub(to_page, markdown)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Check that the page loads nothing from another host."""
    if loaded := _LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads {loaded[0]!r} from another host: put the file below docs/assets.")
    return output


def _outside(page: File, target: str) -> PurePosixPath | None:
    """Return the path of a link's target from the root of the repository, or None if it is a page of the docs."""
    path = os.path.normpath(PurePosixPath("docs", page.src_uri).parent / target)
    return None if path.startswith(("docs/", "..")) else PurePosixPath(path)


def _page_of(path: PurePosixPath) -> str:
    """Return the path of the page that shows the file. MkDocs leaves out names that begin with a dot."""
    return f"{_FOLDER}/{str(path).lstrip('.')}.md"


def _shown(path: PurePosixPath, content: str) -> str:
    if path.suffix == ".md":
        return content
    language = _LANGUAGES.get(path.suffix, "text")
    return f"---\ntitle: {path.name}\nsearch:\n  exclude: true\n---\n\n# `{path}`\n\n````{language}\n{content}````\n"
