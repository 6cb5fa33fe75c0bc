//go:build !mutant_nosync

package pebblestore

import "github.com/cockroachdb/pebble/v2"

// write applies a batch and starts its sync; awaitDisk waits for that.
func (s *Store) write(b *pebble.Batch) error { return s.db.ApplyNoSyncWait(b, pebble.Sync) }
func awaitDisk(b *pebble.Batch) error        { return b.SyncWait() }
