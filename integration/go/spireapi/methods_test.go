package spireapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	debugv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/debug/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	localauthorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	loggerv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/logger/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	trustdomainv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"
)

// proof of one method: what works, what is refused with which code and words, and what happens at an edge.
type proof struct{ success, refusal, boundary func(*api) }

// service is one service as the stubs describe it, with the proofs of its methods by name.
type service struct {
	desc   *grpc.ServiceDesc
	proofs map[string]proof
}

func services() []service {
	return []service{
		{&agentv1.Agent_ServiceDesc, agentProofs},
		{&bundlev1.Bundle_ServiceDesc, bundleProofs},
		{&entryv1.Entry_ServiceDesc, entryProofs},
		{&svidv1.SVID_ServiceDesc, svidProofs},
		{&debugv1.Debug_ServiceDesc, debugProofs},
		{&localauthorityv1.LocalAuthority_ServiceDesc, authorityProofs},
		{&loggerv1.Logger_ServiceDesc, loggerProofs},
		{&grpc_health_v1.Health_ServiceDesc, healthProofs},
	}
}

func methods(desc *grpc.ServiceDesc) (names []string) {
	for _, method := range desc.Methods {
		names = append(names, method.MethodName)
	}
	for _, stream := range desc.Streams {
		names = append(names, stream.StreamName)
	}
	slices.Sort(names)
	return names
}

func TestEachMethodWorksRefusesAndKeepsItsEdges(t *testing.T) {
	for _, service := range services() {
		name := service.desc.ServiceName[strings.LastIndex(service.desc.ServiceName, ".")+1:]
		t.Run(name, func(t *testing.T) {
			a := start(t)
			named := methods(service.desc)
			for method := range service.proofs {
				if !slices.Contains(named, method) {
					t.Errorf("there is a proof of %s, which the stubs do not know", method)
				}
			}
			for _, method := range named {
				p := service.proofs[method]
				for _, part := range []struct {
					name string
					run  func(*api)
				}{{"success", p.success}, {"refusal", p.refusal}, {"boundary", p.boundary}} {
					t.Run(method+"/"+part.name, func(t *testing.T) {
						if part.run == nil {
							t.Fatal("no such proof")
						}
						part.run(a.in(t))
					})
				}
			}
		})
	}
}

// in gives the same server to a test of its own.
func (a *api) in(t *testing.T) *api {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	world := *a.w
	world.T = t
	return &api{t: t, w: &world, ctx: ctx, local: a.local}
}

// unbuilt proves a method that the stubs know and the server does not offer, whoever asks.
func unbuilt(text string, call func(*api, *grpc.ClientConn) error, callers func(*api) (may, mayNot *grpc.ClientConn), full string) proof {
	return proof{
		success: func(a *api) {
			may, _ := callers(a)
			refused(a.t, call(a, may), codes.Unimplemented, text)
		},
		refusal: func(a *api) {
			_, mayNot := callers(a)
			refused(a.t, call(a, mayNot), codes.PermissionDenied, "authorization denied for method "+full)
		},
		boundary: func(a *api) {
			refused(a.t, call(a, a.tcp(nil)), codes.PermissionDenied, "authorization denied for method "+full)
		},
	}
}

func TestServicesThatAreNotThereAreUnimplementedAtBothDoors(t *testing.T) {
	a := start(t)
	for _, desc := range []*grpc.ServiceDesc{&trustdomainv1.TrustDomain_ServiceDesc} {
		for _, method := range methods(desc) {
			for _, conn := range []*grpc.ClientConn{a.local, a.tcp(nil)} {
				err := conn.Invoke(a.ctx, "/"+desc.ServiceName+"/"+method, &emptypb.Empty{}, &emptypb.Empty{})
				refused(t, err, codes.Unimplemented, "unknown service "+desc.ServiceName)
			}
		}
	}
	err := a.local.Invoke(a.ctx, "/"+agentv1.Agent_ServiceDesc.ServiceName+"/Nope", &emptypb.Empty{}, &emptypb.Empty{})
	refused(t, err, codes.Unimplemented, "unknown method Nope for service "+agentv1.Agent_ServiceDesc.ServiceName)
}

// denied proves that a caller without a certificate may not call.
func denied(call func(*api, *grpc.ClientConn) error, full string) func(*api) {
	return func(a *api) {
		refused(a.t, call(a, a.tcp(nil)), codes.PermissionDenied, "authorization denied for method "+full)
	}
}

// all runs several proofs as one.
func all(parts ...func(*api)) func(*api) {
	return func(a *api) {
		for _, part := range parts {
			part(a)
		}
	}
}

func expect[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, expected %v", what, got, want)
	}
}

var unique int

// fresh gives a path that no test of this run had before.
func fresh(begin string) string {
	unique++
	return "/" + begin + strings.Repeat("x", unique%7) + time.Now().Format("150405.000000000")
}

// admin holds a certificate of an entry that makes its bearer an admin.
func (a *api) admin() *grpc.ClientConn {
	return a.bearer(func(e *types.Entry) { e.Admin = true })
}

// downstream holds a certificate of an entry that makes its bearer a downstream server.
func (a *api) downstream() *grpc.ClientConn {
	return a.bearer(func(e *types.Entry) { e.Downstream = true })
}

// bearer mints a certificate for the SPIFFE ID of an entry made as `change` says, and connects with it.
func (a *api) bearer(change func(*types.Entry)) *grpc.ClientConn {
	a.t.Helper()
	path := fresh("bearer")
	e := entry(id("/node"), path)
	change(e)
	item(a.t, a.create(e)[0].Status, codes.OK, "OK")
	key, csr := newCSR(a.t, "spiffe://example.org"+path)
	answer, err := svidv1.NewSVIDClient(a.local).MintX509SVID(a.ctx, &svidv1.MintX509SVIDRequest{Csr: csr})
	must(a.t, err)
	return a.tcp(&tls.Certificate{Certificate: answer.Svid.CertChain, PrivateKey: key})
}

// skiOf reads the subject key ID of a certificate, as authorities are named by.
func skiOf(t testing.TB, der []byte) string {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return hex.EncodeToString(cert.SubjectKeyId)
}

func leafOf(t testing.TB, cert *tls.Certificate) *x509.Certificate {
	t.Helper()
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	must(t, err)
	return leaf
}
