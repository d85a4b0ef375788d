"""Secrets are found and redacted, and nothing else is changed."""

from __future__ import annotations

import base64
import copy
import html
import json
import re
import shlex
from typing import Any, Dict, Iterator, List
from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prefect_ecs_plugin.observability import secret_names, secret_patterns
from prefect_ecs_plugin.observability.known_secrets import (
    MOST_SECRETS,
    MOST_SLICES,
    SHORTEST,
    is_worth_looking_for,
    sliced,
)
from prefect_ecs_plugin.observability.redaction import (
    LONGEST_TEXT,
    STARS,
    Secrets,
    redact,
    redact_lines,
    redact_text,
    secrets_in,
)
from prefect_ecs_plugin.observability.secret_names import is_secret_name

SECRET_NAMES = [
    *("PREFECT__CLOUD__API_KEY", "PREFECT__CLOUD__AUTH_TOKEN", "SENTRY_DSN"),
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"),
    *("DB_PASSWORD", "PGPASSWORD", "MYSQL_PWD", "DB_PASS", "DB_PW", "ssh-passphrase"),
    *("GITHUB_TOKEN", "GITHUB_TOKENS", "TOKEN_2", "splunk-token", "authtoken"),
    *("apikey", "accessKey", "APIKey", "SSH_KEY", "keys", "KEY", "SIGNING_KEY"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "DB_CREDS", "PREFECT__CONTEXT__SECRETS__X"),
    *("BASIC_AUTH", "OAUTH2", "Authorization", "SESSION_COOKIE", "TLS_PRIVATE"),
    *("X-Amz-Signature", "X-Amz-Security-Token", "SLACK_WEBHOOK", "CLIENT_PEM"),
    *("CONNECTION_STRING", "ID_JWT", "DBPASS", "PGPASS", "SMTPPASS", "GITHUB_PAT"),
    *("MY_APPKEY", "CONNSTR", "DB_CONNSTR", "CONNECTIONSTRING", "AIRFLOW_CONN_DB"),
    *("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "TEAMS_HOOK", "SLACK_URL", "SAS"),
    *("BLOB_SAS", "DOCKERCONFIGJSON", ".dockerconfigjson", "SEED_PHRASE"),
    *("AzureWebJobsStorage", "x" * 100_000 + "_PASSWORD"),
]

OTHER_NAMES = [
    *("KEYBOARD", "AUTHOR", "AUTHORITY", "MONKEY", "TURKEY", "TOKENIZERS_PARALLELISM"),
    *("PREFECT__CONTEXT__FLOW_RUN_ID", "PREFECT__CLOUD__API", "PWD", "OLDPWD"),
    *("privateIPv4Address", "PRIVATE_SUBNETS", "PASSENGERS", "COMPASS", "BYPASS"),
    *("HOOKED", "PATTERN", "PATH_INFO", "SASS_PATH", "SURPASS", "CONNECTIONS"),
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
def test_values_that_are_not_secrets(value: Any) -> None:
    assert secrets_in({"env": {"API_KEY": value}}) == []
    assert redact({"env": {"API_KEY": value}}) == {"env": {"API_KEY": value}}


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
def test_text_without_secrets(text: str, expected: str) -> None:
    secrets = ["hunter2hunter2", "ab\ncdef\tghi", "p@ss word", "short"]
    assert redact_text(text, secrets) == expected
    assert redact_text(expected, secrets) == expected


def test_a_secret_within_another_leaves_nothing_of_it() -> None:
    assert redact_text("0123456789", ["01234567", "0123456789"]) == STARS


def test_redact_replaces_secrets_and_changes_nothing_else() -> None:
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
    assert redact(request, ["0123456789"]) == {
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


@given(st.from_regex(secret_names._SECRET_NAME))
def test_a_name_of_a_secret_has_one_of_the_fragments(name: str) -> None:
    """Text without them is not looked through for names."""
    lower = name.lower()
    assert any(each in lower for each in secret_names.FRAGMENTS)


@pytest.mark.parametrize("name", [*SECRET_NAMES, *secret_patterns._IN_QUERY])
def test_a_known_name_has_one_of_the_fragments(name: str) -> None:
    assert any(each in name.lower() for each in secret_names.FRAGMENTS)


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


def is_looked_for(secret: str) -> bool:
    """Whether a secret differs from the stars of others."""
    return is_worth_looking_for(secret) and "***" not in secret


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
        shown = redact_text(text + joint.join(secrets), secrets)
        left = [each for each in secrets if is_looked_for(each) and each in shown]
        assert left == []
        assert redact_text(shown, secrets) == shown


@given(REQUESTS, st.lists(WORDS, max_size=3))
def test_no_secret_stays_in_a_request(request: Any, secrets: List[str]) -> None:
    shown = redact(request, secrets)
    long_enough = [
        each for each in [*secrets, *secrets_in(request)] if is_looked_for(each)
    ]
    assert [each for each in long_enough for text in texts(shown) if each in text] == []
    assert redact(shown, secrets) == shown


@given(REQUESTS, st.lists(WORDS, max_size=3))
def test_redact_changes_no_input(request: Any, secrets: List[str]) -> None:
    before = copy.deepcopy((request, secrets))
    redact(request, secrets)
    assert (request, secrets) == before


# -- What an agent knows -----------------------------------------------------------


def test_secrets_that_are_kept_and_learned() -> None:
    secrets = Secrets()
    secrets.keep(None, "", "api-key-1", 123456789)
    secrets.learn("run-1", {"env": {"A_TOKEN": "run-token-1"}}, None)
    text = "api-key-1, 123456789, run-token-1, run-token-2"
    for run_id in ("run-1", None):
        assert secrets.redact_text(text, run_id) == "***, ***, ***, run-token-2"


def test_secrets_belong_to_their_run() -> None:
    secrets = Secrets()
    secrets.keep("agents-token")
    secrets.learn("run-1", {"env": {"A_TOKEN": "token-number-1", "B": "x"}})
    secrets.learn("run-1", {"env": {"B_TOKEN": "token-number-2"}})
    secrets.learn("run-2", {"env": {"A_TOKEN": "token-number-2"}})
    text = "agents-token token-number-1 token-number-2"
    assert secrets.of("run-2") == ["agents-token", "token-number-2"]
    assert secrets.redact_text(text, "run-1") == "*** *** ***"
    assert secrets.redact_text(text, "run-2") == "*** token-number-1 ***"
    assert secrets.redact_text(text, "run-3") == "*** token-number-1 token-number-2"
    assert secrets.redact_text(text) == "*** *** ***"
    secrets.forget("run-1")
    assert secrets.redact_text(text, "run-1") == "*** token-number-1 token-number-2"
    assert secrets.redact_text(text) == "*** token-number-1 ***"
    secrets.forget("run-2")
    secrets.forget("run-2")
    assert secrets.redact_text(text) == "*** token-number-1 token-number-2"


def test_no_run_pushes_secrets_of_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "prefect_ecs_plugin.observability.redaction._MOST_OF_ALL_RUNS", 2000
    )
    secrets = Secrets()
    secrets.keep("agents-token")
    secrets.learn("good", {"env": {"A_TOKEN": "token-of-good"}})
    many = {f"TOKEN_{i}": f"{i:08}-token-of-greedy" for i in range(1000)}
    secrets.learn("greedy", {"env": many})
    assert secrets.of("greedy")[1:] == list(many.values())[:MOST_SECRETS]
    text = "agents-token token-of-good 00000000-token-of-greedy"
    assert secrets.redact_text(text, "good") == "*** *** 00000000-token-of-greedy"
    assert secrets.redact_text(text, "greedy") == "*** token-of-good ***"
    assert secrets.redact_text(text) == "*** *** 00000000-token-of-greedy"
    assert len(sliced(tuple("x" * i + "yz" * 20_000 for i in range(9))).slices) <= (
        MOST_SLICES
    )


@pytest.mark.parametrize("value", ["***bbbbb", "********", "--------", "a", "ababab"])
def test_what_would_blind_a_log_is_not_looked_for(value: str) -> None:
    text = f"password: ***, then {value} ******** -------- and ***bbbbb"
    assert redact_text(text, [value]) == text.replace("********", "********")
    assert redact_text(f"A_TOKEN='{value}'", [value]) == (
        f"A_TOKEN='{value}'" if set(value) == {"*"} else "A_TOKEN='***'"
    )


def test_a_structure_that_contains_itself_is_skipped() -> None:
    nested: Dict[str, Any] = {}
    nested["again"] = nested
    secrets = Secrets()
    secrets.learn("run-1", nested)
    assert secrets.redact_text("text") == "text"


# -- Names, shapes and spellings -----------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("id AKIAIOSFODNN7EXAMPLE, ASIAIOSFODNN7EXAMPLE", "id ***, ***"),
        (f"ghp_{'a1B2' * 9} github_pat_{'a1_B' * 8}.", "*** ***."),
        ("xoxb-1234567890-abcdefABCDEF xoxa-2-abc-def12345", "*** ***"),
        ("glpat-ABCDEFGHIJ1234567890", "***"),
        ("pcu_0123456789abcdefABCD", "***"),
        ("sk-proj-abcdef0123456789abcdef", "***"),
        ("a eyJhbGciOiJI.eyJzdWIiOiIx.dozjgNryP4J3_jVm-Hl0 b", "a *** b"),
        (
            "-----BEGIN EC PRIVATE KEY-----\nM+/=\na\n-----END EC PRIVATE KEY-----",
            "-----BEGIN EC PRIVATE KEY-----***-----END EC PRIVATE KEY-----",
        ),
        (
            r"'-----BEGIN PRIVATE KEY-----\nMIIEow\n' cut",
            "'-----BEGIN PRIVATE KEY-----***' cut",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        ),
        ("db://me:p@ss/w:rd@host/x?y=z", "db://me:***@host/x?y=z"),
        ("db://a:p1@h1,db://b:p2@h2", "db://a:***@h1,db://b:***@h2"),
        ("https://0123456789abcdef@host/x", "https://***@host/x"),
        ("ssh://git@host:22/x", "ssh://git@host:22/x"),
        (
            "http://host:8080/a@b https://h/a?m=x@y",
            "http://host:8080/a@b https://h/a?m=x@y",
        ),
        ("https://h/c?sv=1&sig=a%2Fb&token=c#d", "https://h/c?sv=1&sig=***&token=***"),
        (
            "https://hooks.slack.com/services/T00/B00/abcdef",
            "https://hooks.slack.com/services/***",
        ),
        ("authorization: basic dTpw", "authorization: basic ***"),
        ("{'AUTHORIZATION': 'bearer abc'}", "{'AUTHORIZATION': 'bearer ***'}"),
        (
            "Basic dXNlcjpodW50ZXIy Basic authentication",
            "Basic *** Basic authentication",
        ),
        ("X-API-Key: abc, x-api-key:abc", "X-API-Key: ***, x-api-key:***"),
        ("without-key:1 does not bring it", "without-key:1 does not bring it"),
        ("arn:x:secret:db-key-AbC: denied", "arn:x:secret:db-key-AbC: denied"),
        ("mysql --db_password abc", "mysql --db_password ***"),
        ("DB_PASSWORD: abc", "DB_PASSWORD: ***"),
        (
            "psql --password abc -h x --db-password=d",
            "psql --password *** -h x --db-password=***",
        ),
        ("['--token', 'abc', 'x']", "['--token', '***', 'x']"),
        ("Driver={X};Pwd={a;b}}c};Uid=me", "Driver={X};Pwd=***;Uid=me"),
        ('{"A_TOKEN": "cut off at the en', '{"A_TOKEN": "***'),
        (r'{"A_TOKEN": "a\\", "B": "c"}', '{"A_TOKEN": "***", "B": "c"}'),
        (r"{\"A_TOKEN\": \"a\\\"b\", \"B\"", r"{\"A_TOKEN\": \"***\", \"B\""),
        ("STAGE='A_TOKEN=abc'", "STAGE='A_TOKEN=***'"),
        (
            "unable to pull secrets or registry auth: execution",
            "unable to pull secrets or registry auth: execution",
        ),
        ("--key and --key-from-secret exclude", "--key and --key-from-secret exclude"),
        (
            "the secret of arn:aws:ssm:x is not there",
            "the secret of arn:aws:ssm:x is not there",
        ),
        (
            "task-0123456789abcdef0123456789abcdef",
            "task-0123456789abcdef0123456789abcdef",
        ),
    ],
)
def test_shapes(text: str, expected: str) -> None:
    assert redact_text(text) == expected
    assert redact_text(expected) == expected


PLANTED = "Zq7'\"\\ <ü€>&/+= kW9~x$(v)-end"


def planted_spellings() -> Dict[str, str]:
    """A value with all that is spelled differently, as others write it."""
    as_json = json.dumps(PLANTED)
    unescaped = json.dumps(PLANTED, ensure_ascii=False)
    encoded = quote(PLANTED, safe="")
    return {
        "as it is": PLANTED,
        "Python": repr(PLANTED),
        "JSON": as_json,
        "JSON, not ASCII": unescaped,
        "JSON in JSON": json.dumps(as_json),
        "JSON in JSON, not ASCII": json.dumps(unescaped, ensure_ascii=False),
        "percent": encoded,
        "percent, lower case": re.sub(
            "%..", lambda each: each.group().lower(), encoded
        ),
        "percent with /": quote(PLANTED, safe="/"),
        "a form": urlencode({"x": PLANTED}),
        "HTML": html.escape(PLANTED),
        "HTML, in decimals": html.escape(PLANTED).replace("&#x27;", "&#39;"),
        "for a shell": shlex.quote(PLANTED),
        "for a shell, backslashes": re.sub(r"([^\w./@%+=:,-])", r"\\\1", PLANTED),
        **{
            f"base64 at {before}": base64.b64encode(
                b"u" * before + b":" + PLANTED.encode() + b";x"
            ).decode()
            for before in range(3)
        },
        "base64 for URLs": base64.urlsafe_b64encode(PLANTED.encode()).decode(),
        "several lines": "\n".join([PLANTED[:12], PLANTED]),
        "cut off": PLANTED[:10] + "...",
        "cut off within": PLANTED[:20],
    }


@pytest.mark.parametrize("spelling", planted_spellings())
def test_spellings(spelling: str) -> None:
    text = planted_spellings()[spelling]
    shown = redact_text(f"before [{text}] after\n{text}", [PLANTED])
    assert STARS in shown
    assert slices_of(text, shown) == []
    assert shown.startswith("before [") or "several" in spelling


def slices_of(secret: str, text: str) -> List[str]:
    """What of a secret stands in a text, in slices of eight characters."""
    slices = (secret[i : i + SHORTEST] for i in range(len(secret) - SHORTEST + 1))
    return [each for each in slices if each in text]


@pytest.mark.parametrize(
    "value, expected",
    [
        ("https://hooks.slack.com/services/T0/B0/abcdef", ["T0/B0/abcdef"]),
        ("https://chat.example.com/hook/abcdefgh", ["hook/abcdefgh"]),
        ("postgres://me:p%40ss@db/x", ["p%40ss", "p@ss"]),
        ("Server=db.example.com;Uid=me;Pwd={a;b}", ["{a;b}"]),
        ("Endpoint=https://x;AccountKey=abc==;X=y", ["abc=="]),
        ('{"project": "example"}', ['{"project": "example"}']),
    ],
)
def test_of_a_url_and_the_like_only_what_is_secret(
    value: str, expected: List[str]
) -> None:
    assert secrets_in({"env": {"MY_SECRET": value}}) == expected


def test_arguments_and_shapes_in_requests_are_secrets() -> None:
    request = {"command": ["x", "--db-password", "hunter2hunter2", "ghp_" + "a1" * 10]}
    assert secrets_in(request) == ["hunter2hunter2", "ghp_" + "a1" * 10]
    assert redact(request) == {"command": ["x", "--db-password", "***", "***"]}


# -- Redact, then cut ------------------------------------------------------------------


@pytest.mark.parametrize("before", range(90, 105))
def test_a_secret_across_a_cut_leaves_nothing(before: int) -> None:
    secret = "p4ssw0rd-of-33-characters-in-all!"
    text = "x" * before + secret + " and more" * 20
    for shown in (
        redact_text(text, [secret], 100),
        *redact_lines([text], [secret], 100),
    ):
        assert slices_of(secret, shown) == []
        assert shown == ("x" * before)[:100] + (STARS if before < 100 else "") + "..."


def test_a_key_over_several_lines() -> None:
    lines = ["x", "-----BEGIN PRIVATE KEY-----", "MIIEow", "abcdef", "done."]
    shown = redact_lines(lines, [], 1000)
    assert "\n".join(shown).count("MIIEow") == 0
    assert shown[0] == "x"
    assert len(shown) == len(lines)


# -- Long texts ----------------------------------------------------------------------


def test_of_a_long_text_the_end_is_left_out() -> None:
    text = json.dumps({"a" * 25_000: "b" * 20_000, "quotes": "'\"\\" * 3000})
    text += "://" * 10_000
    assert len(text) < LONGEST_TEXT
    assert redact_text(text) == text
    assert redact_text("x" * (LONGEST_TEXT + 5)) == (
        "x" * LONGEST_TEXT + "... (5 more characters are left out)"
    )


PIECES = st.sampled_from(
    [
        *"\\*'\"{}=:&?@-.,; \n\t",
        *("***", "://", "eyJ", "name", "--password ", "token=", "-----BEGIN "),
        *("KEY-----", "authorization", "bearer ", '\\"', "***bbbbb", "xoxb-"),
    ]
)


@settings(max_examples=settings().max_examples // 5)
@given(st.lists(PIECES, min_size=1, max_size=8), st.lists(PIECES, max_size=6))
@example(["\\"], ["***bbbbb"])
@example(["-----BEGIN "], [])
def test_a_text_of_a_megabyte_is_redacted(pieces: List[str], others: List[str]) -> None:
    """Whatever it is made of; that it ends at all is what is tested."""
    unit = "".join(pieces)
    text = f"{PLANTED}\n" + unit * (1_000_000 // len(unit))
    secrets = [PLANTED, unit * 1000, "".join(others) * 1000, "***bbbbb"]
    shown = redact_text(text, secrets)
    assert len(shown) <= LONGEST_TEXT + 100
    assert slices_of(PLANTED, shown) == []
