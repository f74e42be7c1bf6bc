"""What both sides of the admin API agree on: HTTP/1.1 on a Unix socket, answers as JSON."""

from __future__ import annotations

API = "1"
"""The version of the API. A change that an older command cannot understand gets a new number."""
API_FIELD = "Relay-Admin-Api"
VERSION_FIELD = "Relay-Version"
"""Header fields of every answer: the version of the API, and that of the relay."""

ANSWER_LIMIT = 10.0
"""Seconds for an answer from memory."""
LARGEST_ANSWER = 16 * 1024 * 1024
"""Bytes of a JSON answer."""
LARGEST_REQUEST = 16 * 1024 * 1024
"""Bytes. The largest is a selection that names the fingerprints of all records of one address."""

FILES_LIMIT = 10.0
"""Seconds for an answer from small files."""
STORE_LIMIT = 120.0
"""Seconds for an answer from the store."""
MOST_TRACES = 100
"""Traces in one answer."""
RELEASE_LIMIT = 1800.0
"""Seconds for the release of a copy: `upstream.dot_timeout` is 9 minutes by default, and comes last."""
CHECK_LIMIT = 240.0
"""Seconds for a check. Each test has a shorter limit."""
