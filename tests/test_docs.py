from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from ka2er_training.cli import build_parser

TOP = Path(__file__).parents[1]
PAGES = sorted([*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(TOP).as_posix())
def test_every_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [link for link in links if link and "://" not in link]
    assert not [link for link in local if not (page.parent / link).exists()]


def commands_of(parser: argparse.ArgumentParser) -> set[str]:
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        return {parser.prog}
    return {name for group in groups for sub in group.choices.values() for name in commands_of(sub)}


def options_of(parser: argparse.ArgumentParser) -> dict[str, set[str]]:
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        return {parser.prog: {name for a in parser._actions for name in a.option_strings}}
    subs = [sub for group in groups for sub in group.choices.values()]
    return {name: found for sub in subs for name, found in options_of(sub).items()}


def test_the_reference_has_every_option():
    text = (TOP / "docs" / "commands.md").read_text(encoding="utf-8")
    pages = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    missing = [
        (command, option)
        for command, options in options_of(build_parser()).items()
        for option in options
        if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", pages[command])
    ]
    assert not missing, "make docs"


def test_the_reference_has_every_command_and_no_other():
    text = (TOP / "docs" / "commands.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## (ka2er .+)$", text, re.MULTILINE)) == commands_of(build_parser()), (
        "run `make docs`"
    )


def test_no_page_names_a_folder_that_others_do_not_have():
    for page in PAGES:
        assert not re.search(r"\.\./shared|/work/|/home/", page.read_text(encoding="utf-8")), page
