"""docs/cli.md says what the command line can do: nothing less, nothing more."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from penstock_tests.commands import commands

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
HEAD = re.compile(r"^#{2,3} `(penstock[^`]*)`$", re.MULTILINE)
SERVING = {"--port", "--bind", "--tokens", "--tls-cert", "--tls-key", "--policy", "--origin", "--limit"}
SHARED = {
    "penstock store": {"--dir", "--hub", "--uri", "--token", "--ca", "--debug"},
    "penstock feed": {*SERVING, "--log", "--debug"},
    "penstock plant token": {"--debug"},
    "penstock plant": {*SERVING, "--log", "--debug"},
    "penstock stream": {"--hub", "--json", "--debug"},
    "penstock factor": {"--expression", "-e", "--json", "--debug"},
}


def sections() -> dict[str, str]:
    """By usage, the text up to the next heading."""
    text = PAGE.read_text()
    found = list(HEAD.finditer(text))
    ends = [*(head.start() for head in found[1:]), len(text)]
    return {head[1]: text[head.end() : end] for head, end in zip(found, ends, strict=True)}


COMMANDS = dict(commands())
SECTIONS = sections()


def usage(path: str, command: click.Command) -> str:
    """`penstock stream append NAME [FILE]`."""
    words = [path]
    for argument in command.params:
        if isinstance(argument, click.Argument):
            name = argument.metavar or str(argument.name).upper()
            words.append(name if argument.required else f"[{name}]")
    return " ".join(words)


def test_a_section_for_every_command_in_their_order() -> None:
    assert list(SECTIONS) == [usage(path, command) for path, command in COMMANDS.items()]


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_and_no_other(path: str) -> None:
    command = COMMANDS[path]
    options = [option for option in command.params if isinstance(option, click.Option)]
    there = {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
    text = SECTIONS[usage(path, command)]
    tables = "\n".join(line for line in text.splitlines() if line.startswith("| `-"))
    first_cells = "\n".join(re.split(r"(?<!\\)\|", line)[1] for line in tables.splitlines())
    told = set(re.findall(r"`(--?[a-zA-Z][a-z-]*)", first_cells))
    implied = next((shared for group, shared in SHARED.items() if path.startswith(f"{group} ")), set())  # told once
    if path == "penstock":
        told -= {"-h", "--help"}
    assert told == there - implied
    for option in options:
        if option.metavar and option.name not in implied and max(option.opts, key=len) not in implied:
            assert option.metavar.replace("|", r"\|") in first_cells, f"{option.opts} takes {option.metavar}"
        if isinstance(option.type, click.Choice) and max(option.opts, key=len) not in implied:
            for choice in option.type.choices:
                assert f"{choice}" in text


def test_what_json_holds_is_told(tmp_path: Path) -> None:
    from dataclasses import fields

    import penstock as ps
    from penstock import factor as f
    from penstock.app import DemoResult
    from penstock.cli.factor import bench, compile, follow, show
    from penstock.cli.stream.repair import facts_of as repair_facts
    from penstock.cli.stream.show import facts_of, groups_of
    from penstock.log.check import check

    with ps.open(tmp_path / "hub") as hub:
        stream = hub.streams.get("x")
        stream.group("g").close()
        told = {
            "penstock stream ls [PATTERN]": facts_of(hub, "x"),
            "penstock stream groups NAME": groups_of(stream)["g"],
            "penstock stream repair NAME": repair_facts("x", check(hub.streams.path("x"))),
            "penstock demo": [field.name for field in fields(DemoResult)],
        }
    program = f.compile({"a": "rank(close)"}, engine="numpy")
    bars = {"close": [[1.0, 2.0]]}
    reason = program.explain("a", bars, symbol=0).facts()
    timed = {**bench.compile_facts(program.factors, "float64", "numpy")[1], "threads": 1}
    told |= {
        "penstock factor list [FACTORS]": {
            *show.library_facts()[0],
            *show.factor_facts(program.factors, {})[0],
            *show.operator_facts(["rank"])[0],
        },
        "penstock factor explain [FACTORS]": {*show.passes_facts(program, "a"), *reason, *reason["terms"][-1]},
        "penstock factor compile [FACTORS]": compile.facts_of(program, 0.0),
        "penstock factor bench [FACTORS]": {**timed, **bench.run_facts(program, 2, 3, 4, None, lambda done: None)},
    }
    with ps.open(tmp_path / "other") as hub:
        feed = program.follow(hub.streams.get("bars", schema=ps.records.BARS))
        told["penstock factor run [FACTORS]"] = follow.follow_facts(feed, "x", 0)
    from penstock.cli.plant import diff
    from penstock.plant.handlers import Difference

    told["penstock plant diff OLD NEW"] = diff.facts_of("x", Difference(0, 0, None))
    for section, keys in told.items():
        for key in keys:
            assert f"`{key}`" in SECTIONS[section], f"{key} of {section}"
