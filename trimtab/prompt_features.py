"""A prompt in numbers: its vector, and cheap features that a vector blurs (length, digits, code, options, question words).

The only place where the difficulty router meets text. Linear in the prompt's length, and nothing here is learned.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval import Encoder, Passage

Rows = NDArray[np.float32]

_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d[\d,.]*")
_OPTION = re.compile(r"^\s*\(?[A-Ja-j1-9][.):]\s", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?…。！？]+(?=\s|$)")
_MATHS = re.compile(r"[=+*/^<>%$√π∑∫≤≥≠×÷\\]")
_CODE = re.compile(r"[{}\[\]();_`#]")
_CODE_WORD = re.compile(r"\b(?:def|return|import|class|function|void|int|str|list|array|SELECT|python|javascript)\b")
_STARTS = {
    "who": re.compile(r"\b(?:who|whose|whom)\b", re.IGNORECASE),
    "when": re.compile(r"\b(?:when|what year|which year)\b", re.IGNORECASE),
    "where": re.compile(r"\bwhere\b", re.IGNORECASE),
    "what": re.compile(r"\bwhat\b", re.IGNORECASE),
    "which": re.compile(r"\bwhich\b", re.IGNORECASE),
    "why": re.compile(r"\bwhy\b", re.IGNORECASE),
    "how": re.compile(r"\bhow\b(?! (?:many|much))", re.IGNORECASE),
    "how_many": re.compile(r"\bhow (?:many|much)\b", re.IGNORECASE),
    "negated": re.compile(r"\b(?:not|except|least|never|false|incorrect)\b|n't\b", re.IGNORECASE),
    "asked_to_write": re.compile(
        r"\b(?:write|implement|create|generate|compose|summari[sz]e|translate)\b", re.IGNORECASE
    ),
    "asked_to_derive": re.compile(
        r"\b(?:prove|calculate|compute|determine|evaluate|solve|derive|simplify|find)\b", re.IGNORECASE
    ),
}

NAMES = (
    "log_chars",
    "log_words",
    "word_length",
    "log_sentences",
    "sentence_words",
    "log_lines",
    "log_options",
    "log_questions",
    "log_numbers",
    "number_length",
    "digit_share",
    "maths_share",
    "code_share",
    "capital_share",
    "other_alphabet_share",
    "distinct_share",
    "code_words",
    *_STARTS,
)
"""The columns of `features`, in order."""


def columns(encoder: Encoder) -> str:
    """What the columns of `rows` are, for whoever was trained on them: the encoder, then the names of the features."""
    return f"{encoder.identity}; {', '.join(NAMES)}"


FEATURE_DOUBT = 0.06
"""How hard a feature's part is held back in training beside a vector's column: the features are few, and mean the same in
every task, where 384 columns can spell the name of one."""


def doubt(width: int) -> NDArray[np.float64]:
    """For the training of rows of that width: shape (width,)."""
    return np.concatenate([np.ones(width - len(NAMES)), np.full(len(NAMES), FEATURE_DOUBT)])


def features(prompt: str) -> Rows:
    """The cheap features of one prompt, shape (len(NAMES),). An empty prompt has zeros."""
    chars = max(1, len(prompt))
    words = _WORD.findall(prompt)
    numbers = _NUMBER.findall(prompt)
    sentences = max(1, len(_SENTENCE_END.findall(prompt)))
    ascii_chars = len(prompt.encode("ascii", "ignore"))
    values = (
        math.log1p(len(prompt)),
        math.log1p(len(words)),
        sum(map(len, words)) / max(1, len(words)),
        math.log(sentences),
        math.log1p(len(words) / sentences),
        math.log1p(prompt.count("\n")),
        math.log1p(len(_OPTION.findall(prompt))),
        math.log1p(prompt.count("?")),
        math.log1p(len(numbers)),
        math.log1p(max(map(len, numbers), default=0)),
        sum(map(len, numbers)) / chars,
        len(_MATHS.findall(prompt)) / chars,
        len(_CODE.findall(prompt)) / chars,
        sum(word[0].isupper() for word in words) / max(1, len(words)),
        1 - ascii_chars / chars if prompt else 0.0,
        len({word.lower() for word in words}) / max(1, len(words)),
        math.log1p(len(_CODE_WORD.findall(prompt))),
        *(float(pattern.search(prompt) is not None) for pattern in _STARTS.values()),
    )
    return np.array(values, np.float32)


def rows(prompts: Sequence[str], encoder: Encoder) -> Rows:
    """One row a prompt, vector then features: shape (len(prompts), dimension + len(NAMES)).

    The passage is the one that the ranking reads a question as, so that a question that was ranked is not encoded again.
    """
    if not prompts:
        return np.zeros((0, len(NAMES)), np.float32)
    vectors = encoder.encode([Passage(prompt, ((0, len(prompt)),)) for prompt in prompts])
    return np.stack(
        [np.concatenate([vector[0], features(prompt)]) for vector, prompt in zip(vectors, prompts, strict=True)]
    )
