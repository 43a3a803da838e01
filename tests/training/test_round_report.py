import base64
import json
import re

import pytest
from matplotlib.figure import Figure
from tests.training.test_gate import BASE, rows, shifted

from ka2er_training.energy import WATTS_PER_CORE, EnergyMeter
from ka2er_training.gate import judge
from ka2er_training.gate_stats import Bounds
from ka2er_training.round_report import write_round_report
from ka2er_training.rounds import PackageIn, Picture, Round, Stage, Training
from ka2er_training.settings import GateSettings
from ka2er_training.workspace import read_json, write_json


@pytest.fixture
def found(tmp_path):
    """A round that was refused: hip gained, lung lost."""
    verdict = judge(
        rows(hip=BASE, lung=BASE),
        rows(hip=shifted(BASE, 0.02), lung=shifted(BASE, -0.03, -0.02)),
        {"hip"},
        GateSettings(),
    )
    figure = Figure(figsize=(1, 1))
    figure.savefig(tmp_path / "hip.png")
    scalars = tmp_path / "scalars.jsonl"
    scalars.write_text("".join(json.dumps({"step": s, "loss": 1 / s}) + "\n" for s in (1, 2, 3)))
    package = PackageIn("ann's <corrections>", "0123456789abcdef", "hip", 8, 6, 2, clicks=37)
    change = {"task": "lung", "label": "left", "before": 0.9, "after": 0.875}
    return Round(
        number=3,
        started="2026-01-02T03:04:05+00:00",
        finished="2026-01-02T04:04:05+00:00",
        before="v0002",
        after="v0003",
        decision="refused",
        reason=verdict.reason,
        packages=(package,),
        trained=(Training("expert hip", 60, {"rate": 0.003}, str(scalars)),),
        stages=(Stage("experts", 90.0, 360.0), Stage("student", 7200.0, 3600.0, joules=7200.0)),
        experts={"hip": [verdict]},
        tries=(verdict, verdict.with_share(0.75)),
        scores=[{**change, "change": Bounds(8, -0.025, -0.03, -0.02, 0.002).to_json()}],
        weights_before={"hip": {"hip": 0.75, "null": 0.25}},
        weights_after={"hip": {"hip": 0.5, "null": 0.5}},
        pictures=(Picture("hip, case 4", str(tmp_path / "hip.png")),),
        seeds={"round": 3},
    )


def page_of(found, folder):
    write_round_report(folder / "pages" / "round.html", found)
    return (folder / "pages" / "round.html").read_text(encoding="utf-8")


def text_of(page):
    words = re.sub(r"<[^>]*>", " ", re.sub(r"<style.*?</style>", "", page, flags=re.DOTALL))
    return re.sub(r"\s+", " ", words)


def test_the_decision_and_its_reason_come_first(found, tmp_path):
    text = text_of(page_of(found, tmp_path).partition("<body>")[2])
    start = "Round 3 Refused: v0002 stays; v0003 is kept, refused lung may lose more than 0.010"
    assert text.strip().startswith(start)


def test_a_promoted_interpolation_is_called_one(found, tmp_path):
    from dataclasses import replace

    good = replace(found.tries[0], promoted=True, share=0.5)
    page = page_of(replace(found, decision="promoted", tries=(found.tries[0], good)), tmp_path)
    assert "an interpolation with 0.5 of the new weights, takes the place of v0002" in text_of(page)


def test_the_page_needs_no_other_file(found, tmp_path):
    page = page_of(found, tmp_path)
    links = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert len(links) == 4  # changes, worst case, curve, expert map
    assert all(link.startswith("data:image/png;base64,") for link in links)
    for data in re.findall(r'base64,([^"]+)"', page):
        assert base64.b64decode(data).startswith(b"\x89PNG")


def test_names_from_packages_cannot_write_into_the_page(found, tmp_path):
    page = page_of(found, tmp_path)
    assert "<corrections>" not in page
    assert "&lt;corrections&gt;" in page


def test_numbers_of_packages_scores_and_the_gate_are_there(found, tmp_path):
    text = text_of(page_of(found, tmp_path))
    assert "(01234567) hip 8 6 2 0 - 37" in text
    assert "lung left 8 0.900 0.875 -0.025 [-0.030, -0.020]" in text
    assert "interpolation, 0.75 of the new: refused" in text
    assert "Expert hip, the new one: refused" in text
    assert "hip 0.750 → 0.500 0.250 → 0.500" in text
    assert "expert hip 60 rate: 0.003" in text


def test_energy_is_estimated_where_it_was_not_measured_and_says_so(found, tmp_path):
    text = text_of(page_of(found, tmp_path))
    assert WATTS_PER_CORE == 10
    assert "experts 90.0 s 6.0 min ~1.00 Wh" in text  # 360 s * 10 W = 3600 J
    assert "student 2.0 h 60.0 min 2.00 Wh" in text
    assert "all 2.0 h 66.0 min ~3.00 Wh" in text
    assert "where marked ~, processor time × 10 W per busy core, an assumption" in text


def test_a_round_survives_json(found, tmp_path):
    write_json(tmp_path / "round.json", found.to_json())
    assert Round.from_json(read_json(tmp_path / "round.json")) == found


def test_a_round_without_anything_still_makes_a_page(tmp_path):
    found = Round(1, "then", "now", "v0001", "", "nothing to train", "no new case")
    text = text_of(page_of(found, tmp_path).partition("<body>")[2])
    assert "Nothing to train: v0001 stays no new case" in text
    assert "Worst" not in text


def test_a_picture_that_is_gone_is_named(found, tmp_path):
    (tmp_path / "hip.png").unlink()
    assert "Pictures that are gone: hip, case 4" in text_of(page_of(found, tmp_path))


def counter(folder, name, microjoules, highest=1_000_000):
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{highest}\n")


def test_energy_of_all_processors_is_added_also_over_an_overflow(tmp_path):
    counter(tmp_path, "intel-rapl:0", 900_000)
    counter(tmp_path, "intel-rapl:1", 100_000)
    counter(tmp_path, "intel-rapl:0:0", 5)  # a part of the first, already in it
    meter = EnergyMeter(tmp_path)
    counter(tmp_path, "intel-rapl:0", 200_000)
    counter(tmp_path, "intel-rapl:1", 600_000)
    counter(tmp_path, "intel-rapl:0:0", 900_000)
    assert meter.joules() == pytest.approx(0.3 + 0.5)
    assert EnergyMeter(tmp_path / "none").joules() is None
