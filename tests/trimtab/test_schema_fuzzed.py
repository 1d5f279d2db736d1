"""Whatever our own OpenAPI schema allows, and much that it does not: an answer or a refusal, and never a server error.

A few hundred cases in every run; `TRIMTAB_CASES=5000` makes it the full one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.loopback import LoopbackProvider
from tests.trimtab.asking import KEY, KEY_ENV, provider, serving
from tests.trimtab.test_surfaces_fuzzed import ROOTS, anything

schemathesis = pytest.importorskip("schemathesis")

CASES = int(os.environ.get("TRIMTAB_CASES", "300"))


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        pytest.MonkeyPatch.context() as patch,
        LoopbackProvider(tongue=anything("openai")) as a,
        LoopbackProvider(tongue=anything("anthropic")) as b,
        LoopbackProvider(tongue=anything("gemini")) as c,
        serving(
            *(provider(each.tongue.kind, each, each.tongue.kind, api_key_env=KEY_ENV) for each in (a, b, c))
        ) as http,
    ):
        patch.setenv(KEY_ENV, KEY)
        yield http


def reachable(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with the models that there are and the roles that all APIs have, or nearly every case would end there."""
    for each in schema["components"]["schemas"].values():
        properties = each.get("properties", {})
        if "model" in properties and ("messages" in properties or "input" in properties):
            properties["model"] = {"enum": list(ROOTS)}
        if "messages" in properties:
            properties["messages"]["items"]["properties"]["role"] = {"enum": ["user", "assistant"]}
    return schema


def test_no_case_is_a_server_error(client: httpx.Client) -> None:
    raw = reachable(client.get("/openapi.json").json())
    operations = [each.ok() for each in schemathesis.openapi.from_dict(raw).get_all_operations()]
    posts = [each for each in operations if each.method.upper() == "POST"]
    modes = schemathesis.GenerationMode
    statuses: Counter[int] = Counter()
    for each in operations:
        if each not in posts:
            statuses.update(tried(client, each.as_strategy(generation_mode=modes.POSITIVE), 10))
            continue
        for mode in (modes.POSITIVE, modes.NEGATIVE):
            statuses.update(tried(client, each.as_strategy(generation_mode=mode), CASES // len(posts) // 2))
    assert sum(statuses.values()) >= 0.9 * CASES
    assert statuses[200] > 0.2 * CASES  # they get as far as an answer
    assert statuses[400] > 0.2 * CASES


def tried(client: httpx.Client, strategy: st.SearchStrategy[Any], cases: int) -> list[int]:
    seen: list[int] = []

    @settings(
        max_examples=cases,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def ask(case: Any) -> None:
        answer = case.call(base_url=str(client.base_url))
        seen.append(answer.status_code)
        # the caller's own limit, kept: a millisecond is soon over
        late = answer.status_code == 504 and answer.json()["error"]["code"] == "max_latency_exceeded"
        assert answer.status_code < 500 or late, (case.as_curl_command(), answer.text)

    ask()
    return seen
