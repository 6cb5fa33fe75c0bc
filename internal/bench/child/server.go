package child

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Config says which server to start.
type Config struct {
	// Binary is the stint executable; empty means the one that is running.
	Binary string
	// Data is the server's data directory; it is made if it does not exist.
	Data string
	// Listen and HTTP are the addresses to listen on; empty means a free port of the loopback interface.
	Listen, HTTP string
	// StartTimeout bounds the wait for the ready line; zero means a minute.
	StartTimeout time.Duration
	// StopTimeout bounds what Stop grants before it kills; zero means 15 seconds.
	StopTimeout time.Duration
}

func (c Config) withDefaults() (Config, error) {
	if c.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return c, fmt.Errorf("find the stint executable: %w", err)
		}
		c.Binary = self
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.HTTP == "" {
		c.HTTP = "127.0.0.1:0"
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = time.Minute
	}
	if c.StopTimeout == 0 {
		c.StopTimeout = 15 * time.Second
	}
	return c, nil
}

// Ready is the line with which a server says that it serves.
type Ready struct {
	// GRPC is the address of the gRPC listener.
	GRPC string `json:"grpc"`
	// HTTP is the address of the HTTP listener.
	HTTP string `json:"http"`
	// Data is the data directory.
	Data string `json:"data"`
	// PID is the process id.
	PID int `json:"pid"`
}

// Server is a running server. It belongs to the caller of Start, who ends it with Stop or Kill.
type Server struct {
	Ready
	// Startup is the time from the start of the process to its ready line.
	Startup time.Duration

	cmd    *exec.Cmd
	stop   time.Duration
	stderr *tail
	ended  chan struct{} // closed once the process is gone and was waited for
	err    error         // what Wait said; read after ended
}

// Start starts a server and waits until it is ready. Cancelling ctx kills it, also later. On an error nothing is left
// running; the error holds the end of what the server wrote to its standard error.
func Start(ctx context.Context, c Config) (*Server, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, c.Binary, "serve",
		"--data", c.Data, "--listen", c.Listen, "--http", c.HTTP, "--ready", "json")
	s := &Server{cmd: cmd, stop: c.StopTimeout, stderr: &tail{size: 4096}, ended: make(chan struct{})}
	cmd.Stderr = s.stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	lines := make(chan []byte, 1)
	go s.own(stdout, lines)

	timeout := time.NewTimer(c.StartTimeout)
	defer timeout.Stop()
	select {
	case line := <-lines:
		s.Startup = time.Since(begin)
		if err := json.Unmarshal(line, &s.Ready); err != nil || s.GRPC == "" {
			_ = s.Kill()
			return nil, fmt.Errorf("the server's first line is no ready line: %q", line)
		}
		return s, nil
	case <-s.ended:
		return nil, fmt.Errorf("the server ended before it was ready: %w\n%s", s.err, s.stderr)
	case <-timeout.C:
		_ = s.Kill()
		return nil, fmt.Errorf("the server was not ready after %v\n%s", c.StartTimeout, s.stderr)
	}
}

// own reads the server's standard output to its end, hands over the first line, and waits for the process.
func (s *Server) own(stdout io.Reader, lines chan<- []byte) {
	r := bufio.NewReader(stdout)
	if line, err := r.ReadBytes('\n'); err == nil {
		lines <- line
	}
	_, _ = io.Copy(io.Discard, r)
	s.err = s.cmd.Wait()
	if s.err == nil {
		s.err = errors.New("exit status 0")
	}
	close(s.ended)
}

// Ended is closed once the process is gone.
func (s *Server) Ended() <-chan struct{} { return s.ended }

// Kill ends the server with SIGKILL, as a crash would, and waits until it is gone.
func (s *Server) Kill() error {
	err := s.cmd.Process.Kill()
	<-s.ended
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill the server: %w", err)
	}
	return nil
}

// Stop asks the server to end, waits until it is gone, and kills it if it takes too long. An end that was not clean is
// an error.
func (s *Server) Stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errors.Join(fmt.Errorf("stop the server: %w", err), s.Kill())
	}
	timeout := time.NewTimer(s.stop)
	defer timeout.Stop()
	select {
	case <-s.ended:
	case <-timeout.C:
		return errors.Join(fmt.Errorf("the server did not end within %v", s.stop), s.Kill())
	}
	if !s.cmd.ProcessState.Success() {
		return fmt.Errorf("the server ended badly: %w\n%s", s.err, s.stderr)
	}
	return nil
}
