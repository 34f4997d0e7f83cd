"""Drives the Python `spiffe` package against the agent at SPIFFE_ENDPOINT_SOCKET; exit 0 = the scenario held."""

import sys
import threading

from spiffe import JwtSource, TrustDomain, WorkloadApiClient, X509Source

ID = "spiffe://example.org/web"


def x509() -> None:
    with WorkloadApiClient() as client:
        svid = client.fetch_x509_svid()
        assert str(svid.spiffe_id) == ID, svid.spiffe_id
        assert svid.leaf is not None


def jwt() -> None:
    with WorkloadApiClient() as client:
        svid = client.fetch_jwt_svid({"db"})
        assert str(svid.spiffe_id) == ID, svid.spiffe_id
        checked = client.validate_jwt_svid(svid.token, "db")
        assert str(checked.spiffe_id) == ID
    with JwtSource() as source:
        assert str(source.fetch_svid({"db"}).spiffe_id) == ID


def bundles() -> None:
    domain = TrustDomain("example.org")
    with WorkloadApiClient() as client:
        assert client.fetch_x509_bundles().get_bundle_for_trust_domain(domain).x509_authorities
        assert client.fetch_jwt_bundles().get_bundle_for_trust_domain(domain).jwt_authorities


def rotation() -> None:
    changed = threading.Event()
    with X509Source() as source:
        first = source.svid.leaf.serial_number
        source.subscribe_for_updates(lambda: source.svid.leaf.serial_number != first and changed.set())
        assert changed.wait(20), "no rotation was seen"


if __name__ == "__main__":
    {"x509": x509, "jwt": jwt, "bundles": bundles, "rotation": rotation}[sys.argv[1]]()
