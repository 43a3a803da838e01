from dataclasses import replace
from pathlib import Path

import pytest

from ka2er_training.bench.amalgamation import OTHER_SERIES, Plan
from ka2er_training.bench.cells import in_order
from ka2er_training.bench.settings import read_bench_settings
from ka2er_training.bench.shifts import SHIFTS
from ka2er_training.bench.splits import patient_of, split_cases
from ka2er_training.bench.systems import (
    ENSEMBLE,
    EXPERTS,
    FEW_LABEL_EXPERTS,
    JOINT,
    KA2ER,
    RIVALS,
    VARIANTS,
)
from napari_ka2er.core.errors import UserError

NAMES = {
    "hippocampus": [f"hippocampus_{i:03d}" for i in range(1, 200)],
    "vertebrae": [f"VB{s}_{i:02d}" for s in (2, 3) for i in range(1, 55)],
    "lungs": ["acil_001", "elastix_001", "radiomics_lung2", "torso_001"],
    "flair_lesions": [f"subj_{i:03d}" for i in range(1, 19)],
}
RECIPES = {"expert": {"epochs": 1}, "student": {"steps": 1}}


@pytest.fixture(params=["small", "full"])
def settings(request):
    return read_bench_settings(request.param)


def test_no_patient_is_both_trained_on_and_tested(settings):
    for task in settings.tasks:
        for fold in range(4):
            split = split_cases(NAMES[task.name], task, fold)
            patients = [
                {patient_of(name, task) for name in part}
                for part in (split.train, split.test, split.shifted)
            ]
            assert all(patients[:2])
            assert not patients[0] & patients[1]
            assert not patients[0] & patients[2]


def test_both_sides_of_one_brain_are_one_patient(settings):
    task = settings.task("hippocampus")
    assert patient_of("hippocampus_007", task) == patient_of("hippocampus_008", task)
    assert patient_of("hippocampus_006", task) != patient_of("hippocampus_007", task)
    # 205 and 189 share a scan's factor, and 206 would be the other side of 205
    assert patient_of("hippocampus_206", task) == patient_of("hippocampus_189", task)


def test_the_split_does_not_move_when_cases_are_added(settings):
    task = replace(settings.task("hippocampus"), max_train=None, max_test=None)
    few, all_ = (split_cases(NAMES["hippocampus"][:n], task) for n in (100, 199))
    assert set(few.test) < set(all_.test)
    assert set(few.train) < set(all_.train)


def test_a_copy_is_dropped_and_the_other_series_is_only_a_shift(settings):
    split = split_cases(NAMES["vertebrae"], settings.task("vertebrae"))
    assert "VB3_54" not in split.train + split.test
    assert all(name.startswith("VB3_") for name in split.train + split.test)
    assert split.shifted
    assert all(name.startswith("VB2_") for name in split.shifted)


def test_folds_go_round():
    task = read_bench_settings("full").task("lungs")
    tested = [split_cases(NAMES["lungs"], task, fold).test for fold in range(5)]
    assert sorted(name for (name,) in tested[:4]) == NAMES["lungs"]
    assert tested[4] == tested[0]


def test_a_task_without_test_cases_is_refused():
    task = replace(read_bench_settings("full").task("flair_lesions"), test_share=1e-9)
    with pytest.raises(UserError, match="to test on"):
        split_cases(NAMES["flair_lesions"], task)


def test_every_cell_comes_after_what_it_needs_and_experts_before_students(settings):
    cells = in_order(Plan(settings, NAMES, RECIPES).cells())
    seen: set[str] = set()
    for cell in cells:
        assert {need.digest for need in cell.needs} <= seen
        seen.add(cell.digest)
    kinds = [cell.kind for cell in cells]
    assert kinds[0] == "expert"
    assert cells[kinds.index("student")].name == "student joint seed 0"


def test_students_share_experts_and_the_three_modes_share_a_student():
    plan = Plan(read_bench_settings("full"), NAMES, RECIPES)
    kinds = [cell.kind for cell in in_order(plan.cells())]
    # lungs have one expert per seed, the others one; each one with half the schedule; and those of
    # 2 and of 6 cases, of which lungs have three
    assert kinds.count("expert") == 3 + 3 + 4 + 2 * 4 - 1
    n_first = len(VARIANTS) - 1  # one is only in the table of longer training
    n_few = 2 * 7  # 2 and 6 labels; joint, ka2er, and all rivals
    assert kinds.count("student") == n_first + 2 * 2 + n_few


def test_an_expert_with_twice_the_epochs_is_asked_for_and_leaves_the_others_cells_alone():
    settings = read_bench_settings("two_cores")
    without = replace(settings, tasks=tuple(replace(t, twice=False) for t in settings.tasks))
    more, less = (in_order(Plan(s, NAMES, RECIPES).cells()) for s in (settings, without))
    assert {cell.digest for cell in less} < {cell.digest for cell in more}
    new = [cell for cell in more if cell.digest not in {cell.digest for cell in less}]
    assert {cell.name for cell in new if cell.kind == "expert"} == {
        "expert hippocampus, twice the schedule",
        "expert vertebrae, twice the schedule",
        "expert lungs fold 0, twice the schedule",
    }
    assert {c.settings["epochs"] for c in new if c.kind == "expert"} == {200, 160, 80}
    asked = {c.needs[0].name for c in new if c.kind == "evaluation"}
    assert asked == {cell.name for cell in new if cell.kind == "expert"}


def test_a_changed_preset_makes_new_students_and_keeps_experts():
    settings = read_bench_settings("small")
    old = in_order(Plan(settings, NAMES, RECIPES).cells())
    new = in_order(Plan(settings, NAMES, {**RECIPES, "student": {"steps": 2}}).cells())
    shared = {cell.digest for cell in old} & {cell.digest for cell in new}
    assert {cell.digest for cell in old if cell.kind in ("expert", "untrained")} <= shared
    assert not any(cell.digest in shared for cell in new if cell.kind == "student")


def test_baselines_without_experts_need_none(settings):
    plan = Plan(settings, NAMES, RECIPES)
    joint, logits, control = (plan.student(v, 0) for v in ("joint", "logits", "untrained"))
    assert joint.needs == ()
    assert {need.kind for need in logits.needs} == {"expert"}
    assert {need.kind for need in control.needs} == {"untrained"}


def test_few_labels_leave_the_other_images_to_systems_with_soft_targets():
    plan = Plan(read_bench_settings("full"), NAMES, RECIPES)
    task = "hippocampus"
    joint, ka2er = (plan.student(v, 0, 2).settings["tasks"][task] for v in ("joint", "ka2er"))
    assert joint["labelled"] == ka2er["labelled"]
    assert len(joint["labelled"]) == 2
    assert joint["unlabelled"] == ()
    everything = plan.student("ka2er", 0).settings["tasks"][task]["labelled"]
    assert set(ka2er["labelled"] + ka2er["unlabelled"]) == set(everything)


def test_every_system_is_asked_with_few_labels_and_under_shift():
    entries = Plan(read_bench_settings("full"), NAMES, RECIPES).entries()
    few, shifted = ({e.system for e in entries if e.table == t} for t in ("few", "shift"))
    rivals = {system.name for system in (JOINT, *RIVALS, *KA2ER)}
    assert rivals | {FEW_LABEL_EXPERTS.name} == few
    assert rivals | {EXPERTS.name, ENSEMBLE.name} == shifted
    assert {e.column for e in entries if e.table == "shift"} == {*SHIFTS, OTHER_SERIES}


def test_an_expert_of_few_cases_sees_those_that_the_students_have_labels_of():
    plan = Plan(read_bench_settings("full"), NAMES, RECIPES)
    asked = [e.cell for e in plan.entries() if e.system == FEW_LABEL_EXPERTS.name]
    for task in plan.settings.tasks:
        few = plan.expert(task, 0, "trained", 2)
        students = plan.student("joint", 0, 2).settings["tasks"][task.name]
        assert few.settings["cases"] == students["labelled"]
        assert few.settings["epochs"] == plan.expert(task, 0).settings["epochs"]
        assert few.digest in {cell.needs[0].digest for cell in asked}
        assert few.name.endswith(", 2 labelled cases")
    lungs = plan.settings.task("lungs")  # of which there are three to train on
    assert plan.expert(lungs, 0, "trained", 6).name == plan.expert(lungs, 0).name


def test_cells_of_before_there_were_more_systems_are_what_they_were():
    """Finished ones, whose weights nobody has any more, must not be lost; digests of dd513c4."""
    plan = Plan(read_bench_settings("two_cores"), NAMES, RECIPES)
    digests = {cell.name: cell.digest[:12] for cell in in_order(plan.cells())}
    assert digests["expert vertebrae"] == "8dc07380872c"
    assert digests["KA²ER sparse on vertebrae noise, seed 0"] == "e4299c4dc429"
    assert digests["KA²ER full on lungs, seed 0, 2 labelled cases"] == "34313aaa6e23"


def test_longer_training_is_another_student_and_keeps_the_others():
    settings = read_bench_settings("full")
    longer = replace(settings, student=replace(settings.student, long_steps=(9000, 18000)))
    old, new = (in_order(Plan(s, NAMES, RECIPES).cells()) for s in (settings, longer))
    added = {c.digest: c for c in new}.keys() - {c.digest for c in old}
    assert {c.digest for c in old} <= {c.digest for c in new}
    students = [c for c in new if c.digest in added and c.kind == "student"]
    assert {c.name for c in students} == {
        f"student {variant} seed 0, {steps} steps"
        for variant in ("joint", "ka2er", "ka2er alone", "untrained")
        for steps in (9000, 18000)
    }
    assert {c.settings["steps"] for c in students} == {9000, 18000}


def test_the_other_series_is_a_column_of_the_shift_table(settings):
    entries = Plan(settings, NAMES, RECIPES).entries()
    tasks = {entry.task for entry in entries if entry.column == OTHER_SERIES}
    assert tasks == {"vertebrae"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no tasks"),
        ("colour = 1\n[tasks.a]\nspacing_mm = [1, 1, 1]", "colour"),
        ("[tasks.a]\nspacing_mm = [1, 1, 1]\nwindows = 3", "windows"),
        ("[tasks.a]\nseries = 'x'", "spacing_mm"),
        ("[tasks.a]\nspacing_mm = [1, 1, 1]\npatients = 'twins'", "twins"),
        ("[student", "benchmark settings"),
    ],
)
def test_unusable_settings_are_refused_by_name(tmp_path, text, named):
    path = tmp_path / "bench.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=named):
        read_bench_settings(path)


def test_missing_settings_are_refused():
    with pytest.raises(UserError, match=r"none\.toml"):
        read_bench_settings(Path("none.toml"))
