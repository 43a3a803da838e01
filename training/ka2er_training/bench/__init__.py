"""Benchmarks: what the student is worth, what it costs, and the tables and plots that say so."""
