package server

import "net/http"

// Handler is what the HTTP listener serves, for a server that does not serve yet.
func (s *Server) Handler() http.Handler { return s.handler() }
