"""Writes the parts of the docs that are generated from the code.

    python docs/generate.py

A generated part stands between two comments, and whatever is around it is written by
hand:

    <!-- generated: begin NAME -->
    <!-- generated: end -->

`PARTS` says which function makes which part. tests/test_docs.py makes them again and
compares.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Sequence

import click

import prefect_ecs_plugin
from prefect_ecs_plugin.aws import retrying
from prefect_ecs_plugin.aws.retrying import Row, Verdict
from prefect_ecs_plugin.cli import click_types, option_sources, permissions
from prefect_ecs_plugin.cli.start import ecs, start
from prefect_ecs_plugin.monitoring import stop_reasons
from prefect_ecs_plugin.monitoring.stop_reasons import StopReason

DOCS = Path(__file__).parent
sys.path.append(str(DOCS))
import python_api  # noqa: E402  (`docs` is no package)
from messages import messages  # noqa: E402

COMMAND = "python docs/generate.py"

_PART = re.compile(
    r"(<!-- generated: begin (?P<name>[\w-]+) -->\n).*?(<!-- generated: end -->)",
    re.DOTALL,
)


# -- The commands -----------------------------------------------------------------

#: What Prefect's own options are taken from where they are not given.
#: https://docs-v1.prefect.io/core/concepts/configuration.html
PREFECT_VARIABLES: Mapping[str, str] = {
    "key": "PREFECT__CLOUD__API_KEY",
    "tenant_id": "PREFECT__CLOUD__TENANT_ID",
    "api": "PREFECT__CLOUD__API",
    "name": "PREFECT__CLOUD__AGENT__NAME",
    "label": "PREFECT__CLOUD__AGENT__LABELS",
    "env": "PREFECT__CLOUD__AGENT__ENV_VARS",
    "agent_address": "PREFECT__CLOUD__AGENT__AGENT_ADDRESS",
    "no_cloud_logs": "PREFECT__CLOUD__SEND_FLOW_RUN_LOGS=false",
    "log_level": "PREFECT__CLOUD__AGENT__LEVEL",
}


#: Options that every command has.
IN_EVERY_COMMAND = frozenset({"--config", "--help", "--help-all", "--version"})


def commands() -> str:
    """Every command of the group: its help, its options, its examples."""
    return "\n".join(_command(*each) for each in _all_commands().items())


def command_list() -> str:
    """A line for each command: the first sentence of its help."""
    lines = ["| command | what it does |", "| --- | --- |"]
    for name, command in _all_commands().items():
        summary = command.get_short_help_str(click_types.UNCUT)
        lines.append(f"| [`{name}`](#prefect-agent-ecs-{name}) | {_text(summary)} |")
    return "\n".join([*lines, ""])


def _all_commands() -> Dict[str, click.Command]:
    """The commands of the group, `start` first."""
    context = click.Context(ecs)
    names = sorted(ecs.list_commands(context), key=lambda name: (name != "start", name))
    found = {name: ecs.get_command(context, name) for name in names}
    return {name: command for name, command in found.items() if command}


def _command(name: str, command: click.Command) -> str:
    lines = [f"## prefect agent ecs {name}\n", *_help(command), *_arguments(command)]
    if command is start:
        for title, options in click_types.by_group(shown_options(start)).items():
            lines += [f"### {title}\n", *_options(options)]
        return "\n".join(lines)
    takes_ours = _takes_options_of_start(command)
    lines += _options(own_options(command))
    if takes_ours:
        lines += [*_options_of_start(command)]
    return "\n".join(lines)


def own_options(command: click.Command) -> List[click.Option]:
    """The options of a command, without those that it shares with `start`."""
    ours = start.params if command is not start else []
    return [option for option in shown_options(command) if option not in ours]


def shown_options(command: click.Command) -> List[click.Option]:
    """The options that a user may give, but for --help and its like."""
    shown = click_types.shown_options(command.get_params(click.Context(command)))
    return [option for option in shown if not IN_EVERY_COMMAND & {*option.opts}]


def _takes_options_of_start(command: click.Command) -> bool:
    given = {option.name for option in shown_options(command)}
    return {"cluster", "label"} <= given


def _options_of_start(command: click.Command) -> Iterator[str]:
    yield "And the other options of [`start`](#prefect-agent-ecs-start)."
    module = sys.modules[str(getattr(command.callback, "__module__", ""))]
    refused: Dict[str, str] = getattr(module, "REFUSED", {})
    by_name = {option.name: option for option in start.params}
    reasons = [
        f"{_code(_long(by_name[name]))} ({_text(text)})"
        for name, text in refused.items()
        if name in by_name
    ]
    if reasons:
        yield "Options that it refuses: " + "; ".join(reasons) + "."
    yield ""


def _help(command: click.Command) -> Iterator[str]:
    r"""A command's help as paragraphs; click's `\b` marks one that keeps its lines."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if not paragraph.startswith("\b"):
            yield _text(" ".join(paragraph.split())) + "\n"
            continue
        lines = paragraph.split("\n")[1:]
        if lines and lines[0].endswith(":"):
            lines = lines[1:]
        body = inspect.cleandoc("\n".join(lines))
        yield f"```\n{body}\n```\n"


def _arguments(command: click.Command) -> Iterator[str]:
    names = [
        param.metavar or str(param.name).upper()
        for param in command.params
        if isinstance(param, click.Argument)
    ]
    if names:
        yield f"Arguments: `{' '.join(names)}`\n"


def _options(options: Sequence[click.Option]) -> Iterator[str]:
    yield "| option | meaning |"
    yield "| --- | --- |"
    for option in options:
        yield f"| {_spelled(option)} | {' '.join(_meaning(option))} |"
    yield ""


def _spelled(option: click.Option) -> str:
    """Every spelling of an option, the long one first, with its kind of value."""
    names = sorted(option.opts, key=len, reverse=True)
    first = f"{names[0]} {click_types.value_name(option)}".rstrip()
    return ", ".join([_code(first), *map(_code, names[1:])])


def _meaning(option: click.Option) -> Iterator[str]:
    yield _text(click_types.whole_help(option))
    yield from _bounds(option.type)
    if option.multiple:
        yield "Can be given several times."
    default = click_types.default_of(option)
    if default:
        yield f"Default: {_code(default)}."
    variables = [option_sources.variable_of(option)]
    if option in start.params and option.name in PREFECT_VARIABLES:
        variables.append(PREFECT_VARIABLES[option.name])
    yield f"In the environment: {' or '.join(map(_code, variables))}."


def _bounds(kind: Any) -> Iterator[str]:
    if not isinstance(kind, (click.IntRange, click.FloatRange)):
        return
    if kind.min is not None:
        least = option_sources.plain_number(kind.min)
        yield f"{'More than' if kind.min_open else 'At least'} {least}."
    if kind.max is not None:
        most = option_sources.plain_number(kind.max)
        yield f"{'Less than' if kind.max_open else 'At most'} {most}."


def _long(option: click.Parameter) -> str:
    return max(option.opts, key=len)


# -- Why tasks stop ---------------------------------------------------------------


def stopped_tasks() -> str:
    """The stop reasons, a table for each of their headings."""
    return "\n".join(
        _stop_reasons(heading, rows) for heading, rows in stop_reasons.GROUPS.items()
    )


def _stop_reasons(heading: str, rows: Iterable[StopReason]) -> str:
    lines = [f"### {heading}\n", "| code | ECS says | because | what to do |"]
    lines += ["| --- | --- | --- | --- |", *map(_stop_reason, rows)]
    return "\n".join([*lines, ""])


def _stop_reason(row: StopReason) -> str:
    said = "<br>".join(_symptoms(row))
    again = " (tried again)" if row.transient else ""
    remedy = f"{_text(_sentence(row.remedy))} [More]({row.source})"
    return f"| {_anchor(row.code)} | {said} | {_text(row.cause)}{again} | {remedy} |"


def _symptoms(row: StopReason) -> Iterator[str]:
    """What ECS shows of such a task."""
    yield from map(_code, row.examples.splitlines())
    if row.stop_code != ".*":
        yield "stopCode " + " or ".join(map(_code, row.stop_code.split("|")))
    codes = sorted(code for code in row.exit_codes if code is not None)
    if 1 < len(codes) < 10:
        yield f"exit code {', '.join(map(str, codes[:-1]))} or {codes[-1]}"


def vanished() -> str:
    """The stop reason of tasks that ECS does not know any more."""
    row = stop_reasons.VANISHED
    words = f"{_sentence(row.cause)} {_sentence(row.remedy)} [More]({row.source})"
    return f"{_anchor(row.code)}: {words}\n"


def exit_codes() -> str:
    """What exit codes mean."""
    lines = ["| exit code | means |", "| --- | --- |"]
    lines += [
        f"| {code} | {meaning} |" for code, meaning in stop_reasons.EXIT_CODES.items()
    ]
    return "\n".join([*lines, ""])


# -- What ECS refuses -------------------------------------------------------------

#: What becomes of the run, for every verdict that does not end it.
_GOES_ON: Mapping[Verdict, str] = {
    Verdict.THROTTLED: "ECS is asked again, and more slowly",
    Verdict.RETRY: "ECS is asked again; one run stays one task",
    Verdict.RECHECK: "the definition is looked for, then ECS is asked again",
    Verdict.WAIT: "ECS is asked again, with pauses of up to a minute",
    Verdict.REREGISTER: "a definition of this plugin's is registered once more; a run "
    "that names the definition with `task_definition_arn` is Failed",
    Verdict.REUSE_TASK: "the task of that launch is the run's",
}


_SEE_REASONS = (
    "See AWS's [list of reasons](https://docs.aws.amazon.com/AmazonECS/latest/"
    "developerguide/api_failures_messages.html)."
)


def answers_that_wait() -> str:
    """The answers of ECS after which a run goes on."""
    rows = [row for row in retrying.TABLE if row.verdict is not Verdict.FINAL]
    lines = ["| ECS answers | because | then | code |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {_answer(row)} | {_text(row.cause)} | {_GOES_ON[row.verdict]} "
        f"| {_link(row)} |"
        for row in rows
    ]
    return "\n".join([*lines, ""])


def answers_that_fail() -> str:
    """The answers of ECS that end a run."""
    rows = [row for row in retrying.TABLE if row.verdict is Verdict.FINAL]
    lines = ["| ECS answers | because | what to do | code |"]
    lines += ["| --- | --- | --- | --- |"]
    lines += [
        f"| {_answer(row)} | {_text(row.cause)} "
        f"| {_text(_sentence(row.remedy)) or _SEE_REASONS} | {_link(row)} |"
        for row in rows
    ]
    return "\n".join([*lines, ""])


def _link(row: Row) -> str:
    return f"[`{row.code}`](#{row.code})"


def _answer(row: Row) -> str:
    codes = ", ".join(map(_code, _codes(row.error_code)))
    return f"{codes}: {_code(row.example)}" if row.example else codes


def _codes(pattern: str) -> Iterator[str]:
    """The error codes that a row's pattern matches."""
    for code in pattern.split("|"):
        if code.endswith("(Exception)?"):
            code = code[: -len("(Exception)?")]
            yield code
            code += "Exception"
        yield code.replace(".*", "...")


# -- Messages by their codes ------------------------------------------------------


def message_codes() -> str:
    """Every message with a code, under its code."""
    found: Dict[str, List[str]] = {}
    for each in messages(Path(prefect_ecs_plugin.__file__).parent):
        sentences = found.setdefault(each.code, [])
        if each.text not in sentences and re.search("[a-z]", each.text):
            sentences.append(each.text)
    lines = ["| code | the agent or a command says |", "| --- | --- |"]
    of_stopped_tasks = {row.code for row in stop_reasons.STOP_REASONS}
    for code, sentences in found.items():
        words = "<br>".join(_text(_sentence(text)) for text in sentences)
        is_above = code in of_stopped_tasks
        shown = f"[`{code}`](#{code})" if is_above else _anchor(code)
        lines.append(f"| {shown} | {words} |")
    return "\n".join([*lines, ""])


def _anchor(code: str) -> str:
    return f'<a id="{code}"></a>`{code}`'


# -- What the agent has to be allowed ---------------------------------------------


def agent_permissions() -> str:
    """The table of the agent's IAM permissions."""
    lines = ["| permission | on | for | without it |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {_code(each.action)} | {_text(each.where)} | {_text(each.purpose)} "
        f"| {_text(each.without)} |"
        for each in permissions.AGENT
    ]
    return "\n".join([*lines, ""])


# -- Markdown ---------------------------------------------------------------------

#: What is written as code in running text: options, variables, keys and permissions.
_AS_CODE = re.compile(
    r"(?<![\w`:./-])(--[a-z][a-z-]+[a-z]|[A-Z][A-Z0-9]*_[A-Z0-9_]+"
    r"|[a-z]+(?:[A-Z][a-z0-9]+)+|[a-z0-9]+:(?:[A-Z][a-z]+)+|[a-z]+(?:_[a-z]+)+"
    r"|awslogs(?:-[a-z]+)+)(?![\w`-]|\.\w)"
)


def _text(text: str) -> str:
    """Running text with its names as code, fit for a cell of a table."""
    pieces = re.split(r"(`[^`]*`)", text)
    pieces[::2] = [_AS_CODE.sub(r"`\1`", _escaped(piece)) for piece in pieces[::2]]
    return "".join(pieces).replace("|", "\\|")


def _escaped(text: str) -> str:
    return re.sub(r"([<>*])", r"\\\1", text)


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", "\\|")


def _sentence(text: str) -> str:
    # A name such as run_task_kwargs stays as it is written.
    if re.match(r"[a-z]+(?![\w-])", text) and not text.startswith("awslogs"):
        text = text[:1].upper() + text[1:]
    end = "" if not text or text.endswith(("...", "?")) else "."
    return text.rstrip("." if end else "") + end


# -- The pages --------------------------------------------------------------------

PARTS: Mapping[str, Callable[[], str]] = {
    "command-list": command_list,
    "commands": commands,
    "stopped-tasks": stopped_tasks,
    "vanished": vanished,
    "exit-codes": exit_codes,
    "answers-that-wait": answers_that_wait,
    "answers-that-fail": answers_that_fail,
    "agent-permissions": agent_permissions,
    "message-codes": message_codes,
    "classes": python_api.classes,
    "errors": python_api.errors,
}

PAGES = ("cli.md", "production.md", "python-api.md", "troubleshooting.md")


def renewed(page: str) -> str:
    """A page's text with its generated parts made anew."""
    return _PART.sub(lambda part: f"{part[1]}{PARTS[part['name']]()}{part[3]}", page)


def main() -> None:
    """Write the pages."""
    for name in PAGES:
        path = DOCS / name
        path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
