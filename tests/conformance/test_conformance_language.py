"""The reference's own cases for the parser, the instructions and variable expansion."""

from __future__ import annotations

from typing import Any

import pytest

from castoff.dockerfile import lines
from castoff.dockerfile.directives import Directive, DirectiveReader, detect_syntax, find_directive
from castoff.dockerfile.heredoc import chomp, heredocs_of, parse_heredoc
from castoff.dockerfile.instructions import Copy, Run
from castoff.dockerfile.interpret import interpret
from castoff.dockerfile.nodes import Node, NodeTree, parse_nodes
from castoff.dockerfile.source import Source
from castoff.dockerfile.words import WordLexer
from castoff.errors import CastoffError, ExpansionError, ParseError

Case = dict[str, Any]


def read(text: str) -> Source:
    return Source.read(text.encode("utf-8", "surrogateescape"), "Dockerfile")


def tree(case: Case) -> NodeTree:
    return parse_nodes(read(case["dockerfile"]))


def heredoc_fields(node: Node) -> list[dict[str, Any]]:
    return [
        {
            "Name": doc.name,
            "Content": doc.content,
            "Expand": doc.expand,
            "Chomp": doc.chomp,
            "FileDescriptor": doc.file_descriptor,
        }
        for doc in node.heredocs
    ]


def check_directive(case: Case, found: Directive | None) -> None:
    """Compare a directive: whether there is one, its first word, its whole value, its first and last line."""
    value = found.value if found else ""
    facts = [value.partition(" ")[0], value]
    texts = [fact for fact, name in zip(facts, case["results"], strict=False) if name != "_"]
    for item in case["asserts"]:
        if item["fn"] in ("True", "False"):
            assert (found is not None) == (item["fn"] == "True")
        elif item["fn"] == "Equal" and isinstance(item["args"][0], int):
            assert found is not None
            assert found.line == item["args"][0]
        elif item["fn"] == "Equal":
            assert texts.pop(0) == item["args"][0]
        else:
            pytest.fail(f"no runner for the assertion {item}")


def check_directives(case: Case) -> None:
    reader = DirectiveReader("//" if case["input"].startswith("//") else "#")
    found: list[Directive] = []
    failed = False
    for line in case["input"].split("\n"):
        try:
            directive = reader.read(line)
        except ParseError:
            failed = True
            break
        if directive:
            found.append(directive)
    flat = [text for directive in found for text in (directive.name, directive.value)]
    expected = []
    for item in case["asserts"]:
        if item["fn"] in ("NoError", "Error"):
            assert failed == (item["fn"] == "Error")
        elif item["fn"] == "Len":
            assert len(found) == item["args"][0]
        elif item["fn"] == "Equal" and isinstance(item["args"][0], str):
            expected.append(item["args"][0])
    assert flat[: len(expected)] == expected


def check_ast(case: Case) -> None:
    assert tree(case).dump() == case["expected"]


def check_words(case: Case) -> None:
    assert lines.split_words(case["input"], "\\") == case["expected"]


def check_json(case: Case) -> None:
    assert json_array(case["input"]) == case["expected"]


def check_heredocs(case: Case) -> None:
    found = [heredoc_fields(node) or None for node in tree(case).nodes[1:]]
    assert found == case["expected"]


def check_heredoc_word(case: Case) -> None:
    doc = parse_heredoc(case["input"])
    assert (doc.name if doc else None) == case["expected"]


def check_heredocs_of_line(case: Case) -> None:
    assert [doc.name for doc in heredocs_of(case["input"])] == case["expected"]


def check_chomp(case: Case) -> None:
    assert chomp(case["input"]) == case["expected"]


def check_lines(case: Case) -> None:
    parsed = tree(case)
    assert [[node.start_line, node.end_line] for node in parsed.nodes] == case["expected"]
    assert [parsed.start_line, parsed.nodes[-1].end_line] == case["root"]


def check_warnings(case: Case) -> None:
    warnings = tree(case).warnings
    assert len(warnings) == case["expected_count"]
    for text in case["expected_contains"]:
        assert any(text in warning.text for warning in warnings)


def check_detect_syntax(case: Case) -> None:
    check_directive(case, detect_syntax(case["input"].encode()))


def check_find_directive(case: Case) -> None:
    check_directive(case, find_directive(case["input"].encode(), case["directive"]))


def check_name_values(case: Case) -> None:
    assert lines.name_values(case["input"], case["instruction"], "\\") == case["expected"]


CHECKS = {
    "ast_dump": check_ast,
    "words": check_words,
    "json_array": check_json,
    "heredocs": check_heredocs,
    "heredoc_word": check_heredoc_word,
    "heredocs_from_line": check_heredocs_of_line,
    "heredoc_chomp": check_chomp,
    "lines": check_lines,
    "warnings": check_warnings,
    "detect_syntax": check_detect_syntax,
    "parse_directive": check_find_directive,
    "directives": check_directives,
    "name_val": check_name_values,
}


@pytest.mark.conformance("parser")
def test_parser_case(case: Case) -> None:
    if case.get("error"):
        with pytest.raises(ParseError):
            CHECKS[case["kind"]]({**case, "expected": None})
    else:
        CHECKS[case["kind"]](case)


def json_array(text: str) -> list[str] | None:
    try:
        return lines.json_strings(text)
    except ParseError:
        return None


@pytest.mark.conformance("parser_negative")
def test_negative_case(case: Case) -> None:
    with pytest.raises(CastoffError) as caught:
        if "nodes" in case:
            keyword, *args = case["nodes"]
            interpret(Node(keyword, (), tuple(args), False, "", start_line=1, end_line=1), read(""))
        else:
            parsed = tree(case)
            for node in parsed.nodes:
                interpret(node, parsed.source)
            pytest.fail("the text was accepted")
    message = caught.value.message
    if case.get("match") == "equal":
        assert message == case["expected_error"]
    elif "expected_error" in case:
        assert case["expected_error"] in message


@pytest.mark.conformance("instructions")
def test_instruction_case(case: Case) -> None:
    parsed = tree(case)
    instruction = interpret(parsed.nodes[0], parsed.source)
    expected = case["expected"]
    if isinstance(instruction, Copy):
        fields = expected["sourcesAndDest"]
        assert instruction.dest == fields["DestPath"]
        assert list(instruction.sources) == fields.get("SourcePaths", [])
        files = [{"Path": file.name, "Data": file.content, "Expand": file.expand} for file in instruction.files]
        assert files == [{"Expand": False, "Data": "", **item} for item in fields.get("SourceContents", [])]
    elif isinstance(instruction, Run):
        assert list(instruction.command) == expected["command"]
        assert instruction.shell_form == expected["shell"]
        files = [{"Name": doc.name, "Data": doc.content, "Chomp": doc.chomp} for doc in instruction.heredocs]
        assert files == [{"Chomp": False, "Data": "", **item} for item in expected.get("files", [])]
    else:
        pytest.fail(f"no runner for {instruction.kind}")


def environment(case: Case) -> dict[str, str]:
    pairs = (item.partition("=") for item in case["env"])
    return {name: value for name, _, value in pairs}


@pytest.mark.conformance("shell_env")
def test_shell_env_case(case: Case) -> None:
    if case.get("error"):
        with pytest.raises(ExpansionError) as caught:
            WordLexer().expand(case["input"], environment(case))
        assert case.get("error_contains", "") in caught.value.message
        return
    expansion = WordLexer().expand(case["input"], environment(case))
    assert expansion.text == case["expected"]
    for name in ("matched", "unmatched"):
        if name in case:
            assert getattr(expansion, name) == set(case[name] or [])


@pytest.mark.conformance("shell_words")
def test_shell_words_case(case: Case) -> None:
    if case.get("error"):
        with pytest.raises(ExpansionError):
            WordLexer().words(case["input"], environment(case))
        return
    assert list(WordLexer().words(case["input"], environment(case))) == case["expected"]
