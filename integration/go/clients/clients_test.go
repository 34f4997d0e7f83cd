// Package clients runs unmodified SPIFFE clients against an agent.
package clients

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"avouch.example/integration/harness"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const limit = 40 * time.Second

func world(t *testing.T) (*harness.World, context.Context) {
	w := harness.Start(t)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return w, ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func source(t *testing.T, ctx context.Context, w *harness.World) *workloadapi.X509Source {
	t.Helper()
	s, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(w.Addr())))
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestGoFetchesAndVerifiesAnX509SVID(t *testing.T) {
	w, ctx := world(t)
	w.StartAgent()
	w.CreateEntry("/web", "-dns", "web.example.org")
	s := source(t, ctx, w)
	svid, err := s.GetX509SVID()
	must(t, err)
	if svid.ID.String() != "spiffe://example.org/web" {
		t.Fatalf("got %s", svid.ID)
	}
	id, _, err := x509svid.Verify(svid.Certificates, s)
	must(t, err)
	if id != svid.ID {
		t.Fatalf("verified %s, expected %s", id, svid.ID)
	}
}

func TestGoFetchesAndValidatesAJWTSVID(t *testing.T) {
	w, ctx := world(t)
	w.StartAgent()
	w.CreateEntry("/web")
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(w.Addr()))
	must(t, err)
	defer client.Close()
	svid, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "db"})
	must(t, err)
	bundles, err := client.FetchJWTBundles(ctx)
	must(t, err)
	parsed, err := jwtsvid.ParseAndValidate(svid.Marshal(), bundles, []string{"db"})
	must(t, err)
	if parsed.ID.String() != "spiffe://example.org/web" {
		t.Fatalf("got %s", parsed.ID)
	}
	_, err = client.ValidateJWTSVID(ctx, svid.Marshal(), "db")
	must(t, err)
	if _, err = client.ValidateJWTSVID(ctx, svid.Marshal(), "other"); err == nil {
		t.Fatal("another audience was accepted")
	}
}

func TestGoSeesItsX509BundleWithoutAnSVIDOfItsOwnBeingAskedFor(t *testing.T) {
	w, ctx := world(t)
	w.StartAgent()
	w.CreateEntry("/web")
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(w.Addr()))
	must(t, err)
	defer client.Close()
	set, err := client.FetchX509Bundles(ctx)
	must(t, err)
	bundle, err := set.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString("example.org"))
	must(t, err)
	if len(bundle.X509Authorities()) == 0 {
		t.Fatal("the bundle is empty")
	}
}

func TestGoWatchesOverARotation(t *testing.T) {
	w, ctx := world(t)
	w.StartAgent()
	w.CreateEntry("/web", "-x509SVIDTTL", "8")
	s := source(t, ctx, w)
	first, err := s.GetX509SVID()
	must(t, err)
	for {
		select {
		case <-s.Updated():
			next, err := s.GetX509SVID()
			must(t, err)
			if next.Certificates[0].SerialNumber.Cmp(first.Certificates[0].SerialNumber) != 0 {
				if !time.Now().Before(first.Certificates[0].NotAfter) {
					t.Fatal("the first SVID had expired before the next came")
				}
				return
			}
		case <-ctx.Done():
			t.Fatal("no rotation was seen")
		}
	}
}

func TestGoClientStartedBeforeTheAgentIsServedOnceItIsThere(t *testing.T) {
	w, ctx := world(t)
	done := make(chan error, 1)
	go func() {
		s, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(w.Addr())))
		if err == nil {
			_ = s.Close()
		}
		done <- err
	}()
	w.StartAgent()
	w.CreateEntry("/web")
	must(t, <-done)
}

func TestGoEntryAddedAfterTheClientAsked(t *testing.T) {
	w, ctx := world(t)
	w.StartAgent()
	done := make(chan error, 1)
	go func() {
		s, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(w.Addr())))
		if err == nil {
			_ = s.Close()
		}
		done <- err
	}()
	w.CreateEntry("/late")
	must(t, <-done)
}

func TestGoClientOutlivesARestartOfItsAgent(t *testing.T) {
	w, ctx := world(t)
	w.StartAgent()
	w.CreateEntry("/web", "-x509SVIDTTL", "20")
	s := source(t, ctx, w)
	first, err := s.GetX509SVID()
	must(t, err)
	w.StopAgent()
	w.StartAgent()
	for {
		select {
		case <-s.Updated():
			next, err := s.GetX509SVID()
			must(t, err)
			if next.Certificates[0].SerialNumber.Cmp(first.Certificates[0].SerialNumber) != 0 {
				return
			}
		case <-ctx.Done():
			t.Fatal("no SVID came from the restarted agent")
		}
	}
}

func TestPythonClient(t *testing.T) {
	python := os.Getenv("SPIFFE_PYTHON")
	if python == "" {
		t.Skip("not run: SPIFFE_PYTHON names no Python with the spiffe package")
	}
	w, ctx := world(t)
	w.StartAgent()
	w.CreateEntry("/web", "-x509SVIDTTL", "8")
	for _, scenario := range []string{"x509", "jwt", "bundles", "rotation"} {
		t.Run(scenario, func(t *testing.T) {
			cmd := exec.CommandContext(ctx, python, "../../clients/client.py", scenario)
			cmd.Env = append(os.Environ(), "SPIFFE_ENDPOINT_SOCKET="+w.Addr())
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}
