"""Which requests the sandbox's servers answer: only those of the user's own programs.

Both servers listen on 127.0.0.1, where two others can reach them: a web page in the
user's browser, and another user of the machine. What is asked of the servers starts
processes as the user, so two things are required of every request:

- It is not one that a browser sends for a page, and its Host is the address that the
  server listens on, not a name that a page's owner made resolve to 127.0.0.1 (DNS
  rebinding). `http_server` checks this before it reads the body.
- It has the session's secret: a token in the path of the Prefect API's URL, an access
  key in the signature of AWS's clients. Each server looks for its own.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from email.message import Message
from typing import Optional, Tuple

#: Only browsers send these, and they send one of them with each request of a page.
#: https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site
_OF_BROWSERS = ("Origin", "Sec-Fetch-Site")


def new_token() -> str:
    """A token for the path of a URL, which cannot be guessed."""
    return secrets.token_hex(20)


def new_access_key() -> Tuple[str, str]:
    """An AWS access key that cannot be guessed: its id and its secret.

    The id has AWS's form, which moto looks for, and 80 random bits.
    """
    key_id = "AKIA" + base64.b32encode(secrets.token_bytes(10)).decode()
    return key_id, secrets.token_hex(20)


def same(given: str, expected: str) -> bool:
    """Whether two secrets are the same, in a time that does not tell how nearly."""
    return hmac.compare_digest(given.encode(), expected.encode())


def refusal(method: str, headers: Message, address: str) -> Optional[str]:
    """Why a request is refused, None if nothing is wrong with it so far.

    Args:
        method: GET, POST, ...
        headers: As they came.
        address: Where the server listens, `127.0.0.1:PORT`.

    Returns:
        One line.
    """
    if method == "OPTIONS":
        return "The sandbox does not answer OPTIONS."
    for name in _OF_BROWSERS:
        if name in headers:
            return f"The sandbox does not answer browsers (the request has {name})."
    if headers.get_all("Host") != [address]:
        return f"The sandbox answers only to the host {address}."
    for name in ("Authorization", "Content-Type", "Content-Length", "X-Amz-Target"):
        if len(headers.get_all(name, [])) > 1:
            return f"The request has the header {name} more than once."
    return None


def media_type(content_type: str) -> str:
    """The type alone, in lower case: `application/json` of what has a charset too."""
    return content_type.partition(";")[0].strip().lower()
