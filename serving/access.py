"""Who may ask for what: paths that are tricks, keys where they must not be, and the scope each route needs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from serving.keys import TOKEN, Scope

IN_URL = re.compile(
    rb"(?:^|&)(?:api[-_]?key|key|access[-_]?token|token|auth|authorization|bearer|secret)=|tw_[A-Za-z0-9_-]{43}",
    re.IGNORECASE,
)
"""What looks like a key in a query."""
TOKEN_BYTES = re.compile(TOKEN.pattern.encode())
OPEN = frozenset({"/v2", "/v2/", "/v2/health/live", "/v2/health/ready"})
"""What probes ask for, without a key; it tells that the service is there, its name and version."""
PAGES = re.compile(r"/docs|/redoc|/assets/[^/]+")
"""Documents without what they are made of: they ask for a key themselves, as a browser cannot be told one."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
TEMPLATES = (
    (re.compile(r"/v2/models/.+/versions/[^/]+/infer"), "/v2/models/{name}/versions/{version}/infer"),
    (re.compile(r"/v2/models/.+/infer"), "/v2/models/{name}/infer"),
    (re.compile(r"/api/v1/service/.+/score"), "/api/v1/service/{name}/score"),
    (re.compile(r"/score"), "/score"),
)
"""Routes that are answered before a router could say which one it is."""
_ESCAPED = re.compile(rb"%(?:2f|5c|0[0-9a-f]|1[0-9a-f]|7f)", re.IGNORECASE)
_DOTS = re.compile(rb"(?:^|/)\.{1,2}(?:/|$)")


@dataclass(frozen=True, slots=True)
class Rule:
    """Requests of these methods whose path matches need ``scope``; the first rule that fits counts."""

    methods: frozenset[str]
    path: re.Pattern[str]
    scope: Scope


def rule(methods: str, path: str, scope: Scope) -> Rule:
    """A rule of methods with spaces between, and a regular expression."""
    return Rule(frozenset(methods.split()), re.compile(path), scope)


RULES = (
    rule("POST", r"/v2/repository/index", Scope.READ),
    rule("POST", r"/v2/repository/.*", Scope.ADMIN),
    rule("GET POST", r"/score|/api/v1/service/.+/score", Scope.SCORE),
    rule("POST", r"/v2/models/.*", Scope.SCORE),
    rule("POST", r"/jobs(/.*)?", Scope.SCORE),
    rule("GET HEAD OPTIONS", r".*", Scope.READ),
)
"""Whatever no rule fits needs ``admin``."""


def needed(method: str, path: str, rules: Iterable[Rule] = RULES) -> Scope:
    """The scope that a request needs.

    >>> needed("POST", "/v2/models/pump-1/infer"), needed("PUT", "/devices")
    (<Scope.SCORE: 'score'>, <Scope.ADMIN: 'admin'>)
    """
    return next((it.scope for it in rules if method in it.methods and it.path.fullmatch(path)), Scope.ADMIN)


def trick(raw: bytes) -> str | None:
    """What is wrong with a path as it was sent, None where nothing is.

    >>> trick(b"/devices/pump%201"), trick(b"/a/%2e%2e/b")
    (None, 'a segment . or ..')
    """
    if b"%" in raw:
        if _ESCAPED.search(raw):
            return "an encoded slash, backslash or control character"
        raw = unquote_to_bytes(raw)
    if b"/." in raw and _DOTS.search(raw):
        return "a segment . or .."
    if b"//" in raw or b"\\" in raw:
        return "an empty segment or a backslash"
    if min(raw, default=32) < 32 or raw[:1] != b"/":  # noqa: PLR2004  # controls end at the blank
        return "a control character, or no slash to begin with"
    return None


def key_in_url(path: bytes, query: bytes) -> bool:
    """Whether a key, or what is named as one, is part of an address.

    >>> key_in_url(b"/score", b"data=1&api_key=x"), key_in_url(b"/score", b"monkey=1")
    (True, False)
    """
    if query and (IN_URL.search(query) or (b"%" in query and IN_URL.search(unquote_to_bytes(query)))):
        return True
    return b"tw_" in path and bool(TOKEN_BYTES.search(path))


def template(path: str) -> str | None:
    """The route of a path that no router has seen, None where it is none of ``TEMPLATES``.

    >>> template("/v2/models/pump-1/infer"), template("/x")
    ('/v2/models/{name}/infer', None)
    """
    return next((route for pattern, route in TEMPLATES if pattern.fullmatch(path)), None)


def bearer(header: bytes | None) -> str | None:
    """The key of ``Authorization``, None where there is none of that kind (RFC 6750)."""
    if header is None:
        return None
    scheme, _, token = header.partition(b" ")
    return token.strip().decode("latin-1") or None if scheme.lower() == b"bearer" else None


@lru_cache(maxsize=64)
def hostname(header: bytes | None) -> str:
    """The name in ``Host`` without its port, lower case.

    >>> hostname(b"LocalHost:8080"), hostname(b"[::1]:80"), hostname(None)
    ('localhost', '[::1]', '')
    """
    text = (header or b"").decode("latin-1").lower()
    return text.partition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]
