package dispatch

import (
	"crypto/sha256"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func sealing(t testing.TB, secret string) tokens {
	t.Helper()
	made, err := newTokens(sha256.Sum256([]byte(secret)))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// TestTokens: every run's token opens to the run, and tells nothing.
func TestTokens(t *testing.T) {
	mine := sealing(t, "a")
	rapid.Check(t, func(r *rapid.T) {
		number := rapid.Uint64Range(1, 1<<refBits-1)
		run := ref{seq: number.Draw(r, "seq"), fence: number.Draw(r, "fence")}
		token := mine.seal(run)
		if got, ok := mine.open(token); !ok || got != run {
			r.Fatalf("%+v became %+v, %t", run, got, ok)
		}
		if strings.Trim(token, alphabet) != "" {
			r.Fatalf("token %q is not safe in a URL", token)
		}
		next := mine.seal(ref{seq: run.seq, fence: run.fence ^ 1})
		same := 0
		for i := range token {
			if token[i] == next[i] {
				same++
			}
		}
		if same > tokenLen/2 {
			r.Fatalf("%q and %q of neighbouring runs are alike", token, next)
		}
	})
}

// TestForeignTokens: a token is of no use to another store, nor are those that no run can have.
func TestForeignTokens(t *testing.T) {
	mine, other := sealing(t, "a"), sealing(t, "b")
	for seq := range uint64(1000) {
		if got, ok := other.open(mine.seal(ref{seq: seq + 1, fence: seq + 1})); ok {
			t.Errorf("another store opens the token of job %d to %+v", seq+1, got)
		}
	}
	for _, never := range []ref{{}, {seq: 1}, {fence: 1}, {seq: 1 << refBits, fence: 1}, {seq: 1, fence: 1 << refBits}} {
		if got, ok := mine.open(mine.seal(never)); ok {
			t.Errorf("the token of %+v opens to %+v", never, got)
		}
	}
}

// alphabet is what tokens are written in.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// TestChangedTokens changes each character of a token to each other one.
func TestChangedTokens(t *testing.T) {
	mine := sealing(t, "a")
	for seq := range uint64(20) {
		token := mine.seal(ref{seq: seq + 1, fence: 7 * (seq + 1)})
		for i := range token {
			for _, c := range alphabet + "+/= " {
				if changed := token[:i] + string(c) + token[i+1:]; changed != token {
					if got, ok := mine.open(changed); ok {
						t.Errorf("%q opens to %+v", changed, got)
					}
				}
			}
		}
	}
}

// FuzzToken: only what was sealed opens, and it has one spelling. A token that is guessed by the chance of one in four
// million is one that seal would have made.
func FuzzToken(f *testing.F) {
	mine := sealing(f, "a")
	token := mine.seal(ref{seq: 1, fence: 2})
	for _, seed := range []string{
		"", token, token[:21], token + "A", token[:21] + "=", strings.ToLower(token), strings.Repeat("A", tokenLen),
		strings.Repeat("_", tokenLen), "\x00", token[:20] + "\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		run, ok := mine.open(text)
		if ok && (mine.seal(run) != text || run.seq == 0 || run.fence == 0) {
			t.Errorf("%q opens to %+v, whose token is %q", text, run, mine.seal(run))
		}
		if !ok && text == token {
			t.Error("a token does not open")
		}
	})
}
