//go:build unix

package sidecar

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// groupPoll is how often an interrupted group is looked at; nothing tells when the last member of a group is gone.
const groupPoll = 20 * time.Millisecond

// process is a started command: the leader of its group, and the reader of its standard error.
type process struct {
	group  int
	exited chan struct{} // Closed when the leader has ended and state is set.
	state  *os.ProcessState
	stderr *os.File      // The reading end.
	read   chan struct{} // Closed when the reader is done.
	tail   *tail
}

// start starts the command in a process group of its own.
func (c *Command) start(job Job, files *files) (*process, error) {
	stdin, err := files.openStdin()
	if err != nil {
		return nil, fmt.Errorf("cannot open the payload: %w", err)
	}
	defer stdin.Close()
	result, err := files.openResult()
	if err != nil {
		return nil, fmt.Errorf("cannot open the result file: %w", err)
	}
	defer result.Close()
	stderr, stderrWriter, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer stderrWriter.Close()

	cmd := exec.Command(c.Path, c.Args...)
	cmd.Env = c.environment(job, files)
	cmd.Stdin, cmd.Stderr = stdin, stderrWriter
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	cmd.ExtraFiles = []*os.File{result}
	cmd.SysProcAttr = groupAttributes()
	p := &process{exited: make(chan struct{}), stderr: stderr, read: make(chan struct{}), tail: &tail{size: tailSize}}
	if err := p.launch(cmd); err != nil {
		_ = stderr.Close() // nobody has written to it
		return nil, fmt.Errorf("cannot start %s: %w", c.Path, err)
	}
	go p.readStderr(c.Stderr)
	return p, nil
}

// launch starts the leader from a thread that stays alive as long as the leader does: the kernel sends the parent-death
// signal when the thread that forked ends, not when the process does.
func (p *process) launch(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.group = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		// Wait's error repeats what the state says: nothing but files are attached, so no copying can fail.
		_ = cmd.Wait()
		p.state = cmd.ProcessState
		close(p.exited)
	}()
	return <-started
}

func (p *process) readStderr(tee io.Writer) {
	defer close(p.read)
	var to io.Writer = p.tail
	if tee != nil {
		to = io.MultiWriter(p.tail, tee)
	}
	if _, err := io.Copy(to, p.stderr); err != nil {
		// When the tee is broken, read on, or the command would block on a full pipe.
		_, _ = io.Copy(p.tail, p.stderr)
	}
}

// terminate asks the group to end; kill ends it. Their only error is that no member is left.
func (p *process) terminate() { _ = syscall.Kill(-p.group, syscall.SIGTERM) }
func (p *process) kill()      { _ = syscall.Kill(-p.group, syscall.SIGKILL) }

func (p *process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// groupAlive reports whether a member of the group, whose leader has exited, still lives. Members that have ended stay
// visible until their new parent, init, takes note of them, which in a container it may never do. Looking closer costs,
// so it is done only when nobody holds standard error any more.
func (p *process) groupAlive() bool {
	if syscall.Kill(-p.group, 0) != nil {
		return false
	}
	select {
	case <-p.read:
		return !onlyZombies(p.group)
	default:
		return true
	}
}

// awaitGroup waits until no member of the group is left, at most until the grace is over.
func (p *process) awaitGroup(grace <-chan struct{}) {
	select {
	case <-p.exited:
	case <-grace:
		return
	}
	tick := time.NewTicker(groupPoll)
	defer tick.Stop()
	for p.groupAlive() {
		select {
		case <-tick.C:
		case <-grace:
			return
		}
	}
}

// note adds a line of our own to what the command wrote.
func (p *process) note(line string) { _, _ = io.WriteString(p.tail, line+"\n") }

// drain reads the standard error of the command, which has exited, to its end. Whoever else holds it has a moment to
// write its last lines.
func (p *process) drain() {
	select {
	case <-p.read:
	case <-time.After(drainDelay):
	}
}

// lose ends a run at once and reports nothing of it.
func (p *process) lose() Outcome {
	p.kill()
	<-p.exited
	return Outcome{Kind: Lost}
}

// close ends what is left of the group and then the reader: somebody outside the group may hold standard error for ever.
func (p *process) close() {
	p.kill()
	_ = p.stderr.Close() // ends the reader; what it has not read is nobody's
	<-p.read
}

// exit says how the leader, which has exited, ended.
func (p *process) exit() Exit {
	e := Exit{Code: p.state.ExitCode(), StderrTail: p.tail.String()}
	if status, ok := p.state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		e.Signal = signalName(status.Signal())
	}
	return e
}

func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return strconv.Itoa(int(s))
}
