"""Parts of the HTML pages that the laboratory writes: one file, no outside links."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70em }
body { margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.2em; margin-top: 2.5em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px }
td, th { padding: .15em .9em; text-align: right; border-bottom: 1px solid #e8e8e8 }
td:first-child, th:first-child { text-align: left; white-space: pre }
tr.main td { font-weight: 600 } img { max-width: 100% } figure { margin: 1.5em 0 }
figcaption, .quiet { color: #666; font-size: 13px } code { font-size: 13px }
body { overflow-wrap: anywhere }
"""


def page(title: str, parts: Iterable[str]) -> bytes:
    """A whole page of `parts`, which are HTML; `title` is plain text."""
    lines = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{safe(title)}</title><style>{_STYLE}</style></head><body>",
        *parts,
        "</body></html>",
        "",
    ]
    return "\n".join(lines).encode()


def table(names: Sequence[str], rows: Iterable[tuple[str, Sequence[str], bool]]) -> list[str]:
    """A table headed by `names`; of each row its label, its cells, and whether it is a main one."""
    head = "".join(f"<th>{safe(name)}</th>" for name in ("", *names))
    lines = [f"<table><tr>{head}</tr>"]
    for label, values, main in rows:
        cells = "".join(f"<td>{safe(cell)}</td>" for cell in (label, *values))
        kind = " class='main'" if main else ""
        lines.append(f"<tr{kind}>{cells}</tr>")
    return [*lines, "</table>"]


def figure(name: str, caption: str, content: bytes) -> str:
    """A PNG or JPEG inside the page."""
    data = base64.b64encode(content).decode()
    kind = "png" if name.endswith(".png") else "jpeg"
    return (
        f'<figure><img alt="{safe(name)}" src="data:image/{kind};base64,{data}">'
        f"<figcaption>{safe(caption)}</figcaption></figure>"
    )


def safe(text: object) -> str:
    """`text` with everything escaped that means something in HTML."""
    return html.escape(str(text))
