package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math"

	"github.com/stintrun/stint/internal/store"
)

// cursors writes places among a store's events. A cursor names the store, so that one of another store is known for what
// it is; nobody needs to be kept from making one up, for a place is no secret.
type cursors struct {
	id [4]byte
}

func newCursors(secret [32]byte) cursors {
	mac := hmac.New(sha256.New, secret[:])
	mac.Write([]byte("event cursors"))
	return cursors{id: [4]byte(mac.Sum(nil))}
}

func (k cursors) write(c store.Cursor) string { return string(k.append(nil, c)) }

// append appends the cursor: the store's name, the batch, the index.
func (k cursors) append(to []byte, c store.Cursor) []byte {
	var room [len(k.id) + 2*binary.MaxVarintLen64]byte
	b := append(room[:0], k.id[:]...)
	b = binary.AppendUvarint(b, c.Batch)
	b = binary.AppendUvarint(b, uint64(c.Index))
	return base64.RawURLEncoding.AppendEncode(to, b)
}

// read reads a cursor; known is false if it is of another store.
func (k cursors) read(text string) (c store.Cursor, known bool, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < len(k.id) {
		return c, false, errCursor()
	}
	id, b := [4]byte(b), b[len(k.id):]
	batch, n := binary.Uvarint(b)
	index, m := binary.Uvarint(b[max(n, 0):])
	c = store.Cursor{Batch: batch, Index: uint32(index)}
	if n <= 0 || m <= 0 || n+m != len(b) || index > math.MaxUint32 {
		return store.Cursor{}, false, errCursor()
	}
	return c, id == k.id, nil
}

func errCursor() error { return invalid("cursor", "is not a cursor that a server gave") }
