"""Secrets made stars: what is one, where it is found, and nothing else touched."""

from __future__ import annotations

import copy
import json
from typing import Any, Dict, Iterator, List

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prefect_ecs_plugin.masking import (
    SHORTEST,
    STARS,
    Secrets,
    hidden,
    is_secret_name,
    masked,
    secrets_in,
)

SECRET_NAMES = [
    *("PREFECT__CLOUD__API_KEY", "PREFECT__CLOUD__AUTH_TOKEN", "SENTRY_DSN"),
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"),
    *("DB_PASSWORD", "PGPASSWORD", "MYSQL_PWD", "DB_PASS", "DB_PW", "ssh-passphrase"),
    *("GITHUB_TOKEN", "GITHUB_TOKENS", "TOKEN_2", "splunk-token", "authtoken"),
    *("apikey", "accessKey", "APIKey", "SSH_KEY", "keys", "KEY", "SIGNING_KEY"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "DB_CREDS", "PREFECT__CONTEXT__SECRETS__X"),
    *("BASIC_AUTH", "OAUTH2", "Authorization", "SESSION_COOKIE", "TLS_PRIVATE"),
    *("X-Amz-Signature", "X-Amz-Security-Token", "SLACK_WEBHOOK", "CLIENT_PEM"),
    *("CONNECTION_STRING", "ID_JWT"),
]

OTHER_NAMES = [
    *("KEYBOARD", "AUTHOR", "AUTHORITY", "MONKEY", "TURKEY", "TOKENIZERS_PARALLELISM"),
    *("PREFECT__CONTEXT__FLOW_RUN_ID", "PREFECT__CLOUD__API", "PWD", "OLDPWD"),
    *("privateIPv4Address", "PRIVATE_SUBNETS", "PASSENGERS", "COMPASS", "BYPASS"),
    *("PATH", "", "_", "ecs.cpu-architecture", "prefect:flow-run-id", "DESIGNATION"),
]


@pytest.mark.parametrize(
    "name, expected",
    [
        *((name, True) for name in SECRET_NAMES),
        *((name, False) for name in OTHER_NAMES),
    ],
)
def test_names_of_secrets(name: str, expected: bool) -> None:
    assert is_secret_name(name) is expected
    assert is_secret_name(name.lower()) is is_secret_name(name.upper())


@pytest.mark.parametrize(
    "value",
    ["", " ", "true", "False", "None", None, True, "arn:aws:ssm:eu-west-1:1:p/key"],
)
def test_nobodys_secrets(value: Any) -> None:
    assert secrets_in({"env": {"API_KEY": value}}) == []
    assert masked({"env": {"API_KEY": value}}) == {"env": {"API_KEY": value}}


@pytest.mark.parametrize(
    "structure, expected",
    [
        ({"env": {"DB_PASSWORD": "one", "STAGE": "prod"}}, ["one"]),
        ({"type": "ECSRun", "env": {"PIN_TOKEN": 123456789}}, ["123456789"]),
        ([{"name": "API_KEY", "value": "one"}, {"name": "X", "value": "y"}], ["one"]),
        ({"tags": [{"key": "api-key", "value": "one"}]}, ["one"]),
        ({"logConfiguration": {"options": {"splunk-token": "one"}}}, ["one"]),
        (
            {"environment": [{"name": "URL", "value": "db://me:p%40ss@h"}]},
            ["p%40ss", "p@ss"],
        ),
        (
            {
                "overrides": {
                    "containerOverrides": [
                        {
                            "name": "flow",
                            "environment": [{"name": "A_TOKEN", "value": "one"}],
                        },
                        {
                            "name": "other",
                            "environment": [{"name": "A_TOKEN", "value": "one"}],
                        },
                    ]
                }
            },
            ["one"],
        ),
        ({"secrets": [{"name": "API_KEY", "valueFrom": "one"}]}, []),
        ({"clientToken": "one", "env": None, "options": ["x"]}, []),
        ({"env": {"API_KEY": {"a": "one"}}}, []),
        ({"name": "API_KEY", "value": ["one"]}, []),
        (None, []),
    ],
)
def test_secrets_are_found_by_their_names(structure: Any, expected: List[str]) -> None:
    assert secrets_in(structure) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("the key hunter2hunter2 is wrong", "the key *** is wrong"),
        ("ab\\ncdef\\tghi in JSON", "*** in JSON"),
        ("ab ... cdef\tghi", "ab ... ***"),
        ("?q=p%40ss%20word&x=1", "?q=***&x=1"),
        ("short", "short"),
        ("db://me:any@host/x", "db://me:***@host/x"),
        ("http://host:8080/a", "http://host:8080/a"),
        ("{'DB_PASSWORD': 'x', 'STAGE': 'y'}", "{'DB_PASSWORD': '***', 'STAGE': 'y'}"),
        ('{"API_KEY":"x\\"y","N":1}', '{"API_KEY":"***","N":1}'),
        (r"{\"API_KEY\": \"x\", \"N\": 1}", r"{\"API_KEY\": \"***\", \"N\": 1}"),
        (
            "[{'name': 'A_TOKEN', 'value': 'x'}, {'name': 'B', 'value': 'y'}]",
            "[{'name': 'A_TOKEN', 'value': '***'}, {'name': 'B', 'value': 'y'}]",
        ),
        ('{"key": "team", "value": "data"}', '{"key": "team", "value": "data"}'),
        ('{"key": "api-key", "value": "x"}', '{"key": "api-key", "value": "***"}'),
        ("https://h/t.yaml?token=x&v=1", "https://h/t.yaml?token=***&v=1"),
        ("https://h/t.yaml?key=x&v=1", "https://h/t.yaml?key=***&v=1"),
        ("--env DB_PASSWORD=x --env A=b", "--env DB_PASSWORD=*** --env A=b"),
        (
            '{"Name":"a","Type":"SecureString","Value":"x"}',
            '{"Name":"a","Type":"SecureString","Value":"***"}',
        ),
        ('{"SecretString":"{\\"a\\":\\"x\\"}"}', '{"SecretString":"***"}'),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer ***"),
        ("    password = 'x'", "    password = '***'"),
        ("KeyError: 'flow'", "KeyError: 'flow'"),
        ("sorted(names, key=len)", "sorted(names, key=len)"),
        ("USE_TOKEN=true, API_KEY=''", "USE_TOKEN=true, API_KEY=''"),
        ("API_KEY_ARN=arn:aws:ssm:x", "API_KEY_ARN=arn:aws:ssm:x"),
    ],
)
def test_hidden_in_text(text: str, expected: str) -> None:
    secrets = ["hunter2hunter2", "ab\ncdef\tghi", "p@ss word", "short"]
    assert hidden(text, secrets) == expected
    assert hidden(expected, secrets) == expected


def test_a_secret_within_another_leaves_nothing_of_it() -> None:
    assert hidden("0123456789", ["01234567", "0123456789"]) == STARS


def test_masked_hides_secrets_and_changes_nothing_else() -> None:
    request = {
        "clientToken": "not a secret",
        "tags": [{"key": "api-key", "value": "v"}, {"key": "team", "value": "data"}],
        "containerDefinitions": [
            {
                "command": ["--token", "token-of-github"],
                "environment": [
                    {"name": "GITHUB_TOKEN", "value": "token-of-github"},
                    {"name": "EMPTY_SECRET", "value": ""},
                    {"name": "USE_LOCAL_SECRETS", "value": "false"},
                    {"name": "CARRIES", "value": "key 0123456789"},
                ],
                "secrets": [{"name": "API_KEY", "valueFrom": "arn:aws:ssm:::x"}],
                "logConfiguration": {
                    "logDriver": "splunk",
                    "options": {"splunk-token": "t", "splunk-url": "https://a:b@c"},
                },
            }
        ],
    }
    assert masked(request, ["0123456789"]) == {
        "clientToken": "not a secret",
        "tags": [{"key": "api-key", "value": "***"}, {"key": "team", "value": "data"}],
        "containerDefinitions": [
            {
                "command": ["--token", "***"],
                "environment": [
                    {"name": "GITHUB_TOKEN", "value": "***"},
                    {"name": "EMPTY_SECRET", "value": ""},
                    {"name": "USE_LOCAL_SECRETS", "value": "false"},
                    {"name": "CARRIES", "value": "key ***"},
                ],
                "secrets": [{"name": "API_KEY", "valueFrom": "arn:aws:ssm:::x"}],
                "logConfiguration": {
                    "logDriver": "splunk",
                    "options": {"splunk-token": "***", "splunk-url": "https://a:***@c"},
                },
            }
        ],
    }


# -- Laws --------------------------------------------------------------------------

#: Few characters, so that secrets overlap each other and what stands around them.
CHARACTERS = "ab*=:/@'\"\\\n "
WORDS = st.text(CHARACTERS, max_size=20)
NAMES = st.sampled_from(["API_KEY", "DB_PASSWORD", "STAGE", "name", "value"])
ENTRIES = st.fixed_dictionaries({"name": NAMES, "value": WORDS | st.integers()})
REQUESTS = st.recursive(
    st.none() | st.booleans() | WORDS | ENTRIES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.fixed_dictionaries({"environment": st.lists(ENTRIES, max_size=3)})
        | st.fixed_dictionaries({"env": st.dictionaries(NAMES, WORDS, max_size=3)})
        | st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_leaves=12,
)


def texts(value: Any) -> Iterator[str]:
    """All strings in a structure but for keys."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from texts(each)
    elif isinstance(value, str):
        yield value


@given(WORDS, st.lists(WORDS, max_size=4))
@example("://me:b@host", ["me:***@host"])
def test_no_secret_stays_in_text(text: str, secrets: List[str]) -> None:
    for joint in ("", "="):
        shown = hidden(text + joint.join(secrets), secrets)
        left = [each for each in secrets if len(each) >= SHORTEST and each in shown]
        assert left == []
        assert hidden(shown, secrets) == shown


@given(REQUESTS, st.lists(WORDS, max_size=3))
def test_no_secret_stays_in_a_request(request: Any, secrets: List[str]) -> None:
    shown = masked(request, secrets)
    long_enough = [
        each for each in [*secrets, *secrets_in(request)] if len(each) >= SHORTEST
    ]
    assert [each for each in long_enough for text in texts(shown) if each in text] == []
    assert masked(shown, secrets) == shown


@given(REQUESTS, st.lists(WORDS, max_size=3))
def test_masking_changes_no_input(request: Any, secrets: List[str]) -> None:
    before = copy.deepcopy((request, secrets))
    masked(request, secrets)
    assert (request, secrets) == before


# -- What an agent knows -----------------------------------------------------------


def test_secrets_that_are_kept_and_learned() -> None:
    secrets = Secrets()
    secrets.keep(None, "", "api-key-1", 123456789)
    secrets.learn({"env": {"A_TOKEN": "run-token-1"}}, None)
    text = "api-key-1, 123456789, run-token-1, run-token-2"
    assert secrets.hidden(text) == "***, ***, ***, run-token-2"


def test_of_runs_secrets_the_latest_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prefect_ecs_plugin.masking._REMEMBERED", 2)
    secrets = Secrets()
    secrets.keep("kept-token")
    for token in ("run-token-1", "run-token-2", "run-token-1", "run-token-3"):
        secrets.learn({"env": {"A_TOKEN": token}})
    text = "kept-token run-token-1 run-token-2 run-token-3"
    assert secrets.hidden(text) == f"{STARS} {STARS} run-token-2 {STARS}"


def test_what_cannot_be_walked_is_no_trouble() -> None:
    nested: Dict[str, Any] = {}
    nested["again"] = nested
    secrets = Secrets()
    secrets.learn(nested)
    assert secrets.hidden("text") == "text"


def test_a_large_text_takes_no_time() -> None:
    """Each pattern goes over a text once, whatever stands in it."""
    text = json.dumps({"a" * 50_000: "b" * 50_000, "quotes": "'\"\\" * 10_000})
    assert hidden(text + "://" * 10_000) == text + "://" * 10_000
