// Package clients runs unmodified SPIFFE clients against an agent.
package clients

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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

func TestGoReadsBothBundles(t *testing.T) {
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
	keys, err := client.FetchJWTBundles(ctx)
	must(t, err)
	jwt, err := keys.GetJWTBundleForTrustDomain(spiffeid.RequireTrustDomainFromString("example.org"))
	must(t, err)
	if len(jwt.JWTAuthorities()) == 0 {
		t.Fatal("the JWT bundle is empty")
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

// foreign clients are programs of their own, one scenario a run: see integration/clients.
var foreign = map[string]func(t *testing.T) []string{
	"Python": func(t *testing.T) []string {
		return []string{variable(t, "SPIFFE_PYTHON"), "../../clients/client.py"}
	},
	"Rust": func(t *testing.T) []string { return []string{variable(t, "SPIFFE_RUST")} },
}

func variable(t *testing.T, name string) string {
	value := os.Getenv(name)
	if value == "" {
		t.Skipf("not run: %s names no program", name)
	}
	return value
}

// client is a running scenario.
type client struct {
	t    *testing.T
	cmd  *exec.Cmd
	says *bufio.Scanner
	log  bytes.Buffer
}

func start(t *testing.T, ctx context.Context, w *harness.World, argv []string, scenario string) *client {
	t.Helper()
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], scenario)...)
	cmd.Env = append(os.Environ(), "SPIFFE_ENDPOINT_SOCKET="+w.Addr())
	c := &client{t: t, cmd: cmd}
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = &c.log
	c.says = bufio.NewScanner(out)
	must(t, cmd.Start())
	return c
}

// hears waits until the client says the word.
func (c *client) hears(word string) {
	c.t.Helper()
	for c.says.Scan() {
		if c.says.Text() == word {
			return
		}
	}
	err := c.cmd.Wait()
	c.t.Fatalf("the client ended (%v) without saying %q\n%s", err, word, c.log.String())
}

// succeeds waits for the end of the scenario.
func (c *client) succeeds() {
	c.t.Helper()
	for c.says.Scan() {
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Fatalf("%v\n%s", err, c.log.String())
	}
}

func TestForeignClients(t *testing.T) {
	for name, program := range foreign {
		t.Run(name, func(t *testing.T) {
			argv := program(t)
			cases := map[string]func(t *testing.T, w *harness.World, start func(string) *client){
				"X509":     served("x509"),
				"JWT":      served("jwt"),
				"Bundles":  served("bundles"),
				"Rotation": overARotation,
				"Before":   beforeTheAgent,
				"Restart":  overARestart,
				"Late":     entryAfterTheQuestion,
			}
			for name, run := range cases {
				t.Run(name, func(t *testing.T) {
					w, ctx := world(t)
					run(t, w, func(scenario string) *client { return start(t, ctx, w, argv, scenario) })
				})
			}
		})
	}
}

func served(scenario string) func(*testing.T, *harness.World, func(string) *client) {
	return func(_ *testing.T, w *harness.World, start func(string) *client) {
		w.StartAgent()
		w.CreateEntry("/web")
		start(scenario).succeeds()
	}
}

func overARotation(_ *testing.T, w *harness.World, start func(string) *client) {
	w.StartAgent()
	w.CreateEntry("/web", "-x509SVIDTTL", "8")
	start("follow").succeeds()
}

// The socket of an earlier agent is there, and nobody listens: without the file the Python client gives up at once.
func beforeTheAgent(t *testing.T, w *harness.World, start func(string) *client) {
	must(t, os.MkdirAll(filepath.Dir(w.AgentSocket), 0o755))
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.AgentSocket, Net: "unix"})
	must(t, err)
	old.SetUnlinkOnClose(false)
	must(t, old.Close())
	c := start("wait")
	c.hears("asking")
	w.StartAgent()
	w.CreateEntry("/web")
	c.succeeds()
}

// The restarted agent serves the SVID of its earlier life first: the client must follow to the next one all the same.
func overARestart(_ *testing.T, w *harness.World, start func(string) *client) {
	w.StartAgent()
	w.CreateEntry("/web", "-x509SVIDTTL", "8")
	c := start("follow")
	c.hears("served")
	w.StopAgent()
	w.StartAgent()
	c.succeeds()
}

func entryAfterTheQuestion(_ *testing.T, w *harness.World, start func(string) *client) {
	w.StartAgent()
	c := start("wait")
	c.hears("asking")
	w.CreateEntry("/web")
	c.succeeds()
}
