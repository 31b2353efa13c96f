"""Keys of the service: made, listed, revoked and rotated in a file that holds only their hashes.

A key is ``tw_`` and 256 random bits. The file keeps its SHA-256 (see ADR 57), name, scopes and times; the key itself
is shown once. Every change replaces the file in one step under a lock; a running service looks whether it has changed.
"""

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from scorers.errors import ConfigError, UnavailableError
from scorers.whole import replacing

log = logging.getLogger(__name__)

PREFIX = "tw_"
TOKEN = re.compile(r"tw_[A-Za-z0-9_-]{43}")
"""How a key looks, so that one can be found where it must not be."""
NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
LOOK_S = 1.0
"""So often a running service looks whether the file has changed."""
_BITS = 256


class Scope(StrEnum):
    """What a key may do; ``admin`` includes the others."""

    READ = "read"
    SCORE = "score"
    ADMIN = "admin"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a key. Moments are epoch seconds, UTC."""

    id: str
    name: str
    digest: str
    """SHA-256 of the key, hex."""
    last: str
    """Its last four characters, to tell keys apart."""
    scopes: tuple[Scope, ...]
    created: float
    expires: float | None = None
    revoked: float | None = None

    def state(self, now: float) -> Literal["active", "expired", "revoked"]:
        """Whether it opens anything at ``now``."""
        if self.revoked is not None and self.revoked <= now:
            return "revoked"
        return "active" if self.expires is None or now < self.expires else "expired"

    def may(self, scope: Scope) -> bool:
        """Whether it has this scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def shown(self, now: float) -> dict[str, object]:
        """What a person may see."""
        times = {name: getattr(self, name) for name in ("created", "expires", "revoked")}
        return {"id": self.id, "name": self.name, "last": self.last, "scopes": list(self.scopes)} | {
            **{name: None if at is None else datetime.fromtimestamp(at, UTC).isoformat() for name, at in times.items()},
            "state": self.state(now),
        }


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: Literal[1] = 1
    keys: list[Key] = []


def digest(token: str) -> str:
    """What is kept in the place of a key."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class KeyFile:
    """The keys of one file; each method reads it anew.

    Raises:
        ConfigError: the file is not ours, or others may write it; from every method.
        UnavailableError: the disk does not take it; from every method.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def held(self) -> list[Key]:
        """All keys, the oldest first; none where there is no file."""
        try:
            with self.path.open("rb") as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o022:
                    raise ConfigError(f"Others may write {self.path}, the file of keys; `chmod 600 {self.path}`.")
                return msgspec.json.decode(file.read(), type=_File).keys
        except FileNotFoundError:
            return []
        except msgspec.DecodeError as error:
            raise ConfigError(
                f"{self.path} is no file of keys ({error}); move it away, or set serving.keys."
            ) from error
        except OSError as error:
            raise UnavailableError(f"{self.path} cannot be read ({error.strerror}); check who may.") from error

    def create(
        self, name: str, scopes: Iterable[Scope], *, now: float, expires: float | None = None
    ) -> tuple[Key, str]:
        """A new key, and the key itself, which nobody can show again.

        Raises:
            ConfigError: the name is none or in use, there is no scope, or it would have expired already.
        """
        if not NAMED.fullmatch(name):
            raise ConfigError(f"{name!r} is no name of a key; use up to 64 letters, digits, dots, dashes, @ and _.")
        key, token = _made(name, tuple(dict.fromkeys(scopes)), now, expires)
        with self._change() as keys:
            if any(held.name == name and held.state(now) == "active" for held in keys):
                raise ConfigError(f"There is a key {name!r} already; rotate or revoke it, or choose another name.")
            keys.append(key)
        return key, token

    def revoke(self, which: str, *, now: float) -> list[Key]:
        """End the keys of this name, or the one of this id, at once; those.

        Raises:
            ConfigError: there is none that is not revoked already.
        """
        with self._change() as keys:
            found = _active(keys, which, now)
            ended = [msgspec.structs.replace(key, revoked=now) for key in found]
            _put(keys, ended)
        return ended

    def rotate(
        self, which: str, *, now: float, overlap_s: float = 0.0, expires: float | None = None
    ) -> tuple[Key, str]:
        """A new key in the place of the one of this name or id, which goes on for ``overlap_s``.

        The new one lives as long as the old one was meant to, unless ``expires`` is given.

        Raises:
            ConfigError: there is none that is active.
        """
        with self._change() as keys:
            old = max(_active(keys, which, now), key=lambda key: key.created)
            life = None if old.expires is None else now + (old.expires - old.created)
            key, token = _made(old.name, old.scopes, now, life if expires is None else expires)
            _put(keys, [_ending(held, now + overlap_s) for held in _active(keys, old.name, now)])
            keys.append(key)
        return key, token

    @contextmanager
    def _change(self) -> Iterator[list[Key]]:
        """Change the list under the lock; what is left at the end is written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                keys = self.held()
                yield keys
                self._write(keys)
            finally:
                os.close(lock)
        except OSError as error:
            raise UnavailableError(
                f"Keys cannot be written to {self.path} ({error.strerror}); check the disk and who may."
            ) from error

    def _write(self, keys: Sequence[Key]) -> None:
        with replacing(self.path, 0o600) as file:
            file.write(msgspec.json.format(msgspec.json.encode(_File(keys=[*keys]))) + b"\n")


class Ring:
    """The keys as a running service asks for them; follows the file.

    Where the file has gone nothing opens; where it turns unreadable the keys last read stay, and the log says so.

    Args:
        path: the file of keys.
        clock: monotonic seconds, for when to look at the file.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._file = KeyFile(path)
        self._clock = clock
        self._seen: tuple[int, ...] | None = None
        self._next = float("-inf")
        self._by_digest: dict[str, Key] = {}
        self._load(self._stamp())

    def __len__(self) -> int:
        return len(self._by_digest)

    def active(self, now: float) -> int:
        """How many keys open something."""
        return sum(key.state(now) == "active" for key in self._by_digest.values())

    def find(self, token: str, now: float) -> Key | None:
        """The active key that this is, None where it is none.

        The search goes by the digest, which nobody can steer byte by byte; the last comparison takes the same time
        whatever differs.
        """
        self._follow()
        given = digest(token)
        key = self._by_digest.get(given)
        return key if key and hmac.compare_digest(key.digest, given) and key.state(now) == "active" else None

    def _follow(self) -> None:
        now = self._clock()
        if now < self._next:
            return
        self._next = now + LOOK_S
        stamp = self._stamp()
        if stamp == self._seen:
            return
        try:
            self._load(stamp)
        except (ConfigError, UnavailableError) as error:
            self._seen = stamp
            log.error("Keys stay as they were: %s", error)  # noqa: TRY400 - the sentence says it all

    def _load(self, stamp: tuple[int, ...] | None) -> None:
        self._by_digest = {key.digest: key for key in self._file.held()}
        self._seen = stamp

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            found = self._file.path.stat()
        except FileNotFoundError:
            return None
        except OSError:
            return ()
        return (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode)


def _made(name: str, scopes: tuple[Scope, ...], now: float, expires: float | None) -> tuple[Key, str]:
    if not scopes:
        raise ConfigError("A key needs a scope: read, score or admin.")
    if expires is not None and expires <= now:
        raise ConfigError("The key would have expired already; give a later time.")
    token = PREFIX + secrets.token_urlsafe(_BITS // 8)
    key = Key(
        id=secrets.token_hex(4),
        name=name,
        digest=digest(token),
        last=token[-4:],
        scopes=scopes,
        created=now,
        expires=expires,
    )
    return key, token


def _ending(key: Key, at: float) -> Key:
    """The key, revoked from ``at`` on, or as it was if it ends before."""
    return key if key.revoked is not None and key.revoked <= at else msgspec.structs.replace(key, revoked=at)


def _active(keys: Iterable[Key], which: str, now: float) -> list[Key]:
    found = [key for key in keys if which in (key.id, key.name) and key.state(now) != "revoked"]
    if not found:
        raise ConfigError(f"There is no key {which!r} in force; `tidewatch keys list` names them.")
    return found


def _put(keys: list[Key], changed: Iterable[Key]) -> None:
    """Each of ``changed`` in the place of the one with its id."""
    by_id = {key.id: key for key in changed}
    keys[:] = [by_id.get(key.id, key) for key in keys]
