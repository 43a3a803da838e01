"""Draw the way of a volume through the student: docs/figures/data_flow.svg."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

# Okabe & Ito's colours, lightened: data, networks, what is trained in the amalgamation, prompts.
DATA, FROZEN, TRAINED, PROMPT = "#F2F2F2", "#CFE8F7", "#CDEBDD", "#FBE3BD"
INK = "#222222"
ROUND = "round,pad=0,rounding_size=0.12"

EXPERTS = "nnU-Net, frozen, each\nin its own spacing\nand patch size"
AMALGAMATION = """tokens: self-attention,
attention to each expert,
softmax over experts and null;
voxels: weights per voxel"""

# Name: (centre x, centre y, width, height, colour, title, lines)
BOXES = {
    "volume": (0.9, 3.0, 1.4, 1.0, DATA, "volume", "any format,\nany orientation"),
    "foundation": (3.3, 4.5, 2.2, 1.0, TRAINED, "foundation", "SwinUNETR,\nstrides 2 … 32"),
    "experts": (3.3, 1.5, 2.2, 1.2, FROZEN, "experts 1 … K", EXPERTS),
    "alignment": (5.9, 1.5, 1.7, 1.0, FROZEN, "alignment", "to the student's\ngrid, in mm"),
    "amalgamation": (6.6, 3.6, 2.9, 1.4, TRAINED, "amalgamation", AMALGAMATION),
    "gold": (9.7, 3.6, 1.9, 1.1, TRAINED, "gold features", "G at stride 8,\nF at stride 2, cached"),
    "decoder": (12.2, 3.0, 1.7, 1.1, TRAINED, "mask decoder", "in a box around\nthe prompt"),
    "prompts": (9.7, 1.3, 1.9, 1.0, PROMPT, "prompts", "point, box, scribble,\nlasso, last mask"),
    "automatic": (12.2, 4.9, 1.9, 0.8, DATA, "automatic mask", "all labels"),
    "mask": (14.5, 3.0, 1.4, 1.0, DATA, "mask", "and its\npredicted Dice"),
    "map": (6.6, 5.6, 1.9, 0.8, DATA, "expert map", "who counted where"),
}
# From, to, curvature.
ARROWS = (
    ("volume", "foundation", 0.0),
    ("volume", "experts", 0.0),
    ("experts", "alignment", 0.0),
    ("alignment", "amalgamation", 0.0),
    ("foundation", "amalgamation", 0.0),
    ("amalgamation", "gold", 0.0),
    ("amalgamation", "map", 0.0),
    ("gold", "automatic", 0.0),
    ("gold", "decoder", 0.0),
    ("prompts", "decoder", 0.0),
    ("decoder", "mask", 0.0),
    ("mask", "prompts", -0.35),
)
LEGEND = (
    (TRAINED, "trained in the amalgamation"),
    (FROZEN, "frozen"),
    (PROMPT, "from the user"),
    (DATA, "data"),
)


def draw() -> Figure:
    """Return the figure."""
    figure = Figure(figsize=(12.8, 5.4))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 15.4), ylim=(-0.35, 6.15))
    axes.set_axis_off()
    patches = {}
    for name, (x, y, width, height, color, title, lines) in BOXES.items():
        corner = (x - width / 2, y - height / 2)
        patches[name] = FancyBboxPatch(
            corner, width, height, boxstyle=ROUND, facecolor=color, edgecolor=INK, linewidth=0.8
        )
        axes.add_patch(patches[name])
        top = y + 0.05 + 0.095 * (lines.count("\n") + 1)  # title and lines as one block
        axes.text(
            x, top, title, ha="center", va="center", fontsize=10, fontweight="bold", color=INK
        )
        axes.text(x, top - 0.17, lines, ha="center", va="top", fontsize=8.5, color=INK)
    for start, end, curvature in ARROWS:
        axes.add_patch(_arrow(patches[start], patches[end], curvature))
    for index, (color, text) in enumerate(LEGEND):
        x = 0.3 + index * 2.9
        axes.add_patch(
            Rectangle((x, -0.2), 0.3, 0.2, facecolor=color, edgecolor=INK, linewidth=0.6)
        )
        axes.text(x + 0.42, -0.1, text, va="center", fontsize=8.5, color=INK)
    return figure


def _arrow(start: FancyBboxPatch, end: FancyBboxPatch, curvature: float) -> FancyArrowPatch:
    """Return an arrow from one box's edge to another's."""
    centres = [
        (box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2)
        for box in (start, end)
    ]
    return FancyArrowPatch(
        *centres, patchA=start, patchB=end, arrowstyle="-|>", mutation_scale=11, shrinkA=1,
        shrinkB=1, color=INK, linewidth=0.9, connectionstyle=f"arc3,rad={curvature}",
    )  # fmt: skip


def main() -> None:
    """Write the SVG beside this file, the same bytes every time."""
    mpl.rcParams.update(
        {"svg.hashsalt": "ka2er", "svg.fonttype": "none", "font.family": "sans-serif"}
    )
    figure = draw()
    figure.patch.set_facecolor("white")
    path = Path(__file__).with_suffix(".svg")
    FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
