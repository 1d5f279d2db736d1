"""Signing: the headers that a receiver knows a webhook by.

The server has a secret or, while one is replaced by another, several. No receiver is told them: each tenant has secrets of its
own, made from the server's, so that whoever can check a webhook cannot forge one for another tenant's receiver.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from standardwebhooks import Webhook

from trimtab.errors import BadSettings

_PREFIX: Final = "whsec_"
_MIN_BYTES: Final = 24
_MAX_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Secrets:
    """The server's secrets, the newest first; none where webhooks are off."""

    keys: tuple[bytes, ...] = field(default=(), repr=False)

    @staticmethod
    def read(environ: Mapping[str, str], env: str, file: Path | None) -> Secrets:
        """The secrets that the variable `env`, or `file` where there is one, holds, separated by white space.

        Raises BadSettings that quotes nothing of them.
        """
        where, text = env, environ.get(env, "")
        if file is not None:
            where = str(file)
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise BadSettings(f"webhook_secret_file: {where} cannot be read ({type(error).__name__})") from None
        return Secrets(tuple(_key(word, where) for word in text.split()))

    def of_tenant(self, tenant: str) -> tuple[str, ...]:
        """The tenant's own, as its receivers are given them ("whsec_..."): one for each of the server's."""
        message = b"trimtab webhooks of tenant " + tenant.encode("utf-8", "surrogatepass")
        derived = (hmac.digest(key, message, hashlib.sha256) for key in self.keys)
        return tuple(_PREFIX + base64.b64encode(key).decode() for key in derived)

    def headers(self, tenant: str, id: str, body: bytes, now_s: float) -> dict[str, str]:
        """The specification's three headers for one attempt: with a signature by each of the tenant's secrets."""
        moment, text = datetime.fromtimestamp(int(now_s), UTC), body.decode("utf-8")
        signatures = (Webhook(secret).sign(id, moment, text) for secret in self.of_tenant(tenant))
        return {"webhook-id": id, "webhook-timestamp": str(int(now_s)), "webhook-signature": " ".join(signatures)}


def _key(word: str, where: str) -> bytes:
    wanted = f"{where} must hold secrets like whsec_..., {_MIN_BYTES} to {_MAX_BYTES} random bytes in base64 each"
    if not word.startswith(_PREFIX):
        raise BadSettings(f"webhook secret: {wanted}")
    try:
        digits = word.removeprefix(_PREFIX).rstrip("=")
        key = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except binascii.Error:
        raise BadSettings(f"webhook secret: {wanted}") from None
    if not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise BadSettings(f"webhook secret: {wanted}; one has {len(key)}")
    return key
