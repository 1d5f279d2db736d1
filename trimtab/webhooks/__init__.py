"""Webhooks: how a caller learns that what it did not wait for is done, by the Standard Webhooks specification."""

from trimtab.webhooks.events import Event, result_event
from trimtab.webhooks.outbox import Outbox
from trimtab.webhooks.service import Webhooks

__all__ = ["Event", "Outbox", "Webhooks", "result_event"]
