package dispatch

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

// ref names a run: its job's sequence and its fence.
type ref struct{ seq, fence uint64 }

// refBits bounds both halves of a ref. The bits above are zero, which a forged token has by a chance of one in four
// million; it then names no live run.
const refBits = 53

// tokens turns refs into lease tokens and back. A token is the ref under a keyed permutation (one AES block), so that
// it can neither be read nor made without the store's secret, and needs no lookup.
type tokens struct{ block cipher.Block }

// encoding is strict: a token has one spelling.
var encoding = base64.RawURLEncoding.Strict()

// tokenLen is the length of a lease token.
const tokenLen = 22

func newTokens(secret [32]byte) (tokens, error) {
	key, err := hkdf.Key(sha256.New, secret[:], nil, "stint lease token v1", 16)
	if err != nil {
		return tokens{}, fmt.Errorf("derive the key of lease tokens: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return tokens{}, fmt.Errorf("make the cipher of lease tokens: %w", err)
	}
	return tokens{block}, nil
}

// seal makes the token of a run.
func (t tokens) seal(r ref) string {
	b := make([]byte, aes.BlockSize+tokenLen)
	block, text := b[:aes.BlockSize], b[aes.BlockSize:]
	binary.BigEndian.PutUint64(block, r.seq)
	binary.BigEndian.PutUint64(block[8:], r.fence)
	t.block.Encrypt(block, block)
	encoding.Encode(text, block)
	return string(text)
}

// open reads a token; false if it is none of ours.
func (t tokens) open(token string) (ref, bool) {
	if len(token) != tokenLen {
		return ref{}, false
	}
	b := make([]byte, aes.BlockSize, 2*aes.BlockSize)
	n, err := encoding.Decode(b, []byte(token))
	if err != nil || n != aes.BlockSize {
		return ref{}, false
	}
	t.block.Decrypt(b, b)
	r := ref{seq: binary.BigEndian.Uint64(b), fence: binary.BigEndian.Uint64(b[8:])}
	return r, r.seq>>refBits == 0 && r.fence>>refBits == 0 && r.seq > 0 && r.fence > 0
}
