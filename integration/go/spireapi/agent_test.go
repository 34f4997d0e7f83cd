package spireapi

import (
	"crypto/tls"
	"strings"
	"testing"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
)

func TestCreateJoinToken(t *testing.T) {
	a := start(t)
	c := agentv1.NewAgentClient(a.local)
	token, err := c.CreateJoinToken(a.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 60, AgentId: id("/node1")})
	must(t, err)
	if token.Value == "" || token.ExpiresAt == 0 {
		t.Fatalf("got %v", token)
	}
	_, err = c.CreateJoinToken(a.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 0})
	refused(t, err, codes.InvalidArgument, "ttl is required, you must provide one")
	_, err = c.CreateJoinToken(a.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 1, AgentId: id("/spire/agent/x")})
	refused(t, err, codes.InvalidArgument, "invalid agent ID: …")
	_, err = c.CreateJoinToken(a.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 1, Token: "mine"})
	must(t, err)
	_, err = c.CreateJoinToken(a.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 1, Token: "mine"})
	refused(t, err, codes.Internal, "failed to create token: …")
}

func TestAttestAgentSpendsATokenOnce(t *testing.T) {
	a := start(t)
	token := a.w.Token()
	_, csr := newCSR(t, "")
	for round, want := range []string{"", "failed to attest: join token does not exist or has already been used"} {
		stream, err := agentv1.NewAgentClient(a.tcp(nil)).AttestAgent(a.ctx)
		must(t, err)
		must(t, stream.Send(attestRequest("join_token", []byte(token), csr)))
		_, err = stream.Recv()
		if round == 0 {
			must(t, err)
		} else {
			refused(t, err, codes.InvalidArgument, want)
		}
	}
}

func TestAttestAgentRefusesMalformedParams(t *testing.T) {
	a := start(t)
	_, csr := newCSR(t, "")
	data := &types.AttestationData{Type: "join_token", Payload: []byte("x")}
	params := func(p *agentv1.AttestAgentRequest_Params) *agentv1.AttestAgentRequest {
		return &agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: p}}
	}
	svid := &agentv1.AgentX509SVIDParams{Csr: csr}
	for _, c := range []struct {
		request *agentv1.AttestAgentRequest
		code    codes.Code
		text    string
	}{
		{&agentv1.AttestAgentRequest{}, codes.InvalidArgument, "malformed param: missing params"},
		{&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_ChallengeResponse{}}, codes.InvalidArgument, "malformed param: missing params"},
		{params(&agentv1.AttestAgentRequest_Params{Params: svid}), codes.InvalidArgument, "malformed param: missing attestation data"},
		{params(&agentv1.AttestAgentRequest_Params{Data: data}), codes.InvalidArgument, "malformed param: missing X509-SVID parameters"},
		{params(&agentv1.AttestAgentRequest_Params{Data: data, Params: &agentv1.AgentX509SVIDParams{}}), codes.InvalidArgument, "malformed param: missing CSR"},
		{attestRequest("", []byte("x"), csr), codes.InvalidArgument, "malformed param: missing attestation data type"},
		{attestRequest("join_token", nil, csr), codes.InvalidArgument, "malformed param: missing attestation data payload"},
		{attestRequest("nope", []byte("x"), csr), codes.FailedPrecondition, `error getting node attestor: could not find node attestor type "nope"`},
	} {
		stream, err := agentv1.NewAgentClient(a.tcp(nil)).AttestAgent(a.ctx)
		must(t, err)
		must(t, stream.Send(c.request))
		_, err = stream.Recv()
		refused(t, err, c.code, c.text)
	}
}

func TestRenewAgentKeepsBothSVIDsUntilTheNewOneIsUsed(t *testing.T) {
	a := start(t)
	agent, old := a.attest()
	_ = agent
	c := agentv1.NewAgentClient(a.tcp(old))
	key, csr := newCSR(t, "")
	answer, err := c.RenewAgent(a.ctx, &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{Csr: csr}})
	must(t, err)
	next := &tls.Certificate{Certificate: answer.Svid.CertChain, PrivateKey: key}
	entries := func(cert *tls.Certificate) error {
		_, err := entryv1.NewEntryClient(a.tcp(cert)).GetAuthorizedEntries(a.ctx, &entryv1.GetAuthorizedEntriesRequest{})
		return err
	}
	must(t, entries(old))
	must(t, entries(next))
	if got := reason(t, entries(old)); got != types.PermissionDeniedDetails_AGENT_NOT_ACTIVE {
		t.Fatalf("got %s", got)
	}
	_, err = agentv1.NewAgentClient(a.tcp(next)).RenewAgent(a.ctx, &agentv1.RenewAgentRequest{})
	refused(t, err, codes.InvalidArgument, "params cannot be nil")
	_, err = agentv1.NewAgentClient(a.tcp(next)).RenewAgent(a.ctx, &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{}})
	refused(t, err, codes.InvalidArgument, "missing CSR")
}

func TestBanAndDeleteAgent(t *testing.T) {
	a := start(t)
	agent, cert := a.attest()
	c := agentv1.NewAgentClient(a.local)
	_, err := c.BanAgent(a.ctx, &agentv1.BanAgentRequest{Id: agent})
	must(t, err)
	_, err = entryv1.NewEntryClient(a.tcp(cert)).GetAuthorizedEntries(a.ctx, &entryv1.GetAuthorizedEntriesRequest{})
	refused(t, err, codes.PermissionDenied, "authorization denied for method /spire.api.server.entry.v1.Entry/GetAuthorizedEntries")
	if got := reason(t, err); got != types.PermissionDeniedDetails_AGENT_BANNED {
		t.Fatalf("got %s", got)
	}
	shown, err := c.GetAgent(a.ctx, &agentv1.GetAgentRequest{Id: agent})
	must(t, err)
	if !shown.Banned || shown.X509SvidSerialNumber != "" {
		t.Fatalf("got %v", shown)
	}
	_, err = c.DeleteAgent(a.ctx, &agentv1.DeleteAgentRequest{Id: agent})
	must(t, err)
	_, err = entryv1.NewEntryClient(a.tcp(cert)).GetAuthorizedEntries(a.ctx, &entryv1.GetAuthorizedEntriesRequest{})
	if got := reason(t, err); got != types.PermissionDeniedDetails_AGENT_NOT_ATTESTED {
		t.Fatalf("got %s", got)
	}
	for _, call := range []func() error{
		func() error { _, err := c.GetAgent(a.ctx, &agentv1.GetAgentRequest{Id: agent}); return err },
		func() error { _, err := c.BanAgent(a.ctx, &agentv1.BanAgentRequest{Id: agent}); return err },
		func() error { _, err := c.DeleteAgent(a.ctx, &agentv1.DeleteAgentRequest{Id: agent}); return err },
	} {
		refused(t, call(), codes.NotFound, "agent not found")
	}
	_, err = c.BanAgent(a.ctx, &agentv1.BanAgentRequest{})
	refused(t, err, codes.InvalidArgument, "invalid agent ID: request must specify SPIFFE ID")
	_, err = c.BanAgent(a.ctx, &agentv1.BanAgentRequest{Id: id("/web")})
	refused(t, err, codes.InvalidArgument, "invalid agent ID: …")
}

func TestListAndCountAgentsPageAndFilter(t *testing.T) {
	a := start(t)
	a.attest()
	a.attest()
	a.attest()
	c := agentv1.NewAgentClient(a.local)
	count, err := c.CountAgents(a.ctx, &agentv1.CountAgentsRequest{})
	must(t, err)
	if count.Count != 3 {
		t.Fatalf("got %d", count.Count)
	}
	seen, token := 0, ""
	for pages := 0; pages < 10; pages++ {
		page, err := c.ListAgents(a.ctx, &agentv1.ListAgentsRequest{PageSize: 2, PageToken: token, OutputMask: &types.AgentMask{Banned: true}})
		must(t, err)
		for _, agent := range page.Agents {
			if agent.AttestationType != "" {
				t.Fatal("the mask was ignored")
			}
		}
		seen += len(page.Agents)
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	if seen != 3 {
		t.Fatalf("paged over %d agents", seen)
	}
	none, err := c.ListAgents(a.ctx, &agentv1.ListAgentsRequest{Filter: &agentv1.ListAgentsRequest_Filter{ByAttestationType: "x509pop"}})
	must(t, err)
	if len(none.Agents) != 0 {
		t.Fatal("the filter was ignored")
	}
}

// postStatus builds the request by field number: these stubs are older than agent_version.
func postStatus(version string) *agentv1.PostStatusRequest {
	request := &agentv1.PostStatusRequest{}
	raw := protowire.AppendTag(nil, 2, protowire.BytesType)
	request.ProtoReflect().SetUnknown(protowire.AppendString(raw, version))
	return request
}

func TestPostStatusTakesUpTo255Bytes(t *testing.T) {
	a := start(t)
	_, cert := a.attest()
	c := agentv1.NewAgentClient(a.tcp(cert))
	_, err := c.PostStatus(a.ctx, postStatus(strings.Repeat("v", 255)))
	must(t, err)
	_, err = c.PostStatus(a.ctx, postStatus(strings.Repeat("v", 256)))
	refused(t, err, codes.InvalidArgument, "agent version is too long (max 255 characters)")
	_, err = agentv1.NewAgentClient(a.local).PostStatus(a.ctx, postStatus("v"))
	refused(t, err, codes.PermissionDenied, "authorization denied for method /spire.api.server.agent.v1.Agent/PostStatus")
}
