// Package spireapi drives a server by the public Go stubs of the SPIRE API: for each method one success, one
// refusal with its exact code and text, one boundary.
package spireapi

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"
	"time"

	"avouch.example/integration/harness"
	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

type api struct {
	t     *testing.T
	w     *harness.World
	ctx   context.Context
	local *grpc.ClientConn
}

func start(t *testing.T) *api {
	w := harness.Start(t)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	conn, err := grpc.NewClient("unix://"+w.ServerSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &api{t: t, w: w, ctx: ctx, local: conn}
}

// tcp connects as whoever holds the certificate, or as nobody.
func (a *api) tcp(cert *tls.Certificate) *grpc.ClientConn {
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	conn, err := grpc.NewClient(a.w.ServerAddress(), grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	must(a.t, err)
	a.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// token makes a join token of an hour.
func (a *api) token() string {
	a.t.Helper()
	made, err := agentv1.NewAgentClient(a.local).CreateJoinToken(a.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 3600})
	must(a.t, err)
	return made.Value
}

// attest spends a fresh join token and returns the agent's ID and certificate.
func (a *api) attest() (*types.SPIFFEID, *tls.Certificate) {
	a.t.Helper()
	token := a.token()
	key, csr := newCSR(a.t, "")
	stream, err := agentv1.NewAgentClient(a.tcp(nil)).AttestAgent(a.ctx)
	must(a.t, err)
	must(a.t, stream.Send(attestRequest("join_token", []byte(token), csr)))
	answer, err := stream.Recv()
	must(a.t, err)
	svid := answer.GetResult().Svid
	return svid.Id, &tls.Certificate{Certificate: svid.CertChain, PrivateKey: key}
}

func attestRequest(kind string, payload, csr []byte) *agentv1.AttestAgentRequest {
	return &agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: &agentv1.AttestAgentRequest_Params{
		Data:   &types.AttestationData{Type: kind, Payload: payload},
		Params: &agentv1.AgentX509SVIDParams{Csr: csr},
	}}}
}

func newCSR(t testing.TB, id string, dns ...string) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.CertificateRequest{Subject: pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}}, DNSNames: dns}
	if id != "" {
		uri, err := url.Parse(id)
		must(t, err)
		template.URIs = []*url.URL{uri}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	must(t, err)
	return key, csr
}

func id(path string) *types.SPIFFEID {
	return &types.SPIFFEID{TrustDomain: harness.TrustDomain, Path: path}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks code and text of a failed call; a text ending in "…" is a beginning.
func refused(t testing.TB, err error, code codes.Code, text string) {
	t.Helper()
	got := status.Convert(err)
	if got.Code() != code || !fits(got.Message(), text) {
		t.Fatalf("got %s %q, expected %s %q", got.Code(), got.Message(), code, text)
	}
}

// item checks code and text of one result of a batch.
func item(t testing.TB, got *types.Status, code codes.Code, text string) {
	t.Helper()
	if codes.Code(got.GetCode()) != code || !fits(got.GetMessage(), text) {
		t.Fatalf("got %s %q, expected %s %q", codes.Code(got.GetCode()), got.GetMessage(), code, text)
	}
}

func fits(got, text string) bool {
	if begin, cut := strings.CutSuffix(text, "…"); cut {
		return strings.HasPrefix(got, begin)
	}
	return got == text
}

func reason(t testing.TB, err error) types.PermissionDeniedDetails_Reason {
	t.Helper()
	for _, detail := range status.Convert(err).Details() {
		if d, ok := detail.(*types.PermissionDeniedDetails); ok {
			return d.Reason
		}
	}
	t.Fatalf("no PermissionDeniedDetails in %v", err)
	return 0
}
