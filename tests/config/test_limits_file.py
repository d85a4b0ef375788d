"""What messages about a file of limits have in them."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from prefect_ecs_plugin.config import limits_file
from prefect_ecs_plugin.config.limits_file import LimitsFile
from prefect_ecs_plugin.errors import ConfigurationError


def test_a_message_about_a_file_at_an_address_has_no_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def content(*args: Any, **options: Any) -> Any:
        return {"total": "many"}

    monkeypatch.setattr(limits_file, "load_mapping", content)
    url = "https://me:hunter2@example.com/limits.yaml?signature=hunter2"
    with pytest.raises(ConfigurationError) as raised:
        LimitsFile([], url, (), lambda service: None, logging.getLogger("test"))
    assert raised.value.code == "invalid-limit"
    assert "hunter2" not in str(raised.value)
    assert "example.com/limits.yaml" in str(raised.value)
