package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/bench/child"
)

// target is the server under load, with one connection for submits and one for workers.
type target struct {
	server  *child.Server // nil: somebody else's
	config  child.Config
	conns   []*grpc.ClientConn
	jobs    stintv1.JobServiceClient
	workers stintv1.WorkerServiceClient
	watched *watchers // nil: nobody follows
}

// openTarget connects to the configured server, or starts one with a fresh store. The caller ends it with close.
func openTarget(ctx context.Context, c Config) (*target, error) {
	t := &target{}
	if c.Server != "" {
		return t, errors.Join(t.dial(c.Server), t.putLimits(ctx, c.Limits))
	}
	data, err := os.MkdirTemp(c.Data, "stint-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a data directory: %w", err)
	}
	t.config = child.Config{Binary: c.Binary, Data: data}
	if err := t.start(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(data))
	}
	if err := t.putLimits(ctx, c.Limits); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

var limitNames = [...]string{"bench/0", "bench/1", "bench/2", "bench/3", "bench/4", "bench/5", "bench/6", "bench/7"}

// putLimits makes the limits that jobs name, so wide that nothing waits for them.
func (t *target) putLimits(ctx context.Context, n int) error {
	for _, name := range limitNames[:n] {
		_, err := stintv1.NewQueueServiceClient(t.conns[0]).PutLimit(ctx, &stintv1.PutLimitRequest{
			Name: name, Policy: &stintv1.LimitPolicy{MaxUnits: 1 << 30},
		})
		if err != nil {
			return fmt.Errorf("make limit %s: %w", name, err)
		}
	}
	return nil
}

func (t *target) start(ctx context.Context) error {
	server, err := child.Start(ctx, t.config)
	if err != nil {
		return err
	}
	t.server = server
	if err := t.dial(server.GRPC); err != nil {
		return errors.Join(err, server.Kill())
	}
	return nil
}

func (t *target) dial(addr string) error {
	for range 2 {
		conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return errors.Join(err, t.hangUp())
		}
		t.conns = append(t.conns, conn)
	}
	t.jobs = stintv1.NewJobServiceClient(t.conns[0])
	t.workers = stintv1.NewWorkerServiceClient(t.conns[1])
	return nil
}

func (t *target) hangUp() error {
	var errs []error
	for _, conn := range t.conns {
		errs = append(errs, conn.Close())
	}
	t.conns = nil
	return errors.Join(errs...)
}

// restart kills the server and starts it on the same store; it returns the time from start to readiness.
func (t *target) restart(ctx context.Context) (time.Duration, error) {
	if err := errors.Join(t.hangUp(), t.server.Kill()); err != nil {
		return 0, err
	}
	if err := t.start(ctx); err != nil {
		return 0, err
	}
	return t.server.Startup, nil
}

// pid is the server's process id, or 0 if it is somebody else's.
func (t *target) pid() int {
	if t.server == nil {
		return 0
	}
	return t.server.PID
}

// close ends the server and removes its store. A server that does not end well is an error.
func (t *target) close() error {
	err := t.hangUp()
	if t.server == nil {
		return err
	}
	return errors.Join(err, t.server.Stop(), os.RemoveAll(t.config.Data))
}
