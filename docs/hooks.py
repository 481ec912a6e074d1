"""The site's pages that stand outside docs/: README, CONTRIBUTING and CHANGELOG, with their links as they are there."""

import ast
import pathlib
import re

from mkdocs.exceptions import PluginError
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


def on_post_build(config):
    """Raises PluginError unless every public name of every module of the reference is on its page."""
    missing = []
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        html = pathlib.Path(config["site_dir"]) / "api" / f"{page.stem}.html"
        shown = re.findall(r'id="(tf_l2t[\w.]+)"', html.read_text(encoding="utf-8"))
        last = {name.rsplit(".", 1)[1] for name in shown if name.startswith(f"tf_l2t.{page.stem}.")}
        missing += [f"tf_l2t.{page.stem}.{name}" for name in public_names(page.stem) if name not in last]
    if missing:
        raise PluginError(f"the reference does not show {missing}: give each a docstring, and a function that is "
                          "called as its module an entry of its own (docs/api/students.md has some).")


def public_names(module):
    """What a module's __all__ says; without one, its functions and classes."""
    source = ROOT / "tf_l2t" / module
    source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
    body = ast.parse(source.read_text(encoding="utf-8")).body
    for node in body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
