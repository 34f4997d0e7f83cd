package spireapi

import (
	"crypto/x509"
	"testing"

	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	debugv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/debug/v1"
	loggerv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/logger/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func TestMintX509SVID(t *testing.T) {
	a := start(t)
	c := svidv1.NewSVIDClient(a.local)
	_, csr := newCSR(t, "spiffe://example.org/web", "web.example.org")
	answer, err := c.MintX509SVID(a.ctx, &svidv1.MintX509SVIDRequest{Csr: csr, Ttl: 120})
	must(t, err)
	leaf, err := x509.ParseCertificate(answer.Svid.CertChain[0])
	must(t, err)
	if leaf.URIs[0].String() != "spiffe://example.org/web" || leaf.DNSNames[0] != "web.example.org" || leaf.Subject.CommonName != "web.example.org" {
		t.Fatalf("got %v %v %s", leaf.URIs, leaf.DNSNames, leaf.Subject)
	}
	broken := append([]byte{}, csr...)
	broken[len(broken)-1] ^= 1
	_, noURI := newCSR(t, "")
	_, foreign := newCSR(t, "spiffe://other.org/web")
	_, badDNS := newCSR(t, "spiffe://example.org/web", "*.example.org", "a.example.org")
	for _, refusal := range []struct {
		csr  []byte
		text string
	}{
		{nil, "missing CSR"},
		{[]byte("junk"), "malformed CSR: …"},
		{make([]byte, 1<<20), "malformed CSR: …"},
		{broken, "failed to verify CSR signature: …"},
		{noURI, "CSR URI SAN is required"},
		{foreign, "CSR URI SAN is invalid: …"},
		{badDNS, "CSR DNS name contains a wildcard that covers another non-wildcard name: …"},
	} {
		_, err := c.MintX509SVID(a.ctx, &svidv1.MintX509SVIDRequest{Csr: refusal.csr})
		refused(t, err, codes.InvalidArgument, refusal.text)
	}
}

func TestMintJWTSVID(t *testing.T) {
	a := start(t)
	c := svidv1.NewSVIDClient(a.local)
	answer, err := c.MintJWTSVID(a.ctx, &svidv1.MintJWTSVIDRequest{Id: id("/web"), Audience: []string{"db"}, Ttl: 60})
	must(t, err)
	if answer.Svid.ExpiresAt-answer.Svid.IssuedAt != 60 {
		t.Fatalf("got %v", answer.Svid)
	}
	_, err = c.MintJWTSVID(a.ctx, &svidv1.MintJWTSVIDRequest{Audience: []string{"db"}})
	refused(t, err, codes.InvalidArgument, "invalid SPIFFE ID: request must specify SPIFFE ID")
	_, err = c.MintJWTSVID(a.ctx, &svidv1.MintJWTSVIDRequest{Id: id("/web")})
	refused(t, err, codes.InvalidArgument, "at least one audience is required")
}

func TestBatchNewX509SVIDAndNewJWTSVIDAreForAnAgentsOwnEntries(t *testing.T) {
	a := start(t)
	agent, cert := a.attest()
	results := a.create(entry(agent, "/mine"), entry(id("/node"), "/other"))
	mine, other := results[0].Entry.Id, results[1].Entry.Id
	c := svidv1.NewSVIDClient(a.tcp(cert))
	_, csr := newCSR(t, "spiffe://example.org/mine")
	answer, err := c.BatchNewX509SVID(a.ctx, &svidv1.BatchNewX509SVIDRequest{Params: []*svidv1.NewX509SVIDParams{
		{EntryId: mine, Csr: csr}, {EntryId: other, Csr: csr}, {Csr: csr}, {EntryId: mine}, {EntryId: mine, Csr: []byte("junk")},
	}})
	must(t, err)
	item(t, answer.Results[0].Status, codes.OK, "OK")
	item(t, answer.Results[1].Status, codes.NotFound, "entry not found or not authorized")
	item(t, answer.Results[2].Status, codes.InvalidArgument, "missing entry ID")
	item(t, answer.Results[3].Status, codes.InvalidArgument, "missing CSR")
	item(t, answer.Results[4].Status, codes.InvalidArgument, "malformed CSR: …")
	_, err = c.BatchNewX509SVID(a.ctx, &svidv1.BatchNewX509SVIDRequest{})
	refused(t, err, codes.InvalidArgument, "missing parameters")
	_, err = c.BatchNewX509SVID(a.ctx, &svidv1.BatchNewX509SVIDRequest{Params: make501(mine, csr)})
	refused(t, err, codes.ResourceExhausted, "rejecting request due to certificate signing rate limiting: rate (501) exceeds burst size (500)")
	jwt, err := c.NewJWTSVID(a.ctx, &svidv1.NewJWTSVIDRequest{EntryId: mine, Audience: []string{"db"}})
	must(t, err)
	if jwt.Svid.Id.Path != "/mine" {
		t.Fatalf("got %v", jwt.Svid.Id)
	}
	_, err = c.NewJWTSVID(a.ctx, &svidv1.NewJWTSVIDRequest{EntryId: other, Audience: []string{"db"}})
	refused(t, err, codes.NotFound, "entry not found or not authorized")
}

func make501(entryID string, csr []byte) []*svidv1.NewX509SVIDParams {
	list := make([]*svidv1.NewX509SVIDParams, 501)
	for i := range list {
		list[i] = &svidv1.NewX509SVIDParams{EntryId: entryID, Csr: csr}
	}
	return list
}

func TestBundleOfTheOwnTrustDomain(t *testing.T) {
	a := start(t)
	c := bundlev1.NewBundleClient(a.local)
	bundle, err := bundlev1.NewBundleClient(a.tcp(nil)).GetBundle(a.ctx, &bundlev1.GetBundleRequest{})
	must(t, err)
	if len(bundle.X509Authorities) != 1 || len(bundle.JwtAuthorities) != 1 {
		t.Fatalf("got %d and %d authorities", len(bundle.X509Authorities), len(bundle.JwtAuthorities))
	}
	masked, err := c.GetBundle(a.ctx, &bundlev1.GetBundleRequest{OutputMask: &types.BundleMask{}})
	must(t, err)
	if len(masked.X509Authorities) != 0 || masked.TrustDomain != "example.org" {
		t.Fatalf("got %v", masked)
	}
	appended, err := c.AppendBundle(a.ctx, &bundlev1.AppendBundleRequest{X509Authorities: bundle.X509Authorities})
	must(t, err)
	if appended.SequenceNumber != bundle.SequenceNumber {
		t.Fatal("appending nothing new raised the sequence")
	}
	_, err = c.AppendBundle(a.ctx, &bundlev1.AppendBundleRequest{})
	refused(t, err, codes.InvalidArgument, "no authorities to append")
	_, err = c.AppendBundle(a.ctx, &bundlev1.AppendBundleRequest{X509Authorities: []*types.X509Certificate{{Asn1: []byte("junk")}}})
	refused(t, err, codes.InvalidArgument, "failed to convert X.509 authority: …")
}

func TestFederatedBundles(t *testing.T) {
	a := start(t)
	c := bundlev1.NewBundleClient(a.local)
	fed := func(domain string) *types.Bundle { return &types.Bundle{TrustDomain: domain, RefreshHint: 60} }
	created, err := c.BatchCreateFederatedBundle(a.ctx, &bundlev1.BatchCreateFederatedBundleRequest{
		Bundle: []*types.Bundle{fed("fed1.org"), fed("fed2.org"), fed("fed1.org"), fed("example.org"), fed("Bad")}})
	must(t, err)
	item(t, created.Results[0].Status, codes.OK, "OK")
	item(t, created.Results[1].Status, codes.OK, "OK")
	item(t, created.Results[2].Status, codes.AlreadyExists, "bundle already exists")
	item(t, created.Results[3].Status, codes.InvalidArgument, "creating a federated bundle for the server's own trust domain is not allowed")
	item(t, created.Results[4].Status, codes.InvalidArgument, "trust domain argument is not valid: …")
	count, err := c.CountBundles(a.ctx, &bundlev1.CountBundlesRequest{})
	must(t, err)
	if count.Count != 3 {
		t.Fatalf("counted %d", count.Count)
	}
	list, err := c.ListFederatedBundles(a.ctx, &bundlev1.ListFederatedBundlesRequest{})
	must(t, err)
	if len(list.Bundles) != 2 {
		t.Fatalf("listed %d", len(list.Bundles))
	}
	_, err = c.GetFederatedBundle(a.ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: "nope.org"})
	refused(t, err, codes.NotFound, "bundle not found")
	updated, err := c.BatchUpdateFederatedBundle(a.ctx, &bundlev1.BatchUpdateFederatedBundleRequest{
		Bundle: []*types.Bundle{{TrustDomain: "fed1.org", SequenceNumber: 9}, fed("nope.org")}, InputMask: &types.BundleMask{SequenceNumber: true}})
	must(t, err)
	if b := updated.Results[0].Bundle; b.SequenceNumber != 9 || b.RefreshHint != 60 {
		t.Fatalf("got %v", b)
	}
	item(t, updated.Results[1].Status, codes.NotFound, "bundle not found")
	set, err := c.BatchSetFederatedBundle(a.ctx, &bundlev1.BatchSetFederatedBundleRequest{Bundle: []*types.Bundle{fed("fed3.org")}})
	must(t, err)
	item(t, set.Results[0].Status, codes.OK, "OK")

	holder := entry(id("/node"), "/web")
	holder.FederatesWith = []string{"fed1.org"}
	item(t, a.create(holder)[0].Status, codes.OK, "OK")
	del := func(mode bundlev1.BatchDeleteFederatedBundleRequest_Mode, domain string) *types.Status {
		answer, err := c.BatchDeleteFederatedBundle(a.ctx, &bundlev1.BatchDeleteFederatedBundleRequest{TrustDomains: []string{domain}, Mode: mode})
		must(t, err)
		return answer.Results[0].Status
	}
	item(t, del(bundlev1.BatchDeleteFederatedBundleRequest_RESTRICT, "fed1.org"), codes.FailedPrecondition,
		"failed to delete federated bundle: datastore-sql: cannot delete bundle; federated with 1 registration entries")
	item(t, del(bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE, "fed1.org"), codes.OK, "OK")
	item(t, del(bundlev1.BatchDeleteFederatedBundleRequest_RESTRICT, "nope.org"), codes.NotFound, "bundle not found")
	_, err = c.BatchDeleteFederatedBundle(a.ctx, &bundlev1.BatchDeleteFederatedBundleRequest{TrustDomains: []string{"fed2.org"}, Mode: 9})
	refused(t, err, codes.InvalidArgument, `failed to parse deletion mode: unhandled delete mode "9"`)
}

func TestLocalServicesAreNotServedOverTCP(t *testing.T) {
	a := start(t)
	info, err := debugv1.NewDebugClient(a.local).GetInfo(a.ctx, &debugv1.GetInfoRequest{})
	must(t, err)
	if len(info.SvidChain) == 0 || info.FederatedBundlesCount != 1 {
		t.Fatalf("got %v", info)
	}
	_, err = debugv1.NewDebugClient(a.tcp(nil)).GetInfo(a.ctx, &debugv1.GetInfoRequest{})
	refused(t, err, codes.Unimplemented, "…")
	_, err = loggerv1.NewLoggerClient(a.tcp(nil)).GetLogger(a.ctx, &loggerv1.GetLoggerRequest{})
	refused(t, err, codes.Unimplemented, "…")
	_, err = grpc_health_v1.NewHealthClient(a.tcp(nil)).Check(a.ctx, &grpc_health_v1.HealthCheckRequest{})
	refused(t, err, codes.Unimplemented, "…")
}

func TestLoggerAndHealth(t *testing.T) {
	a := start(t)
	c := loggerv1.NewLoggerClient(a.local)
	set, err := c.SetLogLevel(a.ctx, &loggerv1.SetLogLevelRequest{NewLevel: types.LogLevel_WARN})
	must(t, err)
	if set.CurrentLevel != types.LogLevel_WARN || set.LaunchLevel != types.LogLevel_DEBUG {
		t.Fatalf("got %v", set)
	}
	reset, err := c.ResetLogLevel(a.ctx, &loggerv1.ResetLogLevelRequest{})
	must(t, err)
	if reset.CurrentLevel != types.LogLevel_DEBUG {
		t.Fatalf("got %v", reset)
	}
	_, err = c.SetLogLevel(a.ctx, &loggerv1.SetLogLevelRequest{})
	refused(t, err, codes.InvalidArgument, "newLevel value cannot be LogLevel_UNSPECIFIED")
	_, err = c.SetLogLevel(a.ctx, &loggerv1.SetLogLevelRequest{NewLevel: 99})
	refused(t, err, codes.InvalidArgument, "unsupported log level")
	health := grpc_health_v1.NewHealthClient(a.local)
	state, err := health.Check(a.ctx, &grpc_health_v1.HealthCheckRequest{})
	must(t, err)
	if state.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("got %s", state.Status)
	}
	_, err = health.Check(a.ctx, &grpc_health_v1.HealthCheckRequest{Service: "x"})
	refused(t, err, codes.InvalidArgument, "per-service health is not supported")
}
