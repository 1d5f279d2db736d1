"""What may be called at a caller's word: every way to write a forbidden address, and names that change their meaning."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trimtab.webhooks.receiving import answers, certificate, receiving
from trimtab.errors import BadRequest, BadSettings
from trimtab.outbound import AddressRefused, GuardedTransport, OutboundRules, why_refused

RULES = OutboundRules()


def refused(url: str, rules: OutboundRules = RULES) -> str:
    with pytest.raises(BadRequest) as raised:
        rules.check(url, "trimtab.callback_url")
    assert raised.value.param == "trimtab.callback_url"
    return str(raised.value)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1",
        "224.0.0.1", "255.255.255.255", "[::]", "[::1]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]",
        "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[2001:db8::1]", "[fec0::1]", "[3fff::1]",
    ],
)  # fmt: skip
def test_addresses_of_this_network_are_refused(host: str) -> None:
    assert "leads to an address that is" in refused(f"https://{host}/hook")


@pytest.mark.parametrize(
    "url",
    [
        "https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/", "https://127.1/", "https://127.0.1/",
        "https://017700000001/", "https://0177.0.0.1/", "https://00000177.0.0.1/", "https://127.0.0.1.:1/",
        "https://127.0.0.0x1/", "https://１２７.0.0.1/", "https://%31%32%37.0.0.1/", "https://[fe80::1%25lo]/",
        "https://a.0x/", "https://1.2.3.4.5/",
        "https://localhost/", "https://LOCALHOST./", "https://a.localhost/", "https://metadata.google.internal/",
        "https://printer.local/", "https://router.home.arpa/", "https://localhost.localdomain/",
        "https://user:secret@example.com/", "https://user@example.com/", "https://example.com/#part",
        "http://example.com/", "ftp://example.com/", "file:///etc/passwd", "//example.com/", "example.com/hook", "",
        "https://", "https:///hook", "https://exa mple.com/", "https://a..b/", "https://example.com:0/",
        "https://example.com:99999/", "https://example.com:port/", "https://[::1/", "https://example.com/\r\nx: y",
        "https://h\\@127.0.0.1/", "https://example.com/" + "a" * 2_100, "javascript:alert(1)", "https://-a.com/",
    ],
)  # fmt: skip
def test_other_spellings_and_other_schemes_are_refused(url: str) -> None:
    assert "secret" not in refused(url)


@pytest.mark.parametrize(
    ("url", "called"),
    [
        ("https://example.com/hook?x=1", "https://example.com/hook?x=1"),
        ("https://Example.COM:8443/a b", "https://example.com:8443/a%20b"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://a_b.example.com./x", "https://a_b.example.com./x"),
        ("https://9.9.9.9/", "https://9.9.9.9/"),
        ("https://[2606:4700::1111]/", "https://[2606:4700::1111]/"),
        ("https://[64:ff9b::9.9.9.9]/", "https://[64:ff9b::9.9.9.9]/"),
    ],
)
def test_the_public_internet_may_be_called(url: str, called: str) -> None:
    assert str(RULES.check(url, "callback_url")) == called


def test_what_the_settings_list_may_be_called_over_http_too() -> None:
    rules = OutboundRules.of(["10.1.0.0/16", "127.0.0.1", "::1", "hooks.internal", "Localhost."])
    for url in (
        "http://10.1.2.3/", "https://127.0.0.1:8000/", "http://[::1]/", "http://hooks.internal/x", "http://localhost:1/",
        "http://[::ffff:10.1.2.3]/",
    ):  # fmt: skip
        assert rules.check(url, "callback_url")
    for url in ("http://10.2.0.1/", "https://127.0.0.2/", "https://other.internal/", "http://example.com/"):
        refused(url, rules)


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "https://a.example", "a b", "", "127.1", "*.internal", "10.0.0.0/40"])
def test_a_bad_entry_in_the_settings_is_told(entry: str) -> None:
    with pytest.raises(BadSettings, match="callback_networks: "):
        OutboundRules.of([entry])


ADDRESSES = st.ip_addresses() | st.sampled_from(
    ["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "192.0.0.0/24", "fe80::/10", "fc00::/7", "2001::/23", "64:ff9b::/96"]
).map(ipaddress.ip_network).flatmap(
    lambda network: st.integers(0, network.num_addresses - 1).map(lambda offset: network[offset])
)  # fmt: skip


@given(ADDRESSES)
def test_what_python_calls_not_global_is_refused(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if why_refused(address) is None:
        in_nat64 = address in ipaddress.ip_network("64:ff9b::/96")
        meant = ipaddress.IPv4Address(address.packed[-4:]) if in_nat64 else address
        assert meant.is_global
        assert not meant.is_multicast


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_however_ipv6_wraps_it(address: ipaddress.IPv4Address) -> None:
    for prefix in ("::ffff:", "64:ff9b::"):
        assert why_refused(ipaddress.ip_address(f"{prefix}{address}")) == why_refused(address)


def post(url: str, rules: OutboundRules, times: int = 1) -> list[int | str]:
    """The status of each request, or the name of the error that it ended with."""

    async def run() -> list[int | str]:
        ends: list[int | str] = []
        async with httpx.AsyncClient(transport=GuardedTransport(rules), timeout=10) as client:
            for _ in range(times):
                try:
                    ends.append((await client.post(url, content=b"{}")).status_code)
                except (AddressRefused, httpx.HTTPError) as error:
                    ends.append(type(error).__name__)
        return ends

    return asyncio.run(run())


def test_a_name_that_leads_here_is_refused_when_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answers({"evil.example": ["127.0.0.1"]}))
    with receiving() as receiver:
        url = f"https://evil.example:{receiver.port}/"
        assert RULES.check(url, "callback_url")  # by its text it is an address like others
        assert post(url, RULES) == ["AddressRefused"]
        assert receiver.received == []


def test_one_bad_address_among_good_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answers({"evil.example": ["127.0.0.2 127.0.0.1"]}))
    assert post("https://evil.example/", OutboundRules.of(["127.0.0.2"])) == ["AddressRefused"]


def test_a_name_that_changes_between_check_and_use_wins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two real servers on one port: 127.0.0.2 stands for the public internet, 127.0.0.1 for what must not be reached."""
    pem = certificate(tmp_path / "pem", "rebind.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    names = {"rebind.example": ["127.0.0.2", "127.0.0.1"]}
    with (
        receiving(host="127.0.0.2", tls=pem) as public,
        receiving(host="127.0.0.1", port=public.port, tls=pem) as private,
    ):
        url = f"https://rebind.example:{public.port}/hook"
        monkeypatch.setattr(socket, "getaddrinfo", answers(names))
        assert post(url, OutboundRules.of(["127.0.0.2"]), times=2) == [204, "AddressRefused"]
        assert (len(public.received), private.received) == (1, [])
        assert public.received[0].headers["host"] == f"rebind.example:{public.port}"

        # the same names, and a client that checks first and then connects by the name: it is deceived
        monkeypatch.setattr(socket, "getaddrinfo", answers(names))
        assert socket.getaddrinfo("rebind.example", 443)[0][4][0] == "127.0.0.2"
        assert httpx.post(url, trust_env=True).status_code == 204
        assert len(private.received) == 1


def test_the_certificate_is_the_hosts_and_not_the_addresss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = certificate(tmp_path / "a", "a.example"), certificate(tmp_path / "b", "b.example", "127.0.0.1")
    trusted = tmp_path / "both"
    trusted.write_bytes(mine.read_bytes() + other.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    monkeypatch.setattr(socket, "getaddrinfo", answers({"a.example": ["127.0.0.1"], "b.example": ["127.0.0.1"]}))
    rules = OutboundRules.of(["127.0.0.1"])
    with receiving(tls=other) as receiver:
        assert post(f"https://a.example:{receiver.port}/", rules) == ["ConnectError"]
        assert post(f"https://b.example:{receiver.port}/", rules) == [204]
        assert post(f"https://127.0.0.1:{receiver.port}/", rules) == [204]
        assert len(receiver.received) == 2


def test_two_hosts_at_one_address_do_not_share_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = certificate(tmp_path / "a", "a.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.setattr(socket, "getaddrinfo", answers({"a.example": ["127.0.0.1"], "b.example": ["127.0.0.1"]}))

    async def run(port: int) -> None:
        transport = GuardedTransport(OutboundRules.of(["127.0.0.1"]))
        async with httpx.AsyncClient(transport=transport, timeout=10) as client:
            assert (await client.post(f"https://a.example:{port}/")).status_code == 204
            with pytest.raises(httpx.ConnectError):  # the certificate is a.example's
                await client.post(f"https://b.example:{port}/")

    with receiving(tls=pem) as receiver:
        asyncio.run(run(receiver.port))


def test_where_one_address_is_dead_the_next_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"hooks.internal": ["127.0.0.3 127.0.0.1"], "nowhere.internal": [""]}
    monkeypatch.setattr(socket, "getaddrinfo", answers(names))
    rules = OutboundRules.of(["hooks.internal", "nowhere.internal"])
    with receiving() as receiver:
        assert post(f"http://hooks.internal:{receiver.port}/x", rules) == [204]
        assert [each.path for each in receiver.received] == ["/x"]
    assert post("http://nowhere.internal/", rules) == ["ConnectError"]


def test_redirects_and_proxies_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as private, receiving((302, {"location": private.url})) as receiver, receiving() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert post(receiver.url, OutboundRules.of(["127.0.0.1"])) == [302]
        assert (len(receiver.received), private.received, proxy.received) == (1, [], [])
