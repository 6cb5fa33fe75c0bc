package client

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	// hookTime is how long hooks have where nobody says otherwise.
	hookTime = 10 * time.Second
	// hookTimeMin is how long they have when the grace is over.
	hookTimeMin = time.Second
)

// Hook is called after a run's handler has returned. Its context is not that of the handler: it ends when the grace of
// the run's interrupt does, but not before it had a second, or after ten seconds where there is no grace. Its error, or
// panic, is logged and changes nothing: the outcome is the handler's.
type Hook func(ctx context.Context) error

// hooks are a run's hooks, in the order of their registration.
type hooks struct {
	mu             sync.Mutex
	abort, cleanUp []Hook
}

// OnAbort has hook called if the run was interrupted, or is no longer this worker's, and its handler did not succeed all
// the same: to undo what was begun. Hooks are called in the reverse order of their registration, those of OnAbort before
// those of OnCleanUp, while the run is still this worker's to report. Safe for concurrent use.
func (r *Run) OnAbort(hook Hook) {
	r.hooks.mu.Lock()
	defer r.hooks.mu.Unlock()
	r.hooks.abort = append(r.hooks.abort, hook)
}

// OnCleanUp has hook called however the handler ends, also by a panic. Safe for concurrent use.
func (r *Run) OnCleanUp(hook Hook) {
	r.hooks.mu.Lock()
	defer r.hooks.mu.Unlock()
	r.hooks.cleanUp = append(r.hooks.cleanUp, hook)
}

// take returns the hooks to call, in their order.
func (h *hooks) take(aborted bool) (due []Hook) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if aborted {
		due = append(due, h.abort...)
		slices.Reverse(due)
	}
	last := slices.Clone(h.cleanUp)
	slices.Reverse(last)
	return append(due, last...)
}

// callHooks calls the run's hooks and waits for them; cause is why the handler's context had ended, nil if it had not, and
// grace what is left of its interrupt's grace, 0 if it has none.
func (h *held) callHooks(log *slog.Logger, cause error, grace time.Duration, succeeded bool) {
	due := h.run.hooks.take(cause != nil && !succeeded)
	if len(due) == 0 {
		return
	}
	limit := hookTime
	if grace != 0 {
		limit = max(grace, hookTimeMin)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.ctx), limit)
	defer cancel()
	for _, hook := range due {
		returned := make(chan struct{})
		go func() { // of its own, for a hook may call runtime.Goexit as a failing test does
			defer close(returned)
			if err := callHook(ctx, hook); err != nil {
				log.Warn("a hook failed", slog.String("job_id", h.run.JobID), slog.Uint64("run", uint64(h.run.Number)), slog.Any("error", err))
			}
		}()
		<-returned
	}
}

func callHook(ctx context.Context, hook Hook) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return hook(ctx)
}
