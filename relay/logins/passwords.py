"""Password hashes: argon2id (RFC 9106), in the form `$argon2id$v=19$m=...,t=...,p=...$SALT$HASH`."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argon2 import PasswordHasher

_FORM = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,7}),t=([0-9]{1,3}),p=([0-9]{1,2})\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}"
)
MOST_MEMORY = 128 * 1024
"""KiB that a hash in the file may ask for. Three are computed at a time at most."""
_MOST_PASSES = 16
NO_USER = "$argon2id$v=19$m=19456,t=2,p=1$FJfRkE3bp/W22Zpg94Gzkg$9RsToBGoK/LhiE4AecETuxXuS1d0XCwhGjGgZgyJLy8"
"""A hash to compute for a name that is not in the file, so that the time does not show which names are."""


def hash_password(password: bytes) -> str:
    """Returns the hash of a password with a new salt. Takes about 30 ms."""
    return _hasher().hash(password)


def matches(hashed: str, password: bytes) -> bool:
    """Returns whether a hash is that of the password. Takes about 30 ms, without the GIL."""
    from argon2.exceptions import Argon2Error, InvalidHashError

    try:
        return _hasher().verify(hashed, password)
    except (Argon2Error, InvalidHashError):
        return False


def check_hash(hashed: str) -> None:
    """Raises `ValueError` if a text is not a hash, or one that takes too much memory or time."""
    form = _FORM.fullmatch(hashed)
    if not form:
        raise ValueError("not an argon2id hash; write the line with relay user add")
    memory, passes = int(form[1]), int(form[2])
    if memory > MOST_MEMORY or passes > _MOST_PASSES:
        raise ValueError(f"the hash takes too much memory or time (m={memory},t={passes}); set the password again")


@functools.cache
def _hasher() -> PasswordHasher:
    """Returns the hasher. argon2 is imported when it is needed: most relays verify no passwords."""
    from argon2 import PasswordHasher

    # OWASP's parameters for little memory: 19 MiB and 30 ms each. AVideo logs in once for each message.
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
