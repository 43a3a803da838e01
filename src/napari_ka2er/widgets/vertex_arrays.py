"""What napari's canvas leaves behind when layers go."""

from __future__ import annotations

from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication
from vispy.gloo import gl

_N_ARRAYS = 16  # what OpenGL guarantees, and more than any visual uses


def disable_vertex_arrays(event: object = None) -> None:
    """Disable the vertex arrays of all canvases; to be called when layers were removed.

    vispy 0.17 enables arrays for each drawing and never disables them.  Those of a layer that went
    point to buffers that are deleted: at the next drawing Mesa's software OpenGL reads from address
    0, and the process ends (napari alone does that too, when several layers go at once).  What is
    drawn next enables its own.
    """
    for window in QApplication.topLevelWidgets():
        for canvas in window.findChildren(QOpenGLWidget):
            if canvas.isValid():
                canvas.makeCurrent()
                for index in range(_N_ARRAYS):
                    gl.glDisableVertexAttribArray(index)
                canvas.doneCurrent()
