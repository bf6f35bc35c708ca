"""A worker that takes jobs by name out of a queue in SQLite, in threads, until there are none."""

from __future__ import annotations

import importlib
import json
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor


def perform(row: tuple[int, str, str]) -> tuple[int, object]:
    """Do one job: ``module.function`` and its arguments as JSON."""
    number, name, arguments = row
    module, _, function = name.rpartition(".")
    return number, getattr(importlib.import_module(module), function)(*json.loads(arguments))


def main() -> int:
    """Queue what is on standard input, do it, and print results in order."""
    queue = sqlite3.connect(":memory:")
    queue.execute("create table jobs (number integer primary key, name text, arguments text)")
    rows = [line.split(" ", 1) for line in sys.stdin.read().splitlines()]
    queue.executemany("insert into jobs (name, arguments) values (?, ?)", rows)
    with ThreadPoolExecutor(4) as pool:
        for number, result in pool.map(perform, queue.execute("select * from jobs order by number").fetchall()):
            print(number, json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
