package job

import (
	"errors"
	"time"
)

var errID = errors.New("job: an id is a UUID in canonical form: 36 characters, lower case")

// String is the canonical form: 36 characters, lower case.
func (id ID) String() string { return string(id.Append(make([]byte, 0, IDTextSize))) }

// IDTextSize is how many bytes an id has as text.
const IDTextSize = 36

// Append appends the id as text.
func (id ID) Append(to []byte) []byte {
	const digits = "0123456789abcdef"
	at := [len(id)]uint8{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34}
	b := [IDTextSize]byte{8: '-', 13: '-', 18: '-', 23: '-'}
	for i, v := range id {
		n := at[i]
		b[n], b[n+1] = digits[v>>4], digits[v&15]
	}
	return append(to, b[:]...)
}

// ParseID reads the canonical form and nothing else, so that an id has one spelling.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != IDTextSize {
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
