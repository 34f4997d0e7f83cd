package spireapi

import (
	"fmt"
	"strings"
	"time"

	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const entryService = "/spire.api.server.entry.v1.Entry/"

func (a *api) entries() entryv1.EntryClient { return entryv1.NewEntryClient(a.local) }

// made creates one entry that must succeed.
func (a *api) made(e *types.Entry) *types.Entry {
	a.t.Helper()
	result := a.create(e)[0]
	item(a.t, result.Status, codes.OK, "OK")
	return result.Entry
}

func (a *api) countEntries(filter *entryv1.CountEntriesRequest_Filter) int32 {
	a.t.Helper()
	answer, err := a.entries().CountEntries(a.ctx, &entryv1.CountEntriesRequest{Filter: filter})
	must(a.t, err)
	return answer.Count
}

func (a *api) listEntries(request *entryv1.ListEntriesRequest) *entryv1.ListEntriesResponse {
	a.t.Helper()
	page, err := a.entries().ListEntries(a.ctx, request)
	must(a.t, err)
	return page
}

func (a *api) update(mask *types.EntryMask, entries ...*types.Entry) []*entryv1.BatchUpdateEntryResponse_Result {
	a.t.Helper()
	answer, err := a.entries().BatchUpdateEntry(a.ctx, &entryv1.BatchUpdateEntryRequest{Entries: entries, InputMask: mask})
	must(a.t, err)
	return answer.Results
}

func (a *api) authorized(conn *grpc.ClientConn, mask *types.EntryMask) []*types.Entry {
	a.t.Helper()
	answer, err := entryv1.NewEntryClient(conn).GetAuthorizedEntries(a.ctx, &entryv1.GetAuthorizedEntriesRequest{OutputMask: mask})
	must(a.t, err)
	return answer.Entries
}

func (a *api) sync(conn *grpc.ClientConn, request *entryv1.SyncAuthorizedEntriesRequest) entryv1.Entry_SyncAuthorizedEntriesClient {
	a.t.Helper()
	stream, err := entryv1.NewEntryClient(conn).SyncAuthorizedEntries(a.ctx)
	must(a.t, err)
	must(a.t, stream.Send(request))
	return stream
}

func batch(parent *types.SPIFFEID, count int) (list []*types.Entry) {
	begin := fresh("many")
	for i := range count {
		list = append(list, entry(parent, fmt.Sprintf("%s-%d", begin, i)))
	}
	return list
}

var entryFilterRefusals = []struct {
	filter *entryv1.ListEntriesRequest_Filter
	text   string
}{
	{&entryv1.ListEntriesRequest_Filter{ByParentId: &types.SPIFFEID{TrustDomain: "other.org", Path: "/x"}},
		`malformed parent ID filter: "spiffe://other.org/x" is not a member of trust domain "example.org"`},
	{&entryv1.ListEntriesRequest_Filter{BySpiffeId: id("/spire/server")},
		`malformed SPIFFE ID filter: "spiffe://example.org/spire/server" is not a workload in trust domain "example.org"; path is in the reserved namespace`},
	{&entryv1.ListEntriesRequest_Filter{BySelectors: &types.SelectorMatch{}}, "malformed selectors filter: empty selector set"},
	{&entryv1.ListEntriesRequest_Filter{BySelectors: &types.SelectorMatch{Selectors: []*types.Selector{{Type: "a:b", Value: "v"}}}},
		"malformed selectors filter: selector type contains ':'"},
	{&entryv1.ListEntriesRequest_Filter{ByFederatesWith: &types.FederatesWithMatch{}}, "malformed federates with filter: empty trust domain set"},
}

var entryProofs = map[string]proof{
	"CountEntries": {
		success: func(a *api) {
			before := a.countEntries(nil)
			a.made(entry(id("/node"), fresh("count")))
			expect(a.t, "entries", a.countEntries(nil), before+1)
		},
		refusal: func(a *api) {
			for _, bad := range entryFilterRefusals {
				f := bad.filter
				_, err := a.entries().CountEntries(a.ctx, &entryv1.CountEntriesRequest{Filter: &entryv1.CountEntriesRequest_Filter{
					ByParentId: f.ByParentId, BySpiffeId: f.BySpiffeId, BySelectors: f.BySelectors, ByFederatesWith: f.ByFederatesWith}})
				refused(a.t, err, codes.InvalidArgument, bad.text)
			}
		},
		boundary: func(a *api) {
			before := a.countEntries(nil)
			e := entry(id("/node"), fresh("count"))
			e.Hint, e.Downstream = "hint of "+e.SpiffeId.Path, true
			a.made(e)
			expect(a.t, "entries of an empty hint", a.countEntries(&entryv1.CountEntriesRequest_Filter{ByHint: wrapperspb.String("")}), before+1)
			expect(a.t, "entries of this hint", a.countEntries(&entryv1.CountEntriesRequest_Filter{ByHint: wrapperspb.String(e.Hint)}), 1)
			down := a.countEntries(&entryv1.CountEntriesRequest_Filter{ByDownstream: wrapperspb.Bool(true)})
			all := a.countEntries(&entryv1.CountEntriesRequest_Filter{ByDownstream: wrapperspb.Bool(false)})
			expect(a.t, "entries if false filters nothing", all, before+1)
			expect(a.t, "some entries are of downstream servers, not all", down >= 1 && down < all, true)
		},
	},
	"ListEntries": {
		success: func(a *api) {
			made := a.made(entry(id("/node"), fresh("list")))
			list := a.listEntries(&entryv1.ListEntriesRequest{Filter: &entryv1.ListEntriesRequest_Filter{BySpiffeId: made.SpiffeId, ByParentId: id("/node")}})
			expect(a.t, "entries", len(list.Entries), 1)
			expect(a.t, "ID", list.Entries[0].Id, made.Id)
		},
		refusal: func(a *api) {
			for _, bad := range entryFilterRefusals {
				_, err := a.entries().ListEntries(a.ctx, &entryv1.ListEntriesRequest{Filter: bad.filter})
				refused(a.t, err, codes.InvalidArgument, bad.text)
			}
			_, err := entryv1.NewEntryClient(a.tcp(nil)).ListEntries(a.ctx, &entryv1.ListEntriesRequest{})
			refused(a.t, err, codes.PermissionDenied, "authorization denied for method "+entryService+"ListEntries")
		},
		boundary: all(pagesOfEntries, matchesOfFederation),
	},
	"GetEntry": {
		success: func(a *api) {
			want := entry(id("/node"), fresh("get"))
			want.DnsNames, want.X509SvidTtl, want.Hint, want.ExpiresAt = []string{"a.example.org"}, 60, "h", time.Now().Unix()+600
			made := a.made(want)
			got, err := a.entries().GetEntry(a.ctx, &entryv1.GetEntryRequest{Id: made.Id})
			must(a.t, err)
			expect(a.t, "DNS name", got.DnsNames[0], "a.example.org")
			expect(a.t, "time to live", got.X509SvidTtl, 60)
			expect(a.t, "hint", got.Hint, "h")
			expect(a.t, "end", got.ExpiresAt, want.ExpiresAt)
			expect(a.t, "revision", got.RevisionNumber, 0)
		},
		refusal: func(a *api) {
			_, err := a.entries().GetEntry(a.ctx, &entryv1.GetEntryRequest{})
			refused(a.t, err, codes.InvalidArgument, "missing ID")
			for _, unknown := range []string{"nope", "no id at all"} {
				_, err = a.entries().GetEntry(a.ctx, &entryv1.GetEntryRequest{Id: unknown})
				refused(a.t, err, codes.NotFound, "entry not found")
			}
		},
		boundary: func(a *api) {
			made := a.made(entry(id("/node"), fresh("get")))
			got, err := a.entries().GetEntry(a.ctx, &entryv1.GetEntryRequest{Id: made.Id, OutputMask: &types.EntryMask{}})
			must(a.t, err)
			if got.Id != made.Id || got.SpiffeId != nil || got.ParentId != nil || len(got.Selectors) != 0 || got.CreatedAt != 0 {
				a.t.Fatalf("an empty mask gives the ID alone, got %v", got)
			}
			got, err = a.entries().GetEntry(a.ctx, &entryv1.GetEntryRequest{Id: made.Id, OutputMask: &types.EntryMask{Selectors: true}})
			must(a.t, err)
			expect(a.t, "selectors", len(got.Selectors), 1)
			expect(a.t, "SPIFFE ID", got.SpiffeId, nil)
		},
	},
	"BatchCreateEntry": {
		success: func(a *api) {
			made := a.made(entry(id("/node"), fresh("new")))
			if made.Id == "" || made.CreatedAt == 0 || made.RevisionNumber != 0 {
				a.t.Fatalf("got %v", made)
			}
		},
		refusal: func(a *api) {
			first := entry(id("/node"), fresh("new"))
			first.Selectors = append(first.Selectors, &types.Selector{Type: "unix", Value: "gid:1"})
			made := a.made(first)
			similar := entry(first.ParentId, first.SpiffeId.Path)
			similar.Selectors = []*types.Selector{first.Selectors[1], first.Selectors[0]}
			similar.X509SvidTtl = 77
			result := a.create(similar)[0]
			item(a.t, result.Status, codes.AlreadyExists, "similar entry already exists")
			expect(a.t, "ID of the similar entry", result.Entry.GetId(), made.Id)
			expect(a.t, "its time to live", result.Entry.GetX509SvidTtl(), 0)
			taken := entry(id("/node"), fresh("new"))
			taken.Id = made.Id
			result = a.create(taken)[0]
			item(a.t, result.Status, codes.AlreadyExists, "failed to create entry: …")
			expect(a.t, "entry beside a taken ID", result.Entry, nil)
			negative := entry(id("/node"), fresh("new"))
			negative.X509SvidTtl = -1
			item(a.t, a.create(negative)[0].Status, codes.InvalidArgument,
				"failed to create entry: datastore-validation: invalid registration entry: X509SvidTtl is not set")
		},
		boundary: func(a *api) {
			at := func(change func(*types.Entry)) *types.Status {
				e := entry(id("/node"), fresh("edge"))
				change(e)
				return a.create(e)[0].Status
			}
			item(a.t, at(func(e *types.Entry) { e.Hint = strings.Repeat("h", 1024) }), codes.OK, "OK")
			item(a.t, at(func(e *types.Entry) { e.Hint = strings.Repeat("h", 1025) }), codes.InvalidArgument,
				"failed to convert entry: hint is too long, max length is 1024 characters")
			long := strings.Repeat("i", 240) + time.Now().Format("150405.00000000")
			item(a.t, at(func(e *types.Entry) { e.Id = long }), codes.OK, "OK")
			item(a.t, at(func(e *types.Entry) { e.Id = long + "x" }), codes.InvalidArgument,
				"failed to create entry: datastore-validation: invalid registration entry: entry ID too long")
			item(a.t, at(func(e *types.Entry) { e.Id = "a b" }), codes.InvalidArgument,
				"failed to create entry: datastore-validation: invalid registration entry: entry ID contains invalid characters")
			expect(a.t, "results of an empty batch", len(a.create()), 0)
			masked, err := a.entries().BatchCreateEntry(a.ctx, &entryv1.BatchCreateEntryRequest{
				Entries: []*types.Entry{entry(id("/node"), fresh("edge"))}, OutputMask: &types.EntryMask{}})
			must(a.t, err)
			expect(a.t, "SPIFFE ID behind an empty mask", masked.Results[0].Entry.SpiffeId, nil)
		},
	},
	"BatchUpdateEntry": {
		success: func(a *api) {
			made := a.made(entry(id("/node"), fresh("change")))
			result := a.update(&types.EntryMask{X509SvidTtl: true}, &types.Entry{Id: made.Id, X509SvidTtl: 77, Hint: "masked out"})[0]
			item(a.t, result.Status, codes.OK, "OK")
			expect(a.t, "time to live", result.Entry.X509SvidTtl, 77)
			expect(a.t, "hint", result.Entry.Hint, "")
			expect(a.t, "revision", result.Entry.RevisionNumber, 1)
			expect(a.t, "SPIFFE ID", result.Entry.SpiffeId.Path, made.SpiffeId.Path)
		},
		refusal: func(a *api) {
			made := a.made(entry(id("/node"), fresh("change")))
			results := a.update(nil, &types.Entry{Id: made.Id},
				&types.Entry{Id: "nope", SpiffeId: made.SpiffeId, ParentId: made.ParentId, Selectors: made.Selectors})
			item(a.t, results[0].Status, codes.InvalidArgument, "failed to convert entry: invalid parent ID: request must specify SPIFFE ID")
			item(a.t, results[1].Status, codes.NotFound, "failed to update entry")
			expect(a.t, "entries beside a refusal", results[0].Entry, nil)
			expect(a.t, "entries beside a refusal", results[1].Entry, nil)
		},
		boundary: func(a *api) {
			made := a.made(entry(id("/node"), fresh("change")))
			for revision := range int64(2) {
				result := a.update(&types.EntryMask{}, &types.Entry{Id: made.Id})[0]
				item(a.t, result.Status, codes.OK, "OK")
				expect(a.t, "revision after an update of nothing", result.Entry.RevisionNumber, revision+1)
			}
			both := a.update(&types.EntryMask{Hint: true, RevisionNumber: true, CreatedAt: true}, &types.Entry{Id: made.Id, Hint: "h", RevisionNumber: 99, CreatedAt: 1})
			expect(a.t, "revision that was sent", both[0].Entry.RevisionNumber, 3)
			expect(a.t, "time that was sent", both[0].Entry.CreatedAt, made.CreatedAt)
		},
	},
	"BatchDeleteEntry": {
		success: func(a *api) {
			made := a.made(entry(id("/node"), fresh("gone")))
			answer, err := a.entries().BatchDeleteEntry(a.ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{made.Id}})
			must(a.t, err)
			item(a.t, answer.Results[0].Status, codes.OK, "OK")
			expect(a.t, "ID", answer.Results[0].Id, made.Id)
		},
		refusal: func(a *api) {
			answer, err := a.entries().BatchDeleteEntry(a.ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{"nope", ""}})
			must(a.t, err)
			item(a.t, answer.Results[0].Status, codes.NotFound, "entry not found")
			expect(a.t, "ID", answer.Results[0].Id, "nope")
			item(a.t, answer.Results[1].Status, codes.InvalidArgument, "missing entry ID")
		},
		boundary: func(a *api) {
			made := a.made(entry(id("/node"), fresh("gone")))
			answer, err := a.entries().BatchDeleteEntry(a.ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{made.Id, made.Id}})
			must(a.t, err)
			item(a.t, answer.Results[0].Status, codes.OK, "OK")
			item(a.t, answer.Results[1].Status, codes.NotFound, "entry not found")
			again := entry(id("/node"), made.SpiffeId.Path)
			again.Id = made.Id
			expect(a.t, "revision of the same ID anew", a.made(again).RevisionNumber, 0)
		},
	},
	"GetAuthorizedEntries": {
		success: func(a *api) {
			agent, cert := a.attest()
			mine := a.made(entry(agent, fresh("mine")))
			nested := a.made(entry(mine.SpiffeId, fresh("nested")))
			a.made(entry(id("/node"), fresh("other")))
			got := map[string]bool{}
			for _, e := range a.authorized(a.tcp(cert), nil) {
				got[e.Id] = true
			}
			if len(got) != 2 || !got[mine.Id] || !got[nested.Id] {
				a.t.Fatalf("got %v", got)
			}
		},
		refusal: func(a *api) {
			for _, conn := range []*grpc.ClientConn{a.local, a.tcp(nil)} {
				_, err := entryv1.NewEntryClient(conn).GetAuthorizedEntries(a.ctx, &entryv1.GetAuthorizedEntriesRequest{})
				refused(a.t, err, codes.PermissionDenied, "authorization denied for method "+entryService+"GetAuthorizedEntries")
			}
			// A certificate of the trust domain that is no agent's is told why.
			_, err := entryv1.NewEntryClient(a.admin()).GetAuthorizedEntries(a.ctx, &entryv1.GetAuthorizedEntriesRequest{})
			expect(a.t, "reason", reason(a.t, err), types.PermissionDeniedDetails_AGENT_NOT_ATTESTED)
		},
		boundary: func(a *api) {
			agent, cert := a.attest()
			conn := a.tcp(cert)
			expect(a.t, "entries of a new agent", len(a.authorized(conn, nil)), 0)
			ending := entry(agent, fresh("ending"))
			ending.ExpiresAt = time.Now().Unix() + 2
			a.made(ending)
			got := a.authorized(conn, &types.EntryMask{})
			expect(a.t, "entries before the end", len(got), 1)
			expect(a.t, "SPIFFE ID behind an empty mask", got[0].SpiffeId, nil)
			time.Sleep(time.Until(time.Unix(ending.ExpiresAt, 0).Add(50 * time.Millisecond)))
			expect(a.t, "entries at the end", len(a.authorized(conn, nil)), 0)
		},
	},
	"SyncAuthorizedEntries": {
		success: func(a *api) {
			agent, cert := a.attest()
			mine := a.made(entry(agent, fresh("mine")))
			stream := a.sync(a.tcp(cert), &entryv1.SyncAuthorizedEntriesRequest{})
			answer, err := stream.Recv()
			must(a.t, err)
			expect(a.t, "entries", len(answer.Entries), 1)
			expect(a.t, "ID", answer.Entries[0].Id, mine.Id)
			if _, err = stream.Recv(); err == nil || err.Error() != "EOF" {
				a.t.Fatalf("the stream did not end after all was said: %v", err)
			}
		},
		refusal: func(a *api) {
			_, cert := a.attest()
			_, err := a.sync(a.tcp(cert), &entryv1.SyncAuthorizedEntriesRequest{OutputMask: &types.EntryMask{SpiffeId: true}}).Recv()
			refused(a.t, err, codes.InvalidArgument, "revision number cannot be masked")
			_, err = a.sync(a.tcp(cert), &entryv1.SyncAuthorizedEntriesRequest{Ids: []string{"x"}}).Recv()
			refused(a.t, err, codes.InvalidArgument, "specifying IDs on initial request is not supported")
			_, err = a.sync(a.local, &entryv1.SyncAuthorizedEntriesRequest{}).Recv()
			refused(a.t, err, codes.PermissionDenied, "authorization denied for method "+entryService+"SyncAuthorizedEntries")
		},
		boundary: revisionsAbove500,
	},
}

func pagesOfEntries(a *api) {
	parent := id(fresh("parent"))
	for range 4 {
		a.made(entry(parent, fresh("paged")))
	}
	filter := &entryv1.ListEntriesRequest_Filter{ByParentId: parent}
	expect(a.t, "entries without a page size", len(a.listEntries(&entryv1.ListEntriesRequest{Filter: filter, PageSize: -1}).Entries), 4)
	for _, size := range []int32{1, 2, 3, 4, 5} {
		seen, token := map[string]bool{}, ""
		for pages := 0; ; pages++ {
			if pages > 5 {
				a.t.Fatalf("pages of %d do not end", size)
			}
			page := a.listEntries(&entryv1.ListEntriesRequest{Filter: filter, PageSize: size, PageToken: token, OutputMask: &types.EntryMask{}})
			for _, e := range page.Entries {
				expect(a.t, "seen before", seen[e.Id], false)
				seen[e.Id] = true
			}
			if token = page.NextPageToken; token == "" {
				break
			}
		}
		expect(a.t, "entries on all pages", len(seen), 4)
	}
}

func matchesOfFederation(a *api) {
	parent := id(fresh("federated"))
	a.federate("fed-a.org", "fed-b.org", "fed-c.org")
	for _, domains := range [][]string{nil, {"fed-a.org"}, {"fed-a.org", "fed-b.org"}, {"fed-a.org", "fed-b.org", "fed-c.org"}, {"fed-c.org"}} {
		e := entry(parent, fresh("fed"))
		e.FederatesWith = domains
		a.made(e)
	}
	for match, want := range map[types.FederatesWithMatch_MatchBehavior]int{
		types.FederatesWithMatch_MATCH_EXACT: 1, types.FederatesWithMatch_MATCH_SUBSET: 2,
		types.FederatesWithMatch_MATCH_SUPERSET: 2, types.FederatesWithMatch_MATCH_ANY: 3,
	} {
		page := a.listEntries(&entryv1.ListEntriesRequest{Filter: &entryv1.ListEntriesRequest_Filter{ByParentId: parent,
			ByFederatesWith: &types.FederatesWithMatch{TrustDomains: []string{"fed-a.org", "fed-b.org"}, Match: match}}})
		expect(a.t, match.String(), len(page.Entries), want)
	}
}

func revisionsAbove500(a *api) {
	agent, cert := a.attest()
	conn := a.tcp(cert)
	a.create(batch(agent, 500)...)
	first, err := a.sync(conn, &entryv1.SyncAuthorizedEntriesRequest{}).Recv()
	must(a.t, err)
	expect(a.t, "entries at once", len(first.Entries), 500)
	expect(a.t, "more", first.More, false)
	a.made(entry(agent, fresh("one-more")))
	stream := a.sync(conn, &entryv1.SyncAuthorizedEntriesRequest{OutputMask: &types.EntryMask{RevisionNumber: true}})
	first, err = stream.Recv()
	must(a.t, err)
	second, err := stream.Recv()
	must(a.t, err)
	expect(a.t, "revisions on the first page", len(first.EntryRevisions), 500)
	expect(a.t, "more after it", first.More, true)
	expect(a.t, "revisions on the second page", len(second.EntryRevisions), 1)
	expect(a.t, "more after that", second.More, false)
	must(a.t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: []string{second.EntryRevisions[0].Id, "unknown"}}))
	answer, err := stream.Recv()
	must(a.t, err)
	expect(a.t, "entries asked for", len(answer.Entries), 1)
	expect(a.t, "SPIFFE ID behind the mask", answer.Entries[0].SpiffeId, nil)
}
