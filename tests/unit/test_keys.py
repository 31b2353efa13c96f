"""Keys of the service: only hashes are kept, and a running service follows the file."""

import stat
from multiprocessing import get_context
from pathlib import Path

import pytest

from scorers.errors import ConfigError
from serving.keys import LOOK_S, TOKEN, KeyFile, Ring, Scope, digest

NOW = 1_700_000_000.0


class Clock:
    """Monotonic seconds that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "var" / "keys.json")


def test_only_a_hash_is_kept(file: KeyFile) -> None:
    key, token = file.create("dashboard", [Scope.READ], now=NOW)
    held = file.path.read_text()

    assert TOKEN.fullmatch(token)
    assert token not in held
    assert token[3:] not in held
    assert digest(token) in held
    assert file.held() == [key]
    assert key.last == token[-4:]


def test_nobody_else_may_read_the_file(file: KeyFile) -> None:
    file.create("a", [Scope.READ], now=NOW)

    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert sorted(path.name for path in file.path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


def test_a_file_that_others_may_write_is_refused(file: KeyFile) -> None:
    file.create("a", [Scope.READ], now=NOW)
    file.path.chmod(0o666)

    with pytest.raises(ConfigError, match="chmod 600"):
        file.held()


@pytest.mark.parametrize("content", [b"", b"{}}", b'{"format":2,"keys":[]}', b'{"format":1,"keys":[{"id":"a"}]}'])
def test_a_file_that_is_not_ours_is_refused(file: KeyFile, content: bytes) -> None:
    file.path.parent.mkdir()
    file.path.write_bytes(content)

    with pytest.raises(ConfigError, match="no file of keys"):
        file.held()


def test_a_key_opens_until_it_expires_or_is_revoked(file: KeyFile) -> None:
    _, token = file.create("a", [Scope.READ], now=NOW, expires=NOW + 10)
    clock = Clock()
    ring = Ring(file.path, clock)

    assert ring.find(token, NOW) is not None
    assert ring.find(token, NOW + 10) is None
    assert ring.find(token + "x", NOW) is None
    assert ring.find("", NOW) is None

    file.revoke("a", now=NOW + 1)
    clock.now += LOOK_S

    assert ring.find(token, NOW + 2) is None


def test_admin_includes_the_other_scopes(file: KeyFile) -> None:
    admin, _ = file.create("a", [Scope.ADMIN], now=NOW)
    reader, _ = file.create("r", [Scope.READ, Scope.READ], now=NOW)

    assert all(admin.may(scope) for scope in Scope)
    assert [reader.may(scope) for scope in (Scope.READ, Scope.SCORE, Scope.ADMIN)] == [True, False, False]
    assert reader.scopes == (Scope.READ,)


def test_a_name_is_used_once_at_a_time(file: KeyFile) -> None:
    file.create("a", [Scope.READ], now=NOW)

    with pytest.raises(ConfigError, match="already"):
        file.create("a", [Scope.READ], now=NOW)

    file.revoke("a", now=NOW)
    file.create("a", [Scope.READ], now=NOW)

    assert [key.state(NOW) for key in file.held()] == ["revoked", "active"]


def test_a_rotated_key_goes_on_for_the_overlap(file: KeyFile) -> None:
    _, old = file.create("a", [Scope.SCORE], now=NOW, expires=NOW + 1000)
    key, new = file.rotate("a", now=NOW + 100, overlap_s=60)
    ring = Ring(file.path, Clock())

    assert key.scopes == (Scope.SCORE,)
    assert key.expires == NOW + 1100
    assert [bool(ring.find(token, NOW + 130)) for token in (old, new)] == [True, True]
    assert [bool(ring.find(token, NOW + 160)) for token in (old, new)] == [False, True]


@pytest.mark.parametrize("name", ["", "a b", "../x", "-a", "a" * 65, "a\n"])
def test_names_are_plain(file: KeyFile, name: str) -> None:
    with pytest.raises(ConfigError, match="no name"):
        file.create(name, [Scope.READ], now=NOW)


def test_what_cannot_be_is_refused(file: KeyFile) -> None:
    with pytest.raises(ConfigError, match="needs a scope"):
        file.create("a", [], now=NOW)
    with pytest.raises(ConfigError, match="expired already"):
        file.create("a", [Scope.READ], now=NOW, expires=NOW)
    with pytest.raises(ConfigError, match="no key 'a'"):
        file.revoke("a", now=NOW)
    with pytest.raises(ConfigError, match="no key 'a'"):
        file.rotate("a", now=NOW)

    assert file.held() == []


def _create(path: Path, number: int) -> None:
    KeyFile(path).create(f"key-{number}", [Scope.READ], now=NOW)


def test_no_change_is_lost_among_processes(file: KeyFile) -> None:
    with get_context("fork").Pool(4) as pool:
        pool.starmap(_create, [(file.path, number) for number in range(12)])

    assert sorted(key.name for key in file.held()) == sorted(f"key-{number}" for number in range(12))


def test_a_broken_file_leaves_the_keys_and_a_missing_one_none(file: KeyFile, caplog: pytest.LogCaptureFixture) -> None:
    _, token = file.create("a", [Scope.READ], now=NOW)
    clock = Clock()
    ring = Ring(file.path, clock)
    file.path.write_bytes(b"torn")
    clock.now += LOOK_S

    assert ring.find(token, NOW) is not None
    assert "Keys stay as they were" in caplog.text

    file.path.unlink()
    clock.now += LOOK_S

    assert ring.find(token, NOW) is None
