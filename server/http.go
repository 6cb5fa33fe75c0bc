package server

import (
	"context"
	"io"
	"net/http"
	"time"
)

// handler answers probes and metrics:
//
//	/livez    200 while the process can answer at all
//	/readyz   200 while calls are served; 503 while starting, stopping, or after the disk failed
//	/metrics  the Prometheus text format
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { s.say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /metrics", s.serveMetrics)
	return mux
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-s.store.Failed():
		s.say(w, http.StatusServiceUnavailable, "the store's disk failed")
		return
	default:
	}
	if !s.ready.Load() {
		s.say(w, http.StatusServiceUnavailable, "starting or stopping")
		return
	}
	s.say(w, http.StatusOK, "ok")
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	text, err := s.exposeMetrics(ctx)
	if err != nil {
		s.log.Warn("collect the metrics", "error", err)
		s.say(w, http.StatusServiceUnavailable, "the metrics cannot be collected now")
		return
	}
	w.Header().Set("Content-Type", metricsContentType)
	if _, err := w.Write(text); err != nil {
		s.log.Debug("send the metrics", "error", err)
	}
}

// say answers with a line of text.
func (s *Server) say(w http.ResponseWriter, code int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	if _, err := io.WriteString(w, line+"\n"); err != nil {
		s.log.Debug("answer a probe", "error", err)
	}
}
