"""Resuming: a conversation that comes again is sent as it was sent before, where a provider still holds it."""

from __future__ import annotations

from dataclasses import replace

from compressor.payload import parse
from trimtab.conversations import Conversations
from trimtab.experience import Experience
from trimtab.options import sources_of
from trimtab.request import Request, fixed_tokens


def resumed(request: Request, conversations: Conversations, experience: Experience) -> Request:
    """The request with the turns that were sent before as they were sent, where a provider still holds them."""
    body, settled_turns = conversations.resumed(request.api, request.asked, request.digests)
    if not settled_turns or request.payload.cited:  # a citation must find the original of what was sent
        return request
    if not request.payload.sources and body[request.api.turns] == request.asked[request.api.turns]:
        return replace(
            request, settled_turns=settled_turns
        )  # it reads as it did: nothing may be cut, as it came or as it was sent
    contexts = sources_of(request.options.contexts or ())
    # the question as the caller's own turns ask it: in a settled one, context is no longer told from question
    payload = parse(request.api, body, contexts, request.payload.query, settled_turns)
    fixed = fixed_tokens(payload, request.encoding)
    again = replace(request, payload=payload, settled_turns=settled_turns, fixed_tokens=fixed)
    settled_chain = again.known_chain()[: settled_turns + 1]
    if body[request.api.turns] != request.asked[request.api.turns] and not experience.warm(
        request.offers, settled_chain
    ):
        return request  # gone cold: what was cut for an earlier question may be cut for this one
    return again
