package simtest

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stintrun/stint/internal/store"
)

// gate lets everybody pass, or nobody until it is open again.
type gate struct {
	mu     sync.Mutex
	closed chan struct{} // nil while it is open
}

func (g *gate) pass() {
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed != nil {
		<-closed
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == nil {
		g.closed = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		close(g.closed)
		g.closed = nil
	}
}

// serverListener gives a process its ends of connections.
type serverListener struct {
	net.Listener
	p *process
}

func (l *serverListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.p.servers = append(l.p.servers, c)
	return &serverConn{c, l.p}, nil
}

// serverConn is a connection of a process that may stand still or be dead.
type serverConn struct {
	net.Conn
	p *process
}

func (c *serverConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.p.still.pass()
	return n, err
}

func (c *serverConn) Write(b []byte) (int, error) {
	c.p.still.pass()
	if c.p.dead.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// stillStore is the store of a process that may stand still: nothing reaches it then.
type stillStore struct {
	store.Store
	gate *gate
}

func (s *stillStore) Update(ctx context.Context, fn func(store.Tx) error) error {
	s.gate.pass()
	return s.Store.Update(ctx, fn)
}

func (s *stillStore) Post(ctx context.Context, fn func(store.Tx) error, done func(error)) {
	s.gate.pass()
	s.Store.Post(ctx, fn, done)
}

func (s *stillStore) View(ctx context.Context, fn func(store.Reader) error) error {
	s.gate.pass()
	return s.Store.View(ctx, fn)
}

// slowDisk is a disk on which syncing the engine's log takes its time, so that a crash finds something unsynced, and
// may take for ever.
type slowDisk struct {
	vfs.FS
	gate   *gate
	slowly time.Duration // how long a sync takes at most
}

// syncMin and syncMax are how long a sync takes; syncFast is the most on a disk that is good.
const syncMin, syncMax, syncFast = 200 * time.Microsecond, 5 * time.Millisecond, 400 * time.Microsecond

func (d *slowDisk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return d.slow(name)(d.FS.Create(name, category))
}

func (d *slowDisk) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return d.slow(newname)(d.FS.ReuseForWrite(oldname, newname, category))
}

func (d *slowDisk) slow(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err != nil || !strings.HasSuffix(name, ".log") {
			return f, err
		}
		return &slowFile{f, d.gate, d.slowly}, nil
	}
}

type slowFile struct {
	vfs.File
	gate   *gate
	slowly time.Duration
}

func (f *slowFile) Sync() error {
	f.wait()
	return f.File.Sync()
}

func (f *slowFile) SyncData() error {
	f.wait()
	return f.File.SyncData()
}

func (f *slowFile) wait() {
	time.Sleep(syncMin + rand.N(f.slowly-syncMin))
	f.gate.pass()
}

// complaints fails the test when a living server logs an error: none of what happens here is one.
type complaints struct {
	slog.Handler
	w *world
	p *process
}

func (c *complaints) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelError
}

func (c *complaints) WithAttrs([]slog.Attr) slog.Handler { return c }

func (c *complaints) WithGroup(string) slog.Handler { return c }

func (c *complaints) Handle(_ context.Context, r slog.Record) error {
	if c.p.dead.Load() {
		return nil
	}
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	c.w.witness.fault("the server logs an error: %s", text)
	return nil
}
