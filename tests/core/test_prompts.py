import pytest

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.prompts import (
    Box,
    Lasso,
    Point,
    Scribble,
    positions_of,
    prompt_from_json,
    prompt_to_json,
)

PATH = ((1.0, 2.0, 3.0), (4.0, 5.0, 6.5), (7.0, 8.0, 9.0))


@pytest.mark.parametrize(
    "prompt",
    [Point(PATH[0]), Point(PATH[1], False), Box(*PATH[:2]), Scribble(PATH, False), Lasso(PATH)],
    ids=lambda prompt: type(prompt).__name__,
)
def test_prompts_survive_json(prompt):
    assert prompt_from_json(prompt_to_json(prompt)) == prompt


def test_positions_are_those_the_prompt_is_made_of():
    assert positions_of(Box(*PATH[:2])) == PATH[:2]
    assert positions_of(Scribble(PATH)) == PATH


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "star", "positive": True, "positions_mm": [[0, 0, 0]]},
        {"kind": "point", "positive": True, "positions_mm": [[0, 0]]},
        {"kind": "point", "positive": True, "positions_mm": []},
        {"kind": "box", "positive": True, "positions_mm": [[0, 0, 0]]},
        {"kind": "point", "positive": True},
    ],
    ids=["unknown kind", "two coordinates", "no position", "one corner", "no key"],
)
def test_what_is_no_prompt_is_refused(data):
    with pytest.raises(UserError, match="prompt of kind"):
        prompt_from_json(data)
