package sidecar

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestTailKeepsTheLastBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tail := &tail{size: 8}
		var all string
		for _, chunk := range rapid.SliceOf(rapid.StringMatching(`[a-z]{0,20}`)).Draw(t, "chunks") {
			if n, err := tail.Write([]byte(chunk)); n != len(chunk) || err != nil {
				t.Fatalf("Write = %d, %v", n, err)
			}
			all += chunk
			if want := all[max(0, len(all)-8):]; tail.String() != want {
				t.Fatalf("got %q, want %q", tail.String(), want)
			}
		}
	})
}

func TestTailIsValidText(t *testing.T) {
	for _, tc := range []struct{ written, want string }{
		{"äöüß", "äöüß"},
		{"1äöüß", "äöüß"},
		{"äöüß1", "öüß1"},       // ä is cut in half and left out.
		{"\xff\xfe ok", "? ok"}, // Not cut: shown as invalid.
		{"\x80\x80\x80\x80\x80\x80\x80\x80\x80", "?"},
	} {
		tail := &tail{size: 8}
		if _, err := tail.Write([]byte(tc.written)); err != nil {
			t.Fatal(err)
		}
		if got := tail.String(); got != tc.want || !utf8.ValidString(got) {
			t.Errorf("%q: got %q, want %q", tc.written, got, tc.want)
		}
	}
	long := &tail{size: 8}
	if _, err := long.Write([]byte(strings.Repeat("x\xff", 100))); err != nil {
		t.Fatal(err)
	}
	if got := long.String(); got != "x?x?x?x?" {
		t.Errorf("got %q", got)
	}
}
