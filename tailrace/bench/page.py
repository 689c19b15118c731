"""What every report is made of: one HTML page that needs nothing else, with tables. Pure."""

from collections.abc import Sequence
from html import escape
from typing import Final

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60656c; --grid: #e3e5e8; --back: #ffffff;
  --one: #0b62c4; --two: #c4500b; --good: #1a7f37; --bad: #c5221f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #a0a6ad; --grid: #33383d;
  --back: #16191c; --one: #6cb0ff; --two: #ff9d5c; --good: #56c271; --bad: #ff7b72; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back);
  max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.facts { color: var(--soft); margin-top: 0; } p.good { color: var(--good); } p.bad { color: var(--bad); }
pre { white-space: pre-wrap; border-left: 3px solid var(--one); padding-left: .8rem; }
svg { width: 100%; min-width: 36rem; height: auto; margin-top: 1rem; }
svg text { font-size: 12px; fill: var(--soft); }
svg text.title { font-size: 14px; font-weight: 600; fill: var(--ink); }
.grid { stroke: var(--grid); } polyline { fill: none; }
.line-0 { stroke: var(--one); stroke-width: 2; } .line-1 { stroke: var(--two); stroke-width: 2; }
.band { fill: var(--bad); fill-opacity: .14; } .band-1 { fill: var(--two); fill-opacity: .2; }
.band-2 { fill: var(--good); fill-opacity: .2; } .band-3 { fill: var(--one); fill-opacity: .2; }
.dot-0 { fill: var(--one); } .dot-1 { fill: var(--two); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } .wide { overflow-x: auto; }
th, td { padding: .2rem .9rem .2rem 0; text-align: right; border-bottom: 1px solid var(--grid); }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; }
"""


def page_of(title: str, parts: Sequence[str]) -> str:
    """The whole page around its parts, which are HTML."""
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    )
    return head + "\n".join(parts) + "\n</body>\n</html>\n"


def table_of(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, numbers to the right."""
    head = "".join(f"<th>{escape(header)}</th>" for header in headers)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def short_number(value: float) -> str:
    """`1.5M`, `200k`, `0.05`"""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"
