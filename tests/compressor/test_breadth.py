"""Questions that need everything, and those that only sound like it."""

from __future__ import annotations

import pytest

from compressor.breadth import asks_for_everything


@pytest.mark.parametrize(
    "query",
    [
        "Summarize the discussion about product quotation.",
        "Give me a summary of this contract",
        "TL;DR?",
        "List all invoices that are overdue.",
        "find every mention of the outage",
        "What are all the error codes?",
        "How many different vendors are named?",
        "How many of the tickets were reopened?",
        "Compare the versions of the policy.",
        "Translate this into French",
        "Fasse das Protokoll zusammen",
        "Zusammenfassung bitte",
        "Fais un résumé de la réunion",
        "Resume el documento",
        "总结这份报告",
        "会議を要約してください",
    ],
)
def test_everything_is_needed(query: str) -> None:
    assert asks_for_everything(query)


@pytest.mark.parametrize(
    "query",
    [
        "Who founded the company that built the bridge?",
        "How many times have Real Madrid won the Champions League?",
        "How large may an upload be?",
        "What was the change in total gains between 2012 and 2013?",
        "Which is taller, the tower or the bridge?",
        "when did beryl markham fly across the atlantic",
        "",
    ],
)
def test_a_few_passages_are_enough(query: str) -> None:
    assert not asks_for_everything(query)
