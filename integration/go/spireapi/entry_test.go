package spireapi

import (
	"fmt"
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
	good := entry(id("/node"), "/web")
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

func TestGetEntry(t *testing.T) {
	a := start(t)
	made := a.create(entry(id("/node"), "/web"))[0].Entry
	c := entryv1.NewEntryClient(a.local)
	got, err := c.GetEntry(a.ctx, &entryv1.GetEntryRequest{Id: made.Id, OutputMask: &types.EntryMask{}})
	must(t, err)
	if got.SpiffeId != nil || got.Id != made.Id {
		t.Fatalf("an empty mask gives the ID alone, got %v", got)
	}
	_, err = c.GetEntry(a.ctx, &entryv1.GetEntryRequest{})
	refused(t, err, codes.InvalidArgument, "missing ID")
	_, err = c.GetEntry(a.ctx, &entryv1.GetEntryRequest{Id: "nope"})
	refused(t, err, codes.NotFound, "entry not found")
}

func TestBatchUpdateEntryBumpsTheRevision(t *testing.T) {
	a := start(t)
	made := a.create(entry(id("/node"), "/web"))[0].Entry
	c := entryv1.NewEntryClient(a.local)
	answer, err := c.BatchUpdateEntry(a.ctx, &entryv1.BatchUpdateEntryRequest{
		Entries:   []*types.Entry{{Id: made.Id, X509SvidTtl: 77}, {Id: "nope"}},
		InputMask: &types.EntryMask{X509SvidTtl: true},
	})
	must(t, err)
	item(t, answer.Results[0].Status, codes.OK, "OK")
	if e := answer.Results[0].Entry; e.X509SvidTtl != 77 || e.RevisionNumber != 1 || e.SpiffeId.Path != "/web" {
		t.Fatalf("got %v", e)
	}
	item(t, answer.Results[1].Status, codes.NotFound, "failed to update entry")
	empty, err := c.BatchUpdateEntry(a.ctx, &entryv1.BatchUpdateEntryRequest{Entries: []*types.Entry{{Id: made.Id}}, InputMask: &types.EntryMask{}})
	must(t, err)
	if empty.Results[0].Entry.RevisionNumber != 2 {
		t.Fatalf("got revision %d", empty.Results[0].Entry.RevisionNumber)
	}
}

func TestBatchDeleteEntry(t *testing.T) {
	a := start(t)
	made := a.create(entry(id("/node"), "/web"))[0].Entry
	answer, err := entryv1.NewEntryClient(a.local).BatchDeleteEntry(a.ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{made.Id, made.Id, ""}})
	must(t, err)
	item(t, answer.Results[0].Status, codes.OK, "OK")
	item(t, answer.Results[1].Status, codes.NotFound, "entry not found")
	item(t, answer.Results[2].Status, codes.InvalidArgument, "missing entry ID")
}

func TestListEntriesPagesUntilAnEmptyToken(t *testing.T) {
	a := start(t)
	for i := range 5 {
		a.create(entry(id("/node"), fmt.Sprintf("/w%d", i)))
	}
	c := entryv1.NewEntryClient(a.local)
	seen, token := map[string]bool{}, ""
	for pages := 0; pages < 10; pages++ {
		page, err := c.ListEntries(a.ctx, &entryv1.ListEntriesRequest{PageSize: 2, PageToken: token})
		must(t, err)
		for _, e := range page.Entries {
			seen[e.Id] = true
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	if len(seen) != 5 {
		t.Fatalf("paged over %d entries", len(seen))
	}
	all, err := c.ListEntries(a.ctx, &entryv1.ListEntriesRequest{})
	must(t, err)
	if len(all.Entries) != 5 || all.NextPageToken != "" {
		t.Fatalf("page size 0 gave %d entries, token %q", len(all.Entries), all.NextPageToken)
	}
	_, err = c.ListEntries(a.ctx, &entryv1.ListEntriesRequest{Filter: &entryv1.ListEntriesRequest_Filter{BySelectors: &types.SelectorMatch{}}})
	refused(t, err, codes.InvalidArgument, "malformed selectors filter: empty selector set")
	one, err := c.CountEntries(a.ctx, &entryv1.CountEntriesRequest{Filter: &entryv1.CountEntriesRequest_Filter{BySpiffeId: id("/w3")}})
	must(t, err)
	if one.Count != 1 {
		t.Fatalf("counted %d", one.Count)
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
	for path, values := range map[string][]string{"/a": {"a"}, "/ab": {"a", "b"}, "/abc": {"a", "b", "c"}, "/d": {"d"}} {
		item(t, a.create(&types.Entry{ParentId: id("/node"), SpiffeId: id(path), Selectors: sel(values...)})[0].Status, codes.OK, "OK")
	}
	for match, want := range map[types.SelectorMatch_MatchBehavior]int{
		types.SelectorMatch_MATCH_EXACT: 1, types.SelectorMatch_MATCH_SUBSET: 2,
		types.SelectorMatch_MATCH_SUPERSET: 2, types.SelectorMatch_MATCH_ANY: 3,
	} {
		page, err := entryv1.NewEntryClient(a.local).ListEntries(a.ctx, &entryv1.ListEntriesRequest{
			Filter: &entryv1.ListEntriesRequest_Filter{BySelectors: &types.SelectorMatch{Selectors: sel("a", "b"), Match: match}}})
		must(t, err)
		if len(page.Entries) != want {
			t.Fatalf("%s gave %d entries, expected %d", match, len(page.Entries), want)
		}
	}
}

func TestAnAgentSeesItsEntriesAtOnceAndNoOthers(t *testing.T) {
	a := start(t)
	agent, cert := a.attest()
	mine := a.create(entry(agent, "/mine"), entry(id("/node"), "/other"))[0].Entry
	nested := a.create(entry(id("/mine"), "/nested"))[0].Entry
	c := entryv1.NewEntryClient(a.tcp(cert))
	got, err := c.GetAuthorizedEntries(a.ctx, &entryv1.GetAuthorizedEntriesRequest{})
	must(t, err)
	ids := map[string]bool{}
	for _, e := range got.Entries {
		ids[e.Id] = true
	}
	if len(ids) != 2 || !ids[mine.Id] || !ids[nested.Id] {
		t.Fatalf("got %v", ids)
	}
	_, err = c.ListEntries(a.ctx, &entryv1.ListEntriesRequest{})
	refused(t, err, codes.PermissionDenied, "authorization denied for method /spire.api.server.entry.v1.Entry/ListEntries")
}

func TestSyncAuthorizedEntriesTurnsToRevisionsAbove500(t *testing.T) {
	a := start(t)
	agent, cert := a.attest()
	var batch []*types.Entry
	for i := range 500 {
		batch = append(batch, entry(agent, fmt.Sprintf("/w%d", i)))
	}
	a.create(batch...)
	c := entryv1.NewEntryClient(a.tcp(cert))
	open := func(request *entryv1.SyncAuthorizedEntriesRequest) entryv1.Entry_SyncAuthorizedEntriesClient {
		stream, err := c.SyncAuthorizedEntries(a.ctx)
		must(t, err)
		must(t, stream.Send(request))
		return stream
	}
	first, err := open(&entryv1.SyncAuthorizedEntriesRequest{}).Recv()
	must(t, err)
	if len(first.Entries) != 500 || first.More || len(first.EntryRevisions) != 0 {
		t.Fatalf("500 entries came as %d entries, %d revisions", len(first.Entries), len(first.EntryRevisions))
	}
	a.create(entry(agent, "/w500"))
	stream := open(&entryv1.SyncAuthorizedEntriesRequest{})
	first, err = stream.Recv()
	must(t, err)
	second, err := stream.Recv()
	must(t, err)
	if len(first.EntryRevisions) != 500 || !first.More || len(second.EntryRevisions) != 1 || second.More {
		t.Fatalf("revisions came as %d, %d", len(first.EntryRevisions), len(second.EntryRevisions))
	}
	must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: []string{second.EntryRevisions[0].Id, "unknown"}}))
	answer, err := stream.Recv()
	must(t, err)
	if len(answer.Entries) != 1 || answer.More {
		t.Fatalf("got %d entries", len(answer.Entries))
	}
	_, err = open(&entryv1.SyncAuthorizedEntriesRequest{OutputMask: &types.EntryMask{SpiffeId: true}}).Recv()
	refused(t, err, codes.InvalidArgument, "revision number cannot be masked")
	_, err = open(&entryv1.SyncAuthorizedEntriesRequest{Ids: []string{"x"}}).Recv()
	refused(t, err, codes.InvalidArgument, "specifying IDs on initial request is not supported")
}
