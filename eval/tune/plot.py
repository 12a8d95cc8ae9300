"""The frontier as a picture: F1 with its interval against prompt tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.tune.frontier import Recommendation, Row
from rag.errors import InputError


@dataclass(frozen=True, slots=True)
class _Point:
    x: float
    y: float
    low: float
    high: float
    row: Row

    @property
    def kind(self) -> str:
        if self.row.role == "naive":
            return "naive"
        return "dominated" if self.row.dominated else "on the frontier"


def save(path: Path, rows: Sequence[Row], recommendation: Recommendation | None) -> None:
    """Writes a picture in the format that the name ends in (png, svg, pdf). Needs at least one row that was read.

    Raises:
        InputError: matplotlib is not installed, or cannot write that format. OSError: the disk refused.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("A plot needs matplotlib, which is not installed.", field="plot",
                         hint="Install it with `pip install 'thriftrag[plots]'`, or leave --plot out.") from None
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    points = [_Point(row.prompt_tokens, row.f1, *row.f1_ci, row) for row in rows if row.final and row.f1 is not None and row.f1_ci]
    front = [point for point in points if not point.row.dominated]
    axes.plot([point.x for point in front], [point.y for point in front], color="tab:blue", linewidth=1)
    for colour, label in (("tab:red", "naive"), ("tab:gray", "dominated"), ("tab:blue", "on the frontier")):
        alike = [point for point in points if point.kind == label]
        if alike:
            errors = [[point.y - point.low for point in alike], [point.high - point.y for point in alike]]
            axes.errorbar([point.x for point in alike], [point.y for point in alike], yerr=errors, fmt="o", markersize=5,
                          color=colour, elinewidth=1, capsize=2, label=label)
    for point in front:
        tried = point.row.configuration
        axes.annotate(f"{tried.selector} {tried.budget}" if point.row.role != "naive" else "naive", (point.x, point.y), fontsize=7,
                      xytext=(4, -9), textcoords="offset points")
    for point in points:
        if recommendation is not None and point.row.configuration == recommendation.chosen:
            axes.plot([point.x], [point.y], marker="o", markersize=14, fillstyle="none", color="tab:green", linestyle="none",
                      label="recommended")
    axes.set(title="Quality against cost", xlabel="prompt tokens per question", ylabel="F1 (%)")
    axes.grid(alpha=0.3)
    # Below the picture: inside, it would hide points.
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4, frameon=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except ValueError as error:
        raise InputError(f"{path} cannot be drawn: {error}.", field="plot", hint="End the name in .png, .svg or .pdf.") from error
