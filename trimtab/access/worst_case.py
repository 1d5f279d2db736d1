"""Worst case: the most that a request may cost, as far as it can be known before it is sent. Pure.

Not in it, because nobody can know it: an answer longer than UNSTATED_OUTPUT_TOKENS where the caller states no maximum, an
input that a provider counts at more than INPUT_MARGIN times our count, and what an attempt bills that came to nothing before
another provider was asked. What is billed beyond is counted in full when the request is over.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final

from routing.offers import Usage, price
from trimtab.expansion import MAX_ROUNDS
from trimtab.prepared import Prepared
from trimtab.request import max_output_tokens
from trimtab.surfaces import EMBEDDINGS

INPUT_MARGIN: Final = 1.5
INPUT_EXTRA_TOKENS: Final = 200
UNSTATED_OUTPUT_TOKENS: Final = 16_384
"""Taken for the longest answer where the caller sets no maximum; nearly no answer is longer."""


def worst_case_usd(prepared: Prepared) -> Decimal:
    """At the dearest offer that may answer, with every round that the model may ask for; 0 where nobody has prices."""
    request = prepared.request
    counted = prepared.receipt.input_tokens_estimated or 0
    input_tokens = math.ceil(counted * INPUT_MARGIN) + INPUT_EXTRA_TOKENS
    longest = max_output_tokens(request.asked, request.answers) or UNSTATED_OUTPUT_TOKENS * request.answers
    output_tokens = 0 if request.api is EMBEDDINGS.api else longest
    # in every further round the model reads at most all that was cut, and what it wrote
    rounds = 1 if prepared.expander is None else 1 + MAX_ROUNDS
    input_tokens += 0 if rounds == 1 else (prepared.receipt.tokens_before or 0) + rounds * output_tokens
    offers = [each for each in (prepared.plan.chosen.offer, *prepared.offers) if each.tiers]
    costs = [price(each, Usage(input_tokens, output_tokens)) for each in offers]
    written = [price(each, Usage(input_tokens, output_tokens, 0, input_tokens)) for each in offers]
    return rounds * max((*costs, *written), default=Decimal(0))


def tokens_of(prepared: Prepared) -> int:
    """The tokens that the rate is asked for: those expected, since it is set right when the request is over."""
    receipt = prepared.receipt
    written = 0 if prepared.request.api is EMBEDDINGS.api else receipt.output_tokens_estimated or 0
    return (receipt.input_tokens_estimated or 0) + written
