import os
import shutil

import pytest
from tests.model.folders import make_expert
from tests.training.test_amalgamate import SPACING, TASKS, write_case

from ka2er_training.cases import Source, draw, prepare_case
from ka2er_training.plan import preset, student_config, task_entry

N_CASES = 30


@pytest.fixture
def few_files():
    """Let this process open only 100 files more than it has."""
    resource = pytest.importorskip("resource")
    if not os.path.isdir("/dev/fd"):
        pytest.skip("open files cannot be counted")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(map(int, os.listdir("/dev/fd"))) + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_many_volumes_may_be_drawn_from_with_few_open_files(tmp_path, request):
    """Each has 7 maps here: image, target, soft, four stages of an expert; 210 of them in all."""
    image, label = write_case(tmp_path, "case", 0)
    experts = [make_expert(tmp_path / "expert", TASKS[0], 0)]
    entry = task_entry(TASKS[0], SPACING, [(48.0, 80.0, 40.0)], preset("tiny"))
    config = student_config([entry], experts, preset("tiny"), "attention")
    source, caches = Source("case", "one", image, label), [tmp_path / "c0"]
    prepare_case(source, entry, experts, caches[0])
    for number in range(1, N_CASES):  # as other volumes' would be, but in no time
        caches.append(shutil.copytree(caches[0], tmp_path / f"c{number}"))
    request.getfixturevalue("few_files")
    cases = [prepare_case(source, entry, experts, cache) for cache in caches]
    for case in [*cases, *cases]:
        sample = draw(case, config, case.grid)
        assert sample.image.shape[2:] == case.grid.shape
