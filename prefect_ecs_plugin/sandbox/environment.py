"""The environment of everything that runs in the sandbox.

It is built from nothing, not cleaned: a variable that was not thought of stays
outside. What the user's shell may bring is the table `KEPT`; home directory, AWS
and Prefect settings are the sandbox's own, so no profile, key, token, endpoint or
proxy of the user's is read, whatever it is called.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import site
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

REGION = "us-east-1"
PROJECT = "sandbox"

#: What the user's shell may bring: how a program is found, how text is shown, which
#: Python modules there are, and whether coverage.py counts the lines that are run.
#: Nothing that says where a server is.
KEPT = frozenset(
    [
        *("PATH", "LD_LIBRARY_PATH", "PYTHONPATH"),
        *("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_COLLATE", "LC_MESSAGES"),
        *("LC_NUMERIC", "LC_TIME", "TZ"),
        *("TERM", "COLORTERM", "COLUMNS", "LINES", "NO_COLOR"),
        *("USER", "LOGNAME"),
        "COVERAGE_PROCESS_CONFIG",
    ]
)

#: The script is read by `sh` first, which hands it to Python: a `#!` line has space
#: for neither a long path nor one with a space in it. The plugin is found and its
#: command attached here too, for where it is not installed or start-up files are
#: skipped: never must the sandbox run Prefect's own ECS agent instead. A task finds the
#: modules beside its flow's file, as `python FILE` does; see `remember_folder`.
PREFECT_SCRIPT = """\
#!/bin/sh
'''exec' {python} "$0" "$@"
' '''
import os
import sys

sys.path.append({root!r})
sys.argv[0] = "prefect"

from prefect.cli import cli

flow_id = os.environ.get("PREFECT__CONTEXT__FLOW_ID")
if flow_id:
    sys.path.insert(0, os.path.realpath(os.path.join({folders!r}, flow_id)))
if sys.argv[1:2] == ["agent"]:
    from prefect_ecs_plugin.cli.start import ecs

    cli.commands["agent"].add_command(ecs)
cli()
"""


def sandbox_environment(
    api_url: str,
    aws_url: str,
    access_key: Tuple[str, str],
    home: os.PathLike[str] | str,
    shell: Optional[Mapping[str, str]] = None,
) -> Dict[str, str]:
    """Return the complete environment of the sandbox's children.

    Args:
        api_url: The URL of the sandbox's Prefect API, its token included.
        aws_url: Where the sandbox's AWS listens.
        access_key: The access key that it answers to: id and secret.
        home: The sandbox's own directory, as `furnish` leaves it.
        shell: The environment to take `KEPT` from. By default this process's.

    Returns:
        Every variable, to be handed over as `env`, not merged into anything.
    """
    return {
        **container_environment(home, shell),
        **aws_settings(aws_url, access_key, home),
        **prefect_settings(api_url, home),
    }


def container_environment(
    home: os.PathLike[str] | str, shell: Optional[Mapping[str, str]] = None
) -> Dict[str, str]:
    """Return what the sandbox's "image" brings: this Python, and an empty home."""
    shell = os.environ if shell is None else shell
    home = Path(home)
    binaries = (str(home / "bin"), os.path.dirname(sys.executable))
    environment = {name: shell[name] for name in sorted(KEPT & set(shell))}
    environment.update(python_settings(shell))
    environment.update(
        HOME=str(home),
        TMPDIR=str(home / "tmp"),
        NO_PROXY="127.0.0.1,localhost",
        no_proxy="127.0.0.1,localhost",
        PATH=os.pathsep.join([*binaries, shell.get("PATH", os.defpath)]),
        **prefect_home(home),
    )
    return environment


def python_settings(shell: Mapping[str, str]) -> Dict[str, str]:
    """Return what makes a child find the modules that this process finds.

    Packages installed with `pip install --user` are looked for under the home
    directory, which is another one here; relative entries of PYTHONPATH would
    depend on the child's working directory.
    """
    settings = {"PYTHONUNBUFFERED": "1"}
    if site.ENABLE_USER_SITE:
        settings["PYTHONUSERBASE"] = site.getuserbase()
    if shell.get("PYTHONPATH"):
        entries = shell["PYTHONPATH"].split(os.pathsep)
        settings["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, entries))
    return settings


def aws_settings(
    aws_url: str, access_key: Tuple[str, str], home: os.PathLike[str] | str
) -> Dict[str, str]:
    """Return the settings with which boto3 and the AWS CLI reach the sandbox only.

    AWS_ENDPOINT_URL holds for every service (botocore 1.31 or later):
    https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    """
    aws = Path(home) / ".aws"
    return {
        "AWS_ENDPOINT_URL": aws_url,
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
        "AWS_ACCESS_KEY_ID": access_key[0],
        "AWS_SECRET_ACCESS_KEY": access_key[1],
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_CONFIG_FILE": str(aws / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(aws / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "BOTO_CONFIG": str(aws / "boto.cfg"),
    }


def prefect_settings(api_url: str, home: os.PathLike[str] | str) -> Dict[str, str]:
    """Return the settings with which Prefect's client reaches the sandbox only."""
    return {
        **prefect_home(home),
        "PREFECT__BACKEND": "server",
        "PREFECT__CLOUD__API": api_url,
        "PREFECT__SERVER__ENDPOINT": api_url,
        "PREFECT__CLOUD__API_KEY": "",
        "PREFECT__CLOUD__TENANT_ID": "",
        # No label of this machine's name on flows with Local storage: an agent
        # without that label would leave their runs alone.
        "PREFECT__FLOWS__DEFAULTS__STORAGE__ADD_DEFAULT_LABELS": "false",
    }


def prefect_home(home: os.PathLike[str] | str) -> Dict[str, str]:
    """Return where Prefect looks for its files: in the sandbox, all of them."""
    prefect = Path(home) / ".prefect"
    return {
        "PREFECT__HOME_DIR": str(prefect),
        "PREFECT__USER_CONFIG_PATH": str(prefect / "config.toml"),
        "PREFECT__BACKEND_CONFIG_PATH": str(prefect / "backend.toml"),
    }


def furnish(home: os.PathLike[str] | str) -> None:
    """Fill a new directory with what `sandbox_environment` points to."""
    home = Path(home)
    for name in ("bin", "tmp", "folders", ".aws", ".prefect"):
        (home / name).mkdir()
    for name in ("config", "credentials", "boto.cfg"):
        (home / ".aws" / name).touch()
    prefect = home / "bin" / "prefect"
    root = str(Path(__file__).parents[2])
    script = PREFECT_SCRIPT.format(
        python=shlex.quote(sys.executable), root=root, folders=str(home / "folders")
    )
    prefect.write_text(script, encoding="utf-8")
    prefect.chmod(0o755)


def remember_folder(home: os.PathLike[str] | str, flow_id: str, path: str) -> None:
    """Let the tasks of a flow import the modules beside the flow's file.

    Args:
        home: The sandbox's own directory, as `furnish` leaves it.
        flow_id: The registered flow.
        path: Its file.
    """
    (Path(home) / "folders" / flow_id).symlink_to(Path(path).resolve().parent)


def load_command(report: os.PathLike[str] | str, paths: Sequence[str]) -> List[str]:
    """Return how a child finds out which flows some files have.

    Args:
        report: The file to write it to.
        paths: The files to look at.
    """
    script = Path(__file__).with_name("load_flows.py")
    return [sys.executable, str(script), str(report), *paths]


def prefect_command(home: os.PathLike[str] | str) -> List[str]:
    """Return how a child runs `prefect`: this Python's, with this plugin."""
    return [sys.executable, str(Path(home) / "bin" / "prefect")]


@contextlib.contextmanager
def only(environment: Mapping[str, str]) -> Iterator[None]:
    """Make this process see an environment and nothing else, for a while.

    The sandbox's servers run in this process, where moto and boto3 read settings.
    """
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


#: First of all what another terminal has of these goes away: a profile or an
#: endpoint for one service there would win over the lines that follow.
FORGET = (
    "for name in $(env | grep -oE '^(AWS|PREFECT_)_[A-Za-z0-9_]+'); "
    'do unset "$name"; done'
)


def exports(environment: Mapping[str, str]) -> List[str]:
    """Return the shell lines that make another terminal talk to the sandbox.

    The home directory of that terminal stays: everything that would be read there
    is named by a variable of its own.
    """
    names = sorted(
        name
        for name in environment
        if name.startswith(("AWS_", "PREFECT__"))
        or name in ("NO_PROXY", "no_proxy", "BOTO_CONFIG")
    )
    return [FORGET] + [
        f"export {name}={shlex.quote(environment[name])}" for name in names
    ]
