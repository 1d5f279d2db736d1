"""Breadth: does a question need a few passages, or everything?

A summary, a list of all, a count or a comparison over the whole is not answered by the sentences that resemble it.
Such a question is recognised by its words, and cut less.
"""

from __future__ import annotations

import re
from typing import Final

# English first, then the same asked in German, French, Spanish, Italian, Portuguese, Chinese and Japanese.
_EVERYTHING: Final = re.compile(
    r"""
    \b(?:summari[sz]e|summary|tl;?dr|overview|recap|outline|gist|main\ (?:points|ideas|topics|themes)|key\ (?:points|takeaways))\b
  | \b(?:list|name|enumerate|give|find|show|extract|mention|identify|collect)\s+(?:\w+\s+){0,2}?(?:all|every|each)\b
  | \b(?:what|which)\s+are\s+all\b
  | \ball\s+(?:of\s+)?(?:the|those|these|its)\s+(?:\w+\s+){0,2}(?:mentioned|listed|discussed|documents?|passages?)\b
  | \bhow\s+many\s+(?:different|of\s+the)\b | \bcount\s+(?:the|all|how)\b
  | \b(?:in\ total(?=\s*[?.!,]|\s*$)|altogether|across\ all)\b
  | \b(?:compare|contrast)\s+(?:all|the\ (?:documents?|passages?|versions?|contracts?|reports?))\b
  | \b(?:translate|rewrite|proofread|paraphrase)\b
  | \b(?:zusammenfass\w*|fasse?\b.{0,60}\bzusammen|[Üü]berblick|alle\b.{0,40}\b(?:auf|nennen)|wie\ viele\ verschiedene)\b
  | \b(?:r[ée]sum\w+|synth[èe]se|[ée]num[èe]re\w*|tous\ les|toutes\ les)\b
  | \b(?:resum[ae]\w*|resumen|todos\ los|todas\ las|riassum\w*|tutti\ (?:i|gli)|tutte\ le|todos\ os|todas\ as)\b
  | 总结|總結|概述|概括|摘要|所有的?|全部|列出|一共|要約|まとめ|すべて|全て
    """,
    re.IGNORECASE | re.VERBOSE,
)


def asks_for_everything(query: str) -> bool:
    """Whether `query` asks for a summary, for all of something, for a count, or for the text itself.

    >>> asks_for_everything("Summarize the meeting."), asks_for_everything("List all the invoices from May")
    (True, True)
    >>> asks_for_everything("Who founded the company that built the bridge?")
    False
    """
    return _EVERYTHING.search(query) is not None
