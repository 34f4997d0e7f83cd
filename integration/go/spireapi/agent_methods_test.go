package spireapi

import (
	"crypto/tls"
	"strings"
	"time"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const agentService = "/spire.api.server.agent.v1.Agent/"

func (a *api) agents() agentv1.AgentClient { return agentv1.NewAgentClient(a.local) }

// standing asks for entries with an agent's certificate.
func (a *api) standing(cert *tls.Certificate) error {
	_, err := entryv1.NewEntryClient(a.tcp(cert)).GetAuthorizedEntries(a.ctx, &entryv1.GetAuthorizedEntriesRequest{})
	return err
}

func (a *api) countAgents(filter *agentv1.CountAgentsRequest_Filter) int32 {
	a.t.Helper()
	answer, err := a.agents().CountAgents(a.ctx, &agentv1.CountAgentsRequest{Filter: filter})
	must(a.t, err)
	return answer.Count
}

// attestWith opens one stream as nobody, sends what it is given, and returns the answer.
func (a *api) attestWith(requests ...*agentv1.AttestAgentRequest) (*agentv1.AttestAgentResponse, error) {
	a.t.Helper()
	stream, err := agentv1.NewAgentClient(a.tcp(nil)).AttestAgent(a.ctx)
	must(a.t, err)
	for _, request := range requests {
		must(a.t, stream.Send(request))
	}
	must(a.t, stream.CloseSend())
	return stream.Recv()
}

func badSelector() *types.SelectorMatch {
	return &types.SelectorMatch{Selectors: []*types.Selector{{Value: "v"}}}
}

func noAgent(call func(*api, *types.SPIFFEID) error) func(*api) {
	return func(a *api) {
		refused(a.t, call(a, id("/spire/agent/join_token/nobody")), codes.NotFound, "agent not found")
	}
}

func notAnAgentsID(call func(*api, *types.SPIFFEID) error) func(*api) {
	return func(a *api) {
		refused(a.t, call(a, nil), codes.InvalidArgument, "invalid agent ID: request must specify SPIFFE ID")
		refused(a.t, call(a, id("/web")), codes.InvalidArgument,
			`invalid agent ID: "spiffe://example.org/web" is not an agent in trust domain "example.org"; path is not in the agent namespace`)
		foreign := &types.SPIFFEID{TrustDomain: "other.org", Path: "/spire/agent/x/y"}
		refused(a.t, call(a, foreign), codes.InvalidArgument,
			`invalid agent ID: "spiffe://other.org/spire/agent/x/y" is not a member of trust domain "example.org"`)
	}
}

func getAgent(a *api, id *types.SPIFFEID) error {
	_, err := a.agents().GetAgent(a.ctx, &agentv1.GetAgentRequest{Id: id})
	return err
}

func banAgent(a *api, id *types.SPIFFEID) error {
	_, err := a.agents().BanAgent(a.ctx, &agentv1.BanAgentRequest{Id: id})
	return err
}

func deleteAgent(a *api, id *types.SPIFFEID) error {
	_, err := a.agents().DeleteAgent(a.ctx, &agentv1.DeleteAgentRequest{Id: id})
	return err
}

func renew(a *api, conn *grpc.ClientConn, csr []byte) (*types.X509SVID, error) {
	answer, err := agentv1.NewAgentClient(conn).RenewAgent(a.ctx, &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{Csr: csr}})
	return answer.GetSvid(), err
}

var agentProofs = map[string]proof{
	"CountAgents": {
		success: func(a *api) {
			before := a.countAgents(nil)
			a.attest()
			expect(a.t, "agents", a.countAgents(nil), before+1)
		},
		refusal: all(
			func(a *api) {
				_, err := a.agents().CountAgents(a.ctx, &agentv1.CountAgentsRequest{Filter: &agentv1.CountAgentsRequest_Filter{BySelectorMatch: badSelector()}})
				refused(a.t, err, codes.InvalidArgument, "failed to parse selectors: missing selector type")
			},
			denied(func(a *api, conn *grpc.ClientConn) error {
				_, err := agentv1.NewAgentClient(conn).CountAgents(a.ctx, &agentv1.CountAgentsRequest{})
				return err
			}, agentService+"CountAgents"),
		),
		boundary: func(a *api) {
			banned := func(is bool) int32 {
				return a.countAgents(&agentv1.CountAgentsRequest_Filter{ByBanned: wrapperspb.Bool(is)})
			}
			agent, _ := a.attest()
			free, caught := banned(false), banned(true)
			must(a.t, banAgent(a, agent))
			expect(a.t, "free agents", banned(false), free-1)
			expect(a.t, "banned agents", banned(true), caught+1)
			again := a.countAgents(&agentv1.CountAgentsRequest_Filter{ByCanReattest: wrapperspb.Bool(true)})
			a.attest()
			expect(a.t, "agents that may attest again", a.countAgents(&agentv1.CountAgentsRequest_Filter{ByCanReattest: wrapperspb.Bool(true)}), again)
		},
	},
	"ListAgents": {
		success: func(a *api) {
			agent, _ := a.attest()
			filter := &agentv1.ListAgentsRequest_Filter{ByAttestationType: "join_token"}
			list, err := a.agents().ListAgents(a.ctx, &agentv1.ListAgentsRequest{Filter: filter})
			must(a.t, err)
			for _, each := range list.Agents {
				if each.Id.Path == agent.Path {
					expect(a.t, "type", each.AttestationType, "join_token")
					expect(a.t, "banned", each.Banned, false)
					return
				}
			}
			a.t.Fatal("the agent is not in the list")
		},
		refusal: all(
			func(a *api) {
				_, err := a.agents().ListAgents(a.ctx, &agentv1.ListAgentsRequest{Filter: &agentv1.ListAgentsRequest_Filter{BySelectorMatch: badSelector()}})
				refused(a.t, err, codes.InvalidArgument, "failed to parse selectors: missing selector type")
			},
			denied(func(a *api, conn *grpc.ClientConn) error {
				_, err := agentv1.NewAgentClient(conn).ListAgents(a.ctx, &agentv1.ListAgentsRequest{})
				return err
			}, agentService+"ListAgents"),
		),
		boundary: func(a *api) {
			a.attest()
			a.attest()
			total := int(a.countAgents(nil))
			list := func(size int32, token string) *agentv1.ListAgentsResponse {
				page, err := a.agents().ListAgents(a.ctx, &agentv1.ListAgentsRequest{PageSize: size, PageToken: token, OutputMask: &types.AgentMask{}})
				must(a.t, err)
				return page
			}
			unpaged := list(0, "")
			expect(a.t, "agents without a page size", len(unpaged.Agents), total)
			expect(a.t, "their token", unpaged.NextPageToken, "")
			expect(a.t, "fields beside the ID", unpaged.Agents[0].AttestationType+unpaged.Agents[0].X509SvidSerialNumber, "")
			// A page that holds exactly all may or may not promise another, which is then empty.
			page := list(int32(total), "")
			expect(a.t, "agents on a page of just that size", len(page.Agents), total)
			if page.NextPageToken != "" {
				page = list(int32(total), page.NextPageToken)
				expect(a.t, "agents after the last", len(page.Agents), 0)
			}
			expect(a.t, "the last token", page.NextPageToken, "")
			first := list(int32(total-1), "")
			second := list(int32(total-1), first.NextPageToken)
			expect(a.t, "agents on two pages", len(first.Agents)+len(second.Agents), total)
		},
	},
	"GetAgent": {
		success: func(a *api) {
			agent, cert := a.attest()
			got, err := a.agents().GetAgent(a.ctx, &agentv1.GetAgentRequest{Id: agent})
			must(a.t, err)
			expect(a.t, "serial", got.X509SvidSerialNumber, leafOf(a.t, cert).SerialNumber.String())
			expect(a.t, "end", got.X509SvidExpiresAt, leafOf(a.t, cert).NotAfter.Unix())
		},
		refusal: all(noAgent(getAgent), notAnAgentsID(getAgent)),
		boundary: func(a *api) {
			agent, _ := a.attest()
			got, err := a.agents().GetAgent(a.ctx, &agentv1.GetAgentRequest{Id: agent, OutputMask: &types.AgentMask{}})
			must(a.t, err)
			expect(a.t, "ID", got.Id.Path, agent.Path)
			expect(a.t, "everything else", got.AttestationType+got.X509SvidSerialNumber, "")
		},
	},
	"DeleteAgent": {
		success: func(a *api) {
			agent, cert := a.attest()
			must(a.t, a.standing(cert))
			must(a.t, deleteAgent(a, agent))
			expect(a.t, "reason", reason(a.t, a.standing(cert)), types.PermissionDeniedDetails_AGENT_NOT_ATTESTED)
		},
		refusal: all(noAgent(deleteAgent), notAnAgentsID(deleteAgent)),
		boundary: func(a *api) {
			agent, _ := a.attest()
			must(a.t, banAgent(a, agent))
			must(a.t, deleteAgent(a, agent))
			refused(a.t, deleteAgent(a, agent), codes.NotFound, "agent not found")
		},
	},
	"BanAgent": {
		success: func(a *api) {
			agent, cert := a.attest()
			must(a.t, banAgent(a, agent))
			err := a.standing(cert)
			refused(a.t, err, codes.PermissionDenied, "authorization denied for method "+entryService+"GetAuthorizedEntries")
			expect(a.t, "reason", reason(a.t, err), types.PermissionDeniedDetails_AGENT_BANNED)
		},
		refusal: all(noAgent(banAgent), notAnAgentsID(banAgent)),
		boundary: func(a *api) {
			agent, _ := a.attest()
			must(a.t, banAgent(a, agent))
			must(a.t, banAgent(a, agent))
			got, err := a.agents().GetAgent(a.ctx, &agentv1.GetAgentRequest{Id: agent})
			must(a.t, err)
			expect(a.t, "banned", got.Banned, true)
			expect(a.t, "serial", got.X509SvidSerialNumber, "")
		},
	},
	"AttestAgent": {
		success: func(a *api) {
			token := a.token()
			_, csr := newCSR(a.t, "")
			answer, err := a.attestWith(attestRequest("join_token", []byte(token), csr))
			must(a.t, err)
			expect(a.t, "ID", answer.GetResult().Svid.Id.Path, "/spire/agent/join_token/"+token)
			expect(a.t, "may attest again", answer.GetResult().Reattestable, false)
		},
		refusal: func(a *api) {
			token := a.token()
			_, csr := newCSR(a.t, "")
			_, err := a.attestWith(attestRequest("join_token", []byte(token), csr))
			must(a.t, err)
			for _, spent := range []string{token, "guessed"} {
				_, err = a.attestWith(attestRequest("join_token", []byte(spent), csr))
				refused(a.t, err, codes.InvalidArgument, "failed to attest: join token does not exist or has already been used")
			}
			_, err = a.attestWith(attestRequest("nope", []byte("x"), csr))
			refused(a.t, err, codes.FailedPrecondition, `error getting node attestor: could not find node attestor type "nope"`)
			_, err = a.attestWith(attestRequest("join_token", []byte(a.token()), []byte("junk")))
			refused(a.t, err, codes.InvalidArgument, "failed to parse CSR: …")
		},
		boundary: func(a *api) {
			_, err := a.attestWith()
			refused(a.t, err, codes.InvalidArgument, "failed to receive request from stream: EOF")
			// A token ends at its second.
			made, err := a.agents().CreateJoinToken(a.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 1})
			must(a.t, err)
			time.Sleep(time.Until(time.Unix(made.ExpiresAt, 0).Add(50 * time.Millisecond)))
			_, csr := newCSR(a.t, "")
			_, err = a.attestWith(attestRequest("join_token", []byte(made.Value), csr))
			refused(a.t, err, codes.InvalidArgument, "join token expired")
		},
	},
	"RenewAgent": {
		success: func(a *api) {
			agent, old := a.attest()
			key, csr := newCSR(a.t, "")
			svid, err := renew(a, a.tcp(old), csr)
			must(a.t, err)
			expect(a.t, "ID", svid.Id.Path, agent.Path)
			next := &tls.Certificate{Certificate: svid.CertChain, PrivateKey: key}
			expect(a.t, "end", svid.ExpiresAt, leafOf(a.t, next).NotAfter.Unix())
			must(a.t, a.standing(next))
		},
		refusal: func(a *api) {
			_, cert := a.attest()
			conn := a.tcp(cert)
			_, err := agentv1.NewAgentClient(conn).RenewAgent(a.ctx, &agentv1.RenewAgentRequest{})
			refused(a.t, err, codes.InvalidArgument, "params cannot be nil")
			_, err = renew(a, conn, nil)
			refused(a.t, err, codes.InvalidArgument, "missing CSR")
			_, err = renew(a, conn, []byte("junk"))
			refused(a.t, err, codes.InvalidArgument, "failed to parse CSR: …")
			_, csr := newCSR(a.t, "")
			_, err = renew(a, a.local, csr)
			refused(a.t, err, codes.PermissionDenied, "authorization denied for method "+agentService+"RenewAgent")
		},
		boundary: func(a *api) {
			_, old := a.attest()
			key, csr := newCSR(a.t, "")
			svid, err := renew(a, a.tcp(old), csr)
			must(a.t, err)
			next := &tls.Certificate{Certificate: svid.CertChain, PrivateKey: key}
			// Both work until the new one is used for the first time.
			must(a.t, a.standing(old))
			must(a.t, a.standing(next))
			expect(a.t, "reason", reason(a.t, a.standing(old)), types.PermissionDeniedDetails_AGENT_NOT_ACTIVE)
		},
	},
	"CreateJoinToken": {
		success: func(a *api) {
			token, err := a.agents().CreateJoinToken(a.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 60, AgentId: id(fresh("node"))})
			must(a.t, err)
			expect(a.t, "length of the token", len(token.Value), 36)
		},
		refusal: func(a *api) {
			_, err := a.agents().CreateJoinToken(a.ctx, &agentv1.CreateJoinTokenRequest{})
			refused(a.t, err, codes.InvalidArgument, "ttl is required, you must provide one")
			_, err = a.agents().CreateJoinToken(a.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 1, AgentId: id("/spire/agent/x")})
			refused(a.t, err, codes.InvalidArgument,
				`invalid agent ID: "spiffe://example.org/spire/agent/x" is not a workload in trust domain "example.org"; path is in the reserved namespace`)
			_, err = agentv1.NewAgentClient(a.tcp(nil)).CreateJoinToken(a.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 1})
			refused(a.t, err, codes.PermissionDenied, "authorization denied for method "+agentService+"CreateJoinToken")
		},
		boundary: func(a *api) {
			mine := fresh("mine")[1:]
			before := time.Now().Unix()
			made, err := a.agents().CreateJoinToken(a.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 1, Token: mine})
			must(a.t, err)
			expect(a.t, "token", made.Value, mine)
			if left := made.ExpiresAt - before; left < 1 || left > 2 {
				a.t.Fatalf("a token of one second ends %d s after it was asked for", left)
			}
			_, err = a.agents().CreateJoinToken(a.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 1, Token: mine})
			refused(a.t, err, codes.Internal, "failed to create token: …")
		},
	},
	"PostStatus": {
		success: func(a *api) {
			_, cert := a.attest()
			_, err := agentv1.NewAgentClient(a.tcp(cert)).PostStatus(a.ctx, postStatus("1.2.3"))
			must(a.t, err)
		},
		refusal: func(a *api) {
			_, err := a.agents().PostStatus(a.ctx, postStatus("v"))
			refused(a.t, err, codes.PermissionDenied, "authorization denied for method "+agentService+"PostStatus")
		},
		boundary: func(a *api) {
			_, cert := a.attest()
			c := agentv1.NewAgentClient(a.tcp(cert))
			_, err := c.PostStatus(a.ctx, postStatus(strings.Repeat("v", 255)))
			must(a.t, err)
			_, err = c.PostStatus(a.ctx, postStatus(strings.Repeat("v", 256)))
			refused(a.t, err, codes.InvalidArgument, "agent version is too long (max 255 characters)")
		},
	},
}
