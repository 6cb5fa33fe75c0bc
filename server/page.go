package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"

	"google.golang.org/protobuf/proto"
)

// pageTokens seals where a list goes on. A token is the position followed by a MAC over the position and the query, so
// that it serves that query only and cannot be made up; it stays valid over restarts, as its key is the store's.
type pageTokens struct {
	key [32]byte
}

// pageMAC is how many bytes of the MAC a token holds.
const pageMAC = 16

func newPageTokens(secret [32]byte) pageTokens {
	mac := hmac.New(sha256.New, secret[:])
	mac.Write([]byte("page tokens"))
	return pageTokens{key: [32]byte(mac.Sum(nil))}
}

// seal makes the token that names position in the list that query asks for. query is the request without its page
// token and size.
func (p pageTokens) seal(query proto.Message, position []byte) (string, error) {
	mac, err := p.mac(query, position)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(append(mac, position...)), nil
}

// open returns the position that a token names; nil for an empty token, which names the start.
func (p pageTokens) open(query proto.Message, token string) ([]byte, error) {
	if token == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < pageMAC {
		return nil, errPageToken
	}
	mac, err := p.mac(query, b[pageMAC:])
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(mac, b[:pageMAC]) {
		return nil, errPageToken
	}
	return b[pageMAC:], nil
}

func (p pageTokens) mac(query proto.Message, position []byte) ([]byte, error) {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(query)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, p.key[:])
	kind := query.ProtoReflect().Descriptor().FullName()
	sum := sha256.Sum256(text)
	mac.Write([]byte(kind))
	mac.Write(sum[:])
	mac.Write(position)
	return mac.Sum(nil)[:pageMAC], nil
}
