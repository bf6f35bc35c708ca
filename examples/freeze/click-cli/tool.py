"""A command line with click."""

from __future__ import annotations

import json
import sys

import click


@click.group()
@click.version_option("1.0.0")
def main() -> None:
    """Count and convert what is on standard input."""


@main.command()
@click.option("--unit", type=click.Choice(["words", "lines"]), default="words", show_default=True)
def count(unit: str) -> None:
    """Count words or lines."""
    text = sys.stdin.read()
    click.echo(len(text.split() if unit == "words" else text.splitlines()))


@main.command()
def table() -> None:
    """Turn CSV into JSON."""
    import csv

    click.echo(json.dumps(list(csv.DictReader(sys.stdin)), ensure_ascii=False))


if __name__ == "__main__":
    main()
