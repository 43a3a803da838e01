"""One module per group of commands; each is a thin call of public functions."""
