"""Write docs/commands.md, the options of every command, from the parser itself."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ka2er_training.cli import build_parser

HEAD = """\
# Commands

Made by `make docs` from the parser; `ka2er COMMAND --help` prints the same.

Exit status: 0 done; 2 the input cannot be used, with one line that says what was wanted and what
was got; 3 a round was refused: by the gate, because labels do not belong to their images, or
because an expert lost; 130 interrupted; 141 when the reader of the output has gone.

"""


def sections(parser: argparse.ArgumentParser) -> list[str]:
    """Return a section for each command that can be run, sub-commands in the order of `--help`."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        return [f"## {parser.prog}\n\n```text\n{parser.format_help().rstrip()}\n```\n"]
    return [text for group in groups for sub in group.choices.values() for text in sections(sub)]


def main() -> None:
    """Write the file."""
    os.environ["COLUMNS"] = "100"  # argparse wraps at the terminal's width
    text = HEAD + "\n".join(sections(build_parser()))
    Path(__file__).with_name("commands.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
