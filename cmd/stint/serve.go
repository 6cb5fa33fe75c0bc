package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/store"
	"github.com/stintrun/stint/internal/store/pebblestore"
	"github.com/stintrun/stint/server"
)

// serveFlags is what `stint serve` can be told.
type serveFlags struct {
	data       string
	memory     bool
	listen     string
	http       string
	ready      string
	grace      time.Duration
	maxPayload byteSize
	reserve    byteSize
	retain     time.Duration
	events     time.Duration
	eventBytes byteSize
	insecure   bool
	logFormat  string
	logLevel   slog.Level
}

func newServeCommand(g *globals) *cobra.Command {
	f := &serveFlags{maxPayload: server.MaxPayloadDefault, reserve: pebblestore.DefaultReserve, eventBytes: pebblestore.DefaultEventBytes, logLevel: slog.LevelInfo}
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a server",
		Long: `Run a server with its own store, until SIGTERM or SIGINT.

It prints one line on standard output when it takes calls. A stop tells the workers, which keep their runs and
reconnect; a second signal ends the process at once, which loses nothing that was acknowledged.`,
		Example: `  stint serve
  stint serve --memory --listen 127.0.0.1:0 --http 127.0.0.1:0 --ready json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.serve(c.Context(), g.stdout, g.stderr) },
	}
	flags := c.Flags()
	flags.StringVar(&f.data, "data", "./stint-data", "directory of the store; made if it is missing")
	flags.BoolVar(&f.memory, "memory", false, "keep everything in memory: it is gone when the server ends")
	flags.StringVar(&f.listen, "listen", defaultServer, "address for gRPC; port 0 takes a free one")
	flags.StringVar(&f.http, "http", "127.0.0.1:7708", "address for /livez, /readyz and /metrics; port 0 takes a free one, empty is none")
	flags.StringVar(&f.ready, "ready", "text", "how the ready line looks: text, json")
	flags.DurationVar(&f.grace, "grace", 20*time.Second, "how long a stop waits for calls and sessions to end")
	flags.Var(&f.maxPayload, "max-payload", "largest payload and result; at most 3MiB")
	flags.Var(&f.reserve, "reserve", "free space under which new jobs are refused")
	flags.DurationVar(&f.retain, "retain", pebblestore.DefaultRetain, "how long finished jobs are kept; up to 3h longer, or an eighth of it if that is more")
	flags.DurationVar(&f.events, "retain-events", pebblestore.DefaultRetainEvents, "how long events are kept")
	flags.Var(&f.eventBytes, "event-bytes", "but not more than about so many bytes of them")
	flags.BoolVar(&f.insecure, "insecure", false, "allow addresses that other hosts can reach: there is no authentication yet")
	flags.StringVar(&f.logFormat, "log-format", "text", "how the log on standard error looks: text, json")
	flags.TextVar(&f.logLevel, "log-level", slog.LevelInfo, "least level that is logged: debug, info, warn, error")
	c.MarkFlagsMutuallyExclusive("data", "memory")
	return c
}

// check says what is wrong with the flags.
func (f *serveFlags) check() error {
	if f.ready != "text" && f.ready != "json" {
		return usageError("--ready %q: want text or json", f.ready)
	}
	if f.logFormat != "text" && f.logFormat != "json" {
		return usageError("--log-format %q: want text or json", f.logFormat)
	}
	if f.grace < 0 {
		return usageError("--grace %s: must not be negative", f.grace)
	}
	if f.events <= 0 {
		return usageError("--retain-events %s: must be positive", f.events)
	}
	if f.eventBytes <= 0 {
		return usageError("--event-bytes %d: must be positive", f.eventBytes)
	}
	if f.retain <= 0 {
		return usageError("--retain %s: must be positive", f.retain)
	}
	if f.maxPayload < 1 || f.maxPayload > server.MaxPayloadLimit {
		return usageError("--max-payload %s: must be 1 byte to %s", &f.maxPayload, byteSize(server.MaxPayloadLimit))
	}
	if err := f.checkAddress("--listen", f.listen); err != nil {
		return err
	}
	if f.http == "" {
		return nil
	}
	return f.checkAddress("--http", f.http)
}

// checkAddress refuses what other hosts can reach, unless it is asked for.
func (f *serveFlags) checkAddress(flag, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return usageError("%s %q: want HOST:PORT", flag, address)
	}
	if f.insecure || host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return nil
	}
	return usageError("%s %q: other hosts may reach this address and there is no authentication yet; "+
		"use a loopback address, or allow it with --insecure", flag, address)
}

// serve runs a server until ctx ends, and then until it has stopped or the grace is over.
func (f *serveFlags) serve(ctx context.Context, stdout, stderr io.Writer) error {
	if err := f.check(); err != nil {
		return err
	}
	log := f.logger(stderr)
	st, err := f.openStore(log)
	if err != nil {
		return err
	}
	err = f.serveStore(ctx, st, log, stdout, stderr)
	select {
	case <-st.Failed():
		// Nothing can be written any more, and closing might wait for the disk for ever.
		return &exitError{exitStorage, "the disk failed, see the log; nothing that was acknowledged is lost: start the server again"}
	default:
	}
	if closeErr := st.Close(); closeErr != nil {
		return errors.Join(err, &exitError{exitStorage, fmt.Sprintf("could not close the store: %v", closeErr)})
	}
	return err
}

func (f *serveFlags) logger(stderr io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.logLevel}
	if f.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(stderr, options))
	}
	return slog.New(slog.NewTextHandler(stderr, options))
}

func (f *serveFlags) openStore(log *slog.Logger) (store.Store, error) {
	cfg := pebblestore.Config{Dir: f.data, Logger: log, Reserve: int64(f.reserve), Retain: f.retain, RetainEvents: f.events, EventBytes: int64(f.eventBytes)}
	if f.reserve == 0 {
		cfg.Reserve = -1
	}
	if f.memory {
		cfg.Dir, cfg.FS, cfg.Reserve = "stint-data", vfs.NewMem(), -1
	}
	st, err := pebblestore.Open(cfg)
	switch {
	case errors.Is(err, pebblestore.ErrLocked), errors.Is(err, pebblestore.ErrFormat), errors.Is(err, pebblestore.ErrDamaged):
		return nil, &exitError{exitRefused, err.Error()}
	case errors.Is(err, pebblestore.ErrDisk):
		return nil, &exitError{exitStorage, err.Error()}
	case err != nil:
		return nil, err
	}
	return st, nil
}

// serveStore serves st, which stays open. After a failure of the disk it leaves everything as it is.
func (f *serveFlags) serveStore(ctx context.Context, st store.Store, log *slog.Logger, stdout, stderr io.Writer) error {
	d, err := dispatch.New(st, log)
	if err != nil {
		return err
	}
	s, err := server.New(st, d, server.Config{MaxPayload: int(f.maxPayload), Version: version()}, log)
	if err != nil {
		d.Close()
		return err
	}
	g, h, err := f.listeners()
	if err != nil {
		d.Close()
		return err
	}
	ended := make(chan error, 1)
	go func() {
		err := f.serveUntil(ctx, s, g, h, log)
		d.Close()
		ended <- err
	}()
	// The listeners take calls already, so that the line may be printed now.
	if err := f.tellReady(g, h, stdout, stderr); err != nil {
		log.Warn("could not print the ready line", "error", err)
	}
	select {
	case err := <-ended:
		return err
	case <-st.Failed():
		return nil // the caller says so
	}
}

// listeners opens the addresses; h is nil without --http.
func (f *serveFlags) listeners() (g, h net.Listener, err error) {
	if g, err = net.Listen("tcp", f.listen); err != nil || f.http == "" {
		return g, nil, err
	}
	if h, err = net.Listen("tcp", f.http); err != nil {
		return nil, nil, errors.Join(err, g.Close())
	}
	return g, h, nil
}

// serveUntil serves until ctx ends, and then until everything has stopped or the grace is over.
func (f *serveFlags) serveUntil(ctx context.Context, s *server.Server, g, h net.Listener, log *slog.Logger) error {
	background := context.WithoutCancel(ctx)
	serving := make(chan error, 1)
	go func() { serving <- s.Serve(background, g, h) }()
	select {
	case err := <-serving:
		return err
	case <-ctx.Done():
	}
	log.Info("stopping", "grace", f.grace)
	grace, cancel := context.WithTimeout(background, f.grace)
	defer cancel()
	s.Shutdown(grace)
	return <-serving
}

// tellReady prints the ready line and, for people, what to do next.
func (f *serveFlags) tellReady(g, h net.Listener, stdout, stderr io.Writer) error {
	data, http := "memory", ""
	if !f.memory {
		data = f.data
		if absolute, err := filepath.Abs(data); err == nil {
			data = absolute
		}
	}
	if h != nil {
		http = h.Addr().String()
	}
	if f.ready == "json" {
		return json.NewEncoder(stdout).Encode(struct {
			GRPC string `json:"grpc"`
			HTTP string `json:"http"`
			Data string `json:"data"`
			PID  int    `json:"pid"`
		}{g.Addr().String(), http, data, os.Getpid()})
	}
	line := "stint is ready: grpc " + g.Addr().String()
	if h != nil {
		line += " http " + http
	}
	if _, err := fmt.Fprintf(stdout, "%s data %s pid %d\n", line, data, os.Getpid()); err != nil {
		return err
	}
	at := ""
	if g.Addr().String() != defaultServer {
		at = " --server " + g.Addr().String()
	}
	_, err := fmt.Fprintf(stderr, `
Try in another terminal:
  seq 100 | stint%[1]s submit numbers --lines
  stint%[1]s work numbers --until-empty -- sh -c 'cat >/dev/null'
  stint%[1]s queue get numbers

`, at)
	return err
}

// byteSize is a flag's number of bytes: "1048576", "1MiB", "64KiB", "1GiB".
type byteSize int64

// byteUnits are the units, the largest first.
var byteUnits = []struct {
	name string
	size byteSize
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// String is the shortest way to say it exactly.
func (b byteSize) String() string {
	for _, unit := range byteUnits {
		if b >= unit.size && b%unit.size == 0 && unit.size > 1 {
			return strconv.FormatInt(int64(b/unit.size), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Set takes the flag's value.
func (b *byteSize) Set(s string) error {
	number, unit := s, byteSize(1)
	for _, u := range byteUnits {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			number, unit = n, u.size
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n < 0 || n > int64(1)<<50/int64(unit) {
		return errors.New("want a number of bytes, like 1048576 or 1MiB")
	}
	*b = byteSize(n) * unit
	return nil
}

// Type names the flag's value in help texts.
func (b *byteSize) Type() string { return "size" }
