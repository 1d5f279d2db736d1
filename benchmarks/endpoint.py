"""Any OpenAI-compatible endpoint, as a reader or a judge."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

TIMEOUT_S = 300


class EndpointFailed(Exception):
    """An endpoint that gave no answer, in one line; neither the key nor the prompt is in it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model behind chat completions at `url` (with its /v1). Its key is in the environment variable `key_env`."""

    url: str
    model: str
    key_env: str | None = None

    def ask(self, instruction: str, prompt: str) -> str:
        """The model's answer, as deterministic as the endpoint allows. Raises EndpointFailed."""
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": prompt}]
        body = {"model": self.model, "messages": messages}
        # No limit on the answer: reasoning models spend it before the first word, and servers name the field differently.
        response = self._post({**body, "temperature": 0})
        if response.status_code == 400:  # reasoning models take no temperature
            response = self._post(body)
        if response.status_code != 200:
            raise EndpointFailed(f"{self.url} answered {response.status_code}: {_said(response)}")
        try:
            return str(response.json()["choices"][0]["message"]["content"] or "")
        except (ValueError, KeyError, IndexError, TypeError):
            raise EndpointFailed(f"{self.url} answered with something that is no chat completion") from None

    def _post(self, body: Mapping[str, Any]) -> httpx.Response:
        headers = {"authorization": f"Bearer {os.environ.get(self.key_env, '')}"} if self.key_env else {}
        try:
            return httpx.post(f"{self.url.rstrip('/')}/chat/completions", json=body, headers=headers, timeout=TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise EndpointFailed(f"{self.url} cannot be reached ({type(error).__name__})") from None


def _said(response: httpx.Response) -> str:
    """The provider's message, where there is one: the whole page may repeat the prompt."""
    try:
        return str(response.json()["error"]["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase
