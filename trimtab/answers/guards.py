"""Guards: whether two questions ask the same, so that one's answer is the other's. Pure, and rather no than wrong.

What agrees is not guessed by a similarity. Both questions are brought into one form: what is known to leave the answer
alone goes out or is written one way (`wordings`), and all the rest must be the same words in the same order. So a number, a
unit, a name, a date, a negation, a comparative, a quantifier, a preposition or the direction of a question cannot differ
unseen: they are in no table.

Rejected: a list of what must agree (numbers, names, negations ...), with a cosine for the rest. "Enable it" and "disable
it" have none of these, and a cosine of 0.9 (vllm-project/semantic-router, issue 2691; zilliztech/GPTCache, issue 694).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from trimtab.answers.wordings import (
    AFTERWORDS,
    CONTRACTIONS,
    DROPPED,
    FORMS,
    JOINED,
    PREFACES,
    SAME,
    TWO_MEANINGS,
    YES_NO,
)

_LITERAL: Final = re.compile(r"`[^`]*`|\"[^\"]*\"|“[^”]*”|«[^»]*»|(?<!\w)'[^']+'(?!\w)|https?://\S+|\S+@\S+\.\w+")
_NUMBER: Final = r"[-−+]?[$€£¥#]?\d+(?:[.,:/\-]\d+)*"
_TOKEN: Final = re.compile(rf"⟦\d+⟧|§\w+|{_NUMBER}|(?<!\S)\.\w+|[^\W\d_][\w.+#]*(?:['\-/&][^\W_]+)*[+#]*|\w+|[^\s]")
_PUNCTUATION: Final = frozenset(".,…¿¡")
_THOUSANDS: Final = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_POSSESSIVE: Final = re.compile(
    r"(?<![\w⟧])((?:[^\W_][\w.\-]*|⟦\d+⟧)(?: (?!and\b|or\b|of\b|in\b|for\b|is\b|are\b)[^\W_][\w.\-]*)*?)"
    r"'s ([^\W_][\w\-]*(?: [^\W_][\w\-]*)*)$"
)
_LEADING: Final = re.compile(r"^((?:in|on|at|for|with|under|during|according to|from|within|using) [^,?]{1,60}), (.+)$")
_ASIDE: Final = re.compile(
    r"^(what|who|where|when|how \w+|why) ((?!is\b|are\b|was\b|were\b|does\b|do\b)[^,]+) (is|are|was|were)$"
)
_OWNED: Final = re.compile(r"^((?:what|who|where|when) (?:is|are|was|were) )(.+)$")
_END: Final = re.compile(r"(?:[ ?.]|(?<!\d)!)+$")  # "5!" is another number than 5
_MARK: Final = re.compile(r"⟦(\d+)⟧")
_SHORT: Final = 3


def difference(one: str, other: str) -> str | None:
    """Why the two may not have one answer, in a word or two; None where they may.

    >>> difference("What's the upload limit?", "Could you tell me what the upload limit is?")
    >>> difference("How large may an upload be?", "How large may a download be?")
    'wording'
    >>> difference("Who beat Ann?", "Who did Ann beat?")
    'wording'
    """
    mine, yours = form_of(one), form_of(other)
    if not mine or not yours:
        return "nothing asked"
    if mine != yours:
        return "wording"
    return None if _same_case(one, other) else "case"


def form_of(question: str) -> tuple[str, ...]:
    """The question in the one form: words in small letters, literals (quoted text, code, addresses) as they are."""
    text = unicodedata.normalize("NFC", question).replace("’", "'").replace("‘", "'")
    literals: list[str] = []

    def set_aside(found: re.Match[str]) -> str:
        literals.append(found[0])
        return f"⟦{len(literals) - 1}⟧"

    if "⟦" in text or "§" in text:
        return (question,)
    text = _LITERAL.sub(set_aside, text)
    plain = _plain(text)
    tokens = _tokens(plain)
    return tuple(_MARK.sub(lambda found: literals[int(found[1])], each) for each in tokens)


def _plain(text: str) -> str:
    """One line in small letters, without what stands around the question, and with its beginning in one form."""
    # before it is in small letters: BEGIN and GET are no words for something else
    text = " ".join(_expanded(word) for word in text.split()).lower()
    text = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)
    before = None
    while text != before:  # "Hello, could you please tell me ..." has three
        before = text
        text = AFTERWORDS.sub("", text)
        for preface in PREFACES:
            if found := preface.match(text):
                text = text[found.end() :]
                break
        text = text.strip()
    text = _END.sub("", text)
    if moved := _LEADING.match(text):
        text = f"{moved[2]} {moved[1]}"
    if owned := _OWNED.match(text):
        text = owned[1] + _POSSESSIVE.sub(r"the \2 of \1", owned[2])
    text = _asked_aside(text)
    for pattern, form in FORMS:
        text = pattern.sub(form, text, count=1)
    return text


def _asked_aside(text: str) -> str:
    """ "what the limit is", as it stands after "tell me", in the order of a question.

    >>> _asked_aside("what the limit is")
    'what is the limit'
    """
    found = re.match(
        r"^(what|who|where|when|how \w+|why) ((?!is\b|are\b|was\b|were\b|does\b|do\b)[^,]+) (is|are|was|were)$", text
    )
    return f"{found[1]} {found[3]} {found[2]}" if found else text


def _expanded(word: str) -> str:
    bare = word.rstrip(",.?!;:")
    rest = word[len(bare) :]
    low = bare.lower()
    if bare != low and bare[1:] != low[1:]:
        return word
    return CONTRACTIONS.get(low, SAME.get(low, bare) if bare == low else bare) + rest


def _tokens(plain: str) -> list[str]:
    joined = JOINED.sub(lambda found: found[0].replace(" ", "_"), plain)
    tokens = [each.rstrip(".") or each for each in _TOKEN.findall(joined)]
    tokens = [each for each in tokens if each not in _PUNCTUATION]
    asks_yes_no = tokens[:1] and tokens[0] in YES_NO
    kept = [each for each in tokens if each not in DROPPED]
    if len(kept) < _SHORT:  # "what is matter" and "what is the matter": in few words each counts
        kept = tokens
    return ["§yes-no", *kept] if asks_yes_no else kept


def _same_case(one: str, other: str) -> bool:
    """Whether no word is a name in one and none in the other, as far as capitals tell: at the beginning they do not, nor in
    a question that has none."""
    mine, yours = _cases(one), _cases(other)
    for word in mine.keys() & yours.keys():
        if mine[word] != yours[word]:
            if word in TWO_MEANINGS or any(each.isupper() and len(each) > 1 for each in mine[word] | yours[word]):
                return False
            if not (_small(mine) or _small(yours) or _first(one) == word or _first(other) == word):
                return False
    return True


def _cases(question: str) -> dict[str, set[str]]:
    cases: dict[str, set[str]] = {}
    for word in re.findall(r"[^\W\d_]+", question):
        cases.setdefault(word.lower(), set()).add(word)
    return cases


def _small(cases: dict[str, set[str]]) -> bool:
    return all(each.islower() for forms in cases.values() for each in forms)


def _first(question: str) -> str:
    found = re.search(r"[^\W\d_]+", question)
    return found[0].lower() if found else ""
