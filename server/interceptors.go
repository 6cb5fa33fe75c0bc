package server

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// callMax is how long a unary call may take.
const callMax = 30 * time.Second

// The order is that of the package comment: outermost first.
func (s *Server) unaryInterceptors() []grpc.UnaryServerInterceptor {
	logCalls := logging.UnaryServerInterceptor(s.callLog(), callLogOptions()...)
	return []grpc.UnaryServerInterceptor{
		selector.UnaryServerInterceptor(logCalls, selector.MatchFunc(s.logsCall)),
		s.answerUnary,
		recovery.UnaryServerInterceptor(recovery.WithRecoveryHandlerContext(s.recoverPanic)),
		selector.UnaryServerInterceptor(deadlineUnary, selector.MatchFunc(hasDeadline)),
	}
}

// Streams have no deadline: they live as long as their client.
func (s *Server) streamInterceptors() []grpc.StreamServerInterceptor {
	logCalls := logging.StreamServerInterceptor(s.callLog(), callLogOptions()...)
	return []grpc.StreamServerInterceptor{
		selector.StreamServerInterceptor(logCalls, selector.MatchFunc(s.logsCall)),
		s.answerStream,
		recovery.StreamServerInterceptor(recovery.WithRecoveryHandlerContext(s.recoverPanic)),
	}
}

// logsCall reports whether calls are logged at all, so that they cost nothing when they are not.
func (s *Server) logsCall(ctx context.Context, _ interceptors.CallMeta) bool {
	return s.log.Enabled(ctx, slog.LevelDebug)
}

func (s *Server) callLog() logging.Logger {
	return logging.LoggerFunc(func(ctx context.Context, level logging.Level, message string, fields ...any) {
		s.log.Log(ctx, slog.Level(level), message, fields...) //nolint:sloglint // the middleware's own few messages
	})
}

func callLogOptions() []logging.Option {
	return []logging.Option{
		logging.WithLogOnEvents(logging.FinishCall),
		logging.WithLevels(func(codes.Code) logging.Level { return logging.LevelDebug }),
	}
}

func (s *Server) answerUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	s.handling.Add(1)
	defer s.handling.Add(-1)
	response, err := handler(ctx, req)
	if err := s.finishCall(ctx, info.FullMethod, err); err != nil {
		return nil, err
	}
	return response, nil
}

func (s *Server) answerStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	s.handling.Add(1)
	defer s.handling.Add(-1)
	return s.finishCall(stream.Context(), info.FullMethod, handler(srv, stream))
}

// finishCall counts a call and turns its error into a status.
func (s *Server) finishCall(ctx context.Context, method string, err error) error {
	if err == nil {
		s.metrics.called(method, codes.OK)
		return nil
	}
	st, internal := callStatus(err)
	s.metrics.called(method, st.Code())
	if r := asRefusal(err); r != nil {
		s.metrics.refused(r.reason)
	}
	if internal {
		attributes := []slog.Attr{slog.String("method", method), slog.Any("error", err)}
		if trace := traceOf(ctx); trace.parent != "" {
			attributes = append(attributes, slog.String("traceparent", trace.parent))
		}
		s.log.LogAttrs(ctx, slog.LevelError, "a call failed inside", attributes...)
	}
	return st.Err()
}

// recoverPanic logs a handler's panic; the caller gets the fixed message.
func (s *Server) recoverPanic(ctx context.Context, panicked any) error {
	s.log.ErrorContext(ctx, "a handler panicked", "panic", panicked, "stack", string(debug.Stack()))
	return errInternal
}

// guard is what fn returns. A panic of it ends like one of a handler: the goroutine that reads a stream has no interceptor.
func (s *Server) guard(ctx context.Context, fn func() error) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = s.recoverPanic(ctx, panicked)
		}
	}()
	return fn()
}

// hasDeadline reports whether the server bounds a unary call; a claim bounds itself.
func hasDeadline(_ context.Context, call interceptors.CallMeta) bool {
	return call.FullMethod() != stintv1.WorkerService_ClaimJobs_FullMethodName
}

func deadlineUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	return handler(ctx, req)
}
