"""Options: what a request asks of trimtab itself, checked at the edge.

The `trimtab` object of a chat completion, and the body of `POST /v1/compress`. Unknown fields are refused: an option
that is silently ignored is worse than an error.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from compressor import Source
from trimtab.errors import BadRequest

MAX_CONTEXTS = 200_000

Model = TypeVar("Model", bound=BaseModel)


class ContextIn(BaseModel):
    """A retrieved chunk. `id` comes back in answers; `title` helps the ranking and is not cut."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    text: str
    id: str | None = None
    title: str | None = None


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must say what the contexts are needed for, and is blank")
    return text


# Not min_length: pydantic then refuses half a surrogate pair, which is as good a character as any to the ranking.
Query = Annotated[str, AfterValidator(_not_blank), Field(json_schema_extra={"minLength": 1})]
Contexts = Annotated[list[str | ContextIn], Field(min_length=1, max_length=MAX_CONTEXTS)]
# Strict, because True is 1.0 otherwise, and "keep all of it" is not what a flag in the wrong place means.
Ratio = Annotated[float, Field(gt=0, le=1, strict=True, description="Keep at most this share of the contexts' tokens.")]
Budget = Annotated[int, Field(ge=0, strict=True, description="Keep at most this many tokens of the contexts.")]
Coverage = Annotated[
    float, Field(gt=0, le=1, strict=True, description="Keep at least this expected share of the evidence.")
]


_SPANS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


_SHAPES: Final = 'must be a number of seconds, a span such as "20m", or a moment such as "2026-11-24T18:00:00Z"'


def seconds_until(deadline: object, now: datetime) -> float:
    """The seconds from `now` to a deadline: a number of seconds, a span such as "20m", or a moment as RFC 3339 has it.

    Negative for a moment that has passed. Raises ValueError for anything else.

    >>> seconds_until("1.5h", datetime.now(UTC)), seconds_until(30, datetime.now(UTC))
    (5400.0, 30.0)
    """
    seconds = math.nan
    if isinstance(deadline, str):
        span = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhd])\s*", deadline)
        seconds = _until_moment(deadline, now) if span is None else float(span[1]) * _SPANS[span[2]]
    elif isinstance(deadline, (int, float)) and not isinstance(deadline, bool):
        seconds = float(deadline) if abs(deadline) < sys.float_info.max else math.nan
    if not math.isfinite(seconds):
        raise ValueError(_SHAPES)
    return seconds


def _until_moment(text: str, now: datetime) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return math.nan
    return math.nan if moment.tzinfo is None else (moment - now).total_seconds()


def _a_deadline(deadline: object) -> object:
    if seconds_until(deadline, datetime.now(UTC)) <= 0:
        raise ValueError("has passed; give a later one")
    return deadline


# Checked before its type, so that whatever is wrong with it is told in the same words, at the field's own name.
Deadline = Annotated[
    float | str,
    BeforeValidator(_a_deadline),
    Field(description='How long the answer may take: seconds, a span such as "20m", or a moment as RFC 3339 has it.'),
]


MAX_TTL_S: Final = 30 * 86_400.0


def _a_ttl(ttl: object) -> object:
    if not 0 < seconds_until(ttl, datetime.now(UTC)) <= MAX_TTL_S:
        raise ValueError("must be more than 0 and at most 30 days")
    return ttl


Ttl = Annotated[
    float | str,
    BeforeValidator(_a_ttl),
    Field(description="How old an answer may be, and how long this one is kept: as a deadline is written."),
]
CacheMode = Literal["off", "exact", "near"]


class CacheIn(BaseModel):
    """How the answer cache serves one request: in which `mode` (the server's own where it is left out), for how long."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: CacheMode | None = None
    ttl: Ttl | None = None


def _a_cache(value: object) -> object:
    return {"mode": value} if isinstance(value, str) else value


Cache = Annotated[CacheIn, BeforeValidator(_a_cache, json_schema_input_type=CacheMode | CacheIn)]


class _Size(BaseModel):
    """How much to keep: at most one of `ratio` and `budget_tokens`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ratio: Ratio | None = None
    budget_tokens: Budget | None = None
    min_coverage: Coverage | None = None

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.ratio is not None and self.budget_tokens is not None:
            raise ValueError("give ratio or budget_tokens, not both: each is a limit on the contexts' tokens")
        return self


Names = Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=100)]


class Options(_Size):
    """The `trimtab` object in the body of a chat completion.

    `contexts` are the retrieved chunks, where they are not in the messages already; `query` replaces the question read
    from the last user message. `candidates` are models that may answer beside `model`. The maxima are hard.
    `deadline` admits cheaper service classes that answer later, and `callback_url` is told of an answer that waited for one
    (docs/deferred.md). `wrong_answer_usd` is what a wrong answer costs you:
    with it, evidence and quality are weighed in dollars. `route` labels a kind of request, whose answers are alike in length.
    `allow`, `deny` and `order` name providers, `regions` where they may compute, `require` what they must promise.
    `expand` offers the model a tool, answered here, that gives back what was cut. `cache` is "off", "exact", "near" or a
    table with a mode and a ttl (docs/answer-cache.md).
    """

    contexts: Contexts | None = None
    query: Query | None = None
    candidates: Annotated[list[str], Field(max_length=100)] = []
    max_cost_usd: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)] | None = None
    max_latency_ms: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] | None = None
    deadline: Deadline | None = None
    callback_url: Annotated[str, Field(min_length=1, max_length=2_048)] | None = None
    min_quality: Annotated[float, Field(gt=0, le=1, strict=True)] | None = None
    wrong_answer_usd: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)] | None = None
    route: Annotated[str, Field(max_length=100)] = ""
    allow: Names | None = None
    deny: Names = []
    order: Names = []
    regions: Names = []
    require: Names = []
    expand: Annotated[bool, Field(strict=True)] = False
    cache: Cache | None = None

    @property
    def deadline_s(self) -> float | None:
        """The seconds that are left for the answer; None where it is wanted at once."""
        # it may pass between the check and now
        return None if self.deadline is None else max(0.0, seconds_until(self.deadline, datetime.now(UTC)))


class CompressIn(_Size):
    """The body of `POST /v1/compress`."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "query": "How large may one upload be?",
                    "contexts": [
                        {"id": "limits-3", "title": "Limits", "text": "An upload may be 5 GB. A bucket holds 100 TB."},
                        "Uploads are encrypted at rest with AES-256.",
                    ],
                    "ratio": 0.5,
                }
            ]
        },
    )

    query: Query
    contexts: Contexts
    model: str | None = None


def read_options(body: Mapping[str, Any]) -> Options:
    """The checked options of a chat completion's body; all defaults where it has no `trimtab` object."""
    value = body.get("trimtab")
    return Options() if value is None else checked(Options, value, "trimtab")


def checked(model: type[Model], value: object, at: str | None) -> Model:
    """`value` as a `model`. Raises BadRequest with the path of the first bad field, what is wrong, and the fix."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise BadRequest(*_first_problem(error, at)) from None


def sources_of(contexts: Sequence[str | ContextIn]) -> tuple[Source, ...]:
    """Contexts as sources; one without an id is called by its number."""
    return tuple(
        Source(str(n), each) if isinstance(each, str) else Source(each.id or str(n), each.text, each.title or "")
        for n, each in enumerate(contexts)
    )


_REASONS: Final = {
    "extra_forbidden": "no such field; remove it or check its spelling",
    "missing": "is missing",
    "model_type": "must be an object",
    "list_type": "must be a list",
    "string_type": "must be a text",
    "string_unicode": "holds half a surrogate pair",
}
"""In our words, where pydantic's speak of Python; by its type of error."""


def _first_problem(error: ValidationError, at: str | None) -> tuple[str | None, str]:
    problems = error.errors(include_url=False, include_context=False)
    problem = problems[0]
    if problem["loc"][-1:] == ("str",):  # a context, of which pydantic tells what is wrong with it as a text first
        is_table = isinstance(problem["input"], Mapping)
        problem = (
            problems[1] if is_table else {**problem, "msg": "must be a text, or an object with a text", "type": ""}
        )
    # pydantic names the branch, text or object, which is no part of the caller's path
    path = [str(part) for part in problem["loc"] if part not in ("str", "ContextIn")]
    param = ".".join([at, *path] if at else path) or None
    reason = _REASONS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    return param, reason[:1].lower() + reason[1:]
