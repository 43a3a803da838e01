"""The student and what runs it.  Imports neither Qt nor napari."""
