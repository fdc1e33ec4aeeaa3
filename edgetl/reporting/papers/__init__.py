"""A bundle's papers: ``bom.cdx.json`` for programs and ``MODEL_CARD.md`` for people, which say the same."""

from __future__ import annotations

from edgetl.base.storage import readable_json
from edgetl.core.bundle import BILL, MODEL_CARD, Bundle
from edgetl.reporting.papers.card import model_card
from edgetl.reporting.papers.cyclonedx import bill
from edgetl.reporting.papers.text import text


def papers(bundle: Bundle) -> dict[str, bytes]:
    """What they hold, by the name of the file; the same for the same bundle and certificate.

    Args:
        bundle: it has a certificate.

    Raises:
        BundleError: a record was altered.
        CertifyError: there is no certificate, or it is of another version.
    """
    card = model_card(bundle)
    return {BILL: readable_json(bill(bundle, card)), MODEL_CARD: text(card).encode()}
