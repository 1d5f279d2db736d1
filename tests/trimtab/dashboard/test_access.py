"""Who may see the dashboard: this machine without a key, whoever has the key with one, and nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.dashboard.access import SESSION_S, Door, Verdict, Visit, is_loopback
from trimtab.errors import BadSettings
from trimtab.settings import Settings

HERE = "127.0.0.1"
KEY_ENV = "DASHBOARD_KEY"
KEY = "correct horse battery staple"


@pytest.mark.parametrize(
    ("server", "client", "host", "verdict"),
    [
        (HERE, HERE, "127.0.0.1:8400", "open"),
        (HERE, HERE, "localhost", "open"),
        (HERE, HERE, "LOCALHOST.:8400", "open"),
        (HERE, HERE, "trimtab.localhost:8400", "open"),
        ("::1", "::1", "[::1]:8400", "open"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", "localhost", "open"),
        (HERE, HERE, "evil.example", "wrong host"),  # DNS rebinding: the name points here
        (HERE, HERE, "127.0.0.1.evil.example", "wrong host"),
        (HERE, HERE, "localhost.evil.example", "wrong host"),
        (HERE, HERE, "evillocalhost", "wrong host"),
        (HERE, HERE, "", "wrong host"),
        (HERE, HERE, "[::1", "open"),
        ("192.168.1.5", "192.168.1.9", "192.168.1.5:8400", "not this machine"),
        ("192.168.1.5", "192.168.1.9", "localhost", "not this machine"),  # a Host is easily said
        (HERE, "203.0.113.9", "localhost", "not this machine"),  # a proxy that says for whom it asks
        ("", "", "localhost", "not this machine"),  # a unix socket: nobody knows who is behind it
        ("0.0.0.0", HERE, "localhost", "not this machine"),
    ],
)
def test_without_a_key_only_this_machine_comes_in(server: str, client: str, host: str, verdict: Verdict) -> None:
    assert Door(None, {}).verdict(Visit(server, client, host), 0.0) == verdict


def test_with_a_key_a_session_opens_from_anywhere_until_it_is_over() -> None:
    door = Door(KEY_ENV, {KEY_ENV: KEY})
    session = door.session(KEY, 1_000.0)
    assert session is not None
    assert KEY not in session
    visit = Visit("10.0.0.5", "10.0.0.9", "trimtab.example", session)
    assert door.verdict(visit, 1_000.0) == "open"
    assert door.verdict(visit, 999.0 + SESSION_S) == "open"
    assert door.verdict(visit, 1_000.0 + SESSION_S) == "sign in"


def test_with_a_key_this_machine_needs_it_too() -> None:
    """Behind a proxy every visitor comes from here."""
    door = Door(KEY_ENV, {KEY_ENV: KEY})
    assert door.verdict(Visit(HERE, HERE, "localhost"), 0.0) == "sign in"


@pytest.mark.parametrize("key", [KEY[:-1], KEY + " ", "", "Schlüssel", "\udcff"])
def test_a_wrong_key_gives_no_session(key: str) -> None:
    assert Door(KEY_ENV, {KEY_ENV: KEY}).session(key, 0.0) is None


def test_a_key_that_is_not_set_opens_to_nobody() -> None:
    for environ in ({}, {KEY_ENV: ""}):
        door = Door(KEY_ENV, environ)
        assert door.session("", 0.0) is None
        assert door.verdict(Visit(HERE, HERE, "localhost"), 0.0) == "no key set"


def test_a_new_key_ends_every_session() -> None:
    session = Door(KEY_ENV, {KEY_ENV: KEY}).session(KEY, 0.0)
    other = Door(KEY_ENV, {KEY_ENV: KEY + "2"})
    assert other.verdict(Visit(HERE, HERE, "localhost", str(session)), 0.0) == "sign in"


def test_a_key_of_any_bytes_works() -> None:
    key = "cl\udce9"  # how Python reads a byte of an environment variable that is no UTF-8
    door = Door(KEY_ENV, {KEY_ENV: key})
    session = door.session(key, 0.0)
    assert session is not None
    assert door.verdict(Visit(HERE, HERE, "localhost", session), 0.0) == "open"


@pytest.mark.parametrize("name", ["a-key-of-mine", "", "1234abcd", "a b"])
def test_a_key_in_place_of_its_variables_name_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(BadSettings, match="dashboard_key_env must be the name of") as refused:
        Settings(dashboard_key_env=name)
    assert not name or name not in str(refused.value)


@given(cut=st.integers(0, 80), text=st.text(max_size=4))
def test_no_other_cookie_opens(cut: int, text: str) -> None:
    door = Door(KEY_ENV, {KEY_ENV: KEY})
    session = str(door.session(KEY, 1_000.0))
    forged = session[:cut] + text + session[cut + 1 :]
    expected = "open" if forged == session else "sign in"
    assert door.verdict(Visit(HERE, HERE, "localhost", forged), 1_000.0) == expected


@given(st.text(max_size=12))
def test_a_later_end_cannot_be_written_into_a_cookie(until: str) -> None:
    door = Door(KEY_ENV, {KEY_ENV: KEY})
    session = str(door.session(KEY, 1_000.0))
    signature = session.partition(".")[2]
    assert door.verdict(Visit(HERE, HERE, "localhost", f"{until}9.{signature}"), 1e6) == "sign in"


@given(st.text(max_size=20))
def test_any_host_is_judged(host: str) -> None:
    assert isinstance(is_loopback(host), bool)
    assert not is_loopback(f"{host}.example.com")
