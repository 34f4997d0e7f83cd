// Package harness starts one server and one agent in a private folder, whichever SERVER_BIN and AGENT_BIN
// name, and drives them by the command lines that SPIRE's users know. With SERVER_SOCKET (its admin socket) and
// SERVER_ADDRESS (host:port of its TCP door) a server of example.org that runs already takes the place of the first.
package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// TrustDomain of every world.
	TrustDomain = "example.org"
	startLimit  = 30 * time.Second
	stopLimit   = 15 * time.Second
)

// World is one server, at most one agent, and the folder they live in.
type World struct {
	T            testing.TB
	Dir          string
	Port         int
	ServerSocket string
	AgentSocket  string
	AgentID      string
	server       *exec.Cmd
	agent        *exec.Cmd
}

// Start runs a server and waits until it is healthy, or takes the one that is said to run. The agent is started by
// StartAgent.
func Start(t testing.TB) *World {
	t.Helper()
	if socket := os.Getenv("SERVER_SOCKET"); socket != "" {
		return &World{T: t, ServerSocket: socket}
	}
	dir, err := os.MkdirTemp("", "avi")
	must(t, err)
	w := &World{T: t, Dir: dir, Port: freePort(t)}
	w.ServerSocket = filepath.Join(dir, "spriv", "api.sock")
	w.AgentSocket = filepath.Join(dir, "apub", "api.sock")
	w.write("server.conf", fmt.Sprintf(`
server {
  bind_address = "127.0.0.1"
  bind_port = "%d"
  trust_domain = "%s"
  data_dir = "%s/sdata"
  socket_path = "%s"
  log_level = "DEBUG"
  ratelimit { attestation = false }
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "%s/sdata/datastore.sqlite3" } }
  KeyManager "disk" { plugin_data { keys_path = "%s/sdata/keys.json" } }
  NodeAttestor "join_token" { plugin_data {} }
}
`, w.Port, TrustDomain, dir, w.ServerSocket, dir, dir))
	w.write("agent.conf", fmt.Sprintf(`
agent {
  data_dir = "%s/adata"
  server_address = "127.0.0.1"
  server_port = "%d"
  trust_domain = "%s"
  socket_path = "%s"
  insecure_bootstrap = true
  log_level = "DEBUG"
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "disk" { plugin_data { directory = "%s/adata" } }
  WorkloadAttestor "unix" { plugin_data {} }
}
`, dir, w.Port, TrustDomain, w.AgentSocket, dir))
	must(t, os.MkdirAll(filepath.Join(dir, "sdata"), 0o700))
	must(t, os.MkdirAll(filepath.Join(dir, "adata"), 0o700))
	t.Cleanup(w.close)
	w.StartServer()
	return w
}

// StartServer runs the server binary again after StopServer.
func (w *World) StartServer() {
	w.T.Helper()
	w.server = w.run("server.log", serverBin(), "run", "-config", filepath.Join(w.Dir, "server.conf"))
	w.await("server", serverBin(), "healthcheck", "-socketPath", w.ServerSocket)
}

// StartAgent makes a join token and runs the agent until it is healthy.
func (w *World) StartAgent() {
	w.T.Helper()
	args := []string{"run", "-config", filepath.Join(w.Dir, "agent.conf")}
	if w.AgentID == "" {
		token := w.Token()
		w.AgentID = "spiffe://" + TrustDomain + "/spire/agent/join_token/" + token
		args = append(args, "-joinToken", token)
	}
	w.agent = w.run("agent.log", agentBin(), args...)
	w.await("agent", agentBin(), "healthcheck", "-socketPath", w.AgentSocket)
}

// StopAgent ends the agent and waits for it.
func (w *World) StopAgent() { w.stop(w.agent); w.agent = nil }

// StopServer ends the server and waits for it.
func (w *World) StopServer() { w.stop(w.server); w.server = nil }

// Token makes a join token of an hour.
func (w *World) Token() string {
	w.T.Helper()
	var out struct{ Value string }
	must(w.T, json.Unmarshal([]byte(w.Server("token", "generate", "-ttl", "3600", "-output", "json")), &out))
	return out.Value
}

// CreateEntry registers this process's user below the agent; extra flags go to `entry create`. Returns the entry ID.
func (w *World) CreateEntry(path string, extra ...string) string {
	w.T.Helper()
	args := append([]string{"entry", "create", "-output", "json", "-parentID", w.AgentID,
		"-spiffeID", "spiffe://" + TrustDomain + path, "-selector", fmt.Sprintf("unix:uid:%d", os.Getuid())}, extra...)
	var out struct {
		Results []struct{ Entry struct{ ID string } }
	}
	must(w.T, json.Unmarshal([]byte(w.Server(args...)), &out))
	if len(out.Results) != 1 {
		w.T.Fatalf("entry create answered %d results", len(out.Results))
	}
	return out.Results[0].Entry.ID
}

// Server runs one server verb against the admin socket; its failure is the test's.
func (w *World) Server(args ...string) string {
	w.T.Helper()
	all := append(append([]string{}, args...), "-socketPath", w.ServerSocket)
	cmd := exec.Command(serverBin(), all...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.T.Fatalf("%s: %v\n%s", strings.Join(all, " "), err, stderr.String())
	}
	return string(out)
}

// IsForeign says that the harness did not start the server.
func (w *World) IsForeign() bool { return w.Dir == "" }

// ServerAddress is the server's TCP door.
func (w *World) ServerAddress() string {
	if !w.IsForeign() {
		return fmt.Sprintf("127.0.0.1:%d", w.Port)
	}
	if address := os.Getenv("SERVER_ADDRESS"); address != "" {
		return address
	}
	return "127.0.0.1:8081"
}

// Addr of the agent's Workload API, as clients want it.
func (w *World) Addr() string { return "unix://" + w.AgentSocket }

func (w *World) run(log string, bin string, args ...string) *exec.Cmd {
	w.T.Helper()
	file, err := os.OpenFile(filepath.Join(w.Dir, log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(w.T, err)
	defer file.Close()
	cmd := exec.Command(bin, args...)
	cmd.Stdout, cmd.Stderr = file, file
	must(w.T, cmd.Start())
	return cmd
}

// await asks a health check until it says yes; the limit is an error with the logs.
func (w *World) await(what, bin string, args ...string) {
	w.T.Helper()
	for end := time.Now().Add(startLimit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if exec.Command(bin, args...).Run() == nil {
			return
		}
	}
	w.T.Fatalf("%s not healthy within %s", what, startLimit)
}

func (w *World) stop(cmd *exec.Cmd) {
	if cmd == nil || cmd.Process == nil {
		return
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(stopLimit):
		w.T.Errorf("pid %d did not end within %s of SIGTERM", cmd.Process.Pid, stopLimit)
		_ = cmd.Process.Kill()
		<-done
	}
}

func (w *World) close() {
	w.stop(w.agent)
	w.stop(w.server)
	if w.T.Failed() {
		for _, log := range []string{"server.log", "agent.log"} {
			text, _ := os.ReadFile(filepath.Join(w.Dir, log))
			w.T.Logf("%s:\n%s", log, tail(text, 6000))
		}
	}
	_ = os.RemoveAll(w.Dir)
}

func (w *World) write(name, text string) {
	must(w.T, os.WriteFile(filepath.Join(w.Dir, name), []byte(text), 0o600))
}

func tail(text []byte, n int) []byte {
	if len(text) > n {
		return text[len(text)-n:]
	}
	return text
}

func serverBin() string { return os.Getenv("SERVER_BIN") }
func agentBin() string  { return os.Getenv("AGENT_BIN") }

func freePort(t testing.TB) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
