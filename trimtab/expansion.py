"""Expansion: what was cut, offered to the model as a tool, and its calls answered.

Knows the originals and the ranking, and nothing of providers; `expanded` asks them. Nothing is said to the model but the
tool's own description, and it is not there unless something was cut: no message of the caller's changes, and the tools,
with which every cached prefix begins, are the same for each request of a conversation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from compressor.payload import parse
from compressor.prompts import Path
from compressor.segments import Source
from compressor.tokens import count_tokens
from routing.errors import UnsupportedParameter
from routing.receipt import Expansion
from routing.tongues import Tongue
from trimtab.contexts import Original, digest_of
from trimtab.errors import BadRequest
from trimtab.ranking_pool import Ranks
from trimtab.request import Request

NAME: Final = "trimtab_expand"
MAX_ROUNDS: Final = 3
"""How often the model may ask for more before it has to answer."""
QUERIED_TOKENS: Final = 2_000
"""Of what a query finds."""
WHOLE_TOKENS: Final = 16_000
"""Of a text that is asked for by its id alone; of a longer one, what the question needs."""

TOOL: Final[Mapping[str, Any]] = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "Long texts above were shortened to what the question seemed to need: … marks where, and some are gone "
        "altogether. This gives back what was left out. Call it if a detail that you need may have been left out.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "What you look for, in a few words."},
                "id": {
                    "type": "string",
                    "description": "The id, title or digest of the one text that you mean, or the id of the tool call whose "
                    "result it is. Without a query, all of that text.",
                },
            },
        },
    },
}
TOOL_TOKENS: Final = 150
"""About what the tool takes of a prompt."""

_DIGEST_DIGITS: Final = 12  # enough to tell texts apart, and what a model copies without a mistake
_CALL_IDS: Final = ("tool_call_id", "tool_use_id", "call_id")

Search = Callable[[str, Sequence[Source], int], Sequence[str]]
"""`search(query, sources, budget_tokens)`: what is kept of each source, "" for nothing."""


@dataclass(frozen=True, slots=True)
class Expandable:
    """A text that the model sees less of than the caller sent, and what it may be called by, in lower case."""

    source: Source
    digest: str
    names: frozenset[str]


def expander_of(
    request: Request, body: Mapping[str, Any], originals: Sequence[Original], ranker: Ranks, tongue: Tongue
) -> tuple[Expander | None, tuple[str, ...]]:
    """What answers the model's calls for what was cut, and notes for the receipt: nothing and none where the caller asks
    for no expansion, or nothing was cut. `tongue` is that of `body`.

    Raises BadRequest for a request that cannot be expanded.
    """
    if not request.options.expand:
        return None, ()
    _check(request, tongue)
    texts = expandables(request, body, originals)
    if not texts:
        return None, ()
    if _forbidden(request.asked):
        return None, (f"{NAME} was not offered: tool_choice leaves no room for it",)

    def search(query: str, sources: Sequence[Source], budget_tokens: int) -> Sequence[str]:
        return [each.text for each in ranker.rank(query, sources, request.encoding).cut(budget_tokens).contexts]

    return Expander(texts, request.payload.query, request.encoding, search), ()


def expandables(request: Request, body: Mapping[str, Any], originals: Sequence[Original]) -> tuple[Expandable, ...]:
    """What of `body`, which is about to be sent, is less than the caller's own: this request's `originals`, and what was
    cut from turns that are sent as they were sent before."""
    found = [_expandable(request.asked, each.source) for each in originals]
    if request.settled_turns and not request.context_apart:
        found = [*_settled(request, body), *found]
    return tuple({each.digest: each for each in found}.values())


def _check(request: Request, tongue: Tongue) -> None:
    if request.answers > 1:
        raise BadRequest("n", "must be 1 with trimtab.expand: each answer would ask for texts of its own")
    tools = request.asked.get("tools")
    if any(_tool_name(each) == NAME for each in (tools if isinstance(tools, list) else ())):
        raise BadRequest("tools", f"{NAME} is the name of trimtab's own tool; call yours another, or leave expand out")
    try:
        tongue.to_chat({name: value for name, value in request.asked.items() if name != "trimtab"})
    except UnsupportedParameter as error:
        reason = f"asks by way of a chat completion, which has no word for {error.param} ({error.reason}); leave it out"
        raise BadRequest("trimtab.expand", reason) from None


def _tool_name(tool: object) -> object:
    if not isinstance(tool, Mapping):
        return None
    function = tool.get("function")
    return function.get("name") if isinstance(function, Mapping) else tool.get("name")


def _forbidden(body: Mapping[str, Any]) -> bool:
    """Whether the caller's `tool_choice` leaves no room for a tool of ours: none may be called, or only some."""
    choice = body.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, Mapping) else choice
    return kind not in (None, "auto", "required", "any")


def _settled(request: Request, body: Mapping[str, Any]) -> list[Expandable]:
    api = request.api
    sent: dict[int, str] = {}
    for text in api.texts(body):
        sent[text.turn] = sent.get(text.turn, "") + "\n" + text.text
    own = parse(api, request.asked, (), request.payload.query)
    placed = zip(own.sources, own.places, strict=True)
    return [
        _expandable(request.asked, source)
        for source, place in placed
        if place is not None
        and 0 <= place.turn < request.settled_turns
        and source.text.strip() not in sent.get(place.turn, "")
    ]


def _expandable(body: Mapping[str, Any], source: Source) -> Expandable:
    digest = digest_of(source.text)
    steps = source.id.partition(":")[0].split(".")
    path: Path = tuple(int(step) if step.isdecimal() and len(step) < 9 else step for step in steps)
    names = {source.id, source.title, digest, digest[:_DIGEST_DIGITS], *_call_ids(body, path)}
    return Expandable(source, digest, frozenset(name.strip().lower() for name in names if name.strip()))


def _call_ids(body: Any, path: Path) -> list[str]:
    """The ids of the tool call whose result the text at `path` is, or is part of."""
    found: list[str] = []
    at = body
    for step in path:
        if isinstance(at, Mapping):
            found += [at[name] for name in _CALL_IDS if isinstance(at.get(name), str)]
            at = at.get(str(step))
        elif isinstance(at, list) and isinstance(step, int) and step < len(at):
            at = at[step]
        else:
            return []  # the id is the caller's own, and no path
    return found


@dataclass(frozen=True, slots=True)
class Expander:
    """Answers the calls of one request. `question` is what that asks, `encoding` what its tokens are counted in."""

    texts: tuple[Expandable, ...]
    question: str
    encoding: str
    search: Search

    def answer(self, arguments: str, number: int) -> tuple[str, Expansion]:
        """What a call in round `number` is given, and its line on the receipt. A call that makes no sense is told so."""
        text, digests = self._found(arguments)
        return text, Expansion(number, digests, count_tokens(text, self.encoding))

    def _found(self, arguments: str) -> tuple[str, tuple[str, ...]]:
        try:
            asked = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            return 'Error: the arguments must be an object with "query", "id" or both.', ()
        query, name = _text(asked.get("query")), _text(asked.get("id"))
        texts = [each for each in self.texts if name.lower() in each.names] if name else list(self.texts)
        if not texts:
            known = "; ".join(dict.fromkeys(_title(each) for each in self.texts[:20]))
            return f"Error: no shortened text is called {name[:100]!r}. There are: {known}.", ()
        budget_tokens = WHOLE_TOKENS if name and not query else QUERIED_TOKENS
        kept = self.search(query or self.question, [each.source for each in texts], budget_tokens)
        shown = [(each, text) for each, text in zip(texts, kept, strict=True) if text.strip()]
        if not shown:
            return "Nothing was found; ask for something else, or for one text by its id.", ()
        told = "\n\n".join(f"[{_title(each)} · {each.digest[:_DIGEST_DIGITS]}]\n{text}" for each, text in shown)
        return told, tuple(each.digest for each, _ in shown)


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _title(text: Expandable) -> str:
    return text.source.title or text.source.id
