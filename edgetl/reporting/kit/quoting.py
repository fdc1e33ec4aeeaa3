"""Names that come from anybody, written so that nothing in them is taken for anything but a name."""

from __future__ import annotations

import re
import shlex

from edgetl.base.wording import printable

#: What C takes as it stands in a string; a question mark could begin a trigraph.
_PLAIN = frozenset(map(chr, range(32, 127))) - frozenset('"\\?')
#: Longest name of a model that ``edgetl serve`` takes.
_LONGEST = 64


def c_string(name: str) -> str:
    """A string literal of C and C++, in ASCII: other bytes of its UTF-8 in octal, which ends after three digits."""
    parts = (c if c in _PLAIN else "".join(f"\\{byte:03o}" for byte in c.encode()) for c in name)
    return f'"{"".join(parts)}"'


def shell_word(name: str) -> str:
    """One word of a shell, on one line."""
    return shlex.quote(printable(name))


def model_name(name: str) -> str:
    """A name that ``edgetl serve`` takes, and that systemd, Docker and URLs take for nothing else."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-")[:_LONGEST] or "model"
