"""The look that all figures share, and two ways to show one: as PNG, and as SVG whose marks say their numbers when pointed at.

Every axis names its unit; colours are those of Okabe & Ito (2008), and marks differ in shape too.
"""

import io
import math
from typing import Any
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

CONTROL_COLOUR, LENS_COLOUR = "#0072B2", "#D55E00"
GREY = "#555555"
DPI = 110
_POINT_STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"))
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_TOLD = "told: "

ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", _XLINK)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many inches, and its axes."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    tidy(axes)
    return figure, axes


def tidy(axes: Axes) -> None:
    """Give axes the look that all figures share."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)


def legend_above(figure: Figure, axes: Axes) -> None:
    """Put the legend where no data lie."""
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if len(labels) > 3 else 3
    figure.legend(handles, labels, loc="outside upper left", fontsize=7.5, frameon=False, ncols=columns)


def plain_ticks(value: float, _place: float) -> str:
    """Write a tick of a logarithmic axis as a number."""
    return f"{value:g}"


def say(figure: Figure, axes: Axes, words: str) -> Figure:
    """Put words where there is nothing to draw."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=9, color=GREY, wrap=True, transform=axes.transAxes)
    return figure


def styles(n: int) -> list[tuple[str, str]]:
    """Colour and marker of each of n series."""
    return (list(_POINT_STYLES) * math.ceil(n / len(_POINT_STYLES)))[:n]


def tell(artist: Artist, words: str) -> None:
    """Let an artist say words where the figure is shown as SVG and it is pointed at."""
    artist.set_gid(_TOLD + words)


def tell_at(axes: Axes, x: float, y: float, words: str) -> None:
    """Let a place of some width say words."""
    (spot,) = axes.plot([x], [y], "o", ms=11, mec="none", color="black", alpha=0.0, zorder=9)
    tell(spot, words)


def figure_png(figure: Figure) -> bytes:
    """Return the bytes of a figure as PNG."""
    _show_told(figure, False)
    return _saved(figure, format="png")


def figure_svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element for a page of HTML; what `tell` said is its marks' titles.

    Parameters
    ----------
    name : str
        Of the figure, another one for each figure of a page: the parts of a drawing refer to each other by names made of it.
    """
    _show_told(figure, True)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        root = ElementTree.fromstring(_saved(figure, format="svg", metadata={"Date": None}))
    for parent in list(root.iter()):
        for child in [*parent]:
            # What speaks of all that a page holds, and of who drew it, has no place in a part of one.
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for group in root.iter(f"{{{_SVG}}}g"):
        named = group.attrib.pop("id", "")
        if named.startswith(_TOLD):
            title = ElementTree.Element(f"{{{_SVG}}}title")
            title.text = named.removeprefix(_TOLD)
            group.insert(0, title)
            group.set("class", "told")
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    return ElementTree.tostring(root, encoding="unicode")


def _show_told(figure: Figure, shown: bool) -> None:
    """Draw what speaks only where it can: it is see-through, and costs time."""
    for artist in figure.findobj(lambda artist: (artist.get_gid() or "").startswith(_TOLD)):
        artist.set_visible(shown)


def _saved(figure: Figure, **how: Any) -> bytes:
    """Save a figure; one that is saved again needs no other layout."""
    buffer = io.BytesIO()
    figure.savefig(buffer, **how)
    figure.set_layout_engine("none")
    return buffer.getvalue()
