"""Transcripts: a turn a piece with its speaker; a long turn's sentences keep the speaker as their skeleton."""

from __future__ import annotations

import re
from collections.abc import Iterator

from compressor.splitting.pieces import MAX_PIECE_CHARS, Page, Piece, stripped
from compressor.splitting.prose import language_of, sentence_spans

_TRIAL_LINES = 12
_MAX_HEAD_CHARS = 200
_TIME = r"[\[(]?(?:\d{4}-\d\d-\d\d[T\s])?\d{1,2}:\d\d(?::\d\d)?(?:\s?[AaPp][Mm])?[\])]?"
_NAME = r"[^\W\d_][\w.'’&/-]{0,30}(?:[ ](?:[\w.'’&/-]{1,30},?|\([^()]{1,40}\)?|[\w.]+,?\)+)){0,6}"
_TURN = re.compile(
    rf"""(?:{_TIME}\s?[-–—]?\s?)?(?:
        <(?P<nick>[^<>\s]{{1,30}})>\s                                    # IRC
      | \*\*(?P<bold>{_NAME})(?::\*\*|\*\*:)\s?
      | (?P<name>{_NAME})(?:\s{_TIME})?\s?[:：](?:\s|$)
    )""",
    re.VERBOSE,
)
_ROLE = re.compile(
    r"(?:user|assistant|system|human|ai|bot|agent|customer|client|caller|operator|interviewer|interviewee|moderator|q|a"
    r"|host|guest|doctor|patient|teacher|student|chair(?:man|woman)?|speaker(?: \w+)?)$",
    re.IGNORECASE,
)


def claims_chat(page: Page, i: int) -> int:
    """Turns, each begun by its speaker. They are told from fields ("Date: ...") by a speaker who comes back, or by a role."""
    if _speaker(page, i) is None:
        return i
    trial = [_speaker(page, k) for k in range(i, min(i + _TRIAL_LINES, len(page.lines)))]
    names = [name for name in trial if name is not None]
    familiar = len(names) > len(set(names)) or sum(_ROLE.match(name) is not None for name in names) > 1
    if len(names) < 2 or 3 * len(names) < len(trial) or not familiar:
        return i
    *_, (_, after) = _turns(page, i, len(page.lines))
    return after


def _speaker(page: Page, i: int) -> str | None:
    head = page[i][:_MAX_HEAD_CHARS]
    turn = _TURN.match(head) if ":" in head or "：" in head or head[0] == "<" else None
    return (turn["nick"] or turn["bold"] or turn["name"]) if turn else None


def _turns(page: Page, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Line ranges of turns. A line without a speaker goes on with the turn before it, unless a blank line parts them."""
    begin = first
    for i in range(first + 1, last + 1):
        ends = i == last or (page.blank_before(i) and _speaker(page, i) is None)
        if ends or _speaker(page, i) is not None:
            yield begin, i
            begin = i
        if ends:
            return


def split_chat(page: Page, first: int, last: int) -> list[Piece]:
    """A turn a piece up to MAX_PIECE_CHARS; beyond that the speaker, and the turn's sentences, which need the speaker."""
    pieces: list[Piece] = []
    for begin, after in _turns(page, first, last):
        start, end = page.span(begin, after)
        turn = _TURN.match(page.text, start, end)
        _, head_end = stripped(page.text, start, turn.end() if turn else start)
        said, _ = stripped(page.text, head_end, end)
        if end - start <= MAX_PIECE_CHARS or head_end == start or said == end:
            pieces.append(Piece(start, end, "chat"))
            continue
        head = len(pieces)
        pieces.append(Piece(start, head_end, "chat"))
        language = language_of(page.text[said : said + MAX_PIECE_CHARS])
        pieces.extend(Piece(s, e, "chat-part", (head,)) for s, e in sentence_spans(page.text, said, end, language))
    return pieces
