"""Volumes, tasks, prompts, sessions and corrections.  Imports neither torch, Qt nor napari."""
