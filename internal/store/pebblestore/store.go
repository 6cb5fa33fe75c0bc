package pebblestore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/store"
)

// Config is what a store needs to know. The zero value of a field means its default.
type Config struct {
	Dir           string           // where it lives
	FS            vfs.FS           // the file system; default: the disk. vfs.NewMem() makes a store in memory
	Now           func() time.Time // the wall clock; default: time.Now
	Logger        *slog.Logger     // default: silent
	Reserve       int64            // free bytes under which new jobs are refused; default 256 MiB, negative: none
	Retain        time.Duration    // how long finished jobs are kept at least; default 24 h
	RetainJobs    int              // but not more than about so many; default 1,000,000
	Remember      time.Duration    // how long ids are remembered at least after the end of their jobs; default 24 h
	RememberJobs  int              // but not more than about so many; default 10,000,000
	RetainEvents  time.Duration    // how long events are kept at least; default 72 h
	EventBytes    int64            // but not more than about so many bytes of them; default 1 GiB
	SnapshotBytes int              // log bytes between two snapshots; default 32 MiB
	CacheBytes    int64            // the engine's block cache; default 96 MiB
}

// Defaults of Config.
const (
	DefaultReserve      = 256 << 20
	DefaultRetain       = 24 * time.Hour
	DefaultRetainJobs   = 1_000_000
	DefaultRemember     = 24 * time.Hour
	DefaultRememberJobs = 10_000_000
	DefaultRetainEvents = 72 * time.Hour
	DefaultEventBytes   = 1 << 30
	defaultSnapshot     = 32 << 20
	defaultCache        = 96 << 20
	memTableBytes       = 32 << 20
	l0Tables            = 64 // tables in the engine's upper level at which it begins to empty it (ADR 0026)
)

func (c Config) withDefaults() Config {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	orInt := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	orInt(&c.RetainJobs, DefaultRetainJobs)
	orInt(&c.RememberJobs, DefaultRememberJobs)
	orInt(&c.SnapshotBytes, defaultSnapshot)
	if c.Reserve == 0 {
		c.Reserve = DefaultReserve
	}
	if c.Retain == 0 {
		c.Retain = DefaultRetain
	}
	if c.Remember == 0 {
		c.Remember = DefaultRemember
	}
	if c.RetainEvents == 0 {
		c.RetainEvents = DefaultRetainEvents
	}
	if c.EventBytes == 0 {
		c.EventBytes = DefaultEventBytes
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = defaultCache
	}
	return c
}

// Store is a store in a directory. It has three goroutines: one commits, one waits for syncs and answers, one looks
// after free space and retention.
type Store struct {
	cfg      Config
	db       *pebble.DB
	lock     io.Closer
	secret   [32]byte
	state    *state
	observer store.Observer

	gate     sync.RWMutex // held while sending to requests; Close takes it to end sending
	closing  chan struct{}
	requests chan *request
	sealed   chan sealed
	idle     chan struct{} // a batch was synced
	inflight atomic.Int32  // batches sealed and not answered
	dirty    atomic.Uint64 // the newest batch with changes
	under    atomic.Uint64 // the batch under construction
	full     atomic.Bool
	failed   chan struct{}
	failOnce sync.Once
	running  sync.WaitGroup

	syncMu sync.Mutex
	synced uint64
	syncCh chan struct{} // closed at the next sync

	// Owned by the committing goroutine.
	tx       *tx       // of requests
	matching *tx       // of the observer's Match: its maps grow with the batch, and clearing them costs by their size
	now      time.Time // of the last transaction
	building batch
	nextDue  int64
	logged   int    // log bytes since the last snapshot
	record   writer // lent to the one that is written
	events   packer // of the batch under construction
	told     []event.Event
}

var _ store.Store = (*Store)(nil)

// Open opens the store in cfg.Dir, making it if the directory is empty or missing. It refuses, changing nothing, with
// ErrLocked, ErrFormat or ErrDamaged.
func Open(cfg Config) (*Store, error) {
	s := &Store{
		cfg: cfg.withDefaults(), state: newState(),
		closing: make(chan struct{}), requests: make(chan *request, requestsMax), sealed: make(chan sealed, 1),
		idle: make(chan struct{}, 1), failed: make(chan struct{}), syncCh: make(chan struct{}),
	}
	s.state.cold = true
	used, err := s.claimDir()
	if err != nil {
		return nil, err
	}
	s.tx, s.matching = newTx(s), newTx(s)
	if err := s.start(used); err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	s.watchSpace()
	s.running.Go(s.commitLoop)
	s.running.Go(s.syncLoop)
	s.running.Go(s.upkeepLoop)
	return s, nil
}

// start opens the store on a goroutine of its own, for the engine ends the one on which it cannot write.
func (s *Store) start(used bool) error {
	opened := make(chan error, 1)
	go func() { opened <- s.open(used) }()
	select {
	case err := <-opened:
		return err
	case <-s.failed:
		return fmt.Errorf("%w: %s: see the log", ErrDisk, s.cfg.Dir)
	}
}

// open reads what is there and opens the engine. It reads with an engine that cannot write, so that what is damaged is
// left as it is: an engine that writes takes some damage for an unfinished write, and cleans up after it.
func (s *Store) open(used bool) error {
	if used {
		err := s.openEngine(true)
		if err == nil {
			if err = s.checkTables(); err == nil {
				err = s.recover()
			}
			err = errors.Join(err, s.db.Close())
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrDamaged, s.cfg.Dir, err)
		}
	}
	s.state.cold, s.state.lanes = false, nil
	err := s.openEngine(false)
	if err == nil {
		s.begin(s.synced + 1)
		err = s.makeSecret()
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDisk, s.cfg.Dir, err)
	}
	return nil
}

// checkTables reads what each table says of itself, for recovery reads few of them. Damage inside a table is found by who
// reads there.
func (s *Store) checkTables() error {
	_, err := s.db.SSTables(pebble.WithProperties())
	return err
}

func (s *Store) openEngine(readOnly bool) error {
	cache := pebble.NewCache(s.cfg.CacheBytes)
	defer cache.Unref()
	opts := &pebble.Options{
		FS: s.cfg.FS, Cache: cache, Logger: engineLogger{s}, ReadOnly: readOnly, DisableTableStats: readOnly,
		MemTableSize: memTableBytes, MemTableStopWritesThreshold: 4,
		L0CompactionThreshold: 8, L0CompactionFileThreshold: l0Tables, L0StopWritesThreshold: 64,
		FormatMajorVersion: pebble.FormatNewest, BytesPerSync: 1 << 20,
	}
	opts.Experimental.SpanPolicyFunc = tableOfKind
	// The engine goes on after an error in the background, and takes writes as long as its log has room, until it waits
	// for a flush that never ends.
	opts.EventListener = &pebble.EventListener{
		BackgroundError: s.broke,
		DataCorruption:  func(info pebble.DataCorruptionInfo) { s.broke(info.Details) },
	}
	if readOnly {
		opts.EventListener = &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}} // the reader gets the error
	}
	db, err := pebble.Open(s.cfg.Dir, opts)
	if err != nil {
		return err
	}
	s.db = db
	return nil
}

// tableOfKind ends the engine's tables where a kind of keys ends. Most kinds grow at their end only: tables of one kind
// hardly overlap those before them, so little is merged again, and a range that retention drops is whole tables but for those
// at its ends.
func tableOfKind(start []byte) (policy pebble.SpanPolicy, end []byte, err error) {
	return pebble.SpanPolicy{}, after(start[0]), nil
}

// readSecret reads the secret; there is none before the first commit.
func (s *Store) readSecret() error {
	return s.get(metaSecret, func(b []byte) error {
		if copy(s.secret[:], b) != len(s.secret) {
			return errRecord
		}
		return nil
	})
}

// makeSecret makes the secret of a fresh store.
func (s *Store) makeSecret() error {
	if s.secret != ([32]byte{}) {
		return nil
	}
	if _, err := rand.Read(s.secret[:]); err != nil {
		return err
	}
	return s.db.Set(metaSecret, s.secret[:], pebble.Sync)
}

// Attach implements store.Store.
func (s *Store) Attach(o store.Observer) { s.observer = o }

// Secret implements store.Store.
func (s *Store) Secret() [32]byte { return s.secret }

// Failed implements store.Store.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Full implements store.Store.
func (s *Store) Full() bool { return s.full.Load() }

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) error {
	var mu sync.Mutex // held while fn runs: what it touches is the caller's again when Update returns
	answer := make(chan error, 1)
	s.Post(ctx, func(tx store.Tx) error {
		mu.Lock()
		defer mu.Unlock()
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(tx)
	}, func(err error) { answer <- err })
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		mu.Lock() // fn has run, or finds that ctx ended
		defer mu.Unlock()
		return ctx.Err()
	case <-s.failed:
		return store.ErrClosed
	}
}

// Post implements store.Store.
func (s *Store) Post(ctx context.Context, fn func(store.Tx) error, done func(error)) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	select {
	case <-s.closing:
		done(store.ErrClosed)
		return
	default:
	}
	select {
	case s.requests <- &request{fn: fn, done: done}:
	case <-ctx.Done():
		done(ctx.Err())
	case <-s.closing:
		done(store.ErrClosed)
	case <-s.failed:
		done(store.ErrClosed)
	}
}

// View implements store.Store.
func (s *Store) View(ctx context.Context, fn func(store.Reader) error) error {
	select {
	case <-s.closing:
		return store.ErrClosed
	case <-s.failed:
		return store.ErrClosed
	default:
	}
	if err := ctx.Err(); err != nil {
		return err // a caller of many looks ends with its deadline
	}
	err := s.look(fn)
	if syncErr := s.awaitSync(ctx, s.dirty.Load()); syncErr != nil {
		return syncErr
	}
	return err
}

// look runs fn over what is there now, while Close waits.
func (s *Store) look(fn func(store.Reader) error) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return fn(view{s: s, now: s.cfg.Now().UTC().Round(0), open: s.under.Load()})
}

// broke ends the store after an error of its disk: nothing is answered any more.
func (s *Store) broke(err error) {
	s.failOnce.Do(func() {
		s.cfg.Logger.Error("the store's disk failed; nothing is acknowledged any more", "error", err)
		close(s.failed)
	})
}

// fail does the same and does not return.
func (s *Store) fail(err error) {
	s.broke(err)
	runtime.Goexit()
}

// Close implements store.Store.
func (s *Store) Close() error {
	select {
	case <-s.closing:
		return store.ErrClosed
	default:
	}
	close(s.closing)
	s.gate.Lock()
	close(s.requests)
	s.gate.Unlock()
	s.running.Wait()
	select {
	case <-s.failed:
		return errors.Join(store.ErrClosed, s.lock.Close()) // the engine may hold locks for ever
	default:
	}
	return errors.Join(s.closeEngine(), s.lock.Close())
}

func (s *Store) closeEngine() error {
	if s.building.engine != nil {
		if err := s.building.engine.Close(); err != nil {
			return err
		}
	}
	return s.db.Close()
}

// engineLogger passes the engine's messages on. The engine calls Fatalf when it cannot write its log.
type engineLogger struct{ s *Store }

func (l engineLogger) Infof(format string, args ...any) {
	if log := l.s.cfg.Logger; log.Enabled(context.Background(), slog.LevelDebug) { //nolint:forbidigo // the engine has no context
		log.Debug("engine", "message", fmt.Sprintf(format, args...))
	}
}

func (l engineLogger) Errorf(format string, args ...any) {
	l.s.cfg.Logger.Error("engine", "message", fmt.Sprintf(format, args...))
}

func (l engineLogger) Fatalf(format string, args ...any) { l.s.fail(fmt.Errorf(format, args...)) }
