package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/feed"
	"github.com/stintrun/stint/internal/store"
)

// Bounds of the transport.
const (
	// streamsMax is how many calls one connection may have open. A worker holds one stream, a producer a few, and unary
	// calls are short, so this is far above honest use, also of a proxy that carries a fleet over few connections; it
	// bounds what one connection can make the server hold. Calls beyond it queue in the client.
	streamsMax = 1024
	// headersMax bounds the metadata of a call, in bytes.
	headersMax = 16 << 10
	// receiveMax is the largest message taken, in bytes: the largest payload (3 MiB) with room for the rest of its job.
	receiveMax = 4 << 20
	// connectMax is how long a connection may take to introduce itself.
	connectMax = 10 * time.Second
	// bufferSize is what one connection reads and writes at once: batches of jobs are tens of KiB.
	bufferSize = 128 << 10
	// windowSize is how much a stream's sender may have under way before the receiver has read it.
	windowSize = 1 << 20
	// connectionWindowSize is the same for all streams of a connection together.
	connectionWindowSize = 4 << 20
)

// Config is what a server can be told. The zero value serves with the defaults.
type Config struct {
	// MaxPayload is the largest payload or result taken, in bytes: 1 MiB by default, at most MaxPayloadLimit.
	MaxPayload int
	// Version is the server's version, told to workers; "devel" by default.
	Version string
}

// MaxPayloadDefault and MaxPayloadLimit are the default and the bound of Config.MaxPayload, in bytes.
const (
	MaxPayloadDefault = 1 << 20
	MaxPayloadLimit   = 3 << 20
)

func (c Config) withDefaults() Config {
	if c.MaxPayload == 0 {
		c.MaxPayload = MaxPayloadDefault
	}
	if c.Version == "" {
		c.Version = "devel"
	}
	return c
}

func (c Config) validate() error {
	if c.MaxPayload < 1 || c.MaxPayload > MaxPayloadLimit {
		return fmt.Errorf("server: the largest payload is %d bytes; it must be 1 to %d", c.MaxPayload, MaxPayloadLimit)
	}
	return nil
}

// Server serves stint.v1 over a store and a dispatcher, which it does not own. Make one with New.
type Server struct {
	stintv1.UnsafeEventServiceServer
	stintv1.UnsafeJobServiceServer
	stintv1.UnsafeQueueServiceServer
	stintv1.UnsafeWorkerServiceServer

	store    store.Store
	dispatch *dispatch.Dispatcher
	log      *slog.Logger
	cfg      Config

	grpc    *grpc.Server
	http    *http.Server
	health  *health.Server
	metrics *metrics
	tokens  pageTokens
	cursors cursors
	feed    *feed.Feed

	watchers atomic.Int64 // followers of events
	handling atomic.Int64 // calls whose handlers run

	ready    atomic.Bool
	stop     sync.Once
	stopping chan struct{}  // closed when Shutdown begins: every stream and long poll ends soon
	stopped  chan struct{}  // closed when Shutdown is done
	streams  sync.WaitGroup // goroutines that outlive their handler's return by a moment
}

// New makes a server that answers from st and d. It serves nothing until Serve is called.
func New(st store.Store, d *dispatch.Dispatcher, cfg Config, log *slog.Logger) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		store:    st,
		dispatch: d,
		log:      log,
		cfg:      cfg,
		health:   health.NewServer(),
		metrics:  newMetrics(),
		tokens:   newPageTokens(st.Secret()),
		stopping: make(chan struct{}),
		stopped:  make(chan struct{}),
		cursors:  newCursors(st.Secret()),
	}
	s.feed = feed.New(st, s.newEventEncoder)
	s.grpc = grpc.NewServer(s.options()...)
	stintv1.RegisterEventServiceServer(s.grpc, s)
	stintv1.RegisterJobServiceServer(s.grpc, s)
	stintv1.RegisterQueueServiceServer(s.grpc, s)
	stintv1.RegisterWorkerServiceServer(s.grpc, s)
	healthv1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	s.setHealth(healthv1.HealthCheckResponse_NOT_SERVING)
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    headersMax,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

func (s *Server) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.ChainUnaryInterceptor(s.unaryInterceptors()...),
		grpc.ChainStreamInterceptor(s.streamInterceptors()...),
		grpc.MaxConcurrentStreams(streamsMax),
		grpc.MaxHeaderListSize(headersMax),
		grpc.MaxRecvMsgSize(receiveMax),
		grpc.MaxSendMsgSize(s.sendMax()),
		grpc.ConnectionTimeout(connectMax),
		grpc.ReadBufferSize(bufferSize),
		grpc.WriteBufferSize(bufferSize),
		grpc.InitialWindowSize(windowSize),
		grpc.InitialConnWindowSize(connectionWindowSize),
		grpc.WaitForHandlers(true),
		// Clients may ping every ten seconds, also when idle. The server finds a dead peer within forty.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
}

// sendMax is the largest message sent: a job with a payload and a result of full size, and its history. Up to the
// default payload size it stays within the 4 MiB that clients take by default.
func (s *Server) sendMax() int {
	return max(4<<20, 2*s.cfg.MaxPayload+jobMessageRest)
}

// lastWords is how long clients have to take what they were sent last once no handler runs any more.
const lastWords = time.Second

// drained waits for the end of all calls; false if those that are left are to be cut off: at the end of ctx, or because only
// their clients, which do not read, hold them.
func (s *Server) drained(ctx context.Context, done <-chan struct{}) bool {
	const look = lastWords / 10
	tick := time.NewTicker(look)
	defer tick.Stop()
	for quiet := time.Duration(0); quiet < lastWords; {
		select {
		case <-done:
			return true
		case <-ctx.Done():
			return false
		case <-tick.C:
			if quiet += look; s.handling.Load() > 0 {
				quiet = 0
			}
		}
	}
	return false
}

func (s *Server) setHealth(status healthv1.HealthCheckResponse_ServingStatus) {
	for _, service := range []string{
		"",
		stintv1.EventService_ServiceDesc.ServiceName,
		stintv1.JobService_ServiceDesc.ServiceName,
		stintv1.QueueService_ServiceDesc.ServiceName,
		stintv1.WorkerService_ServiceDesc.ServiceName,
	} {
		s.health.SetServingStatus(service, status)
	}
}

// Serve answers gRPC calls on g and, if h is not nil, probes and metrics on h, until Shutdown is done or ctx ends; the
// end of ctx cuts every call off at once. It closes both listeners. The error is that of a listener which failed, and
// nil otherwise.
func (s *Server) Serve(ctx context.Context, g, h net.Listener) error {
	failed := make(chan error, 2)
	// Before the first call can come: all that serving needs is there, and the listeners are open.
	s.setHealth(healthv1.HealthCheckResponse_SERVING)
	s.ready.Store(true)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.grpc.Serve(g); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			failed <- fmt.Errorf("server: serve gRPC on %s: %w", g.Addr(), err)
		}
	})
	if h != nil {
		serving.Go(func() {
			if err := s.http.Serve(h); err != nil && !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("server: serve HTTP on %s: %w", h.Addr(), err)
			}
		})
	}
	var err error
	select {
	case <-s.stopped:
	case err = <-failed:
	case <-ctx.Done():
	}
	now, cancel := context.WithCancel(ctx)
	cancel()
	s.Shutdown(now)
	serving.Wait()
	return err
}

// Shutdown stops the server: no new calls, streams are told, handlers get until the end of ctx to return, then they
// are cut off. When it returns, no handler runs. The dispatcher and the store are still the caller's to close.
// Calling it again waits for the first call.
func (s *Server) Shutdown(ctx context.Context) {
	s.stop.Do(func() {
		defer close(s.stopped)
		s.ready.Store(false)
		s.setHealth(healthv1.HealthCheckResponse_NOT_SERVING)
		close(s.stopping)
		s.feed.Close()

		done := make(chan struct{})
		go func() {
			defer close(done)
			s.grpc.GracefulStop()
		}()
		if !s.drained(ctx, done) {
			s.log.Info("cutting off the calls that are still open")
			s.grpc.Stop()
			<-done
		}
		s.streams.Wait()
		// Probes are answered to the end; they are short, so that there is nobody to wait for.
		if err := s.http.Close(); err != nil {
			s.log.Debug("close the HTTP listener", "error", err)
		}
	})
}
