package simtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/store/pebblestore"
	"github.com/stintrun/stint/server"
)

// world is a disk, a network, and at most one server at a time. What is done to it is done by one goroutine.
type world struct {
	t       *testing.T
	dice    *dice
	witness *witness
	began   time.Time
	fs      *vfs.MemFS
	slowly  time.Duration // how long a sync takes at most
	patient time.Duration // what patience is here
	dark    gate          // shut: nobody tries to reach the server, which is away for long

	mu    sync.Mutex
	up    *process // nil: no server runs
	links map[*link]struct{}
	notes []string // what was done, for those who look into a failure
}

// newWorld makes a world with a running server, which is taken down after the test.
func newWorld(t *testing.T, seed uint64) *world { return newWorldOn(t, seed, syncMax) }

// newWorldOn makes one on a disk whose syncs take at most so long.
func newWorldOn(t *testing.T, seed uint64, slowly time.Duration) *world {
	w := &world{
		slowly: slowly,
		t:      t, dice: newDice(seed, "world"), witness: newWitness(t), began: time.Now(), patient: patience,
		fs: vfs.NewCrashableMem(), links: map[*link]struct{}{},
	}
	t.Cleanup(func() {
		w.end()
		if t.Failed() {
			t.Logf("seed %d; run it alone with STINT_SIM_SEED=%d; this was done:", seed, seed)
			for _, note := range w.notes {
				t.Log(note)
			}
		}
	})
	w.start()
	return w
}

// patience is the virtual time after which a test gives up on what should have happened long ago; patienceLong in a
// long script.
const (
	patience     = 2 * time.Hour
	patienceLong = 48 * time.Hour
)

// await waits for what must come.
func (w *world) await(what string, done <-chan struct{}) {
	w.t.Helper()
	select {
	case <-done:
	case <-time.After(w.patient):
		w.t.Fatalf("%s: not within %s", what, w.patient)
	}
}

// note keeps what is done.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes = append(w.notes, fmt.Sprintf("%10s %s", time.Since(w.began).Round(time.Millisecond), fmt.Sprintf(format, args...)))
}

// end takes everything down: clients first, so that nobody comes back.
func (w *world) end() {
	w.dark.open()
	for _, l := range w.connected() {
		l.close()
	}
	if p := w.take(); p != nil {
		p.end()
	}
}

// process is one life of the server.
type process struct {
	store    *pebblestore.Store
	dispatch *dispatch.Dispatcher
	server   *server.Server
	listener *bufconn.Listener
	still    gate        // shut: the whole process stands still
	disk     gate        // shut: the disk does
	dead     atomic.Bool // nothing that it says gets out
	kill     context.CancelFunc
	served   chan error

	mu      sync.Mutex
	servers []net.Conn // the server's ends of its connections
	clients []net.Conn // the clients'
}

// start starts a server on the disk.
func (w *world) start() {
	w.t.Helper()
	p := &process{listener: bufconn.Listen(64 << 10), served: make(chan error, 1)}
	log := slog.New(&complaints{Handler: slog.DiscardHandler, w: w, p: p})
	var err error
	p.store, err = pebblestore.Open(pebblestore.Config{
		RetainEvents: 1000 * time.Hour, // longer than any script
		Dir:          "data", FS: &slowDisk{FS: w.fs, gate: &p.disk, slowly: w.slowly}, Logger: log, Reserve: -1, CacheBytes: 1 << 20, SnapshotBytes: 32 << 10,
		Retain: 365 * 24 * time.Hour, // the witness remembers everything
	})
	if err != nil {
		w.t.Fatalf("open the store: %v", err)
	}
	st := &stillStore{Store: p.store, gate: &p.still}
	if p.dispatch, err = dispatch.New(st, log); err != nil {
		w.t.Fatalf("start the dispatcher: %v", err)
	}
	if p.server, err = server.New(st, p.dispatch, server.Config{}, log); err != nil {
		w.t.Fatalf("make the server: %v", err)
	}
	ctx, kill := context.WithCancel(context.Background())
	p.kill = kill
	go func() { p.served <- p.server.Serve(ctx, &serverListener{p.listener, p}, nil) }()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up = p
}

// take makes the server one that nobody reaches any more, and returns it.
func (w *world) take() *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.up
	w.up = nil
	return p
}

// crash ends the server as the end of its machine's power does: the disk keeps what was synced and so many percent of
// the rest, and nothing gets out that the server says afterwards.
func (w *world) crash(keep int) {
	p := w.take()
	p.dead.Store(true)
	w.fs = w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: w.dice.rand})
	p.end()
}

// stop ends the server in order.
func (w *world) stop(grace time.Duration) {
	p := w.take()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	p.server.Shutdown(ctx)
	p.end()
}

// end cuts the process off and waits until it is gone.
func (p *process) end() {
	p.still.open()
	p.disk.open()
	p.cut(false)
	p.kill()
	<-p.served
	p.dispatch.Close()
	_ = p.store.Close()
}

// cut breaks every open connection. What is under way to the server still arrives or is lost; with what is under way to
// the clients it is the other way round.
func (w *world) cut(arrives bool) {
	w.mu.Lock()
	p := w.up
	w.mu.Unlock()
	if p != nil {
		p.cut(arrives)
	}
}

func (p *process) cut(arrives bool) {
	p.mu.Lock()
	ends := p.servers
	if arrives {
		ends = p.clients
	}
	p.servers, p.clients = nil, nil
	p.mu.Unlock()
	for _, c := range ends {
		_ = c.Close()
	}
}

// link is how one client reaches the server, whichever process that is.
type link struct {
	*client.Client
	w       *world
	severed atomic.Bool
	mu      sync.Mutex
	conns   []net.Conn
}

// connect makes a client whose messages the witness sees. The world closes it if its user does not.
func (w *world) connect(more ...grpc.DialOption) *link {
	w.t.Helper()
	l := &link{w: w}
	var err error
	l.Client, err = client.Dial("passthrough:///stint", append([]grpc.DialOption{
		grpc.WithContextDialer(l.dial),
		// A stream that gRPC replays on a new connection waits for that with its mutex held; time stands still in a
		// bubble while anybody waits for a mutex, and then the connection never comes.
		grpc.WithDefaultCallOptions(grpc.MaxRetryRPCBufferSize(0)),
		grpc.WithChainUnaryInterceptor(w.witness.unary), grpc.WithChainStreamInterceptor(w.witness.stream),
	}, more...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.links[l] = struct{}{}
	return l
}

func (w *world) connected() (all []*link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.links {
		all = append(all, l)
	}
	return all
}

func (l *link) close() {
	l.w.mu.Lock()
	_, open := l.w.links[l]
	delete(l.w.links, l)
	l.w.mu.Unlock()
	if open {
		_ = l.Close()
	}
}

var errRefused = errors.New("connection refused")

func (l *link) dial(ctx context.Context, _ string) (net.Conn, error) {
	l.w.dark.pass()
	l.w.mu.Lock()
	p := l.w.up
	l.w.mu.Unlock()
	if p == nil {
		return nil, errRefused
	}
	c, err := p.listener.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients = append(p.clients, c)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.severed.Load() {
		_ = c.Close()
		return nil, errRefused
	}
	l.conns = append(l.conns, c)
	return c, nil
}

// sever takes the network from the client. For good, it is the death of its process.
func (l *link) sever() {
	l.severed.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

// list reads every job in these states, or in any if there are none.
func (w *world) list(states ...stintv1.JobState) (jobs []*stintv1.Job) {
	l := w.connect()
	defer l.close()
	for token := ""; ; {
		page, err := l.Jobs().ListJobs(context.Background(), &stintv1.ListJobsRequest{
			View: stintv1.JobView_JOB_VIEW_FULL, PageSize: 1000, PageToken: token, Filter: &stintv1.JobFilter{States: states},
		})
		if err != nil {
			w.t.Fatalf("list jobs: %v", err)
		}
		jobs = append(jobs, page.GetJobs()...)
		if token = page.GetNextPageToken(); token == "" {
			return jobs
		}
	}
}
