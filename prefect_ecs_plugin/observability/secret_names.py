"""Which names make a value a secret, and which values are never secrets. Pure.

The tables are the project's own: what gitleaks and detect-secrets publish finds
secrets in source code, and knows few names of environment variables.
"""

from __future__ import annotations

import re
from functools import lru_cache

#: Of longer names, the last characters count.
_LONGEST_NAME = 256

#: What makes a value a secret, in a name in lower case with `_` around each word. Each
#: alternative has one of `FRAGMENTS` in it.
_SECRET_NAME = re.compile(
    r"""
      passw | passphrase | secret | credential | webhook | mnemonic
    | conn(?:ection)?_?str(?:ing)? s? _
    | (?: seed | recovery ) _? (?: phrase | words ) _
    | docker_?config_?json | azure_?web_?jobs_?storage
    | _ airflow_conn_ | _ sql_?alchemy_conn_
    | _ (?: slack | discord | teams | mattermost ) _ url _
    | (?: token | auth | pwd | dsn | jwt | signature | (?: access | account | api | app
        | auth | client | consumer | deploy | encryption | gpg | hmac | host
        | licen[cs]e | master | pgp | private | rsa | service | session | shared
        | signing | ssh | storage | subscription ) key
        ) s? \d* _
    | _ (?: keys? | pass | passcode | pw | pat | creds? | cookie | bearer | pem | sas
        | hooks? | authorization | authentication ) \d* _
    | _ private _ $
      # DBPASS and PGPASS, but not COMPASS and BYPASS
    | (?<! _com ) (?<! _by ) (?<! _over ) (?<! _under ) (?<! _sur ) (?<! _tres )
      (?<! _encom ) pass \d* _
    """,
    re.VERBOSE,
)

#: Parts of which each secret's name has one, in lower case. Text without any of them
#: names no secret.
FRAGMENTS = (
    *("pass", "secret", "cred", "hook", "mnemonic", "conn", "phrase", "words"),
    *("docker", "jobs", "slack", "discord", "teams", "mattermost", "token", "auth"),
    *("pw", "dsn", "jwt", "sig", "key", "pat", "cookie", "bearer", "pem", "sas"),
    "private",
)

#: The working directory, and the one before it, are no passwords.
_NO_SECRET = frozenset(("_pwd_", "_oldpwd_"))

#: Values that are no secret under any name: nothing, switches, stars, ARNs and AWS
#: regions.
_OPEN = re.compile(
    r"\s*|true|false|none|null|\*+|arn:aws[\w-]*:\S+|[a-z]{2}(?:-[a-z]+){1,2}-\d",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Whether the value of a variable, an option or a tag is a secret by its name.

    Args:
        name: In any case, such as `DB_PASSWORD`, `splunk-token` or `accessKey`.
    """
    return _is_secret_name(name[-_LONGEST_NAME:])


@lru_cache(maxsize=4096)
def _is_secret_name(name: str) -> bool:
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    words = f"_{re.sub(r'[^a-z0-9]+', '_', apart).strip('_')}_"
    words = words.replace("_kms_key_", "_")  # the name of a key, not the key
    return words not in _NO_SECRET and _SECRET_NAME.search(words) is not None


def is_secret(name: object, value: object) -> bool:
    """Whether a value is a secret because of its name."""
    return is_secret_name(str(name)) and not is_open(str(value))


def is_open(value: str) -> bool:
    """Whether a value is no secret under any name."""
    return _OPEN.fullmatch(value) is not None
