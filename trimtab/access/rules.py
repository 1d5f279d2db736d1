"""Rules: which models and providers a caller may use. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final

from routing.policy import Policy
from trimtab.errors import BadRequest

_NOWHERE: Final = ("(none)",)
"""A region that no provider states: what is left where a key's regions and a request's have none in common."""


@dataclass(frozen=True, slots=True)
class Rules:
    """`models` are patterns with * and ? (None: every model), `allow` and `deny` names of providers, `regions` where they
    may compute. What a request asks comes on top: both hold.

    >>> Rules(("gpt-*",)).permits("gpt-5-mini"), Rules(("gpt-*",)).permits("claude-sonnet-5")
    (True, False)
    """

    models: tuple[str, ...] | None = None
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()

    def permits(self, model: str) -> bool:
        return self.models is None or any(fnmatchcase(model, each) for each in self.models)

    def sells(self, provider: str) -> bool:
        """Whether a provider of that name may be asked, as far as its name says it."""
        return (self.allow is None or provider in self.allow) and provider not in self.deny

    def check(self, model: str) -> None:
        """Raises BadRequest for a model that may not be used; 403 with OpenAI's code for it."""
        if not self.permits(model):
            reason = f"this key has no access to the model {model[:100]!r}; GET /v1/models lists those that it has"
            raise BadRequest("model", reason, "model_not_found", status=403)

    def narrowed(self, policy: Policy) -> Policy:
        """What a request asks, within these rules."""
        allow = policy.allow
        if self.allow is not None:
            allow = tuple(name for name in self.allow if allow is None or name in allow)
        regions = policy.regions or self.regions
        if self.regions and policy.regions:
            regions = tuple(each for each in policy.regions if each in self.regions) or _NOWHERE
        return replace(policy, allow=allow, deny=(*policy.deny, *self.deny), regions=regions)


EVERYTHING: Final = Rules()
