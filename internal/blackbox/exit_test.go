//go:build blackbox

package blackbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

const (
	// someID names no job and no worker.
	someID = "018f4e7a-1c2d-7000-8000-000000000001"
	// nowhere is an address at which nobody listens.
	nowhere = "127.0.0.1:1"
)

// TestNoServer holds every command that asks a server to one line and one code.
func TestNoServer(t *testing.T) {
	t.Parallel()
	asking := make(map[string]*process) // all at once, for each tries a few times
	for _, line := range []string{
		"submit numbers", "submit numbers -o json", "submit numbers --wait", "submit numbers --lines", "work numbers -- cat",
		"job get " + someID, "job list", "job wait " + someID, "job interrupt --level cancel " + someID,
		"job retry " + someID, "job park " + someID, "job delete " + someID,
		"queue list", "queue list -o json", "queue get numbers", "queue set numbers --lease 1m", "queue pause numbers", "queue resume numbers",
		"queue delete numbers", "worker list", "worker drain " + someID,
		"bench unary --jobs 1 --runs 1 --server " + nowhere,
	} {
		cmd := stint(t, strings.Fields(line)...)
		cmd.Env = append(cmd.Env, "STINT_SERVER="+nowhere)
		asking[line] = start(t, cmd)
	}
	for line, p := range asking {
		want := result{5, "", "no server at " + nowhere + "; start one with: stint serve\n"}
		if got := p.result(); got != want {
			t.Errorf("stint %s: got %+v, want %+v", line, got, want)
		}
	}
}

// TestUsage shows command lines that are refused before anything is asked of a server: nobody listens.
func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"nonsense"},
		{"--nonsense"},
		{"job"},
		{"job", "nonsense"},
		{"queue"},
		{"worker"},
		{"job", "get"},
		{"job", "get", someID, someID},
		{"job", "list", "--state", "nonsense"},
		{"job", "list", "--limit", "-1"},
		{"job", "list", "--label", "keyonly"},
		{"job", "interrupt", someID},
		{"job", "interrupt", someID, "--level", "nonsense"},
		{"submit"},
		{"submit", "q", "extra"},
		{"submit", "q", "--json", "{"},
		{"submit", "q", "--data", "@/no/such/file"},
		{"submit", "q", "--data", "x", "--json", "1"},
		{"submit", "q", "--lines", "--id", someID},
		{"submit", "q", "--delay", "1s", "--run-at", "2030-01-01T00:00:00Z"},
		{"submit", "q", "--run-at", "tomorrow"},
		{"submit", "q", "--priority", "urgent"},
		{"submit", "q", "-o", "yaml"},
		{"work"},
		{"work", "q"},
		{"work", "q", "--"},
		{"work", "q", "cat"},
		{"work", "--", "cat"},
		{"work", "q", "--concurrency", "0", "--", "cat"},
		{"work", "q", "--grace", "0s", "--", "cat"},
		{"work", "q", "--fail-code", "256", "--", "cat"},
		{"work", "q", "--fail-code", "3", "--park-code", "3", "--", "cat"},
		{"queue", "get"},
		{"queue", "set", "q", "--lease", "soon"},
		{"serve", "extra"},
		{"serve", "--ready", "xml"},
		{"serve", "--log-format", "xml"},
		{"serve", "--reserve", "lots"},
		{"serve", "--max-payload", "1GiB"},
		{"serve", "--grace", "-1s"},
		{"serve", "--listen", "7707"},
		{"bench", "nonsense"},
		{"bench", "--batch", "0", "--runs", "-1"},
		{"demo", "--workers", "0"},
		{"version", "extra"},
	} {
		cmd := stint(t, args...)
		cmd.Dir = t.TempDir()
		cmd.Env = append(cmd.Env, "STINT_SERVER="+nowhere)
		got := run(t, cmd)
		if got.code != 2 || got.stdout+got.stderr == "" {
			t.Errorf("stint %q ended with %d: %q, want 2 and why", args, got.code, got.stderr)
		}
		if made, err := os.ReadDir(cmd.Dir); err != nil || len(made) > 0 {
			t.Errorf("stint %q left %v behind (%v)", args, made, err)
		}
	}
}

// TestRefusals shows what a server refuses, by the kind of its no.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	s.must("submit", "waiting", "--data", "x", "--id", uuid.NewString())
	id := strings.TrimSpace(s.must("submit", "waiting", "--data", "x"))
	ended := strings.TrimSpace(s.must("submit", "done", "--data", "x"))
	s.must("work", "done", "--until-empty", "--", "true")

	for _, test := range []struct {
		code int
		args []string
	}{
		{2, []string{"submit", "Not A Queue"}},
		{2, []string{"submit", "q", "--id", "no-uuid"}},
		{2, []string{"submit", "q", "--lease", "1s"}},
		{2, []string{"submit", "_stint/q"}},
		{2, []string{"job", "get", "no-uuid"}},
		{2, []string{"job", "wait", "no-uuid"}},
		{2, []string{"queue", "get", "Not A Queue"}},
		{2, []string{"queue", "set", "q", "--lease", "1s"}},
		{2, []string{"work", "Not A Queue", "--", "true"}},
		{3, []string{"job", "get", someID}},
		{3, []string{"job", "wait", someID}},
		{3, []string{"job", "retry", someID}},
		{3, []string{"job", "delete", someID}},
		{3, []string{"job", "interrupt", "--level", "cancel", someID}},
		{3, []string{"queue", "get", "unheard-of"}},
		{3, []string{"queue", "delete", "unheard-of"}},
		{3, []string{"worker", "drain", someID}},
		{4, []string{"submit", "waiting", "--data", "other", "--id", id}},
		{4, []string{"job", "retry", id}},
		{4, []string{"job", "retry", ended}},
		{4, []string{"job", "interrupt", "--level", "cancel", ended}},
		{4, []string{"queue", "delete", "waiting"}},
		{1, []string{"job", "retry", id, someID}},
		{0, []string{"submit", "waiting", "--data", "x", "--id", id}},
		{0, []string{"queue", "delete", "done"}},
	} {
		got := s.run(test.args...)
		if got.code != test.code || (got.stderr == "") != (test.code == 0) {
			t.Errorf("stint %q ended with %d: %q, want %d", test.args, got.code, got.stderr, test.code)
		}
	}
	s.wantCounts("waiting", &stintv1.JobCounts{Ready: 2})
}

// TestOutcomes waits for a job of each outcome, by `job wait` and by `submit --wait`.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	start(t, s.stint("work", "outcome", "--concurrency", "4", "--park-code", "7", "--fail-code", "1", "--",
		"sh", "-c", "echo result >&3; exit $(cat)"))

	if r := s.run("submit", "outcome", "--data", "0", "--wait"); r.code != 0 || r.stdout != "result\n" {
		t.Errorf("submit --wait of a success: %+v, want 0 and the result", r)
	}
	for _, test := range []struct {
		payload string
		code    int
		word    string
	}{
		{"1", 1, "is FAILED: exit status 1\n"},
		{"7", 7, "is PARKED"},
	} {
		r := s.run("submit", "outcome", "--data", test.payload, "--wait")
		if r.code != test.code || r.stdout != "" || !strings.Contains(r.stderr, test.word) {
			t.Errorf("submit --wait of a job that exits with %s: %+v, want code %d and %q", test.payload, r, test.code, test.word)
		}
	}

	succeeded := s.submit("outcome", "0")
	failed := s.submit("outcome", "1")
	parked := s.submit("outcome", "7")
	cancelled := s.submit("idle", "x")
	s.must("job", "interrupt", "--level", "cancel", "--reason", "a test", cancelled)
	expired := s.submit("idle", "x", "--start-by", time.Now().Add(2*time.Second).UTC().Format(time.RFC3339Nano))
	for _, test := range []struct {
		code int
		ids  []string
	}{
		{0, []string{succeeded}},
		{1, []string{failed}},
		{6, []string{cancelled}},
		{7, []string{parked}},
		{8, []string{expired}},
		{8, []string{succeeded, expired}},
		{6, []string{succeeded, expired, cancelled}},
		{7, []string{succeeded, expired, cancelled, parked}},
		{1, []string{succeeded, expired, cancelled, parked, failed}},
		{3, []string{succeeded, someID}},
	} {
		r := s.run(append([]string{"job", "wait"}, test.ids...)...)
		if r.code != test.code || lines(r.stdout) != 1+len(test.ids) && test.code != 3 {
			t.Errorf("job wait %q: %+v, want code %d and a row for each", test.ids, r, test.code)
		}
	}
}

// submit submits one job and returns its id.
func (s *server) submit(queue, payload string, flags ...string) string {
	s.t.Helper()
	return strings.TrimSpace(s.must(append([]string{"submit", queue, "--data", payload}, flags...)...))
}

// TestTimeouts gives commands that wait or work less time than they need.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	id := s.submit("idle", "x")
	for _, args := range [][]string{
		{"job", "wait", id},
		{"submit", "idle", "--wait"},
		{"work", "other", "--", "true"},
	} {
		if r := s.run(append([]string{"--timeout", "300ms"}, args...)...); r.code != 124 {
			t.Errorf("stint --timeout 300ms %q: %+v, want 124", args, r)
		}
	}
	// A server that takes the connection and says nothing is no reason to wait for ever either.
	s.signal(syscall.SIGSTOP)
	defer s.signal(syscall.SIGCONT)
	if r := s.run("--timeout", "300ms", "queue", "list"); r.code != 124 {
		t.Errorf("stint --timeout 300ms queue list on a stopped server: %+v, want 124", r)
	}
}

// TestSignals stops commands that wait as a terminal does.
func TestSignals(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	cmd := s.stint("submit", "idle", "--wait")
	waiting := start(t, cmd)
	waiting.await(waiting.stderr, "the id", func(text string) bool { return strings.HasPrefix(text, "submitted ") && lines(text) > 0 })
	waiting.signal(syscall.SIGINT)
	if code := waiting.end(patience); code != 130 {
		t.Errorf("submit --wait ended with %d after SIGINT, want 130", code)
	}

	cmd = s.stint("submit", "idle", "--lines")
	stdin := feed(t, cmd)
	defer stdin.Close()
	streaming := start(t, cmd)
	fmt.Fprintln(stdin, "first")
	streaming.await(streaming.stdout, "an id", func(text string) bool { return lines(text) > 0 })
	streaming.signal(syscall.SIGTERM)
	if code := streaming.end(patience); code != 130 {
		t.Errorf("submit --lines ended with %d after SIGTERM, want 130", code)
	}
	s.wantCounts("idle", &stintv1.JobCounts{Ready: 2})
}

// TestCommandNotFound looks the command up before anything is claimed, even before the server.
func TestCommandNotFound(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	id := s.submit("q", "x")
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"no-such-command", "/no/such/command", plain} {
		if r := s.run("work", "q", "--", command); r.code != 127 || !strings.Contains(r.stderr, command) || r.stdout != "" {
			t.Errorf("stint work -- %s: %+v, want 127 and the name", command, r)
		}
	}
	if job := s.job(id); job.GetState() != stintv1.JobState_JOB_STATE_READY || job.GetRunCount() != 0 {
		t.Errorf("the job is %v after %d runs, want READY after none", job.GetState(), job.GetRunCount())
	}
}

// TestHelp walks the whole command tree: each command explains itself, and each example's flags are flags it has.
func TestHelp(t *testing.T) {
	t.Parallel()
	commands, examples := 0, 0
	var walk func(path []string)
	walk = func(path []string) {
		r := run(t, stint(t, append(path, "--help")...))
		if r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, "Usage:") {
			t.Errorf("stint %q --help: code %d, %q", path, r.code, r.stderr)
			return
		}
		commands++
		for _, line := range section(r.stdout, "Examples:") {
			examples++
			checkExample(t, line)
		}
		for _, name := range subcommands(r.stdout) {
			walk(append(slices.Clip(path), name))
		}
	}
	walk(nil)
	if commands < 25 || examples < 20 {
		t.Errorf("%d commands and %d examples were found, want at least 25 and 20", commands, examples)
	}
	topic := run(t, stint(t, "help", "exit-codes"))
	for _, code := range []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 124, 127, 130} {
		if !strings.Contains(topic.stdout, fmt.Sprintf("\n  %3d  ", code)) {
			t.Errorf("stint help exit-codes does not explain %d:\n%s", code, topic.stdout)
		}
	}
}

// section returns the lines below a heading of a help text, up to the next empty one.
func section(help, heading string) []string {
	_, after, found := strings.Cut(help, heading+"\n")
	if !found {
		return nil
	}
	block, _, _ := strings.Cut(after, "\n\n")
	return strings.Split(strings.TrimRight(block, "\n"), "\n")
}

// subcommands returns the names of the commands that a help text lists, in all its groups.
func subcommands(help string) []string {
	var names []string
	for _, heading := range []string{"Available Commands:", "Jobs:", "Operation:", "Server:", "Additional Commands:"} {
		for _, line := range section(help, heading) {
			if fields := strings.Fields(line); len(fields) > 0 && fields[0] != "help" {
				names = append(names, fields[0])
			}
		}
	}
	return names
}

// askForHelp is a stint that adds --help to its flags, so that it parses them and does nothing. Its first argument is
// the real one, its second the file that gets the exit code and the command line of each call.
const askForHelp = `#!/bin/sh
line=$*
for argument; do
	shift
	[ "$argument" != -- ] || [ -n "$asked" ] || { asked=yes; set -- "$@" --help; }
	set -- "$@" "$argument"
done
[ -n "$asked" ] || set -- "$@" --help
%q "$@" >/dev/null
echo "$? $line" >>%q
`

// checkExample has a shell run an example, in which every stint only parses its command line: it is asked for help.
func checkExample(t *testing.T, line string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	// Written by a process of its own: a file that this one has just written cannot be executed while any of its other
	// children, not yet at their exec, holds it open (golang.org/issue/22315).
	write := exec.Command("sh", "-c", "cat >stint && chmod +x stint")
	write.Dir, write.Stdin = dir, strings.NewReader(fmt.Sprintf(askForHelp, tool(t, "STINT_BIN"), log))
	if r := run(t, write); r.code != 0 {
		t.Fatal(r.stderr)
	}
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = dir
	cmd.Env = environment("PATH=" + dir + ":" + os.Getenv("PATH"))
	said := run(t, cmd)
	got, err := os.ReadFile(log)
	if err != nil || len(got) == 0 {
		t.Errorf("the example %q runs no stint (%v): %s", line, err, said.stderr)
	}
	for call := range strings.Lines(string(got)) {
		if !strings.HasPrefix(call, "0 ") {
			t.Errorf("the example %q does not parse: %s%s", line, call, said.stderr)
		}
	}
}
