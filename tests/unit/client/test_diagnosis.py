"""The expiry of a certificate, parsed from its PEM without a library."""

import datetime as dt

import pytest

from livekit_auth._connection.diagnosis import not_after
from support.pki import NOW, Authority


@pytest.mark.parametrize("year", [2026, 2049, 2050, 2100])
def test_expiry_of_a_certificate_is_parsed(year):
    end = NOW.replace(year=year, month=12, microsecond=0) + dt.timedelta(seconds=7)
    leaf = Authority.create().issue(uris=["spiffe://example.org/web"], not_after=end)
    assert not_after(b"text before\n" + leaf.cert_pem) == leaf.certificate.not_valid_after_utc == end


def test_expiry_of_a_chain_is_that_of_the_leaf():
    authority = Authority.create()
    leaf = authority.issue(uris=["spiffe://example.org/web"])
    assert not_after(leaf.leaf_pem + authority.leaf_pem) == leaf.certificate.not_valid_after_utc


@pytest.mark.parametrize("body", [b"", b"MIIB", b"AAAA", b"////", b"MAA=", b"MAIwAA==", b"*"])
def test_invalid_certificate_has_no_expiry(body):
    assert not_after(b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n") is None
    assert not_after(body) is None
