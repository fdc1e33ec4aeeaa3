"""What ``edgetl verify --enrolled`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetl.base.schema import to_json
from edgetl.cli.output import Output, say

if TYPE_CHECKING:
    from edgetl.workflow.certify_enrolled import EnrolledTest


def show_enrolled(shown: Output, found: EnrolledTest) -> None:
    """Print the certificate of a changed head, and what is known of each added class."""
    from edgetl.reporting.outcome import print_certificate

    def human(console: Any) -> None:
        print_certificate(console, found.certificate)
        say(console, *found.sentences)

    shown.show({**found.certificate.to_json(), "added": to_json(dict(found.added))}, human)
