"""What MkDocs does beyond mkdocs.yml: pages from the repository's root, and links.

README.md, CONTRIBUTING.md and CHANGELOG.md are where GitHub looks for them, outside of
`docs`. Here they become pages of the site. Links are written for GitHub, relative to
the file they are in; a link to a page of the site stays one, and a link to any other
file of the repository leads to GitHub.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]

#: Files of the root, and the pages that they become.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}

#: GitHub needs `\|` for a bar in the code of a table, where Python-Markdown shows both.
_CODE_IN_TABLE = re.compile(r"`[^`\n]*\\\|[^`\n]*`")

_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages from the root."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn the links of a page into links of the site, or into links to GitHub."""
    sources = {page: name for name, page in PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    page.edit_url = f"{config.repo_url}/edit/main/{source}"

    def renewed(match: re.Match[str]) -> str:
        begin, target, anchor = match[1], match[2], match[3] or ""
        if re.match("[a-z]+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        in_site = PAGES.get(path, path[5:] if path.startswith("docs/") else "")
        if files.get_file_from_path(in_site):
            return f"{begin}{in_site}{anchor}"
        return f"{begin}{config.repo_url}/blob/main/{path}{anchor}"

    return _CODE_IN_TABLE.sub(
        lambda code: code[0].replace("\\|", "|"), _LINK.sub(renewed, markdown)
    )
