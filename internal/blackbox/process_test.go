//go:build blackbox

package blackbox

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds the wait for what is sure to come. It is long, for the machine may be busy; where a promise is about
// time, the test says which.
const patience = 90 * time.Second

// tool returns the program that an environment variable names.
func tool(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Fatalf("%s is not set; run: make blackbox", variable)
	}
	if _, err := exec.LookPath(path); err != nil {
		t.Fatalf("%s: %v; run: make blackbox", variable, err)
	}
	return path
}

// soak reports whether long settings are asked for.
func soak() bool { return os.Getenv("STINT_SOAK") == "1" }

// environment is this process's own without what would set up stint, and with what is given.
func environment(variables ...string) []string {
	own := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "STINT_") })
	return append(own, variables...)
}

// output is what a process has written so far.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed at the next write
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

// Write keeps what was written and tells those who wait for it.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(p)
}

func (o *output) String() string {
	text, _ := o.look()
	return text
}

func (o *output) look() (text string, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.changed
}

// process is a program that a test has started. It is gone when the test is over.
type process struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr *output
	ended          chan struct{} // closed when it is gone and was waited for
	quiet          bool          // the test tells what it wrote
}

// start starts a program.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, stdout: newOutput(), stderr: newOutput(), ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.stdout, p.stderr
	cmd.WaitDelay = 10 * time.Second // somebody else may hold the pipes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // the state says how it ended
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.ended
		if t.Failed() && !p.quiet {
			t.Logf("%v, pid %d: %v; standard error:\n%s", cmd.Args, cmd.Process.Pid, cmd.ProcessState, tail(p.stderr.String()))
		}
	})
	return p
}

// tail is the end of a text, for a log.
func tail(text string) string {
	const most = 4000
	if len(text) > most {
		return "…" + text[len(text)-most:]
	}
	return text
}

// signal sends a signal to this one process. It may be gone already.
func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// kill ends the process as a crash would, and returns when it is gone.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// end waits until the process has ended and returns its exit code, -1 if a signal ended it.
func (p *process) end(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(within):
		p.t.Fatalf("%v did not end within %v", p.cmd.Args, within)
	}
	return p.cmd.ProcessState.ExitCode()
}

// await waits until the output holds what is told by enough.
func (p *process) await(o *output, what string, enough func(text string) bool) {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		text, changed := o.look()
		if enough(text) {
			return
		}
		select {
		case <-changed:
		case <-p.ended:
			if text, _ := o.look(); !enough(text) {
				p.t.Fatalf("%v ended (%v) before it wrote %s, but: %q", p.cmd.Args, p.cmd.ProcessState, what, tail(text))
			}
			return
		case <-timeout:
			p.t.Fatalf("%v did not write %s within %v, but: %q", p.cmd.Args, what, patience, tail(text))
		}
	}
}

// lines is how many whole lines a text has.
func lines(text string) int { return strings.Count(text, "\n") }

// result is what a program has left behind.
type result struct {
	code           int // -1: a signal ended it
	stdout, stderr string
}

// run runs a program to its end.
func run(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	return start(t, cmd).result()
}

// result waits for the end of a program.
func (p *process) result() result {
	p.t.Helper()
	p.quiet = true
	return result{p.end(patience), p.stdout.String(), p.stderr.String()}
}

// stint is a command line of the binary, without a server to go to.
func stint(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(tool(t, "STINT_BIN"), args...)
	cmd.Env = environment()
	return cmd
}

// feed returns the standard input of a program that is not started yet.
func feed(t *testing.T, cmd *exec.Cmd) io.WriteCloser {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return stdin
}

// gate is a pipe by which commands wait for the test, or tell it something: `cat GATE` ends when it opens.
type gate struct {
	path string
	file *os.File
}

func newGate(t *testing.T) *gate {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0) // neither end waits for the other
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &gate{path, file}
}

// open lets those go on who wait.
func (g *gate) open() { g.file.Close() }

// line waits for what a command writes to the pipe.
func (g *gate) line(t *testing.T) string {
	t.Helper()
	if err := g.file.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(g.file).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}
