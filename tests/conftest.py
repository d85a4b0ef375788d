"""What several test modules share."""

from __future__ import annotations

from typing import Any, Dict

import pytest

from prefect_ecs_plugin.flow_run import FlowRun
from prefect_ecs_plugin.settings import PrefectSettings


@pytest.fixture
def flow_run() -> FlowRun:
    """A run of version 3 of a flow registered by Prefect 1.4.1."""
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
