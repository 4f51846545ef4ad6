"""The coordinator's certificates: made once, renewed in time, and each usable by who it is for."""

from __future__ import annotations

import base64
import ssl
import stat
from datetime import UTC, datetime, timedelta

import pytest
from tests.agent.fake_api import FakeApi

from tidegate import vtime
from tidegate.agent.issuer import AGENT_SECRET, AUTHORITY_SECRET, Issuer
from tidegate.kube import certificates
from tidegate.kube.api import SECRETS
from tidegate.kube.errors import NoCertificate
from tidegate.kube.tls import Credentials
from tidegate.model.names import SYSTEM_NAMESPACE

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def issue(api, folder, *instants):
    lines = []

    async def story():
        for now in instants:
            await Issuer(api, str(folder), "main", lines.append).issue(now)

    vtime.run(story())
    return lines


def secret(api, name):
    return api._find(SECRETS, name, SYSTEM_NAMESPACE)


def pem(api, name, key):
    return base64.b64decode(secret(api, name)["data"][key])


def test_both_secrets_and_the_own_certificate_are_made_once(tmp_path):
    api = FakeApi()
    lines = issue(api, tmp_path / "own", NOW, NOW + timedelta(days=59))
    assert len(lines) == 3, lines
    own = tmp_path / "own"
    assert {one.name: stat.S_IMODE(one.stat().st_mode) for one in own.iterdir()} == {
        "ca.crt": 0o600, "tls.crt": 0o600, "tls.key": 0o600
    }  # fmt: skip
    assert Credentials(str(own)).server(is_mutual=True).verify_mode is ssl.CERT_REQUIRED
    assert pem(api, AGENT_SECRET, "ca.crt") == pem(api, AUTHORITY_SECRET, "ca.crt") == (own / "ca.crt").read_bytes()
    assert "ca.key" not in secret(api, AGENT_SECRET)["data"], "agents cannot sign"
    assert not [line for line in lines if "PRIVATE" in line]


def test_leaves_are_renewed_a_month_before_their_end_and_the_authority_stays(tmp_path):
    api = FakeApi()
    issue(api, tmp_path, NOW)
    before = [
        pem(api, AUTHORITY_SECRET, "ca.crt"),
        pem(api, AGENT_SECRET, "tls.crt"),
        (tmp_path / "tls.crt").read_bytes(),
    ]
    lines = issue(api, tmp_path, NOW + timedelta(days=61))
    assert lines == ["agents have a new certificate", "the coordinator has a new certificate"]
    after = [
        pem(api, AUTHORITY_SECRET, "ca.crt"),
        pem(api, AGENT_SECRET, "tls.crt"),
        (tmp_path / "tls.crt").read_bytes(),
    ]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, False]


@pytest.mark.parametrize("name", [AGENT_SECRET, AUTHORITY_SECRET])
def test_a_secret_that_somebody_deletes_is_made_anew_with_all_that_hangs_on_it(tmp_path, name):
    api = FakeApi()
    issue(api, tmp_path, NOW)
    del api.objects[("secrets", SYSTEM_NAMESPACE, name)]
    issue(api, tmp_path, NOW)
    authority = certificates.Pair(pem(api, AUTHORITY_SECRET, "ca.crt"), pem(api, AUTHORITY_SECRET, "ca.key"))
    leaf = certificates.Pair(pem(api, AGENT_SECRET, "tls.crt"), pem(api, AGENT_SECRET, "tls.key"))
    assert certificates.is_of(authority, leaf, NOW)
    own = certificates.Pair((tmp_path / "tls.crt").read_bytes(), (tmp_path / "tls.key").read_bytes())
    assert certificates.is_of(authority, own, NOW)


def test_a_secret_of_somebody_else_is_not_signed_with(tmp_path):
    api = FakeApi()
    issue(api, tmp_path, NOW)
    secret(api, AUTHORITY_SECRET)["data"].pop("ca.key")
    with pytest.raises(NoCertificate, match="is not what we made"):
        issue(api, tmp_path, NOW)


def test_of_two_coordinators_that_begin_at_once_both_take_the_first_ones_authority(tmp_path):
    api = FakeApi()

    class Late(FakeApi):
        """Looks before the other has written."""

        def __init__(self):
            super().__init__()
            self.objects, self.looks = api.objects, 0

        async def get(self, resource, name, namespace=""):
            if name == AUTHORITY_SECRET and not self.looks:
                self.looks += 1
                found, self.objects = self.objects, {}
                try:
                    return await super().get(resource, name, namespace)
                finally:
                    self.objects = found
            return await super().get(resource, name, namespace)

    issue(api, tmp_path / "one", NOW)
    issue(Late(), tmp_path / "two", NOW)
    assert (tmp_path / "one" / "ca.crt").read_bytes() == (tmp_path / "two" / "ca.crt").read_bytes()
