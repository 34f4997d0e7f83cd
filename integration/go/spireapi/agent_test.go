package spireapi

import (
	"testing"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
)

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

// postStatus builds the request by field number: these stubs are older than agent_version.
func postStatus(version string) *agentv1.PostStatusRequest {
	request := &agentv1.PostStatusRequest{}
	raw := protowire.AppendTag(nil, 2, protowire.BytesType)
	request.ProtoReflect().SetUnknown(protowire.AppendString(raw, version))
	return request
}
