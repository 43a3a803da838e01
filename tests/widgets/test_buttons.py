"""Every button of the widget has a tool tip, and a command or a public function that does it."""

from __future__ import annotations

from importlib import import_module

import pytest
from qtpy.QtWidgets import QCheckBox, QPushButton, QToolButton
from tests.widgets.panelling import begin, idle, sections_of

from ka2er_training.cli import build_parser
from napari_ka2er.core.tools import TOOLS

CORE, WIDGETS = "napari_ka2er.core", "napari_ka2er.widgets"
SESSION = f"{CORE}.session:Session"
# Name of the button -> what does the same without it: a command, or "module:function".
DOES = {
    "open_volume": f"{CORE}.io:read_volume",
    "open_sample": "napari_ka2er._sample_data:ct_chest",
    "choose_student": f"{CORE}.student_card:read_student_card",
    "sample_student": "napari_ka2er.model.catalogue:find_student",
    "use_chosen_student": f"{SESSION}.set_student",
    "rank_tasks": "napari_ka2er.model.predictor:Predictor.rank_tasks",
    "start": f"{CORE}.sessions:create_session",
    "restore": f"{CORE}.sessions:restore_session",
    "finish": f"{SESSION}.close",
    "add_label": f"{SESSION}.set_label",
    "segment": "ka2er predict",
    "segment_label": "napari_ka2er.model.predictor:Predictor.segment",
    "cancel": f"{WIDGETS}.controller:AnnotateController.cancel",
    "prepare": "napari_ka2er.model.predictor:Predictor.fill",
    "tool positive": "ka2er prompt --point",
    "tool negative": "ka2er prompt --point",
    "tool box": f"{CORE}.prompts:Box",
    "tool scribble": f"{CORE}.prompts:Scribble",
    "tool scribble negative": f"{CORE}.prompts:Scribble",
    "tool lasso": f"{CORE}.prompts:Lasso",
    "new_object": f"{SESSION}.add_object",
    "accept": f"{WIDGETS}.controller:AnnotateController.accept",
    "delete_object": f"{SESSION}.delete_object",
    "show_layers": f"{WIDGETS}.session_view:SessionView.show",
    "brush": f"{CORE}.brush:stroke",
    "eraser": f"{CORE}.brush:stroke",
    "limit_intensity": f"{CORE}.brush:limit",
    "fill-between": "ka2er tool fill-between --axis",
    "fill-painted": "ka2er tool fill-between --axis --keys",
    "keep-largest": "ka2er tool keep-largest",
    "remove-small": "ka2er tool remove-small --ml",
    "fill-holes": "ka2er tool fill-holes",
    "fill-holes-2d": "ka2er tool fill-holes --axis",
    "smooth": "ka2er tool smooth --mm",
    "grow": "ka2er tool grow --mm --intensity --image",
    "shrink": "ka2er tool shrink --mm",
    "copy-before": "ka2er tool copy-slice --axis --source --target",
    "copy-after": "ka2er tool copy-slice --axis --source --target",
    "split": "ka2er tool split --into --keep --split",
    "merge": "ka2er tool merge --other",
    "undo": f"{SESSION}.undo",
    "redo": f"{SESSION}.redo",
    "keys": f"{WIDGETS}.keys:markdown",
    "show_uncertainty": "ka2er predict --save-uncertainty",
    "show_expert_map": "ka2er predict --save-expert-map",
    "next_uncertain_slice": f"{WIDGETS}.maps:next_slice",
    "review_slice": f"{SESSION}.review_slice",
    "review_volume": f"{SESSION}.review_volume",
    "add_session": f"{CORE}.correction:correction_of",
    "export": f"{CORE}.correction:export_package",
    "cancel_export": f"{WIDGETS}.file_work:FileWork.cancel_export",
    "save_labels": "ka2er replay --out",
    "write_volumes": f"{CORE}.metrics:volumes_ml",
    "choose_workspace": "ka2er init",
    "add_package": "ka2er package check",
    "remove_package": "ka2er package check",
    "retrain": "ka2er retrain",
    "stop_retraining": "ka2er retrain",
    "use_student": "ka2er predict",
    "show_report": "ka2er history",
}


def buttons(sections):
    kinds = (QPushButton, QToolButton, QCheckBox)
    found = [made for kind in kinds for made in sections.findChildren(kind)]
    return [made for made in found if not made.objectName().startswith(("fold ", "qt_"))]


@pytest.fixture(params=["nothing", "started"])
def sections(request, controller, viewer, qtbot, tmp_path):
    made = sections_of(controller, viewer, qtbot)
    if request.param == "started":
        begin(controller, viewer.layers["scan"], tmp_path / "session")
    idle(controller, qtbot)
    return made


def test_every_button_is_in_the_table_and_nothing_else_is(sections):
    names = [made.objectName() for made in buttons(sections)]
    assert sorted(names) == sorted(DOES)


def test_every_button_says_what_it_does(sections):
    silent = [made.objectName() for made in buttons(sections) if len(made.toolTip()) < 12]
    assert not silent
    heads = [part.head for part in sections.parts.values()]
    assert all(head.toolTip() for head in heads)


def parsers(parser, path=("ka2er",)):
    """Yield the words of every command and its parser."""
    yield " ".join(path), parser
    for action in parser._actions:
        choices = getattr(action, "choices", None)
        for name, child in choices.items() if isinstance(choices, dict) else ():
            yield from parsers(child, (*path, name))


@pytest.mark.parametrize("name", [name for name, does in DOES.items() if ":" not in does])
def test_its_command_exists_with_these_options(name):
    known = dict(parsers(build_parser()))
    words = DOES[name].split()
    options = {word for word in words if word.startswith("--")}
    command = [word for word in words if word not in options]
    if command[:2] == ["ka2er", "tool"]:
        assert command.pop() in TOOLS
    assert options <= set(known[" ".join(command)]._option_string_actions)


@pytest.mark.parametrize("name", [name for name, does in DOES.items() if ":" in does])
def test_its_function_can_be_imported_and_is_documented(name):
    module, _, path = DOES[name].partition(":")
    thing = import_module(module)
    for part in path.split("."):
        assert not part.startswith("_")
        thing = getattr(thing, part)
    assert callable(thing)
    assert thing.__doc__
