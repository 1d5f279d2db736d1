"""What `/openapi.json` says is well formed, and true of the models that check requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.trimtab.asking import serving
from trimtab import Trimtab, __version__
from trimtab.options import CompressIn, Options
from trimtab.surfaces import SURFACES


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def schema(client: httpx.Client) -> dict[str, Any]:
    made: dict[str, Any] = client.get("/openapi.json").raise_for_status().json()
    return made


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from nodes(each)
    elif isinstance(value, list):
        for each in value:
            yield from nodes(each)


def test_it_is_openapi_and_names_every_endpoint(schema: dict[str, Any]) -> None:
    assert schema["openapi"].startswith("3.1")
    assert schema["info"]["title"] == "trimtab"
    assert schema["info"]["version"] == __version__
    offered = {(path, method) for path, item in schema["paths"].items() for method in item}
    assert offered == {
        ("/v1/compress", "post"),
        ("/v1/plan", "post"),
        ("/v1/inspect", "post"),
        ("/v1/contexts/{digest}", "get"),
        ("/v1/chat/completions", "post"),
        ("/v1/messages", "post"),
        ("/v1/messages/count_tokens", "post"),
        ("/v1/responses", "post"),
        ("/v1/embeddings", "post"),
        ("/v1/models", "get"),
        ("/v1/models/{model}", "get"),
        ("/v1/webhooks/secrets", "get"),
        ("/v1/answers", "delete"),
        ("/v1/deferred/{job_id}", "get"),
        ("/v1/deferred/{job_id}", "delete"),
        ("/v1/files", "post"),
        ("/v1/files", "get"),
        ("/v1/files/{file_id}", "get"),
        ("/v1/files/{file_id}", "delete"),
        ("/v1/files/{file_id}/content", "get"),
        ("/v1/batches", "post"),
        ("/v1/batches", "get"),
        ("/v1/batches/{batch_id}", "get"),
        ("/v1/batches/{batch_id}/cancel", "post"),
        ("/healthz", "get"),
        ("/readyz", "get"),
    }
    operations = [operation for item in schema["paths"].values() for operation in item.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["summary"] and operation["responses"] for operation in operations)


def test_every_reference_leads_somewhere(schema: dict[str, Any]) -> None:
    references = [node["$ref"] for node in nodes(schema) if isinstance(node.get("$ref"), str)]
    assert references
    for reference in references:
        assert reference.startswith("#/")
        target: Any = schema
        for part in reference[2:].split("/"):
            target = target[part]
        assert isinstance(target, dict)


def test_every_body_has_an_example_that_is_accepted(client: httpx.Client, schema: dict[str, Any]) -> None:
    for path, item in schema["paths"].items():
        content = item.get("post", {}).get("requestBody", {}).get("content", {})
        if "application/json" not in content:
            continue
        name = content["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        examples = schema["components"]["schemas"][name]["examples"]
        assert examples
        for example in examples:
            answer = client.post(path, json=example)
            # what is to be answered gets as far as the providers, of which there are none here
            answered = path in [*(surface.path for surface in SURFACES), "/v1/batches"]
            assert answer.status_code == (503 if answered else 200), answer.text
            assert ("no provider is configured" in answer.text) == answered


def test_the_examples_are_valid_for_the_models(schema: dict[str, Any]) -> None:
    schemas = schema["components"]["schemas"]
    for example in schemas["CompressIn"]["examples"]:
        CompressIn.model_validate(example)
    for example in schemas["ChatCompletionRequest"]["examples"]:
        Options.model_validate(example["trimtab"])
        Trimtab().plan(example)


def test_every_option_is_described_as_it_is_checked(schema: dict[str, Any]) -> None:
    options = schema["components"]["schemas"]["Options"]
    assert set(options["properties"]) == set(Options.model_fields)
    assert options["additionalProperties"] is False


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_no_page_loads_scripts_from_elsewhere(client: httpx.Client, path: str) -> None:
    page = client.get(path)
    assert page.status_code == 404
    assert "GET /openapi.json lists what there is" in page.json()["error"]["message"]
