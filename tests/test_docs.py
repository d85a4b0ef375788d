"""The docs say what the code does: commands, messages, links, permissions."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Iterator, Set, Tuple

import click
import pytest
import yaml
from deadlines import DEADLINE

import prefect_ecs_plugin
from prefect_ecs_plugin.cli.install.placeholders import Placeholders
from prefect_ecs_plugin.cli.install.plan import Plan
from prefect_ecs_plugin.cli.install.policy import agent as agent_policy
from prefect_ecs_plugin.cli.start import ecs

ROOT = Path(__file__).parents[1]
PACKAGE = Path(prefect_ecs_plugin.__file__).parent

if not (ROOT / "docs" / "generate.py").exists():
    pytest.skip("the docs are not installed", allow_module_level=True)

PAGES = [
    path
    for path in (
        *(
            ROOT / name
            for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
        ),
        *sorted((ROOT / "docs").glob("*.md")),
    )
    if path.exists()
]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def load(name: str) -> ModuleType:
    """`docs` is no package, and other distributions have one of that name."""
    spec = importlib.util.spec_from_file_location(
        f"prefect_ecs_plugin_docs_{name}", ROOT / "docs" / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


generate = load("generate")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


# -- Generated parts ------------------------------------------------------------------


@pytest.mark.parametrize("name", generate.PAGES)
def test_generated_parts_are_what_the_code_says(name: str) -> None:
    page = text_of(ROOT / "docs" / name)
    # Not compared by `assert`, whose report would be the whole page.
    if generate.renewed(page) != page:
        pytest.fail(
            f"docs/{name} is not what the code says any more. Write it anew with:\n\n"
            f"    {generate.COMMAND}\n",
            pytrace=False,
        )


def test_codes_of_messages_are_written_alike() -> None:
    """In kebab-case, and few words."""
    found = sys.modules["messages"].messages(PACKAGE)
    assert found
    for each in found:
        assert sys.modules["messages"].CODE.match(each.code), each
        assert len(each.code) <= 32, each


def test_every_part_stands_in_a_page() -> None:
    pages = "".join(text_of(ROOT / "docs" / name) for name in generate.PAGES)
    found = re.findall(r"<!-- generated: begin ([\w-]+) -->", pages)
    assert sorted(found) == sorted(generate.PARTS)


def test_an_old_part_is_made_anew() -> None:
    page = (
        "before\n<!-- generated: begin exit-codes -->\nold\n"
        "<!-- generated: end -->\nafter\n"
    )
    renewed = generate.renewed(page)
    assert renewed == page.replace("old\n", generate.exit_codes())
    assert generate.renewed(renewed) == renewed


@pytest.mark.parametrize("name", sorted(generate.PREFECT_VARIABLES))
def test_an_options_variable_is_one_that_prefect_knows(name: str) -> None:
    from prefect import config

    variable = generate.PREFECT_VARIABLES[name].partition("=")[0]
    *sections, key = variable.lower().split("__")[1:]
    place: Any = config
    for section in sections:
        place = place[section]
    if name != "env":  # in no default configuration; the agent asks for it by name
        assert key in place


def test_every_option_of_every_command_is_told() -> None:
    page = text_of(ROOT / "docs" / "cli.md")
    for command in commands().values():
        for option in generate.shown_options(command):
            assert f"`{max(option.opts, key=len)}" in page


# -- Commands and options -------------------------------------------------------------

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")

#: Options of other tools that the docs name outside of a command of theirs.
OTHER_TOOLS = {
    *("--basic", "--help", "--privileged", "--target", "--platform", "--no-deps"),
    *("--parameter-overrides", "--cli-input-json"),
}


def commands() -> Dict[str, click.Command]:
    context = click.Context(ecs)
    found = {
        name: ecs.get_command(context, name) for name in ecs.list_commands(context)
    }
    return {name: command for name, command in found.items() if command is not None}


def blocks(page: Path) -> Iterator[Tuple[str, str]]:
    """The language and the text of each fenced block."""
    return ((found[1], found[2]) for found in FENCE.finditer(text_of(page)))


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text_of(page))


def shown_commands() -> Iterator[Tuple[str, str]]:
    """Every command of ours that stands in a block or in a code span."""
    for page in PAGES:
        lines = [
            line
            for _, text in blocks(page)
            for line in text.replace("\\\n", " ").splitlines()
        ]
        spans = [" ".join(span.split()) for span in INLINE.findall(prose(page))]
        for text in [*lines, *spans]:
            found = re.search(r"(?:^|/)(?:prefect agent ecs|prefect-ecs) +(\S.*)", text)
            if found:
                yield page.name, found[1]


@pytest.mark.parametrize("page, line", sorted(set(shown_commands())))
def test_a_command_that_is_shown_can_be_given(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(line, comments=True)
    if words[0] in ("COMMAND", "--help", "..."):
        return
    command, arguments = commands()[words[0]], words[1:]
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    monkeypatch.chdir(tmp_path)
    for word in arguments:
        if word.endswith("/"):
            (tmp_path / word).mkdir()
            (tmp_path / word / "flow.py").touch()
        elif word.endswith((".py", ".log")):
            (tmp_path / word).touch()
    with suppress(click.exceptions.Exit):  # --help ends it
        command.make_context(words[0], arguments)


@each_page
def test_no_option_is_named_that_does_not_exist(page: Path) -> None:
    known = {
        name
        for command in commands().values()
        for param in command.get_params(click.Context(command))
        for name in param.opts
    }
    named = {
        word
        for span in INLINE.findall(prose(page))
        if re.match(r"--\w|prefect(-ecs| agent ecs) ", span)
        for word in re.findall(r"(?<!\S)--[a-z][a-z-]*", span)
    }
    assert named - known - OTHER_TOOLS == set()


# -- Messages -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codes_of_messages() -> Set[str]:
    return {each.code for each in sys.modules["messages"].messages(PACKAGE)}


@each_page
def test_a_code_that_the_docs_name_is_one_of_a_message(
    page: Path, codes_of_messages: Set[str]
) -> None:
    named = set(re.findall(r"`\[([a-z0-9-]+)\]`", text_of(page)))
    assert named - codes_of_messages == set()


# -- Links and code -------------------------------------------------------------------


def anchors(page: Path) -> Set[str]:
    """The anchors of a page: of its headings, as GitHub makes them, and its own."""
    found: Dict[str, int] = {}
    names = set(re.findall(r'<a id="([\w-]+)">', text_of(page)))
    for heading in re.findall(r"^#{1,6} +(.*?) *$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count = found[name] = found.get(name, -1) + 1
        names.add(f"{name}-{count}" if count else name)
    return names


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


@each_page
def test_code_in_the_docs_parses(page: Path) -> None:
    for language, text in blocks(page):
        if language == "python":
            ast.parse(text)
        elif language in ("yaml", "yml"):
            assert isinstance(yaml.safe_load(text), dict)
        elif language == "json":
            json.loads(text)


def test_the_diagram_is_drawn_from_its_script_and_names_modules() -> None:
    diagram = load("diagram")
    drawn = diagram.drawn()
    if text_of(diagram.PATH) != drawn:
        pytest.fail("python docs/diagram.py draws another picture", pytrace=False)
    for names in re.findall(r'class="module"[^>]*>([^<]+)<', drawn):
        for name in names.split(", "):
            path = PACKAGE / name.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").is_file(), name


def test_the_site_builds_and_its_links_hold(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is part of the extra docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_page_is_in_the_readmes_list() -> None:
    readme = text_of(ROOT / "README.md")
    for page in PAGES:
        if page.parent == ROOT / "docs":
            assert f"](docs/{page.name})" in readme, f"README.md: add {page.name}"


# -- Permissions ----------------------------------------------------------------------


PLAN = Plan(
    name="agent",
    version="1",
    flow_roles=("arn:aws:iam::123456789012:role/flow",),
    log_groups=("/ecs/flows",),
    objects=("bucket/template.yaml",),
    infers_network=True,
    follows_quota=True,
    reads_prices=True,
)

PLACE = Placeholders(**{field.name: "eu" for field in fields(Placeholders)})


def test_the_permissions_of_the_docs_are_those_of_the_policy() -> None:
    policy = agent_policy(PLAN, PLACE)
    granted = {name for each in policy["Statement"] for name in each["Action"]}
    page = text_of(ROOT / "docs" / "production.md")
    table = page[page.index("<!-- generated: begin agent-permissions -->") :]
    rows = re.findall(r"^\| (`\w+:.*?) \|", table, re.MULTILINE)
    assert {name for row in rows for name in INLINE.findall(row)} == granted


def test_every_permission_is_told() -> None:
    source = (PACKAGE / "cli" / "install" / "policy.py").read_text(encoding="utf-8")
    pages = [prose(ROOT / "docs" / f"{name}.md") for name in ("production", "security")]
    actions = set(re.findall(r'"(\w+:[A-Z]\w+)"(?!:)', source))  # no conditions' keys
    told = {name for page in pages for name in INLINE.findall(page)}
    assert actions - told == {"sts:AssumeRole"}  # ECS's own permission
