"""Which object a prompt belongs to, whatever is undone meanwhile; no window."""

from __future__ import annotations

import numpy as np
import pytest

from napari_ka2er.core.prompts import Point
from napari_ka2er.core.session import Session
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume
from napari_ka2er.widgets.prompt_queue import PromptQueue

TASK = Task("organs", (Label(1, "liver"), Label(2, "spleen")))


@pytest.fixture
def session():
    return Session(Volume(np.zeros((4, 6, 8), np.int16), np.eye(4)), TASK)


@pytest.fixture
def queue(session):
    return PromptQueue(session)


def corrects(session, queue, label=1):
    """Click; return whether the object that the click belongs to corrects what is there."""
    queue.add_prompt(label, Point((1.0, 2.0, 3.0)))
    return session.state.objects[queue.current(label)].corrects


def test_a_new_object_that_was_undone_begins_beside_what_is_there_again(session, queue):
    assert corrects(session, queue)
    queue.new_object(1)
    assert queue.current(1) is None
    assert not corrects(session, queue)
    session.undo()
    assert queue.current(1) is None
    assert not corrects(session, queue)
    assert not corrects(session, queue), "and goes on so"
    assert len(session.state.objects) == 2


def test_so_does_one_that_was_gone_back_to(session, queue):
    queue.new_object(1)
    assert not corrects(session, queue)
    first = queue.current(1)
    queue.accept(1)
    assert corrects(session, queue)
    queue.select(first)
    session.delete_object(first)
    assert not corrects(session, queue)


def test_accept_ends_that_and_labels_do_not_mix(session, queue):
    queue.new_object(1)
    assert corrects(session, queue, 2)
    assert not corrects(session, queue)
    session.undo()
    queue.accept(1)
    assert corrects(session, queue)


def test_what_is_cancelled_while_the_request_is_made_is_no_error(session, queue, monkeypatch):
    queue.add_prompt(1, Point((1.0, 2.0, 3.0)))
    monkeypatch.setattr(session, "request", lambda number: queue.clear())
    assert queue.next_request() is None
