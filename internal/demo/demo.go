package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/bench/child"
)

// Config says what to show.
type Config struct {
	// Binary is the stint executable to start; empty means the one that is running.
	Binary string
	// Data is the server's data directory, which must be empty or not exist; empty means a fresh temporary one.
	Data string
	// Keep leaves the data directory behind; otherwise it is removed.
	Keep bool
	// Files is the directory whose files are the work.
	Files string
	// Workers is the number of workers; zero means 4. Each executes up to four runs at once.
	Workers int
	// Progress is where to draw a progress bar; nil means nowhere.
	Progress io.Writer
}

// What makes the demo fail although it came to its end.
var (
	// ErrMismatch says that something was lost, wrong, or accepted twice.
	ErrMismatch = errors.New("the results do not match")
	// ErrNotAdopted says that no run outlived the crash, so that nothing was shown.
	ErrNotAdopted = errors.New("no run was adopted by the restarted server")
)

const (
	queue       = "demo/files"
	perWorker   = 4
	filesLeast  = 100 // fewer are done before a crash can hit them
	pageSize    = 500
	callTimeout = time.Minute
	stopGrace   = 5 * time.Second // for the workers, at the end
)

// show is a demo under way.
type show struct {
	config Config
	root   *os.Root
	files  []string
	ours   bool // the data directory is fresh, so it may be removed
	ledger *ledger
	server *child.Server
	client *client.Client

	cancel  context.CancelCauseFunc
	running sync.WaitGroup // the submitter and the workers
	workers []*client.Worker
	clients []*client.Client
	second  chan struct{} // closed when the second part may be submitted

	begin, end      time.Time     // of the work
	caught, crashed chan struct{} // a run waits, from before the kill until the workers have noticed

	killed, ready, resumed time.Time
	held                   int // runs held at the kill
}

// Run gives the demo. The report is complete if there is no error, ErrMismatch, or ErrNotAdopted.
func Run(ctx context.Context, c Config) (report Report, err error) {
	if c.Workers == 0 {
		c.Workers = 4
	}
	s := &show{config: c, second: make(chan struct{}), caught: make(chan struct{}), crashed: make(chan struct{})}
	ctx, s.cancel = context.WithCancelCause(ctx)
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(ctx); err != nil {
		return report, err
	}
	bar := newBar(c.Progress)
	defer bar.stop()
	bar.follow("jobs finished", len(s.files), func() int { _, n := s.ledger.counts(); return n })
	if err := s.work(ctx); err != nil {
		return report, err
	}
	jobs, err := s.fetch(ctx)
	if err != nil {
		return report, err
	}
	if err := s.server.Stop(); err != nil {
		return report, err
	}
	var computed atomic.Int64
	bar.follow("results computed directly", len(s.files), func() int { return int(computed.Load()) })
	expected, err := digests(ctx, s.root, s.files, func() { computed.Add(1) })
	if err != nil {
		return report, err
	}
	bar.stop()
	report = s.report(expected, jobs)
	return report, report.verdict()
}

// open prepares everything up to a server that is ready.
func (s *show) open(ctx context.Context) (err error) {
	if s.root, err = os.OpenRoot(s.config.Files); err != nil {
		return fmt.Errorf("open the directory of files: %w", err)
	}
	if s.files, err = list(s.root); err != nil {
		return err
	}
	if len(s.files) < filesLeast {
		return fmt.Errorf("%s holds %d files; the demo takes at least %d", s.config.Files, len(s.files), filesLeast)
	}
	if err := s.openData(); err != nil {
		return err
	}
	ids := make([]string, len(s.files))
	for i := range ids {
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("make an id: %w", err)
		}
		ids[i] = id.String()
	}
	s.ledger = newLedger(s.files, ids)
	if s.server, err = child.Start(ctx, child.Config{Binary: s.config.Binary, Data: s.config.Data}); err != nil {
		return err
	}
	s.client, err = s.dial()
	return err
}

// openData makes the data directory; one that holds something already is refused.
func (s *show) openData() error {
	if s.config.Data == "" {
		dir, err := os.MkdirTemp("", "stint-demo-")
		s.config.Data, s.ours = dir, err == nil
		return err
	}
	if err := os.MkdirAll(s.config.Data, 0o700); err != nil {
		return err
	}
	found, err := os.ReadDir(s.config.Data)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("%s is not empty; the demo takes a fresh directory", s.config.Data)
	}
	s.ours = true
	return nil
}

// dial makes a client that the show closes.
func (s *show) dial() (*client.Client, error) {
	c, err := client.Dial(s.server.GRPC)
	if err == nil {
		s.clients = append(s.clients, c)
	}
	return c, err
}

// work brings all jobs from submit to finish, with the crash on the way.
func (s *show) work(ctx context.Context) error {
	s.begin = time.Now()
	if err := s.startWorkers(ctx); err != nil {
		return err
	}
	s.run(func() error { return s.submit(ctx) })
	if err := s.crash(ctx); err != nil {
		return err
	}
	all := func() bool { return s.ledger.accepted == len(s.files) && s.ledger.answered == len(s.files) }
	if err := s.ledger.await(ctx, "all jobs to finish", all); err != nil {
		return err
	}
	s.end = time.Now()
	for _, w := range s.workers {
		w.Stop()
	}
	s.running.Wait()
	return context.Cause(ctx)
}

// run runs f until the show is closed; its error ends the show.
func (s *show) run(f func() error) {
	s.running.Go(func() {
		if err := f(); err != nil {
			s.cancel(err)
		}
	})
}

func (s *show) startWorkers(ctx context.Context) error {
	for i := range s.config.Workers {
		c, err := s.dial()
		if err != nil {
			return err
		}
		name := fmt.Sprintf("demo-%d", i+1)
		w := c.NewWorker(client.WorkerConfig{
			Name: name, ShutdownGrace: stopGrace, CancelGrace: stopGrace,
			OnEvent: func(ev client.Event) { s.ledger.event(name, ev) },
		})
		w.Handle(queue, perWorker, s.handle)
		s.workers = append(s.workers, w)
		s.run(func() error { return w.Run(ctx) })
	}
	return nil
}

// handle does one job.
func (s *show) handle(ctx context.Context, r *client.Run) error {
	select {
	case s.caught <- struct{}{}: // it is the one that is held over the crash
		select {
		case <-s.crashed:
		case <-ctx.Done():
		}
	default:
	}
	d, err := digest(s.root, string(r.Payload))
	if err != nil {
		return client.Final(err)
	}
	result, err := json.Marshal(d)
	if err != nil {
		return client.Final(err)
	}
	r.SetResult(result, "application/json")
	return nil
}

// fetch lists all jobs of the queue, whole.
func (s *show) fetch(ctx context.Context) ([]*stintv1.Job, error) {
	var jobs []*stintv1.Job
	for token := ""; ; {
		page, err := s.page(ctx, token)
		if err != nil {
			return nil, fmt.Errorf("list the jobs: %w", err)
		}
		jobs = append(jobs, page.GetJobs()...)
		if token = page.GetNextPageToken(); token == "" {
			return jobs, nil
		}
	}
}

func (s *show) page(ctx context.Context, token string) (*stintv1.ListJobsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return s.client.Jobs().ListJobs(ctx, &stintv1.ListJobsRequest{
		Filter: &stintv1.JobFilter{Queue: queue}, View: stintv1.JobView_JOB_VIEW_FULL,
		PageSize: pageSize, PageToken: token,
	})
}

// close ends what is still there.
func (s *show) close() error {
	s.cancel(errors.New("the demo is over"))
	s.running.Wait()
	var errs []error
	for _, c := range s.clients {
		errs = append(errs, c.Close())
	}
	if s.server != nil {
		errs = append(errs, s.server.Kill())
	}
	if s.root != nil {
		errs = append(errs, s.root.Close())
	}
	if s.ours && !s.config.Keep {
		errs = append(errs, os.RemoveAll(s.config.Data))
	}
	return errors.Join(errs...)
}
