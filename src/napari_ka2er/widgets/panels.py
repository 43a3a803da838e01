"""All panels of the Annotate widget, in the order of the work."""

from __future__ import annotations

from typing import Any

from napari_ka2er.widgets.export_panel import ExportPanel
from napari_ka2er.widgets.label_panel import LabelPanel
from napari_ka2er.widgets.parts import Panel
from napari_ka2er.widgets.prompt_panel import PromptPanel
from napari_ka2er.widgets.review_panel import ReviewPanel
from napari_ka2er.widgets.segment_panel import SegmentPanel
from napari_ka2er.widgets.student_panel import StudentPanel
from napari_ka2er.widgets.tool_panel import ToolPanel
from napari_ka2er.widgets.train_panel import TrainPanel
from napari_ka2er.widgets.volume_panel import VolumePanel


def panels(controller: Any, viewer: Any) -> list[tuple[str, Panel]]:
    """Return titles and panels; `Sections` shows them.

    Parameters
    ----------
    controller : AnnotateController
        Does what the buttons say.
    viewer : napari.viewer.Viewer or napari.components.ViewerModel
        Whose layers are chosen from.
    """
    volume, student = VolumePanel(controller, viewer), StudentPanel(controller)
    return [
        ("Volume", volume),
        ("Student", student),
        ("Task and labels", LabelPanel(controller, volume, student)),
        ("Segment", SegmentPanel(controller)),
        ("Prompt", PromptPanel(controller)),
        ("Correct", ToolPanel(controller, viewer)),
        ("Review", ReviewPanel(controller, viewer)),
        ("Export", ExportPanel(controller)),
        ("Train", TrainPanel(controller)),
    ]
