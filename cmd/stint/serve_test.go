package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Wrong flags end with 2 and name the flag; no data directory is made.
func TestServeRefusesFlags(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	for args, says := range map[string]string{
		"--ready xml":                        "--ready \"xml\": want text or json",
		"--log-format xml":                   "--log-format \"xml\": want text or json",
		"--log-level loud":                   "--log-level",
		"--grace=-1s":                        "--grace -1s: must not be negative",
		"--grace 5":                          "--grace",
		"--retain 0s":                        "--retain 0s: must be positive",
		"--retain-events 0s":                 "--retain-events 0s: must be positive",
		"--event-bytes 0":                    "--event-bytes 0: must be positive",
		"--max-payload 0":                    "--max-payload 0: must be 1 byte to 3MiB",
		"--max-payload 4MiB":                 "--max-payload 4MiB: must be 1 byte to 3MiB",
		"--max-payload much":                 "want a number of bytes, like 1048576 or 1MiB",
		"--reserve=-1":                       "want a number of bytes",
		"--memory":                           "[data memory]",
		"--listen 7707":                      "--listen \"7707\": want HOST:PORT",
		"--listen :7707":                     "--listen \":7707\": other hosts may reach this address",
		"--listen 0.0.0.0:7707":              "allow it with --insecure",
		"--listen example.com:7707":          "other hosts may reach this address",
		"--listen [::]:7707":                 "other hosts may reach this address",
		"--http 192.0.2.1:80":                "--http \"192.0.2.1:80\": other hosts",
		"--http nonsense":                    "--http \"nonsense\": want HOST:PORT",
		"more":                               "unknown command \"more\"",
		"--listen 127.0.0.1:0 --timeout=-1s": "--timeout",
	} {
		got := stint(t, "", append([]string{"serve", "--data", data}, strings.Fields(args)...)...)
		wantCode(t, got, 2, says)
	}
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("the data directory is there: %v", err)
	}
}

func TestCheckAddress(t *testing.T) {
	for _, address := range []string{"127.0.0.1:7707", "127.8.9.1:0", "[::1]:7707", "localhost:7707"} {
		if err := (&serveFlags{}).checkAddress("--listen", address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"0.0.0.0:1", ":1", "example.com:1"} {
		if err := (&serveFlags{insecure: true}).checkAddress("--listen", address); err != nil {
			t.Errorf("%s with --insecure: %v", address, err)
		}
	}
}

// What was acknowledged is there after a restart; the ready line says where it is kept.
func TestServeKeepsItsData(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	line, stop := startServer(t, "--data", "./store", "--http", "")
	if line.Data != filepath.Join(dir, "store") || line.HTTP != "" || line.PID != os.Getpid() {
		t.Errorf("the ready line is %+v", line)
	}
	id := submit(t, "--server="+line.GRPC, "q", "--data", "kept")
	if got := stop(); got.code != 0 {
		t.Fatalf("a stop ended it with %d: %s", got.code, got.stderr)
	}
	line, stop = startServer(t, "--data", "./store", "--http", "")
	if out := ok(t, "--server="+line.GRPC, "job", "get", id); !strings.Contains(squeeze(out), "\nPayload 4 bytes: kept") {
		t.Errorf("after a restart:\n%s", out)
	}

	// Another server is told who has the directory.
	got := stint(t, "", "serve", "--data", "./store", "--listen", "127.0.0.1:0", "--http", "")
	wantCode(t, got, 11, "the data directory is in use: ")
	wantCode(t, got, 11, "held by process ")
	if got := stop(); got.code != 0 {
		t.Errorf("a stop ended it with %d: %s", got.code, got.stderr)
	}
}

// With --memory nothing is written, nor kept.
func TestServeMemory(t *testing.T) {
	t.Chdir(t.TempDir())
	for range 2 {
		line, stop := startServer(t, "--memory", "--http", "")
		server := "--server=" + line.GRPC
		if out := ok(t, server, "job", "list", "-o", "jsonl"); line.Data != "memory" || out != "" {
			t.Errorf("with data in %q it begins with:\n%s", line.Data, out)
		}
		submit(t, server, "q")
		if got := stop(); got.code != 0 {
			t.Errorf("a stop ended it with %d: %s", got.code, got.stderr)
		}
	}
	if made, err := os.ReadDir("."); err != nil || len(made) > 0 {
		t.Errorf("it wrote %v, %v", made, err)
	}
}

// A directory that is not ours, or is newer, is refused with 11 and left as it is.
func TestServeRefusesDirectory(t *testing.T) {
	for name, content := range map[string]string{"notes.txt": "mine", "STINT": "stint data directory, format 999\n"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got := stint(t, "", "serve", "--data", dir, "--listen", "127.0.0.1:0", "--http", "")
		wantCode(t, got, 11, "the data directory has a format that this version does not know: "+dir)
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("%s: the directory holds %v, %v", name, entries, err)
		}
	}
}

func TestServeAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, flag := range []string{"--listen", "--http"} {
		args := []string{"serve", "--memory", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", flag, l.Addr().String()}
		wantCode(t, stint(t, "", args...), 1, "listen tcp "+l.Addr().String())
	}
}

func TestServeHTTP(t *testing.T) {
	line := serving(t, "--memory")
	for path, want := range map[string]string{"/livez": "ok\n", "/readyz": "ok\n", "/metrics": "# HELP stint_build_info "} {
		answer, err := http.Get("http://" + line.HTTP + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK || !strings.HasPrefix(string(body), want) {
			t.Errorf("%s: %v, %s, %.80q", path, err, answer.Status, body)
		}
	}
}

// The log is where and how its flags say, and holds no payload and no lease token.
func TestServeLog(t *testing.T) {
	line, stop := startServer(t, "--memory", "--log-format", "json", "--log-level", "debug")
	server := "--server=" + line.GRPC
	submit(t, server, "q", "--data", "a secret payload")
	token := claim(t, dial(t, server), "q")
	got := stop()
	for _, line := range lines(got.stderr) {
		if strings.HasPrefix(line, "{") && !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
	if !strings.Contains(got.stderr, `"level":"DEBUG"`) || !strings.Contains(got.stderr, `"msg":"stopping"`) {
		t.Errorf("the log lacks what it should have:\n%s", got.stderr)
	}
	if strings.Contains(got.stderr, "a secret payload") || strings.Contains(got.stderr, token) {
		t.Errorf("the log tells secrets:\n%s", got.stderr)
	}
}

// For people the ready line comes with three commands to paste, which name the server if they have to.
func TestTellReady(t *testing.T) {
	listener := func(address string) net.Listener { return fakeListener{address: address} }
	for _, test := range []struct {
		flags          serveFlags
		grpc, http     net.Listener
		stdout, stderr string
	}{
		{
			serveFlags{ready: "text", memory: true},
			listener("127.0.0.1:7707"), listener("127.0.0.1:7708"),
			"stint is ready: grpc 127.0.0.1:7707 http 127.0.0.1:7708 data memory pid PID\n", "stint submit numbers --lines",
		},
		{
			serveFlags{ready: "text", data: "/var/lib/stint"},
			listener("127.0.0.1:9"), nil,
			"stint is ready: grpc 127.0.0.1:9 data /var/lib/stint pid PID\n", "stint --server 127.0.0.1:9 submit numbers --lines",
		},
		{
			serveFlags{ready: "json", data: "/var/lib/stint"},
			listener("127.0.0.1:9"), nil,
			`{"grpc":"127.0.0.1:9","http":"","data":"/var/lib/stint","pid":PID}` + "\n", "",
		},
	} {
		var stdout, stderr bytes.Buffer
		if err := test.flags.tellReady(test.grpc, test.http, &stdout, &stderr); err != nil {
			t.Fatal(err)
		}
		pid, err := json.Marshal(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.ReplaceAll(test.stdout, "PID", string(pid)), stdout.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if !strings.Contains(stderr.String(), test.stderr) || test.stderr == "" && stderr.Len() > 0 {
			t.Errorf("on standard error: %q, want %q in it", stderr.String(), test.stderr)
		}
		checked := 0
		for line := range strings.SplitSeq(stderr.String(), "\n") {
			checked += checkExample(t, "the ready line", line)
		}
		if test.stderr != "" && checked != 3 {
			t.Errorf("%d commands to paste, want 3:\n%s", checked, stderr.String())
		}
	}
}

// fakeListener only has an address.
type fakeListener struct {
	net.Listener
	address string
}

func (l fakeListener) Addr() net.Addr  { return l }
func (l fakeListener) Network() string { return "tcp" }
func (l fakeListener) String() string  { return l.address }
