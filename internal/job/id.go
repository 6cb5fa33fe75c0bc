package job

import (
	"encoding/hex"
	"errors"
	"time"
)

var errID = errors.New("job: an id is a UUID in canonical form: 36 characters, lower case")

// String is the canonical form: 36 characters, lower case.
func (id ID) String() string {
	var b [36]byte
	hex.Encode(b[0:8], id[0:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:36], id[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// ParseID reads the canonical form and nothing else, so that an id has one spelling.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 36 {
		return ID{}, errID
	}
	at := 0
	for i := 0; i < len(s); {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if s[i] != '-' {
				return ID{}, errID
			}
			i++
			continue
		}
		high, low := nibble(s[i]), nibble(s[i+1])
		if high > 15 || low > 15 {
			return ID{}, errID
		}
		id[at] = high<<4 | low
		at++
		i += 2
	}
	return id, nil
}

// nibble is the value of a lower-case hexadecimal digit; over 15 for anything else.
func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	default:
		return 255
	}
}

// V7Time is when a UUIDv7 was made, by its own word; false for other UUIDs.
func (id ID) V7Time() (time.Time, bool) {
	if id[6]>>4 != 7 || id[8]>>6 != 0b10 {
		return time.Time{}, false
	}
	var ms int64
	for _, b := range id[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms).UTC(), true
}
