"""Whatever the schema of a server with keys allows, and much that it does not, with a key and as administrator: no 5xx."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.loopback import LoopbackProvider
from tests.trimtab.asking import provider, serving
from tests.trimtab.test_schema_fuzzed import CASES, reachable
from tests.trimtab.test_surfaces_fuzzed import anything

schemathesis = pytest.importorskip("schemathesis")
ADMIN, ADMIN_ENV = "tt-admin-8sKq2Zr7Lw0Xc5Vb9Nm3Qp6Td1Yf4Hg", "TRIMTAB_TEST_FUZZ_KEY"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = tmp_path_factory.mktemp("fuzzed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ADMIN_ENV, ADMIN)
        with (
            LoopbackProvider(tongue=anything("openai")) as a,
            LoopbackProvider(tongue=anything("anthropic")) as b,
            LoopbackProvider(tongue=anything("gemini")) as c,
            serving(
                *(provider(each.tongue.kind, each, each.tongue.kind) for each in (a, b, c)),
                data_dir=str(folder / "data"),
                keys=True,
                admin_key_env=ADMIN_ENV,
            ) as http,
        ):
            yield http


def test_no_case_is_a_server_error(client: httpx.Client) -> None:
    admin = {"authorization": f"Bearer {ADMIN}"}
    asked = {"name": "fuzzer", "budgets": {"month": "1000"}, "requests_per_minute": 10**6}
    key = client.post("/admin/keys", json=asked, headers=admin).json()["key"]
    raw = reachable(client.get("/openapi.json").json())
    statuses: Counter[int] = Counter()
    operations = [each.ok() for each in schemathesis.openapi.from_dict(raw).get_all_operations()]
    for operation in operations:
        is_admin = operation.path.startswith("/admin")
        headers = admin if is_admin else {"authorization": f"Bearer {key}"}
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            if mode is schemathesis.GenerationMode.NEGATIVE and operation.method.upper() in ("GET", "DELETE"):
                continue
            cases = max(4, CASES // len(operations) // (1 if is_admin else 4))
            statuses.update(tried(client, operation.as_strategy(generation_mode=mode), headers, cases))
    assert statuses[401] == 0
    assert statuses[400] > 50
    assert statuses[200] + statuses[201] > 25


def tried(client: httpx.Client, strategy: st.SearchStrategy[Any], headers: dict[str, str], cases: int) -> list[int]:
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
        case.headers = {**(case.headers or {}), **headers}
        answer = case.call(base_url=str(client.base_url))
        if case.path.startswith("/admin/keys/") and (case.path_parameters or {}).get("name") == "fuzzer":
            return
        seen.append(answer.status_code)
        late = answer.status_code == 504 and answer.json()["error"]["code"] == "max_latency_exceeded"
        assert answer.status_code < 500 or late, (case.as_curl_command(), answer.text)

    ask()
    return seen
