//go:build blackbox

package blackbox

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// TestFirstSteps starts a server as a person does, and pastes what it prints.
func TestFirstSteps(t *testing.T) {
	t.Parallel()
	cmd := stint(t, "serve", "--memory", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
	cmd.Dir = t.TempDir()
	s := start(t, cmd)
	s.await(s.stdout, "its ready line", func(text string) bool { return lines(text) == 1 })
	if line := s.stdout.String(); !strings.HasPrefix(line, "stint is ready: grpc 127.0.0.1:") {
		t.Errorf("the ready line is %q", line)
	}
	s.await(s.stderr, "what to try", func(text string) bool { return strings.HasSuffix(text, "\n\n") })

	bin := t.TempDir()
	if err := os.Symlink(tool(t, "STINT_BIN"), filepath.Join(bin, "stint")); err != nil {
		t.Fatal(err)
	}
	pasted := section(s.stderr.String(), "Try in another terminal:")
	for _, line := range pasted {
		shell := exec.Command("sh", "-c", line)
		shell.Env = environment("PATH=" + bin + ":" + os.Getenv("PATH"))
		r := run(t, shell)
		if r.code != 0 {
			t.Errorf("%q ended with %d: %s", line, r.code, r.stderr)
		}
		if strings.Contains(line, "queue get") && !strings.Contains(strings.Join(strings.Fields(r.stdout), " "), "SUCCEEDED 100 ") {
			t.Errorf("%q shows\n%s\nwant 100 SUCCEEDED", line, r.stdout)
		}
	}
	if len(pasted) != 3 {
		t.Errorf("the server says to try %q, want three commands", pasted)
	}
	s.signal(syscall.SIGINT)
	if code := s.end(patience); code != 0 {
		t.Errorf("the server ended with %d after SIGINT, want 0", code)
	}
	if left := contents(t, cmd.Dir); len(left) > 0 {
		t.Errorf("a server in memory has left %v behind", left)
	}
}

// TestProbes is what an orchestrator asks. While the server drains it lives, and takes nobody new.
func TestProbes(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir(), "--grace", "10m")
	s.submit("q", "x")
	if code, _ := s.get("/livez"); code != http.StatusOK {
		t.Errorf("/livez answers %d, want 200", code)
	}
	if code, _ := s.get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz answers %d, want 200", code)
	}
	if code, text := s.get("/metrics"); code != http.StatusOK || !strings.Contains(text, "stint_storage_full 0\n") {
		t.Errorf("/metrics answers %d: %s", code, tail(text))
	}
	told := stay(t, s.client())
	s.signal(syscall.SIGTERM)
	told()
	if code, _ := s.get("/livez"); code != http.StatusOK {
		t.Errorf("/livez of a server that drains answers %d, want 200", code)
	}
	if code, _ := s.get("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz of a server that drains answers %d, want 503", code)
	}
}

// get asks the server's HTTP port.
func (s *server) get(path string) (code int, text string) {
	s.t.Helper()
	answer, err := http.Get("http://" + s.ready.HTTP + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// TestLines submits lines of all kinds. One that no job can carry is named, and the others are jobs.
func TestLines(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	cmd := s.stint("submit", "q", "--lines")
	cmd.Stdin = strings.NewReader("first\n" + strings.Repeat("x", 2<<20) + "\n\nfourth\n" + strings.Repeat("y", 5<<20) + "\nno end \xff")
	r := run(t, cmd)
	if r.code != 1 || !strings.Contains(r.stderr, "line 2: TOO_LARGE: ") || !strings.Contains(r.stderr, "line 5: longer than ") {
		t.Errorf("submit --lines ended with %d: %s, want 1 and the numbers of two lines", r.code, r.stderr)
	}
	var payloads []string
	for id := range strings.FieldsSeq(r.stdout) {
		payloads = append(payloads, string(s.job(id).GetPayload().GetData()))
	}
	if got, want := strings.Join(payloads, "|"), "first||fourth|no end \xff"; got != want {
		t.Errorf("the jobs carry %q, want %q", got, want)
	}

	// With --wait the exit code says how they ended.
	s.work("wait", []string{"--fail-code", "1"}, `read code; exit $code`)
	cmd = s.stint("submit", "wait", "--lines", "--wait")
	cmd.Stdin = strings.NewReader("0\n1\n0\n")
	if r := run(t, cmd); r.code != 1 || !strings.Contains(r.stderr, "2 SUCCEEDED, 1 FAILED\n") {
		t.Errorf("submit --lines --wait: %+v, want 1 and the outcomes", r)
	}
	s.wantCounts("wait", &stintv1.JobCounts{Succeeded: 2, Failed: 1})
}
