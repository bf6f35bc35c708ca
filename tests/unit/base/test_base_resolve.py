"""Dependencies: alternatives, versions, provisions, conflicts."""

from __future__ import annotations

import pytest

from castoff.base.archive import SuiteIndex
from castoff.base.resolve import Relation, Universe, parse_relations, resolve
from castoff.errors import UsageError


def index(*paragraphs: str, suite: str = "bookworm") -> SuiteIndex:
    text = "\n".join(paragraph.strip() + "\n" for paragraph in paragraphs)
    return SuiteIndex("debian", suite, "main", 0, text.encode())


def package(name: str, version: str = "1", **fields: str) -> str:
    lines = [f"Package: {name}", f"Version: {version}", "Architecture: amd64"]
    return "\n".join([*lines, *(f"{key.replace('_', '-')}: {value}" for key, value in fields.items())])


def names(*paragraphs: str, wanted: str = "a", exclude: str = "", dependencies: bool = True) -> list[str]:
    chosen = resolve(
        Universe([index(*paragraphs)]), wanted.split(), dependencies=dependencies, exclude=frozenset(exclude.split())
    )
    return [candidate.name for candidate in chosen]


@pytest.mark.parametrize(
    ("operator", "version", "admits"),
    [
        ("", "1", True),
        ("=", "2.0", True),
        ("=", "2", False),
        (">=", "1:0", False),
        (">=", "2.0~rc1", True),
        (">>", "2.0", False),
        ("<<", "2.0", False),
        ("<<", "2.0+b1", True),
        ("<=", "2.0", True),
        ("<=", "1.9", False),
    ],
)
def test_versions(operator: str, version: str, admits: bool) -> None:
    assert Relation("x", operator, version).admits("2.0") is admits


def test_relations_are_read() -> None:
    groups = parse_relations("libc6 (>= 2.34), awk:any | mawk (<< 2) [amd64], , bad name here")
    assert [[str(relation) for relation in group] for group in groups] == [
        ["libc6 (>= 2.34)"],
        ["awk", "mawk (<< 2)"],
    ]


def test_chain_and_pre_depends() -> None:
    assert names(package("a", Depends="b", Pre_Depends="c"), package("b", Depends="d"), package("c"), package("d")) == [
        "a",
        "b",
        "c",
        "d",
    ]


def test_recommends_are_never_followed() -> None:
    assert names(package("a", Recommends="b"), package("b")) == ["a"]


def test_without_dependencies() -> None:
    assert names(package("a", Depends="nowhere"), dependencies=False) == ["a"]


def test_first_alternative_that_exists() -> None:
    assert names(package("a", Depends="x | c | b"), package("b"), package("c")) == ["a", "c"]


def test_alternative_that_is_chosen_already() -> None:
    assert names(package("a", Depends="b | c"), package("b"), package("c"), wanted="c a") == ["a", "c"]


def test_alternative_of_the_right_version() -> None:
    assert names(package("a", Depends="b (>= 2) | c"), package("b"), package("c")) == ["a", "c"]


def test_provides() -> None:
    assert names(package("a", Depends="awk"), package("zawk", Provides="awk"), package("mawk", Provides="awk")) == [
        "a",
        "mawk",
    ]


def test_unversioned_provision_fulfils_no_version() -> None:
    with pytest.raises(UsageError, match=r"a depends on v \(>= 1\), which the archive does not have"):
        names(package("a", Depends="v (>= 1)"), package("b", Provides="v"))


def test_versioned_provision() -> None:
    assert names(package("a", Depends="v (>= 1)"), package("b", Provides="v (= 2)")) == ["a", "b"]


def test_newest_of_several_suites() -> None:
    universe = Universe([index(package("a", "1.10")), index(package("a", "1.9"), suite="bookworm-security")])
    assert resolve(universe, ["a"], dependencies=True)[0].version == "1.10"


def test_excluded_dependency_counts_as_met() -> None:
    assert names(package("a", Depends="b | c, d"), package("b"), package("c"), package("d"), exclude="b") == ["a", "d"]


def test_failure_names_the_chain() -> None:
    with pytest.raises(UsageError, match="b < a depends on c"):
        names(package("a", Depends="b"), package("b", Depends="c"))


def test_unknown_package_and_its_provider() -> None:
    with pytest.raises(UsageError, match="no package 'awk'") as caught:
        names(package("mawk", Provides="awk"), wanted="awk")
    assert "mawk" in str(caught.value.hint)


def test_conflict() -> None:
    with pytest.raises(UsageError, match="a and b can't be together"):
        names(package("a", Conflicts="b"), package("b"), wanted="a b")


def test_conflict_with_what_it_provides_itself() -> None:
    assert names(package("a", Conflicts="mta", Provides="mta")) == ["a"]


def test_required() -> None:
    universe = Universe([index(package("a", Essential="yes"), package("b", Priority="required"), package("c"))])
    assert list(universe.required()) == ["a", "b"]


def test_ring_ends() -> None:
    assert names(package("a", Depends="b"), package("b", Depends="a")) == ["a", "b"]


def test_index_without_digest() -> None:
    candidate = resolve(Universe([index(package("a"))]), ["a"], dependencies=True)[0]
    with pytest.raises(UsageError, match="no SHA256"):
        candidate.locked()


def test_index_whose_path_leads_upwards() -> None:
    text = package("a", Filename="../../etc/passwd", Size="3", SHA256="0" * 64)
    candidate = resolve(Universe([index(text)]), ["a"], dependencies=True)[0]
    with pytest.raises(UsageError, match="not a path below an archive"):
        candidate.locked()
