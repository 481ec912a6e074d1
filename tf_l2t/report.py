"""Reports: one HTML file with everything in it, to be sent and kept."""

from __future__ import annotations

import base64
import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tf_l2t.files import write_whole

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; } th, td { padding: 0.25em 0.8em; border-bottom: 1px solid #ddd; }
th { text-align: left; } td + td { text-align: right; white-space: nowrap; }
figure { margin: 1.5em 0; } img { max-width: 100%; } figcaption { color: #555; }
pre { background: #f6f6f6; padding: 1em;
  overflow-x: auto; font-size: 12px; }
"""


class Section(NamedTuple):
    """A part of a report.

    Attributes:
      title: its heading.
      table: Markdown.
      sentences: said below the table.
      pictures: PNG files by caption.
    """

    title: str
    table: str
    sentences: Sequence[str]
    pictures: Mapping[str, pathlib.Path]


def write_html(path: str | pathlib.Path, title: str, sections: Sequence[Section], about: str = "") -> pathlib.Path:
    """Writes a page that needs no other file: pictures are part of it.

    Args:
      path: the file.
      title: of the page.
      sections: in order.
      about: plain text for its end, such as the configuration.

    Returns:
      `path`.
    """
    path = pathlib.Path(path)
    body = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        body += [f"<h2>{html.escape(section.title)}</h2>", html_table(section.table), "<ul>",
                 *(f"<li>{html.escape(sentence)}</li>" for sentence in section.sentences), "</ul>"]
        body += [_figure(picture, caption) for caption, picture in section.pictures.items()]
    if about:
        body += ["<h2>Configuration</h2>", f"<pre>{html.escape(about)}</pre>"]
    page = f"<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{html.escape(title)}</title>" \
           f"<style>{_STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    write_whole(path, lambda file: file.write_text(page, encoding="utf-8"))
    return path


def html_table(markdown: str) -> str:
    """A Markdown table as HTML."""
    head, _, *rows = [[html.escape(cell.strip()) for cell in line.strip().strip("|").split("|")]
                      for line in markdown.strip().splitlines()]
    lines = ["<table><tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join(lines) + "\n</table>"


def _figure(picture: pathlib.Path, caption: str) -> str:
    data = base64.b64encode(pathlib.Path(picture).read_bytes()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
