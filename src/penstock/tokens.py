"""Who may connect: tokens, kept as digests in a file that only its owner can read.

A token is 32 random bytes as text, shown once when it is made. The file holds its SHA-256: with that much chance in
the token, a slow hash would protect nothing more. Each is compared in constant time, and all of them always.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from penstock.clock import WALL
from penstock.errors import StorageError, UsageError

__all__ = ["Check", "Token", "Tokens", "any_key"]

Check = Callable[[str], str | None]
"""Of a key: who that is, or None."""


def any_key(key: str) -> str | None:
    """Every key is good: for a plant on loopback without tokens."""
    return ""


@dataclass(frozen=True, slots=True)
class Token:
    """What the file keeps of a token: its name, when it was made (ns), and SHA-256 of it as hexadecimal text."""

    name: str
    created: int
    sha256: str


class Tokens:
    """A file of tokens.

    Takes   path: made at the first `add`.
    Edges   the file is looked at again whenever it changed: what is revoked there is refused from then on.
    Raises  StorageError for a file that is none of ours.

    >>> tokens = Tokens("tokens.json")
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._held: list[Token] = []
        self.changes = 0
        self.refresh()

    def __len__(self) -> int:
        return len(self._held)

    def refresh(self) -> bool:
        """Look whether the file changed; True if so."""
        try:
            found = os.stat(self.path)
            seen = found.st_ino, found.st_mtime_ns, found.st_size
            if seen == self._seen:
                return False
            self._held = msgspec.json.decode(self.path.read_bytes(), type=list[Token])
        except FileNotFoundError:
            if self._seen is None:
                return False
            seen, self._held = None, []
        except (OSError, msgspec.DecodeError, UnicodeError) as error:
            raise StorageError(
                expected="a file of tokens",
                got=str(error),
                where=f"at {self.path}",
                hint="make it anew with Tokens.add",
            ) from error
        self._seen = seen
        self.changes += 1
        return True

    def check(self, key: str) -> str | None:
        """The name of the token that `key` is, or None. Every token is compared, whichever fits."""
        self.refresh()
        digest = _digest(key)
        found = None
        for token in self._held:
            if hmac.compare_digest(token.sha256, digest):
                found = token.name
        return found

    def add(self, name: str) -> str:
        """Make a token and return it; it cannot be shown again.   Raises  UsageError for a name that is taken."""
        self.refresh()
        if not isinstance(name, str) or not name.strip() or any(token.name == name for token in self._held):
            raise UsageError(
                expected="a name that no token has", got=repr(name), where=f"at {self.path}", hint="revoke that first"
            )
        key = secrets.token_urlsafe(32)
        self._save([*self._held, Token(name, WALL.now_ns(), _digest(key))])
        return key

    def all(self) -> list[Token]:
        """All tokens, in the order they were made."""
        self.refresh()
        return [*self._held]

    def revoke(self, name: str) -> None:
        """Forget a token.   Raises  UsageError if there is none of that name."""
        self.refresh()
        left = [token for token in self._held if token.name != name]
        if len(left) == len(self._held):
            known = ", ".join(token.name for token in self._held) or "none"
            raise UsageError(expected=f"the name of a token ({known})", got=repr(name), where=f"at {self.path}")
        self._save(left)

    def _save(self, tokens: list[Token]) -> None:
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # 0600 from the start: a digest of a token helps nobody, but names are nobody's business either.
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(tokens), indent=1))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            raise StorageError(f"tokens cannot be kept: {error}", where=f"at {self.path}") from error
        self.refresh()


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
