//go:build mutant_nosync

package pebblestore

import "github.com/cockroachdb/pebble/v2"

// The mutant answers before anything is on disk; the crash tests must notice.
func (s *Store) write(b *pebble.Batch) error { return s.db.Apply(b, pebble.NoSync) }
func awaitDisk(*pebble.Batch) error          { return nil }
