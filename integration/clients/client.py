"""Drives the Python `spiffe` package against the agent at SPIFFE_ENDPOINT_SOCKET; exit 0 = the scenario held.

Says "asking" before its first question and "served" after the first answer, for whoever changes the world then.
"""

import sys
import threading

from spiffe import JwtSource, TrustDomain, WorkloadApiClient, X509Source

ID = "spiffe://example.org/web"
# The runner has its own, shorter limit; this one only keeps a forgotten process from staying.
LIMIT = 120


def x509() -> None:
    with WorkloadApiClient() as client:
        svid = client.fetch_x509_svid()
        assert str(svid.spiffe_id) == ID, svid.spiffe_id
        assert svid.leaf is not None
    wait()


def jwt() -> None:
    with WorkloadApiClient() as client:
        svid = client.fetch_jwt_svid({"db"})
        assert str(svid.spiffe_id) == ID, svid.spiffe_id
        checked = client.validate_jwt_svid(svid.token, "db")
        assert str(checked.spiffe_id) == ID
        try:
            client.validate_jwt_svid(svid.token, "other")
        except Exception:
            pass
        else:
            raise AssertionError("another audience was accepted")
    with JwtSource() as source:
        assert str(source.fetch_svid({"db"}).spiffe_id) == ID


def bundles() -> None:
    domain = TrustDomain("example.org")
    with WorkloadApiClient() as client:
        assert client.fetch_x509_bundles().get_bundle_for_trust_domain(domain).x509_authorities
        assert client.fetch_jwt_bundles().get_bundle_for_trust_domain(domain).jwt_authorities


def new_source() -> X509Source:
    print("asking", flush=True)
    source = X509Source(timeout_in_seconds=LIMIT)
    print("served", flush=True)
    return source


def svid_of(source: X509Source):
    return source.get_x509_context().default_svid


def wait() -> None:
    with new_source() as source:
        assert str(svid_of(source).spiffe_id) == ID


def follow() -> None:
    """Until another SVID has come: over a rotation, or a restart and the rotation after it."""
    changed = threading.Event()
    with new_source() as source:
        first = svid_of(source).leaf.serial_number

        def look() -> None:
            if svid_of(source).leaf.serial_number != first:
                changed.set()

        source.subscribe_for_updates(look)
        look()
        assert changed.wait(LIMIT), "no other SVID came"
        assert str(svid_of(source).spiffe_id) == ID


if __name__ == "__main__":
    {"x509": x509, "jwt": jwt, "bundles": bundles, "wait": wait, "follow": follow}[sys.argv[1]]()
