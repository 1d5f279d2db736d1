"""The outcome of a batch: the lines of its files as OpenAI writes them, and what all of it cost. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import orjson

from routing.offers import plain
from routing.streams import Garbage, parse_object
from trimtab.deferred.batch_lines import BadLine
from trimtab.deferred.jobs import CANCELLED, COMPLETED, EXPIRED, Job

_NEVER_RUN: Final = {
    EXPIRED: ("batch_expired", "This request could not be executed before its deadline."),
    CANCELLED: ("batch_cancelled", "This request could not be executed before the batch was cancelled."),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A job that is over, with its answer as an object, where it has one."""

    job: Job
    content: bytes | None = None
    parsed: Mapping[str, Any] = field(default_factory=dict)
    receipt: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(job: Job, content: bytes | None) -> Answer:
        receipt = json.loads(job.receipt) if job.receipt else {}
        try:
            return Answer(job, content, parse_object(content or b""), receipt)
        except Garbage:
            return Answer(job, content, {}, receipt)

    @property
    def good(self) -> bool:
        """Whether it belongs into the output file and not into the error file."""
        return self.job.state == COMPLETED and self.content is not None and 200 <= (self.job.status or 0) < 300

    def line(self) -> bytes:
        """As a line of either file."""
        code, message = _NEVER_RUN.get(self.job.state, ("request_failed", self.job.error or "No provider answered."))
        if self.content is None or self.job.status is None:
            return _line(self.job.id, self.job.custom_id, None, {"code": code, "message": message})
        response = {"status_code": self.job.status, "request_id": self.job.id, "body": orjson.Fragment(self._body())}
        return _line(self.job.id, self.job.custom_id, response, None)

    def _body(self) -> bytes:
        """The answer's own bytes, with the receipt before its last brace: numbers stay as the provider wrote them."""
        assert self.content is not None
        if not self.parsed:
            return orjson.dumps(self.content.decode("utf-8", "replace"))
        # no string of JSON holds a line feed, so that these are between its parts
        content = self.content.replace(b"\r", b" ").replace(b"\n", b" ").rstrip()
        if not self.receipt:
            return content
        return content[:-1] + b',"trimtab":' + orjson.dumps(self.receipt) + b"}"


def line_of(bad: BadLine, batch_id: str) -> bytes:
    """A line that was no request, as a line of the error file."""
    name = hashlib.sha256(f"{batch_id} {bad.number}".encode()).hexdigest()[:32]
    error = {"code": bad.code, "message": bad.message, "param": bad.param, "line": bad.number}
    return _line(name, bad.custom_id, None, error)


def _line(name: str, custom_id: str | None, response: object, error: object) -> bytes:
    line = {"id": f"batch_req_{name.rpartition('_')[2]}", "custom_id": custom_id, "response": response, "error": error}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


class Totals:
    """What the lines of a batch came to, added up one by one.

    `billed_usd` is what providers charged (of `estimated_lines` lines, whose providers said nothing, what was expected);
    `baseline_usd` is what the answered lines would have cost at once, on the caller's own model and untrimmed, and
    `at_once_usd` what the same trimmed requests would have cost, had they not waited.
    """

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self._billed_usd = Decimal(0)
        self._baseline_usd = Decimal(0)
        self._at_once_usd = Decimal(0)
        self._estimated_lines = 0
        self._tokens: Counter[str] = Counter()
        self._bought: dict[tuple[str, str, str], tuple[int, Decimal]] = {}

    def add(self, answer: Answer) -> None:
        receipt = answer.receipt
        self.states[answer.job.state] += 1
        for name in _COUNTED:
            self._tokens[name] += receipt.get(name) or 0
        self._tokens["reasoning"] += _reasoning_tokens(answer.parsed)
        billed_usd = receipt.get("billed_cost_usd")
        if billed_usd is None and answer.good:
            billed_usd = receipt.get("expected_cost_usd")
            self._estimated_lines += 1
        cost_usd = Decimal(billed_usd or 0)
        self._billed_usd += cost_usd
        if answer.good:
            self._baseline_usd += Decimal(receipt.get("baseline_cost_usd") or 0)
            self._at_once_usd += Decimal(receipt.get("at_once_cost_usd") or cost_usd)
            offer = tuple(str(receipt.get(name) or "") for name in ("provider", "model", "processing"))
            lines, spent_usd = self._bought.get((offer[0], offer[1], offer[2]), (0, Decimal(0)))
            self._bought[offer[0], offer[1], offer[2]] = (lines + 1, spent_usd + cost_usd)

    def usage(self) -> dict[str, Any]:
        """OpenAI's usage of a batch."""
        read, written = self._tokens["input_tokens_billed"], self._tokens["output_tokens_billed"]
        return {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": self._tokens["cache_read_tokens_billed"]},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": self._tokens["reasoning"]},
            "total_tokens": read + written,
        }

    def to_dict(self) -> dict[str, Any]:
        """What stands in a batch's `trimtab`; `bought` says who answered how many lines."""
        return {
            "billed_usd": plain(self._billed_usd),
            "at_once_usd": plain(self._at_once_usd),
            "baseline_usd": plain(self._baseline_usd),
            "saved_usd": plain(self._baseline_usd - self._billed_usd),
            "tokens_before": self._tokens["tokens_before"],
            "tokens_after": self._tokens["tokens_after"],
            "estimated_lines": self._estimated_lines,
            "bought": [
                {"provider": provider, "model": model, "processing": processing, "lines": n, "billed_usd": plain(usd)}
                for (provider, model, processing), (n, usd) in sorted(self._bought.items())
            ],
        }


_COUNTED: Final = (
    "input_tokens_billed",
    "output_tokens_billed",
    "cache_read_tokens_billed",
    "tokens_before",
    "tokens_after",
)


def _reasoning_tokens(answer: Mapping[str, Any]) -> int:
    usage = answer.get("usage")
    for name in ("completion_tokens_details", "output_tokens_details"):
        details = usage.get(name) if isinstance(usage, Mapping) else None
        tokens = details.get("reasoning_tokens") if isinstance(details, Mapping) else None
        if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0:
            return tokens
    return 0
