package spireapi

import (
	"testing"

	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
)

func entry(parent *types.SPIFFEID, path string) *types.Entry {
	return &types.Entry{ParentId: parent, SpiffeId: id(path), Selectors: []*types.Selector{{Type: "unix", Value: "uid:1" + path[1:]}}}
}

func (a *api) create(entries ...*types.Entry) []*entryv1.BatchCreateEntryResponse_Result {
	a.t.Helper()
	answer, err := entryv1.NewEntryClient(a.local).BatchCreateEntry(a.ctx, &entryv1.BatchCreateEntryRequest{Entries: entries})
	must(a.t, err)
	return answer.Results
}

func TestBatchCreateEntryAnswersPerItem(t *testing.T) {
	a := start(t)
	good := entry(id(fresh("node")), "/web")
	noSelectors := entry(id("/node"), "/web2")
	noSelectors.Selectors = nil
	reserved := entry(id("/node"), "/spire/agent/x")
	longHint := entry(id("/node"), "/web3")
	longHint.Hint = string(make([]byte, 1025))
	badDNS := entry(id("/node"), "/web4")
	badDNS.DnsNames = []string{"no space"}
	federated := entry(id("/node"), "/web5")
	federated.FederatesWith = []string{"other.org"}
	results := a.create(good, good, &types.Entry{}, noSelectors, reserved, longHint, badDNS, federated)
	item(t, results[0].Status, codes.OK, "OK")
	item(t, results[1].Status, codes.AlreadyExists, "similar entry already exists")
	if results[1].Entry.GetId() != results[0].Entry.Id {
		t.Fatal("the similar entry is not in the answer")
	}
	item(t, results[2].Status, codes.InvalidArgument, "failed to convert entry: invalid parent ID: request must specify SPIFFE ID")
	item(t, results[3].Status, codes.InvalidArgument, "failed to convert entry: selector list is empty")
	item(t, results[4].Status, codes.InvalidArgument, "failed to convert entry: invalid spiffe ID: …")
	item(t, results[5].Status, codes.InvalidArgument, "failed to convert entry: hint is too long, max length is 1024 characters")
	item(t, results[6].Status, codes.InvalidArgument, "failed to convert entry: invalid DNS name: …")
	item(t, results[7].Status, codes.Internal, "…")
	if len(a.create()) != 0 {
		t.Fatal("an empty batch has an empty answer")
	}
}

func TestListEntriesMatchesSelectorsInFourWays(t *testing.T) {
	a := start(t)
	sel := func(values ...string) (list []*types.Selector) {
		for _, v := range values {
			list = append(list, &types.Selector{Type: "unix", Value: v})
		}
		return list
	}
	parent := id(fresh("node"))
	for path, values := range map[string][]string{"/a": {"a"}, "/ab": {"a", "b"}, "/abc": {"a", "b", "c"}, "/d": {"d"}} {
		item(t, a.create(&types.Entry{ParentId: parent, SpiffeId: id(path), Selectors: sel(values...)})[0].Status, codes.OK, "OK")
	}
	for match, want := range map[types.SelectorMatch_MatchBehavior]int{
		types.SelectorMatch_MATCH_EXACT: 1, types.SelectorMatch_MATCH_SUBSET: 2,
		types.SelectorMatch_MATCH_SUPERSET: 2, types.SelectorMatch_MATCH_ANY: 3,
	} {
		page, err := entryv1.NewEntryClient(a.local).ListEntries(a.ctx, &entryv1.ListEntriesRequest{
			Filter: &entryv1.ListEntriesRequest_Filter{ByParentId: parent, BySelectors: &types.SelectorMatch{Selectors: sel("a", "b"), Match: match}}})
		must(t, err)
		if len(page.Entries) != want {
			t.Fatalf("%s gave %d entries, expected %d", match, len(page.Entries), want)
		}
	}
}
