"""The verb of castoff and the command of the distribution have the same options."""

from __future__ import annotations

from castoff_freeze.cli import parser

from castoff.cli.parser import parser_of


def test_both_command_lines_have_the_same_options() -> None:
    own = {name for name in parser_of("freeze")._option_string_actions if "=" not in name} - {"--root"}
    assert own == set(parser()._option_string_actions) - {"--version"}
