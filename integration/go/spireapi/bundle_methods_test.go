package spireapi

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"time"

	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
)

const bundleService = "/spire.api.server.bundle.v1.Bundle/"

func (a *api) bundles() bundlev1.BundleClient { return bundlev1.NewBundleClient(a.local) }

func (a *api) ownBundle() *types.Bundle {
	a.t.Helper()
	bundle, err := a.bundles().GetBundle(a.ctx, &bundlev1.GetBundleRequest{})
	must(a.t, err)
	return bundle
}

// federate sets empty bundles of these trust domains.
func (a *api) federate(domains ...string) {
	a.t.Helper()
	var list []*types.Bundle
	for _, domain := range domains {
		list = append(list, &types.Bundle{TrustDomain: domain, RefreshHint: 60})
	}
	answer, err := a.bundles().BatchSetFederatedBundle(a.ctx, &bundlev1.BatchSetFederatedBundleRequest{Bundle: list})
	must(a.t, err)
	for _, result := range answer.Results {
		item(a.t, result.Status, codes.OK, "OK")
	}
}

func (a *api) federated(domain string) (*types.Bundle, error) {
	return a.bundles().GetFederatedBundle(a.ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: domain})
}

func (a *api) deleteFederated(mode bundlev1.BatchDeleteFederatedBundleRequest_Mode, domains ...string) []*bundlev1.BatchDeleteFederatedBundleResponse_Result {
	a.t.Helper()
	answer, err := a.bundles().BatchDeleteFederatedBundle(a.ctx, &bundlev1.BatchDeleteFederatedBundleRequest{TrustDomains: domains, Mode: mode})
	must(a.t, err)
	return answer.Results
}

// foreignRoot makes a self-signed authority.
func (a *api) foreignRoot() []byte {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(a.t, err)
	return der
}

func domain(begin string) string { return fresh(begin)[1:] + ".org" }

func ownDomain(verb string) string {
	return verb + " a federated bundle for the server's own trust domain is not allowed"
}

const badDomain = "trust domain argument is not valid: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores"

// big is unknown content that makes a message larger than any limit.
func big5MiB() []byte {
	raw := protowire.AppendTag(nil, 9999, protowire.BytesType)
	return protowire.AppendBytes(raw, make([]byte, 5<<20))
}

var bundleProofs = map[string]proof{
	"CountBundles": {
		success: func(a *api) {
			before, err := a.bundles().CountBundles(a.ctx, &bundlev1.CountBundlesRequest{})
			must(a.t, err)
			a.federate(domain("count"))
			after, err := a.bundles().CountBundles(a.ctx, &bundlev1.CountBundlesRequest{})
			must(a.t, err)
			expect(a.t, "bundles", after.Count, before.Count+1)
		},
		refusal: denied(func(a *api, conn *grpc.ClientConn) error {
			_, err := bundlev1.NewBundleClient(conn).CountBundles(a.ctx, &bundlev1.CountBundlesRequest{})
			return err
		}, bundleService+"CountBundles"),
		boundary: func(a *api) {
			list, err := a.bundles().ListFederatedBundles(a.ctx, &bundlev1.ListFederatedBundlesRequest{})
			must(a.t, err)
			count, err := a.bundles().CountBundles(a.ctx, &bundlev1.CountBundlesRequest{})
			must(a.t, err)
			expect(a.t, "bundles with our own", int(count.Count), len(list.Bundles)+1)
		},
	},
	"GetBundle": {
		success: func(a *api) {
			bundle, err := bundlev1.NewBundleClient(a.tcp(nil)).GetBundle(a.ctx, &bundlev1.GetBundleRequest{})
			must(a.t, err)
			expect(a.t, "trust domain", bundle.TrustDomain, "example.org")
			if len(bundle.JwtAuthorities) == 0 {
				a.t.Fatal("no JWT authority")
			}
			_, err = x509.ParseCertificate(bundle.X509Authorities[0].Asn1)
			must(a.t, err)
		},
		refusal: func(a *api) {
			request := &bundlev1.GetBundleRequest{}
			request.ProtoReflect().SetUnknown(big5MiB())
			_, err := a.bundles().GetBundle(a.ctx, request)
			refused(a.t, err, codes.ResourceExhausted, "grpc: received message larger than max (…")
		},
		boundary: func(a *api) {
			bundle, err := a.bundles().GetBundle(a.ctx, &bundlev1.GetBundleRequest{OutputMask: &types.BundleMask{}})
			must(a.t, err)
			expect(a.t, "trust domain", bundle.TrustDomain, "example.org")
			expect(a.t, "authorities", len(bundle.X509Authorities)+len(bundle.JwtAuthorities), 0)
			bundle, err = a.bundles().GetBundle(a.ctx, &bundlev1.GetBundleRequest{OutputMask: &types.BundleMask{JwtAuthorities: true}})
			must(a.t, err)
			expect(a.t, "X.509 authorities", len(bundle.X509Authorities), 0)
			if len(bundle.JwtAuthorities) == 0 {
				a.t.Fatal("no JWT authority behind a mask that asks for them")
			}
		},
	},
	"AppendBundle": {
		success: func(a *api) {
			before, root := a.ownBundle(), a.foreignRoot()
			after, err := a.bundles().AppendBundle(a.ctx, &bundlev1.AppendBundleRequest{X509Authorities: []*types.X509Certificate{{Asn1: root, Tainted: true}}})
			must(a.t, err)
			expect(a.t, "sequence", after.SequenceNumber, before.SequenceNumber+1)
			expect(a.t, "authorities", len(after.X509Authorities), len(before.X509Authorities)+1)
			expect(a.t, "a taint from outside", after.X509Authorities[len(after.X509Authorities)-1].Tainted, false)
		},
		refusal: func(a *api) {
			for _, bad := range []struct {
				request *bundlev1.AppendBundleRequest
				text    string
			}{
				{&bundlev1.AppendBundleRequest{}, "no authorities to append"},
				{&bundlev1.AppendBundleRequest{X509Authorities: []*types.X509Certificate{{Asn1: []byte("junk")}}}, "failed to convert X.509 authority: …"},
				{&bundlev1.AppendBundleRequest{JwtAuthorities: []*types.JWTKey{{KeyId: "k", PublicKey: []byte("junk")}}}, "failed to convert JWT authority: …"},
				{&bundlev1.AppendBundleRequest{JwtAuthorities: []*types.JWTKey{{PublicKey: a.ownBundle().JwtAuthorities[0].PublicKey}}}, "failed to convert JWT authority: missing key ID"},
			} {
				_, err := a.bundles().AppendBundle(a.ctx, bad.request)
				refused(a.t, err, codes.InvalidArgument, bad.text)
			}
		},
		boundary: func(a *api) {
			before := a.ownBundle()
			after, err := a.bundles().AppendBundle(a.ctx, &bundlev1.AppendBundleRequest{X509Authorities: before.X509Authorities, JwtAuthorities: before.JwtAuthorities})
			must(a.t, err)
			expect(a.t, "sequence after nothing new", after.SequenceNumber, before.SequenceNumber)
			two := append(a.foreignRoot(), a.foreignRoot()...)
			after, err = a.bundles().AppendBundle(a.ctx, &bundlev1.AppendBundleRequest{X509Authorities: []*types.X509Certificate{{Asn1: two}}, OutputMask: &types.BundleMask{X509Authorities: true}})
			must(a.t, err)
			expect(a.t, "authorities after two in one item", len(after.X509Authorities), len(before.X509Authorities)+2)
			expect(a.t, "sequence behind the mask", after.SequenceNumber, 0)
		},
	},
	"PublishJWTAuthority": unbuilt("downstream authorities are not supported yet", func(a *api, conn *grpc.ClientConn) error {
		_, err := bundlev1.NewBundleClient(conn).PublishJWTAuthority(a.ctx, &bundlev1.PublishJWTAuthorityRequest{})
		return err
	}, (*api).downstreamOrLocal, bundleService+"PublishJWTAuthority"),
	"PublishWITAuthority": unbuilt("WIT-SVID functionality is not yet implemented", func(a *api, conn *grpc.ClientConn) error {
		_, err := bundlev1.NewBundleClient(conn).PublishWITAuthority(a.ctx, &bundlev1.PublishWITAuthorityRequest{})
		return err
	}, (*api).downstreamOrLocal, bundleService+"PublishWITAuthority"),
	"ListFederatedBundles": {
		success: func(a *api) {
			name := domain("listed")
			a.federate(name)
			list, err := a.bundles().ListFederatedBundles(a.ctx, &bundlev1.ListFederatedBundlesRequest{})
			must(a.t, err)
			found := false
			for _, bundle := range list.Bundles {
				expect(a.t, "our own in the list", bundle.TrustDomain == "example.org", false)
				found = found || bundle.TrustDomain == name
			}
			expect(a.t, "the bundle in the list", found, true)
		},
		refusal: denied(func(a *api, conn *grpc.ClientConn) error {
			_, err := bundlev1.NewBundleClient(conn).ListFederatedBundles(a.ctx, &bundlev1.ListFederatedBundlesRequest{})
			return err
		}, bundleService+"ListFederatedBundles"),
		boundary: func(a *api) {
			a.federate(domain("page"), domain("page"), domain("zpage"))
			all, err := a.bundles().ListFederatedBundles(a.ctx, &bundlev1.ListFederatedBundlesRequest{})
			must(a.t, err)
			expect(a.t, "token without a page size", all.NextPageToken, "")
			seen, token := map[string]bool{}, ""
			for pages := 0; pages < 50; pages++ {
				page, err := a.bundles().ListFederatedBundles(a.ctx, &bundlev1.ListFederatedBundlesRequest{PageSize: 1, PageToken: token, OutputMask: &types.BundleMask{}})
				must(a.t, err)
				for _, bundle := range page.Bundles {
					expect(a.t, "refresh hint behind an empty mask", bundle.RefreshHint, 0)
					seen[bundle.TrustDomain] = true
				}
				if token = page.NextPageToken; token == "" {
					break
				}
			}
			expect(a.t, "bundles on pages of one", len(seen), len(all.Bundles))
		},
	},
	"GetFederatedBundle": {
		success: func(a *api) {
			name := domain("get")
			a.federate(name)
			got, err := a.federated("spiffe://" + name)
			must(a.t, err)
			expect(a.t, "trust domain", got.TrustDomain, name)
			_, cert := a.attest()
			_, err = bundlev1.NewBundleClient(a.tcp(cert)).GetFederatedBundle(a.ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: name})
			must(a.t, err)
		},
		refusal: func(a *api) {
			_, err := a.federated("nope.org")
			refused(a.t, err, codes.NotFound, "bundle not found")
			_, err = a.federated("Bad")
			refused(a.t, err, codes.InvalidArgument, badDomain)
			_, err = a.federated("example.org")
			refused(a.t, err, codes.InvalidArgument, ownDomain("getting"))
		},
		boundary: func(a *api) {
			name := domain("get")
			a.federate(name)
			got, err := a.bundles().GetFederatedBundle(a.ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: name, OutputMask: &types.BundleMask{}})
			must(a.t, err)
			expect(a.t, "trust domain", got.TrustDomain, name)
			expect(a.t, "refresh hint behind an empty mask", got.RefreshHint, 0)
		},
	},
	"BatchCreateFederatedBundle": {
		success: func(a *api) {
			name := domain("made")
			root := a.foreignRoot()
			item(a.t, a.createFederated(&types.Bundle{TrustDomain: name, X509Authorities: []*types.X509Certificate{{Asn1: root}}})[0].Status, codes.OK, "OK")
			got, err := a.federated(name)
			must(a.t, err)
			expect(a.t, "authority", string(got.X509Authorities[0].Asn1), string(root))
		},
		refusal: func(a *api) {
			name := domain("made")
			results := a.createFederated(&types.Bundle{TrustDomain: name}, &types.Bundle{TrustDomain: name}, &types.Bundle{TrustDomain: "example.org"},
				&types.Bundle{TrustDomain: "Bad"}, &types.Bundle{TrustDomain: domain("made"), X509Authorities: []*types.X509Certificate{{Asn1: []byte("junk")}}})
			item(a.t, results[0].Status, codes.OK, "OK")
			item(a.t, results[1].Status, codes.AlreadyExists, "bundle already exists")
			item(a.t, results[2].Status, codes.InvalidArgument, ownDomain("creating"))
			item(a.t, results[3].Status, codes.InvalidArgument, badDomain)
			item(a.t, results[4].Status, codes.InvalidArgument, "failed to convert bundle: unable to parse X.509 authority: …")
		},
		boundary: func(a *api) {
			expect(a.t, "results of an empty batch", len(a.createFederated()), 0)
			answer, err := a.bundles().BatchCreateFederatedBundle(a.ctx, &bundlev1.BatchCreateFederatedBundleRequest{
				Bundle: []*types.Bundle{{TrustDomain: domain("made"), RefreshHint: 60}}, OutputMask: &types.BundleMask{}})
			must(a.t, err)
			expect(a.t, "refresh hint behind an empty mask", answer.Results[0].Bundle.RefreshHint, 0)
		},
	},
	"BatchUpdateFederatedBundle": {
		success: func(a *api) {
			name := domain("changed")
			a.federate(name)
			result := a.updateFederated(&types.BundleMask{SequenceNumber: true}, &types.Bundle{TrustDomain: name, SequenceNumber: 9, RefreshHint: 1})[0]
			item(a.t, result.Status, codes.OK, "OK")
			expect(a.t, "sequence", result.Bundle.SequenceNumber, 9)
			expect(a.t, "refresh hint outside the mask", result.Bundle.RefreshHint, 60)
		},
		refusal: func(a *api) {
			results := a.updateFederated(nil, &types.Bundle{TrustDomain: "nope.org"}, &types.Bundle{TrustDomain: "example.org"}, &types.Bundle{TrustDomain: "Bad"})
			item(a.t, results[0].Status, codes.NotFound, "bundle not found")
			item(a.t, results[1].Status, codes.InvalidArgument, ownDomain("updating"))
			item(a.t, results[2].Status, codes.InvalidArgument, badDomain)
		},
		boundary: func(a *api) {
			name := domain("changed")
			a.federate(name)
			result := a.updateFederated(&types.BundleMask{}, &types.Bundle{TrustDomain: name, SequenceNumber: 9, RefreshHint: 1})[0]
			item(a.t, result.Status, codes.OK, "OK")
			expect(a.t, "refresh hint after an update of nothing", result.Bundle.RefreshHint, 60)
			result = a.updateFederated(nil, &types.Bundle{TrustDomain: name})[0]
			expect(a.t, "refresh hint after an update of everything", result.Bundle.RefreshHint, 0)
		},
	},
	"BatchSetFederatedBundle": {
		success: func(a *api) {
			name := domain("set")
			a.federate(name)
			answer, err := a.bundles().BatchSetFederatedBundle(a.ctx, &bundlev1.BatchSetFederatedBundleRequest{Bundle: []*types.Bundle{{TrustDomain: name, SequenceNumber: 3}}})
			must(a.t, err)
			item(a.t, answer.Results[0].Status, codes.OK, "OK")
			got, err := a.federated(name)
			must(a.t, err)
			expect(a.t, "sequence", got.SequenceNumber, 3)
			expect(a.t, "refresh hint that was there", got.RefreshHint, 0)
		},
		refusal: func(a *api) {
			answer, err := a.bundles().BatchSetFederatedBundle(a.ctx, &bundlev1.BatchSetFederatedBundleRequest{
				Bundle: []*types.Bundle{{TrustDomain: "example.org"}, {TrustDomain: ""}}})
			must(a.t, err)
			item(a.t, answer.Results[0].Status, codes.InvalidArgument, ownDomain("setting"))
			item(a.t, answer.Results[1].Status, codes.InvalidArgument, "trust domain argument is not valid: trust domain is missing")
		},
		boundary: func(a *api) {
			name := domain("set")
			answer, err := a.bundles().BatchSetFederatedBundle(a.ctx, &bundlev1.BatchSetFederatedBundleRequest{
				Bundle: []*types.Bundle{{TrustDomain: name, RefreshHint: 1}, {TrustDomain: name, RefreshHint: 2}}, OutputMask: &types.BundleMask{}})
			must(a.t, err)
			expect(a.t, "refresh hint behind an empty mask", answer.Results[1].Bundle.RefreshHint, 0)
			got, err := a.federated(name)
			must(a.t, err)
			expect(a.t, "refresh hint of the later of two", got.RefreshHint, 2)
		},
	},
	"BatchDeleteFederatedBundle": {
		success: func(a *api) {
			name := domain("gone")
			a.federate(name)
			result := a.deleteFederated(bundlev1.BatchDeleteFederatedBundleRequest_RESTRICT, name)[0]
			item(a.t, result.Status, codes.OK, "OK")
			expect(a.t, "trust domain", result.TrustDomain, name)
			_, err := a.federated(name)
			refused(a.t, err, codes.NotFound, "bundle not found")
		},
		refusal: func(a *api) {
			results := a.deleteFederated(bundlev1.BatchDeleteFederatedBundleRequest_RESTRICT, "nope.org", "example.org", "Bad")
			item(a.t, results[0].Status, codes.NotFound, "bundle not found")
			item(a.t, results[1].Status, codes.InvalidArgument, "removing the bundle for the server trust domain is not allowed")
			item(a.t, results[2].Status, codes.InvalidArgument, badDomain)
			_, err := a.bundles().BatchDeleteFederatedBundle(a.ctx, &bundlev1.BatchDeleteFederatedBundleRequest{Mode: 9})
			refused(a.t, err, codes.InvalidArgument, `failed to parse deletion mode: unhandled delete mode "9"`)
		},
		boundary: func(a *api) {
			for mode, left := range map[bundlev1.BatchDeleteFederatedBundleRequest_Mode]int32{
				bundlev1.BatchDeleteFederatedBundleRequest_DELETE: 0, bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE: 1} {
				name := domain("used")
				a.federate(name)
				holder := entry(id("/node"), fresh("holder"))
				holder.FederatesWith = []string{name}
				made := a.made(holder)
				item(a.t, a.deleteFederated(bundlev1.BatchDeleteFederatedBundleRequest_RESTRICT, name)[0].Status, codes.FailedPrecondition,
					"failed to delete federated bundle: datastore-sql: cannot delete bundle; federated with 1 registration entries")
				item(a.t, a.deleteFederated(mode, name)[0].Status, codes.OK, "OK")
				expect(a.t, "entries left after "+mode.String(), a.countEntriesOf(made.SpiffeId), left)
			}
		},
	},
}

func (a *api) createFederated(bundles ...*types.Bundle) []*bundlev1.BatchCreateFederatedBundleResponse_Result {
	a.t.Helper()
	answer, err := a.bundles().BatchCreateFederatedBundle(a.ctx, &bundlev1.BatchCreateFederatedBundleRequest{Bundle: bundles})
	must(a.t, err)
	return answer.Results
}

func (a *api) updateFederated(mask *types.BundleMask, bundles ...*types.Bundle) []*bundlev1.BatchUpdateFederatedBundleResponse_Result {
	a.t.Helper()
	answer, err := a.bundles().BatchUpdateFederatedBundle(a.ctx, &bundlev1.BatchUpdateFederatedBundleRequest{Bundle: bundles, InputMask: mask})
	must(a.t, err)
	return answer.Results
}
