"""From a session's log to a label map, without a window."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_volume, write_labels
from napari_ka2er.core.metrics import volumes_ml
from napari_ka2er.core.records import read_records
from napari_ka2er.core.sessions import replay, source_of

if TYPE_CHECKING:
    from pathlib import Path


def write_replay(session: Path, out: Path, like: Path | None = None) -> dict[str, Any]:
    """Write the mask that a session's actions lead to.

    Parameters
    ----------
    session : Path
        The session's folder.
    out : Path
        The label map to write.
    like : Path, optional
        The image whose header the label map gets; by default the file the session was about, if it
        is still there.  The geometry is the session's in any case.

    Returns
    -------
    dict
        The numbers of actions and steps and the volume of each label in ml, as plain data.

    Raises
    ------
    UserError
        If there is no session, or `like` lies elsewhere.
    """
    restored = replay(session)
    volume, image = restored.volume, like or source_of(session)
    if image is not None:
        source = read_volume(image)
        if source.geometry.is_close(volume.geometry):
            volume = replace(source, name=volume.name)
        elif like is not None:
            raise UserError(f"an image in the place of session {session.name}", f"{like}")
    write_labels(out, restored.mask, volume, restored.task)
    sizes = volumes_ml(restored.mask, volume.geometry, restored.task.values)
    return {
        "session": str(session),
        "out": str(out),
        "n_actions": sum(1 for _ in read_records(session)),
        "n_steps": restored.state.history.n_done,
        "volumes_ml": {label.name: sizes[label.value] for label in restored.task.labels},
    }
