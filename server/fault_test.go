package server_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/store"
)

// faulty is a store whose next call goes wrong when a test says so.
type faulty struct {
	store.Store
	fault  atomic.Pointer[func() error] // called once, before the store; its error is the call's
	view   atomic.Pointer[func() error] // the same, of View only
	failed chan struct{}                // closed: the disk failed; nil: the store's own
	stall  atomic.Bool                  // Update does not return before its context ends
	posts  atomic.Int64                 // calls of Post

	mu   sync.Mutex
	held []func() // answers to Post that wait for release; nil: none do
}

// hold keeps answers to Post back, as a slow disk does.
func (f *faulty) hold() {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = []func(){}
}

// release lets them go, in their order.
func (f *faulty) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, answer := range f.held {
		answer()
	}
	f.held = nil
}

// inject makes the next call go wrong, once all that is under way is done.
func (f *faulty) inject(fault func() error) {
	synctest.Wait()
	f.fault.Store(&fault)
}

// once calls a fault that is there, and takes it away.
func once(p *atomic.Pointer[func() error]) error {
	if fault := p.Swap(nil); fault != nil {
		return (*fault)()
	}
	return nil
}

func (f *faulty) View(ctx context.Context, fn func(store.Reader) error) error {
	if err := errors.Join(once(&f.fault), once(&f.view)); err != nil {
		return err
	}
	return f.Store.View(ctx, fn)
}

func (f *faulty) Update(ctx context.Context, fn func(store.Tx) error) error {
	if f.stall.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := once(&f.fault); err != nil {
		return err
	}
	return f.Store.Update(ctx, fn)
}

func (f *faulty) Post(ctx context.Context, fn func(store.Tx) error, done func(error)) {
	// The dispatcher's own transactions, of which a hello brings one, would take away the fault of the call.
	if _, ofCall := peer.FromContext(ctx); ofCall {
		if err := once(&f.fault); err != nil {
			done(err)
			return
		}
	}
	f.posts.Add(1)
	f.Store.Post(ctx, fn, func(err error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.held != nil {
			f.held = append(f.held, func() { done(err) })
			return
		}
		done(err)
	})
}

func (f *faulty) Failed() <-chan struct{} {
	if f.failed != nil {
		return f.failed
	}
	return f.Store.Failed()
}

// withFaults is a rig over a faulty store.
func withFaults(f *faulty) rigConfig {
	return rigConfig{wrap: func(st store.Store) store.Store {
		f.Store = st
		return f
	}}
}

const (
	cause        = "sector 7 is on fire"
	fixedMessage = "the server failed inside; its log says why"
)

// calls are one call of each kind that reaches the store. Each returns how it ended.
var calls = map[string]func(*rig) error{
	"read": func(r *rig) error {
		_, err := r.jobs.CountJobs(r.ctx, &stintv1.CountJobsRequest{})
		return err
	},
	"write": func(r *rig) error {
		_, err := r.jobs.SubmitJobs(r.ctx, &stintv1.SubmitJobsRequest{Jobs: []*stintv1.JobSpec{{Queue: "q"}}})
		return err
	},
	"Submit stream": func(r *rig) error {
		stream, err := r.jobs.Submit(r.ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&stintv1.SubmitRequest{Jobs: []*stintv1.JobSpec{{Queue: "q"}}}); err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	},
	"Work stream at hello": func(r *rig) error {
		w := r.work()
		w.say(hello(newInstance()))
		return w.err
	},
	"WaitJob stream": func(r *rig) error {
		stream, err := r.jobs.WaitJob(r.ctx, &stintv1.WaitJobRequest{Id: newID()})
		if err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	},
}

// TestInternalError: what went wrong inside is in the log and never sent.
func TestInternalError(t *testing.T) {
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			faults := &faulty{}
			inBubble(t, withFaults(faults), func(r *rig) {
				const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
				r.ctx = metadata.AppendToOutgoingContext(r.ctx, "traceparent", trace)
				faults.inject(func() error { return errors.New(cause) })
				expectInternal(r.t, call(r))
				if log := r.log.String(); strings.Count(log, cause) != 1 || !strings.Contains(log, trace) {
					r.t.Errorf("the log does not hold the cause once, with the trace of the call:\n%s", log)
				}
			})
		})
	}
}

// TestPanic: a panic of a handler, or of the goroutine that reads a stream for it, ends that call; its stack is in the
// log, and the next call is served.
func TestPanic(t *testing.T) {
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			faults := &faulty{}
			inBubble(t, withFaults(faults), func(r *rig) {
				faults.inject(func() error { panic(cause) })
				expectInternal(r.t, call(r))
				if log := r.log.String(); !strings.Contains(log, cause) || !strings.Contains(log, "fault_test.go") {
					r.t.Errorf("the log does not hold the panic and its stack:\n%s", log)
				}
				if err := calls["read"](r); err != nil {
					r.t.Error("the next call:", err)
				}
			})
		})
	}
}

// expectInternal wants the error of a failure inside, without its cause.
func expectInternal(t *testing.T, err error) {
	t.Helper()
	reason, _, _ := refusedCall(t, err)
	st := status.Convert(err)
	if st.Code() != codes.Internal || reason != stintv1.Reason_REASON_INTERNAL || st.Message() != fixedMessage {
		t.Errorf("the call ended with %v (%s), want INTERNAL and the fixed message", err, reason)
	}
	if strings.Contains(st.String(), "sector") {
		t.Error("the cause was sent:", st)
	}
}

// TestSessionStoreError: a message that the store could not take ends its session, also when the answer comes while
// another message is being sent.
func TestSessionStoreError(t *testing.T) {
	for name, open := range map[string]func(*rig) *talk{
		"idle": func(r *rig) *talk {
			w := r.unread()
			w.say(hello(newInstance()))
			return w
		},
		"sending": func(r *rig) *talk { return r.deaf("q") },
	} {
		t.Run(name, func(t *testing.T) {
			faults := &faulty{}
			inBubble(t, withFaults(faults), func(r *rig) {
				w := open(r)
				faults.inject(func() error { return errors.New(cause) })
				w.say(report())
				go w.listen()
				synctest.Wait()
				if w.err == nil {
					r.t.Fatal("the session goes on")
				}
				expectInternal(r.t, w.err)
			})
		})
	}
}
