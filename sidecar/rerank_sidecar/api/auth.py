"""Who may ask: the tokens that a listener takes, compared in constant time.

A guard is called by whatever answers a path, after routing, so that no spelling of a path or Host
header decides whether it is called.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from rerank_sidecar.access_settings import split_tokens
from rerank_sidecar.api.watched_files import WatchedFiles
from rerank_sidecar.errors import InvalidSetting, Unauthenticated
from rerank_sidecar.settings import Settings

Digests = frozenset[bytes]

_BEARER = re.compile(r"\s*bearer(?:\s+(.*))?", re.IGNORECASE | re.DOTALL)
"""RFC 9110, section 11.1: the scheme's case does not matter."""

_TOKEN = re.compile(r"[!-~]+")
"""What every client can put into a header: visible ASCII."""


class Guard(Protocol):
    """Lets requests with a valid token pass."""

    def check(self, headers: Mapping[str, str], names: Sequence[str]) -> None:
        """Let a request pass whose key is in one of the named headers, all in lower case.

        Raises:
            Unauthenticated: it has no token, or none that is taken.
        """
        ...


class OpenGuard:
    """Lets everybody pass: for listeners that only friends can reach."""

    def check(self, headers: Mapping[str, str], names: Sequence[str]) -> None:
        """Let a request pass."""


class TokenGuard:
    """Lets those pass who show one of the tokens whose SHA-256 digests it is given on each call.

    In the header `authorization` a token follows the word Bearer, in others it stands alone. Every
    digest is compared with every key, in constant time, so that how long it takes tells nothing.
    """

    def __init__(self, digests: Callable[[], Digests]) -> None:
        self._digests = digests

    def check(self, headers: Mapping[str, str], names: Sequence[str]) -> None:
        """Let a request pass if one of the headers has a token that is taken.

        Raises:
            Unauthenticated: none has; the message says what was missing, never what was sent.
        """
        keys = [key for name in names if name in headers and (key := _key(name, headers[name]))]
        if not keys:
            raise Unauthenticated(_what_is_missing(headers, names))
        known = self._digests()
        same = [hmac.compare_digest(digest, each) for digest in digests_of(keys) for each in known]
        if not any(same):
            raise Unauthenticated("this token is not one that the server takes")


def guard_of(settings: Settings) -> Guard:
    """Make the guard that the settings ask for; without tokens everybody may pass.

    Raises:
        InvalidSetting: the file of tokens cannot be read, or something is no token.
    """
    listed = _digests("auth_tokens", [each.get_secret_value() for each in settings.auth_tokens])
    path = settings.auth_tokens_file
    if path is not None:
        file = WatchedFiles([path], lambda: _read(path))
        return TokenGuard(lambda: listed | file.current())
    return TokenGuard(lambda: listed) if listed else OpenGuard()


def digests_of(tokens: Iterable[str]) -> Digests:
    """Give the digests by which tokens are told apart; a header may have any characters."""
    return frozenset(sha256(each.encode("utf-8", "surrogatepass")).digest() for each in tokens)


def _key(name: str, value: str) -> str:
    if name != "authorization":
        return value.strip()
    found = _BEARER.fullmatch(value)
    return (found[1] or "").strip() if found else ""


def _what_is_missing(headers: Mapping[str, str], names: Sequence[str]) -> str:
    ways = " or ".join(
        "Authorization: Bearer <token>" if name == "authorization" else f"{name}: <token>"
        for name in names
    )
    if "authorization" in names and _BEARER.fullmatch(headers.get("authorization", "")):
        return f"the word Bearer has no token behind it; set the client's API key ({ways})"
    return f"a token is needed: {ways}"


def _read(path: Path) -> Digests:
    try:
        lines = path.read_text("utf-8").splitlines()
        text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        return _digests("auth_tokens_file", split_tokens(text))
    except OSError as error:
        raise InvalidSetting(
            f"auth_tokens_file: {path} cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidSetting(f"auth_tokens_file: {path} is not UTF-8 text") from error
    except ValueError as error:
        raise InvalidSetting(f"auth_tokens_file: {path} {error}") from error


def _digests(setting: str, tokens: Collection[str]) -> Digests:
    if not all(map(_TOKEN.fullmatch, tokens)):
        raise InvalidSetting(f"{setting}: a token may have visible ASCII characters only")
    return digests_of(tokens)
