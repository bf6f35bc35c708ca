"""Run the benchmarks: ``./run bench``, or ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import os
import sys

from benchmarks.builders import Builder, find_builders
from benchmarks.measure import CommandError, adopt_orphans
from benchmarks.report import Result, Results, as_json, markdown, versions_of
from benchmarks.scenarios import ROOT, SCENARIOS, Inputs, Scenario, Trial


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="./run bench", description="Time the same builds on every builder found.")
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="timed runs of each (5); the best counts")
    parser.add_argument("--only", default="", metavar="S2,S7", help=f"these scenarios only, of {names}")
    parser.add_argument("--builders", default="", metavar="A,B", help="these builders only, of those found")
    parser.add_argument("--base", action="append", default=[], metavar="REF=LAYOUT", help="an OCI layout for a base")
    parser.add_argument("--no-memory", action="store_true", help="leave out the extra run that measures memory")
    parser.add_argument("--json", metavar="FILE", help="write every sample there too")
    parser.add_argument("--output", metavar="FILE", help="write the table there too")
    parser.add_argument("--workdir", default=os.path.join(ROOT, ".cache", "bench"), help="inputs, stores and logs")
    parser.add_argument("--list", action="store_true", help="print scenarios and builders, and stop")
    options = parser.parse_args(argv)
    unknown = set(filter(None, options.only.split(","))) - {scenario.name for scenario in SCENARIOS}
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    return options


def main(argv: list[str]) -> int:
    """Run what was asked for and print the table; exit code 1 if a run failed."""
    options = parse(argv)
    workdir = os.path.abspath(options.workdir)
    only = set(filter(None, options.only.split(",")))
    chosen = [scenario for scenario in SCENARIOS if not only or scenario.name in only]
    builders = find_builders(workdir, tuple(filter(None, options.builders.split(","))))
    if options.list:
        for scenario in SCENARIOS:
            print(f"{scenario.name:4} {scenario.title}")
        print("builders:", ", ".join(builder.name for builder in builders) or "none")
        return 0
    if not builders:
        print("none of the builders asked for is installed", file=sys.stderr)
        return 4
    os.makedirs(os.path.join(workdir, "logs"), exist_ok=True)
    adopt_orphans()
    layouts = dict(part.partition("=")[::2] for part in options.base)
    inputs = Inputs(workdir, {reference: os.path.abspath(layout) for reference, layout in layouts.items()})
    results: Results = {}
    versions = versions_of(builders)
    for scenario in chosen:
        results[scenario.name] = {builder.name: Result() for builder in builders}
        measure(scenario, builders, inputs, results[scenario.name], options)
        if options.json:
            write(options.json, as_json(versions, results))
    table = markdown(chosen, versions, results, options.runs)
    print(table)
    if options.output:
        write(options.output, table + "\n")
    return 1 if any(result.error for row in results.values() for result in row.values()) else 0


def measure(
    scenario: Scenario, builders: list[Builder], inputs: Inputs, row: dict[str, Result], options: argparse.Namespace
) -> None:
    """Measure one scenario: every builder in turn, so that a slow minute of the machine falls on all alike."""
    try:
        job = scenario.job(inputs)
    except (CommandError, OSError) as error:
        for result in row.values():
            fail(result, scenario.name, "inputs", error)
        return
    logs = os.path.join(inputs.workdir, "logs")
    trials = {builder.name: Trial(scenario, builder, job, logs) for builder in builders}
    for name in [name for name, trial in trials.items() if trial.commands is None]:
        row[name].samples.clear()
        del trials[name]
    rounds = ["prepare", *range(options.runs), *([] if options.no_memory else ["memory"])]
    for part in rounds:
        for name, trial in trials.items():
            result = row[name]
            if result.error:
                continue
            try:
                if part == "prepare":
                    trial.prepare()
                elif part == "memory":
                    result.memory = trial.memory()
                else:
                    result.samples.append(trial.run(int(part)))
                    progress(f"{scenario.name} {name} {result.samples[-1].wall:.3f} s")
            except (CommandError, OSError) as error:
                fail(result, scenario.name, name, error)


def fail(result: Result, scenario: str, name: str, error: Exception) -> None:
    """Note that a run failed: one line in the table, the whole to standard error."""
    result.error = "failed"
    progress(f"{scenario} {name} failed: {error}")


def progress(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


def write(path: str, text: str) -> None:
    """Write a result file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
