package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/stintrun/stint/internal/store"
)

// cursors writes places among a store's events. A cursor names the store, so that one of another store is known for what
// it is; nobody needs to be kept from making one up, for a place is no secret.
type cursors struct {
	id [4]byte
}

// cursorSize is how long a cursor is: the store's name, the batch, the index.
const cursorSize = 4 + 8 + 4

func newCursors(secret [32]byte) cursors {
	mac := hmac.New(sha256.New, secret[:])
	mac.Write([]byte("event cursors"))
	return cursors{id: [4]byte(mac.Sum(nil))}
}

func (k cursors) write(c store.Cursor) string {
	b := append(make([]byte, 0, cursorSize), k.id[:]...)
	b = binary.BigEndian.AppendUint64(b, c.Batch)
	b = binary.BigEndian.AppendUint32(b, c.Index)
	return base64.RawURLEncoding.EncodeToString(b)
}

// read reads a cursor; known is false if it is of another store.
func (k cursors) read(text string) (c store.Cursor, known bool, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != cursorSize {
		return c, false, invalid("cursor", "is not a cursor that a server gave")
	}
	c = store.Cursor{Batch: binary.BigEndian.Uint64(b[4:]), Index: binary.BigEndian.Uint32(b[12:])}
	return c, [4]byte(b) == k.id, nil
}
