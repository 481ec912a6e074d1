"""The site's pages that stand outside docs/: README, CONTRIBUTING and CHANGELOG, with their links as they are there."""

import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files, config):
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=linked((ROOT / name).read_text(encoding="utf-8"))))
    return files


def linked(text):
    """Links of a file of the root, for a page beside those of docs/; links to other files lose their target."""
    def target(match):
        text, link = match.groups()
        if link in PAGES:
            return f"[{text}]({PAGES[link]})"
        if link.startswith("docs/"):
            return f"[{text}]({link.removeprefix('docs/')})"
        return match[0] if link.startswith("http") else text

    return re.sub(r"\[([^]]+)\]\(([^)]+)\)", target, text)
