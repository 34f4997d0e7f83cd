package spireapi

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

const svidService = "/spire.api.server.svid.v1.SVID/"

func (a *api) svids() svidv1.SVIDClient { return svidv1.NewSVIDClient(a.local) }

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	return leafOf(t, &tls.Certificate{Certificate: [][]byte{der}})
}

func mintX509(a *api, csr []byte, ttl int32) (*x509.Certificate, error) {
	answer, err := a.svids().MintX509SVID(a.ctx, &svidv1.MintX509SVIDRequest{Csr: csr, Ttl: ttl})
	if err != nil {
		return nil, err
	}
	leaf := parse(a.t, answer.Svid.CertChain[0])
	expect(a.t, "end", answer.Svid.ExpiresAt, leaf.NotAfter.Unix())
	return leaf, nil
}

func newX509(a *api, conn *grpc.ClientConn, params ...*svidv1.NewX509SVIDParams) []*svidv1.BatchNewX509SVIDResponse_Result {
	a.t.Helper()
	answer, err := svidv1.NewSVIDClient(conn).BatchNewX509SVID(a.ctx, &svidv1.BatchNewX509SVIDRequest{Params: params})
	must(a.t, err)
	return answer.Results
}

var svidProofs = map[string]proof{
	"MintX509SVID": {
		success: func(a *api) {
			_, csr := newCSR(a.t, "spiffe://example.org/web", "web.example.org", "api.example.org")
			leaf, err := mintX509(a, csr, 120)
			must(a.t, err)
			expect(a.t, "ID", leaf.URIs[0].String(), "spiffe://example.org/web")
			expect(a.t, "DNS names", len(leaf.DNSNames), 2)
			expect(a.t, "common name", leaf.Subject.CommonName, "web.example.org")
			if left := time.Until(leaf.NotAfter); left < 110*time.Second || left > 120*time.Second {
				a.t.Fatalf("a certificate of 120 s has %s left", left)
			}
		},
		refusal: func(a *api) {
			_, csr := newCSR(a.t, "spiffe://example.org/web")
			broken := append([]byte{}, csr...)
			broken[len(broken)-1] ^= 1
			_, noURI := newCSR(a.t, "")
			_, foreign := newCSR(a.t, "spiffe://other.org/web")
			_, reserved := newCSR(a.t, "spiffe://example.org/spire/server")
			_, covered := newCSR(a.t, "spiffe://example.org/web", "*.example.org", "a.example.org")
			for _, bad := range []struct {
				csr  []byte
				text string
			}{
				{nil, "missing CSR"},
				{[]byte("junk"), "malformed CSR: …"},
				{broken, "failed to verify CSR signature: …"},
				{noURI, "CSR URI SAN is required"},
				{foreign, `CSR URI SAN is invalid: "spiffe://other.org/web" is not a member of trust domain "example.org"`},
				{reserved, `CSR URI SAN is invalid: "spiffe://example.org/spire/server" is not a workload in trust domain "example.org"; path is in the reserved namespace`},
				{covered, "CSR DNS name contains a wildcard that covers another non-wildcard name: …"},
			} {
				_, err := mintX509(a, bad.csr, 0)
				refused(a.t, err, codes.InvalidArgument, bad.text)
			}
		},
		boundary: func(a *api) {
			_, csr := newCSR(a.t, "spiffe://example.org/web")
			for _, ttl := range []int32{0, -1} {
				leaf, err := mintX509(a, csr, ttl)
				must(a.t, err)
				if left := time.Until(leaf.NotAfter); left < 59*time.Minute || left > time.Hour {
					a.t.Fatalf("a certificate of the default hour has %s left", left)
				}
			}
			_, err := mintX509(a, make([]byte, 1<<20), 0)
			refused(a.t, err, codes.InvalidArgument, "malformed CSR: …")
		},
	},
	"MintJWTSVID": {
		success: func(a *api) {
			answer, err := a.svids().MintJWTSVID(a.ctx, &svidv1.MintJWTSVIDRequest{Id: id("/web"), Audience: []string{"db"}, Ttl: 60})
			must(a.t, err)
			expect(a.t, "time to live", answer.Svid.ExpiresAt-answer.Svid.IssuedAt, 60)
			expect(a.t, "ID", answer.Svid.Id.Path, "/web")
		},
		refusal: func(a *api) {
			_, err := a.svids().MintJWTSVID(a.ctx, &svidv1.MintJWTSVIDRequest{Audience: []string{"db"}})
			refused(a.t, err, codes.InvalidArgument, "invalid SPIFFE ID: request must specify SPIFFE ID")
			_, err = a.svids().MintJWTSVID(a.ctx, &svidv1.MintJWTSVIDRequest{Id: id("/spire/agent/x"), Audience: []string{"db"}})
			refused(a.t, err, codes.InvalidArgument,
				`invalid SPIFFE ID: "spiffe://example.org/spire/agent/x" is not a workload in trust domain "example.org"; path is in the reserved namespace`)
			_, err = a.svids().MintJWTSVID(a.ctx, &svidv1.MintJWTSVIDRequest{Id: id("/web")})
			refused(a.t, err, codes.InvalidArgument, "at least one audience is required")
		},
		boundary: func(a *api) {
			answer, err := a.svids().MintJWTSVID(a.ctx, &svidv1.MintJWTSVIDRequest{Id: id("/web"), Audience: []string{"a", "b"}, Ttl: -1})
			must(a.t, err)
			expect(a.t, "the default time to live", answer.Svid.ExpiresAt-answer.Svid.IssuedAt, 300)
		},
	},
	"MintWITSVID": unbuilt("WIT functionality is disabled", func(a *api, conn *grpc.ClientConn) error {
		_, err := svidv1.NewSVIDClient(conn).MintWITSVID(a.ctx, &svidv1.MintWITSVIDRequest{})
		return err
	}, func(a *api) (may, mayNot *grpc.ClientConn) { return a.local, a.downstream() }, svidService+"MintWITSVID"),
	"BatchNewX509SVID": {
		success: func(a *api) {
			agent, cert := a.attest()
			e := entry(agent, fresh("mine"))
			e.DnsNames, e.X509SvidTtl = []string{"mine.example.org"}, 90
			mine := a.made(e)
			_, csr := newCSR(a.t, "spiffe://example.org/what-the-request-says-does-not-count")
			result := newX509(a, a.tcp(cert), &svidv1.NewX509SVIDParams{EntryId: mine.Id, Csr: csr})[0]
			item(a.t, result.Status, codes.OK, "OK")
			leaf := parse(a.t, result.Svid.CertChain[0])
			expect(a.t, "ID", leaf.URIs[0].String(), "spiffe://example.org"+mine.SpiffeId.Path)
			expect(a.t, "DNS name", leaf.DNSNames[0], "mine.example.org")
		},
		refusal: func(a *api) {
			agent, cert := a.attest()
			mine, other := a.made(entry(agent, fresh("mine"))), a.made(entry(id("/node"), fresh("other")))
			_, csr := newCSR(a.t, "")
			broken := append([]byte{}, csr...)
			broken[len(broken)-1] ^= 1
			results := newX509(a, a.tcp(cert), &svidv1.NewX509SVIDParams{EntryId: other.Id, Csr: csr}, &svidv1.NewX509SVIDParams{Csr: csr},
				&svidv1.NewX509SVIDParams{EntryId: mine.Id}, &svidv1.NewX509SVIDParams{EntryId: mine.Id, Csr: []byte("junk")},
				&svidv1.NewX509SVIDParams{EntryId: mine.Id, Csr: broken})
			item(a.t, results[0].Status, codes.NotFound, "entry not found or not authorized")
			item(a.t, results[1].Status, codes.InvalidArgument, "missing entry ID")
			item(a.t, results[2].Status, codes.InvalidArgument, "missing CSR")
			item(a.t, results[3].Status, codes.InvalidArgument, "malformed CSR: …")
			item(a.t, results[4].Status, codes.InvalidArgument, "invalid CSR signature: …")
			_, err := a.svids().BatchNewX509SVID(a.ctx, &svidv1.BatchNewX509SVIDRequest{})
			refused(a.t, err, codes.PermissionDenied, "authorization denied for method "+svidService+"BatchNewX509SVID")
		},
		boundary: func(a *api) {
			agent, cert := a.attest()
			mine := a.made(entry(agent, fresh("mine")))
			c := svidv1.NewSVIDClient(a.tcp(cert))
			_, err := c.BatchNewX509SVID(a.ctx, &svidv1.BatchNewX509SVIDRequest{})
			refused(a.t, err, codes.InvalidArgument, "missing parameters")
			_, csr := newCSR(a.t, "")
			params := make501(mine.Id, csr)
			answer, err := c.BatchNewX509SVID(a.ctx, &svidv1.BatchNewX509SVIDRequest{Params: params[:500]})
			must(a.t, err)
			expect(a.t, "results", len(answer.Results), 500)
			_, err = c.BatchNewX509SVID(a.ctx, &svidv1.BatchNewX509SVIDRequest{Params: params})
			refused(a.t, err, codes.ResourceExhausted, "rejecting request due to certificate signing rate limiting: rate (501) exceeds burst size (500)")
		},
	},
	"NewJWTSVID": {
		success: func(a *api) {
			agent, cert := a.attest()
			mine := a.made(entry(agent, fresh("mine")))
			answer, err := svidv1.NewSVIDClient(a.tcp(cert)).NewJWTSVID(a.ctx, &svidv1.NewJWTSVIDRequest{EntryId: mine.Id, Audience: []string{"db"}})
			must(a.t, err)
			expect(a.t, "ID", answer.Svid.Id.Path, mine.SpiffeId.Path)
		},
		refusal: func(a *api) {
			agent, cert := a.attest()
			mine, other := a.made(entry(agent, fresh("mine"))), a.made(entry(id("/node"), fresh("other")))
			c := svidv1.NewSVIDClient(a.tcp(cert))
			for _, unknown := range []string{other.Id, "nope", ""} {
				_, err := c.NewJWTSVID(a.ctx, &svidv1.NewJWTSVIDRequest{EntryId: unknown, Audience: []string{"db"}})
				refused(a.t, err, codes.NotFound, "entry not found or not authorized")
			}
			_, err := c.NewJWTSVID(a.ctx, &svidv1.NewJWTSVIDRequest{EntryId: mine.Id})
			refused(a.t, err, codes.InvalidArgument, "at least one audience is required")
		},
		boundary: func(a *api) {
			agent, cert := a.attest()
			e := entry(agent, fresh("mine"))
			e.JwtSvidTtl = 1
			mine := a.made(e)
			answer, err := svidv1.NewSVIDClient(a.tcp(cert)).NewJWTSVID(a.ctx, &svidv1.NewJWTSVIDRequest{EntryId: mine.Id, Audience: []string{"a", "b"}})
			must(a.t, err)
			expect(a.t, "the entry's time to live", answer.Svid.ExpiresAt-answer.Svid.IssuedAt, 1)
		},
	},
	"BatchNewWITSVID": unbuilt("WIT functionality is disabled", func(a *api, conn *grpc.ClientConn) error {
		_, err := svidv1.NewSVIDClient(conn).BatchNewWITSVID(a.ctx, &svidv1.BatchNewWITSVIDRequest{})
		return err
	}, func(a *api) (may, mayNot *grpc.ClientConn) {
		_, cert := a.attest()
		return a.tcp(cert), a.local
	}, svidService+"BatchNewWITSVID"),
	"NewDownstreamX509CA": unbuilt("downstream authorities are not supported yet", func(a *api, conn *grpc.ClientConn) error {
		_, err := svidv1.NewSVIDClient(conn).NewDownstreamX509CA(a.ctx, &svidv1.NewDownstreamX509CARequest{})
		return err
	}, (*api).downstreamOrLocal, svidService+"NewDownstreamX509CA"),
}

func make501(entryID string, csr []byte) []*svidv1.NewX509SVIDParams {
	list := make([]*svidv1.NewX509SVIDParams, 501)
	for i := range list {
		list[i] = &svidv1.NewX509SVIDParams{EntryId: entryID, Csr: csr}
	}
	return list
}

// downstreamOrLocal gives a caller with a downstream entry, and one that never has one.
func (a *api) downstreamOrLocal() (may, mayNot *grpc.ClientConn) { return a.downstream(), a.local }
