"""Why a file cannot be read."""

from __future__ import annotations

import errno
import os

from relay.runtime.files import read_error


def test_only_a_missing_permission_has_a_remedy() -> None:
    denied, missing = (OSError(number, os.strerror(number)) for number in (errno.EACCES, errno.ENOENT))
    assert read_error(denied) == "Permission denied; run this as a user who may read it"
    assert read_error(missing) == "No such file or directory"
