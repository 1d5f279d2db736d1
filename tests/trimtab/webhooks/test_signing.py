"""What receivers check: with the specification's own library, and with everything wrong that a webhook can have."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.trimtab.webhooks.receiving import SECRET
from trimtab.errors import BadSettings
from trimtab.webhooks.signing import Secrets

BODY = '{"type":"deferred.completed","data":{"text":"Grüße"}}'.encode()
OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def secrets(text: str = SECRET) -> Secrets:
    return Secrets.read({"S": text}, "S", None)


def signed(now: float | None = None, text: str = SECRET, tenant: str = "acme") -> dict[str, str]:
    return secrets(text).headers(tenant, "msg_1", BODY, time.time() if now is None else now)


def test_the_reference_verifier_accepts_it() -> None:
    (secret,) = secrets().of_tenant("acme")
    assert Webhook(secret).verify(BODY, signed())["data"] == {"text": "Grüße"}


@pytest.mark.parametrize("age_s", [301, 86_400, -301])
def test_a_stale_timestamp_is_refused(age_s: float) -> None:
    (secret,) = secrets().of_tenant("acme")
    with pytest.raises(WebhookVerificationError, match="timestamp too"):
        Webhook(secret).verify(BODY, signed(time.time() - age_s))


def test_whatever_is_changed_on_the_way_is_refused() -> None:
    (secret,) = secrets().of_tenant("acme")
    good = signed()
    for headers, body in (
        (good, BODY + b" "),
        ({**good, "webhook-id": "msg_2"}, BODY),
        ({**good, "webhook-timestamp": str(int(good["webhook-timestamp"]) + 1)}, BODY),
        ({**good, "webhook-signature": "v1," + base64.b64encode(bytes(32)).decode()}, BODY),
        (signed(text=OTHER), BODY),
    ):
        with pytest.raises(WebhookVerificationError, match="No matching signature"):
            Webhook(secret).verify(body, headers)


def test_a_tenant_cannot_forge_for_another() -> None:
    mine, others, servers = secrets().of_tenant("acme")[0], secrets().of_tenant("evil")[0], SECRET
    for key in (others, servers):
        with pytest.raises(WebhookVerificationError):
            Webhook(key).verify(BODY, signed(tenant="acme"))
    assert mine != others
    assert mine == secrets().of_tenant("acme")[0]  # the same after every restart


def test_while_secrets_rotate_both_verify() -> None:
    old, new = secrets(SECRET).of_tenant("t")[0], secrets(OTHER).of_tenant("t")[0]
    assert secrets(f"{OTHER} {SECRET}").of_tenant("t") == (new, old)
    both = signed(text=f"{OTHER} {SECRET}", tenant="t")
    assert both["webhook-signature"].count("v1,") == 2
    for secret in (old, new):
        assert Webhook(secret).verify(BODY, both)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(BODY, signed(text=OTHER, tenant="t"))


def test_a_file_goes_before_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{OTHER}\n{SECRET}\n")
    assert len(Secrets.read({"S": SECRET}, "S", file).keys) == 2
    assert Secrets.read({}, "S", None).keys == ()


@pytest.mark.parametrize(
    "text", ["hunter2hunter2hunter2hunter2hunter2", "whsec_", "whsec_c2hvcnQ=", "whsec_???", "whsec_" + "A" * 120]
)
def test_bad_secrets_are_told_and_not_quoted(text: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(text)
    for environ, path in (({"S": text}, None), ({}, file)):
        with pytest.raises(BadSettings) as raised:
            Secrets.read(environ, "S", path)
        assert "whsec_..., 24 to 64 random bytes" in str(raised.value)
        assert text.removeprefix("whsec_") == "" or text.removeprefix("whsec_") not in str(raised.value)
    with pytest.raises(BadSettings, match=r"webhook_secret_file: .* cannot be read"):
        Secrets.read({}, "S", tmp_path / "missing")


def test_secrets_are_not_in_a_repr() -> None:
    assert repr(secrets()) == "Secrets()"
