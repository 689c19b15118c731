"""Line charts as SVG text: no library, no script, colours from the page's style sheet. Pure."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final, NamedTuple

WIDTH: Final = 760
HEIGHT: Final = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 20, 34, 46
_TICKS: Final = 5
_DECADES_WITH_STEPS_MAX: Final = 3
"""On a longer logarithmic axis only powers of ten are marked."""


class Series(NamedTuple):
    """A named line."""

    name: str
    points: Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """Where values lie between 0 and 1, and which are marked: (value, text)."""

    label: str
    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]


class Band(NamedTuple):
    """A stretch of the x axis that is marked; the title shows where a pointer rests."""

    title: str
    begin: float
    end: float
    kind: int
    """Chooses the class: `band`, with `band-1`, `band-2`, ..."""


def linear(label: str, most: float, text: Callable[[float], str], *, exact: bool = False) -> Axis:
    """From 0 to a round number that is not below `most`, or to `most` itself."""
    most = max(most, 1e-9)
    step = _round_up(most / _TICKS)
    count = most / step
    marks = math.floor(count) if exact else math.ceil(count - 1e-9)
    top = most if exact else step * marks
    ticks = [(step * number, text(step * number)) for number in range(marks + 1)]
    return Axis(label, lambda value: value / top, ticks)


def logarithmic(label: str, least: float, most: float, text: Callable[[float], str]) -> Axis:
    """Between round numbers around two that are more than 0."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    high = max(high, low + 1)
    steps = (1, 2, 5) if high - low <= _DECADES_WITH_STEPS_MAX else (1,)
    values = [step * 10.0**power for power in range(low, high) for step in steps] + [10.0**high]
    ticks = [(value, text(value)) for value in values]
    return Axis(label, lambda value: (math.log10(max(value, 10.0**low)) - low) / (high - low), ticks)


def percentiles(label: str, most: float) -> Axis:
    """From 0 up to `most` percent (below 100), each further nine as wide as the one before."""

    def nines(percent: float) -> float:
        return -math.log10(1 - min(percent, most) / 100)

    marked = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999)
    ticks = [(percent, f"{percent:g}%") for percent in marked if percent <= most + 1e-9]
    return Axis(label, lambda value: nines(value) / max(nines(most), 1e-9), ticks)


def chart(title: str, x: Axis, y: Axis, series: Sequence[Series], bands: Sequence[Band] = ()) -> str:
    """One `<svg>`; the lines are numbered by the classes `line-0`, `line-1`, ..."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">',
        f'<text class="title" x="{_LEFT}" y="18">{escape(title)}</text>',
        *(_band(each, x) for each in bands),
        *_grid(x, y),
    ]
    parts += [_line(number, each, x, y) for number, each in enumerate(series)]
    if len(series) > 1:
        parts += _legend(series)
    return "\n".join([*parts, "</svg>"])


def _x(place: float) -> float:
    return round(_LEFT + place * (WIDTH - _LEFT - _RIGHT), 1)


def _y(place: float) -> float:
    return round(HEIGHT - _BOTTOM - place * (HEIGHT - _TOP - _BOTTOM), 1)


def _grid(x: Axis, y: Axis) -> list[str]:
    parts = []
    for value, text in x.ticks:
        at = _x(x.place(value))
        parts.append(f'<line class="grid" x1="{at}" y1="{_y(1)}" x2="{at}" y2="{_y(0)}"/>')
        parts.append(f'<text x="{at}" y="{_y(0) + 16}" text-anchor="middle">{escape(text)}</text>')
    for value, text in y.ticks:
        at = _y(y.place(value))
        parts.append(f'<line class="grid" x1="{_x(0)}" y1="{at}" x2="{_x(1)}" y2="{at}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4}" text-anchor="end">{escape(text)}</text>')
    middle = _y(0.5)
    parts.append(
        f'<text class="axis" x="{_x(0.5)}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.label)}</text>'
    )
    parts.append(
        f'<text class="axis" x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        f"{escape(y.label)}</text>"
    )
    return parts


def _band(band: Band, x: Axis) -> str:
    left, right = _x(x.place(band.begin)), _x(x.place(band.end))
    size = f'width="{max(right - left, 1.5):.1f}" height="{_y(0) - _y(1)}"'
    shape = f'<rect class="band band-{band.kind}" x="{left}" y="{_y(1)}" {size}>'
    return f"{shape}<title>{escape(band.title)}</title></rect>"


def _line(number: int, series: Series, x: Axis, y: Axis) -> str:
    """A line, or a dot for a single point."""
    points = [(_x(x.place(across)), _y(y.place(up))) for across, up in series.points]
    if len(points) == 1:
        return f'<circle class="dot-{number}" cx="{points[0][0]}" cy="{points[0][1]}" r="3"/>'
    text = " ".join(f"{across},{up}" for across, up in points)
    return f'<polyline class="line-{number}" points="{text}"/>'


def _legend(series: Sequence[Series]) -> list[str]:
    parts = []
    right = WIDTH - _RIGHT
    for number, each in reversed(list(enumerate(series))):
        parts.append(f'<text x="{right}" y="18" text-anchor="end">{escape(each.name)}</text>')
        right -= 7 * len(each.name) + 8
        parts.append(f'<line class="line-{number}" x1="{right - 18}" y1="14" x2="{right}" y2="14"/>')
        right -= 34
    return parts


def _round_up(value: float) -> float:
    """To 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= value * (1 - 1e-9))
