"""Plots as SVG text, for a report that is one file. matplotlib draws; where it is missing, a report has its tables."""

from __future__ import annotations

import importlib.util
import io

from benchmarks.sections import Plot

# Okabe and Ito's palette, which colour-blind readers can tell apart, then greys
_COLOURS = (
    "#000000",
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#B0A000",
    "#777777",
    "#AAAAAA",
)
_MARKERS = "os^Dv<>Pp*Xh"


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def svg(plot: Plot) -> str:
    """The plot as an `<svg>` element. Same plot, same text."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    # a fixed salt, so that element ids are the same each time; text as text, so that a reader can select it
    settings = {"svg.hashsalt": "trimtab", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
    with pyplot.rc_context(settings):
        figure, axes = pyplot.subplots(figsize=(8.6, 4.6), layout="constrained")
        for number, series in enumerate(plot.series):
            ours = number == 0
            colour = _COLOURS[number % len(_COLOURS)]
            axes.plot(
                series.xs,
                series.ys,
                linestyle="none" if series.points_only else "-",
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=5,
                linewidth=2.4 if ours else 1.2,
                color=colour,
                label=series.name,
                zorder=3 if ours else 2,
            )
            if series.low:
                axes.fill_between(
                    series.xs, series.low, series.high, color=colour, alpha=0.14 if ours else 0.06, linewidth=0
                )
        axes.set_title(plot.title)
        axes.set_xlabel(plot.x_label)
        axes.set_ylabel(plot.y_label)
        if plot.log_x:
            axes.set_xscale("log")
        if plot.log_y:
            axes.set_yscale("log")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]
