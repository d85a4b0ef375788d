"""What several test modules share."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from typing import Any, Callable, Dict, Iterator

import forking
import pytest

from prefect_ecs_plugin.flow_run import FlowRun
from prefect_ecs_plugin.settings import PrefectSettings

# What helpers assert is explained as in the tests themselves.
pytest.register_assert_rewrite("runs", "world")


def set_up_hypothesis() -> None:
    """Set how many examples it takes; how long one takes shows no bug.

    pytest would rewrite the asserts of a package that brings a plugin, in each worker
    of each new environment: seconds. It is imported as it is.
    """
    before = sys.meta_path[:]
    sys.meta_path[:] = [
        finder for finder in before if not type(finder).__module__.startswith("_pytest")
    ]
    from hypothesis import HealthCheck, settings

    sys.meta_path[:] = before
    untimed: Dict[str, Any] = {
        "deadline": None,
        "suppress_health_check": [HealthCheck.too_slow],
    }
    settings.register_profile("quick", max_examples=50, **untimed)
    settings.register_profile("deep", max_examples=1000, **untimed)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


gc.disable()  # until all tests are collected: nearly all that is made then stays
set_up_hypothesis()
forking.share_botocores_models()

# A shell has what it starts in the background ignore SIGINT, and all children of that;
# tests send it, and Prefect cancels flows with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Let all workers fork programs from one process, which gets ready meanwhile."""
    is_worker = hasattr(config, "workerinput")
    if forking.POSSIBLE and config.getoption("numprocesses", None) and not is_worker:
        forking.start_server()


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over what stays to the end."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(10_000, 20, 50)


@pytest.fixture(autouse=True)
def agents_logger() -> Iterator[None]:
    """An agent in this process sets up the logger of its name: not for other tests."""
    logger = logging.getLogger("agent")
    before = logger.level, logger.propagate, logger.handlers[:], logger.filters[:]
    yield
    logger.setLevel(before[0])
    logger.propagate = before[1]
    logger.handlers[:] = before[2]
    logger.filters[:] = before[3]


@pytest.fixture(scope="session")
def flow_run() -> FlowRun:
    """A run of version 3 of a flow registered by Prefect 1.4.1; frozen."""
    return FlowRun(
        id="11111111-2222-3333-4444-555555555555",
        version=7,
        name="curious-otter",
        flow_id="66666666-7777-8888-9999-000000000000",
        flow_name="ETL",
        flow_version=3,
        core_version="1.4.1",
    )


@pytest.fixture
def prefect_settings() -> PrefectSettings:
    """Prefect Cloud with a key; the agent has two labels."""
    return PrefectSettings(
        backend="cloud",
        api="https://api.example.com",
        api_key="pcu_key",
        tenant_id="tenant-1",
        labels=("prod", "eu"),
    )


@pytest.fixture
def required_env(flow_run: FlowRun) -> Dict[str, Any]:
    """The variables that a run of `flow_run` cannot do without."""
    return {
        "PREFECT__BACKEND": "cloud",
        "PREFECT__CLOUD__API": "https://api.example.com",
        "PREFECT__CLOUD__API_KEY": "pcu_key",
        "PREFECT__CLOUD__TENANT_ID": "tenant-1",
        "PREFECT__CLOUD__AGENT__LABELS": "['prod', 'eu']",
        "PREFECT__CLOUD__USE_LOCAL_SECRETS": "false",
        "PREFECT__CONTEXT__FLOW_RUN_ID": flow_run.id,
        "PREFECT__CONTEXT__FLOW_ID": flow_run.flow_id,
        "PREFECT__ENGINE__FLOW_RUNNER__DEFAULT_CLASS": (
            "prefect.engine.cloud.CloudFlowRunner"
        ),
        "PREFECT__CLOUD__AUTH_TOKEN": "pcu_key",
        "PREFECT__LOGGING__LOG_TO_CLOUD": "true",
        "PREFECT__CLOUD__SEND_FLOW_RUN_LOGS": "true",
        "PREFECT__LOGGING__LEVEL": "INFO",
    }


@pytest.fixture
def aws() -> Iterator[Any]:
    """An AWS on loopback whose tasks run without a process."""
    sandbox = pytest.importorskip("prefect_ecs_plugin.sandbox.aws")
    pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")
    with sandbox.AWS(runs_tasks=False) as running:
        yield running


@pytest.fixture
def client_of(aws: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes real boto3 clients of that AWS."""
    import boto3
    from botocore.config import Config

    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)

    def client(service: str, **config: Any) -> Any:
        return boto3.client(
            service,
            endpoint_url=aws.url,
            region_name=aws.region,
            aws_access_key_id=aws.access_key,
            aws_secret_access_key=aws.secret_key,
            config=Config(**{"retries": {"total_max_attempts": 1}, **config}),
        )

    return client
