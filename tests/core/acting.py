"""Random deeds in a session; imports nothing slow, as a test starts many processes with it."""

import random

import numpy as np

from napari_ka2er.core.prompts import Point
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume

TASK = Task("organs", (Label(1, "liver"), Label(2, "spleen"), Label(3, "vessel")))
SHAPE = (4, 6, 8)


def new_volume():
    data = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    return Volume(data, np.diag([2.5, 1.0, 0.5, 1.0]), name="case 7")


def act(session, seed, n_actions):
    """Do random things that are one or more actions each; yield after each."""
    rng = random.Random(seed)
    for _ in range(n_actions):
        low = [rng.randrange(n) for n in SHAPE]
        region = tuple(slice(a, rng.randint(a + 1, n)) for a, n in zip(low, SHAPE, strict=True))
        choice = rng.random()
        if choice < 0.5:
            values = np.full(session.mask[region].shape, rng.randrange(4))
            session.write(region, values, "brush", {"radius_mm": 2.0})
        elif choice < 0.7:
            number = session.add_object(rng.randint(1, 3), rng.random() < 0.5)
            session.add_prompt(number, Point((low[0] * 2.5, low[1] * 1.0, low[2] * 0.5)))
            request = session.request(number)
            session.apply_result(request, region, np.ones(session.mask[region].shape, bool))
        elif choice < 0.85:
            rng.choice([session.undo, session.redo])()
        else:
            session.review_slice(0, low[0])
        yield
