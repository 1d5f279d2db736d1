"""Tool schemas that are sent and never called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.analysis.changes import Change, Removal
from trimtab.analysis.study import Finding, Study
from trimtab.analysis.wording import counted

_ENOUGH: Final = 20
"""Requests that offer a tool and whose answers are known, before its silence says anything."""

_SHOWN: Final = 8
_SHOWN_CHARS: Final = 64


def unused_tools(study: Study) -> Iterator[Finding]:
    """For each group, the tools that nothing in the whole recording calls."""
    offered: dict[str, int] = {}
    known: dict[str, int] = {}
    called = {name for anatomy in study.anatomies for name in anatomy.called}
    for i, anatomy in enumerate(study.anatomies):
        seen = study.requests[i].calls is not None or bool(anatomy.called)
        for name in {part.name for part in anatomy.parts if part.role == "tool schema"}:
            offered[name] = offered.get(name, 0) + 1
            known[name] = known.get(name, 0) + seen
    unused = {name for name in offered if name and name not in called and known[name] >= _ENOUGH}
    for group in study.groups:
        changes = []
        names: dict[str, int] = {}
        for i in group.requests:
            parts = study.anatomies[i].parts
            own = [(n, part) for n, part in enumerate(parts) if part.role == "tool schema" and part.name in unused]
            names.update({part.name: part.tokens for _, part in own})
            if own:
                removed = (Removal(n, 0, len(part.text), part.tokens, part.position) for n, part in own)
                changes.append(Change(i, tuple(removed)))
        if not changes:
            continue
        listed = sorted(names, key=lambda name: -names[name])
        more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
        told = ", ".join(f"{name[:_SHOWN_CHARS]} ({names[name]:,} tokens)" for name in listed[:_SHOWN])
        least = min(known[name] for name in listed)
        yield Finding(
            kind="unused-tools",
            title=f"{counted(len(listed), 'tool', 'be')} offered in "
            f"{counted(len(changes), 'request')} of {group.model} and never called",
            advice=f"Offer {told}{more} only where they can be needed, or let the model search for tools.",
            reckoned=f"no call in at least {least:,} requests whose answers are recorded; "
            "our count of the schemas, at the price of where they stand",
            basis="estimated",
            changes=tuple(changes),
            tokens=sum(removal.tokens for change in changes for removal in change.removed),
        )
