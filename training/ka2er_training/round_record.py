"""A finished round as one record and one page: ``round.json`` and the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.belonging_stage import label_notes
from ka2er_training.ledger import packages_folder
from ka2er_training.lineage import code_version
from ka2er_training.registry import student_folder
from ka2er_training.round_evidence import evidence
from ka2er_training.round_outcome import reason_of, stop_of
from ka2er_training.round_report import write_round_report
from ka2er_training.round_state import NOTHING, now
from ka2er_training.rounds import PackageIn, Round, Stage, Training
from ka2er_training.verdicts import Verdict
from ka2er_training.workspace import read_json, write_json
from napari_ka2er.core.package import read_package, summarise_package

if TYPE_CHECKING:
    from ka2er_training.retrain_stages import RoundWork


def write_report(work: RoundWork) -> dict[str, Any]:
    """Write ``round.json`` and ``reports/round-NNNN.html``; return where they are."""
    found = record_of(work)
    if found.after != found.before:
        before, after = (student_folder(work.workspace, v) for v in (found.before, found.after))
        seen = evidence(
            work.workspace, before, after, work.folder / "pictures",
            mode=work.state.options.mode, device=work.device, **work.hooks,
        )  # fmt: skip
        found = replace(found, **seen)
    write_json(work.folder / "round.json", found.to_json())
    page = work.workspace.folder / "reports" / f"{work.folder.name}.html"
    write_round_report(page, found)
    return {"report": str(page), "record": str(work.folder / "round.json")}


def record_of(work: RoundWork) -> Round:
    """Return a round's record; without training if there was nothing to train."""
    state = work.state
    decided, gate = state.outcome("decide"), state.outcome("gate")
    judged = state.outcome("expert_gate").get("verdicts", {})
    return Round(
        number=state.number,
        started=state.started,
        finished=now(),
        before=state.before,
        after=decided.get("version") or state.before,
        decision=decided.get("status", NOTHING),
        reason=reason_of(state) or "no new case to train on",
        packages=tuple(_package(work, p["digest"], p["path"]) for p in state.packages),
        trained=tuple(_trained(work)),
        stages=tuple(
            Stage(name, cost["seconds"], cost["cpu_s"], cost["joules"])
            for name, cost in state.stages.items()
        ),
        labels={
            task: told["cases"] for task, told in state.outcome("labels").get("tasks", {}).items()
        },
        experts={
            name: [Verdict.from_json(verdict) for verdict in tries]
            for name, tries in judged.items()
        },
        tries=tuple(Verdict.from_json(verdict) for verdict in gate.get("verdicts", ())),
        code=code_version(),
        seeds={"round": state.number if state.options.seed is None else state.options.seed},
        notes=tuple(_notes(work)),
    )


def _package(work: RoundWork, digest: str, path: str) -> PackageIn:
    """Return what came in with one package."""
    kept = packages_folder(work.workspace, digest)
    told, package = summarise_package(kept), read_package(kept)
    plan = [item for item in read_json(work.folder / "ingest.json") if item["package"] == digest]
    splits = [item["split"] for item in plan]
    cases = told["cases"]
    students = {str((case["student"] or {}).get("version", "")) for case in cases}
    return PackageIn(
        name=Path(path).name,
        digest=digest,
        task=package.task.name,
        cases=len(cases),
        training=splits.count("training"),
        held=splits.count("held"),
        holdout=splits.count("holdout"),
        reviewed_share=sum(case["reviewed_share"] for case in cases) / len(cases),
        clicks=sum(case["n_prompts"] for case in cases),
        seconds=sum(case["seconds"] or 0.0 for case in cases),
        reviewers=tuple(sorted({str(c["reviewer"]) for c in cases if c["reviewer"]})),
        student=", ".join(sorted(students - {""})),
    )


def _trained(work: RoundWork) -> list[Training]:
    """Return experts and the student's parts, with where their curves are."""
    trained = []
    for name, one in work.state.outcome("experts").get("experts", {}).items():
        kept = ("cases", "corrected", "seconds")
        settings = {key: one[key] for key in kept if key in one}
        trained.append(Training(f"expert {name}", one["epochs"], settings))
    if notes := work.state.outcome("student"):
        for part, steps in notes["steps"].items():
            log = work.folder / part / "scalars.jsonl"
            where = str(log) if log.is_file() else ""
            trained.append(Training(f"student: {part}", steps, {"seed": notes["seed"]}, where))
    return trained


def _notes(work: RoundWork) -> list[str]:
    state = work.state
    notes = list(state.outcome("ingest").get("notes", []))
    reasons = state.outcome("expert_gate").get("reasons", {})
    notes += [f"expert {task}: {reason}" for task, reason in reasons.items()]
    notes += state.outcome("gate").get("notes", [])
    notes += label_notes(state.outcome("labels"))
    if stop_of(state)[0] == "expert_gate":
        notes.append("no student was trained; --keep-going trains one all the same")
    if moved := state.outcome("decide").get("withdrawn"):
        notes.append(f"{len(moved)} corrections were taken out of training again")
    if work.state.options.from_scratch:
        notes.append("everything was trained from scratch, for comparison")
    return notes
