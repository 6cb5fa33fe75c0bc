package job

import (
	"testing"
	"time"

	"github.com/google/uuid"
)

// FuzzParseID: what is accepted is printed the same, and is what a known library reads.
func FuzzParseID(f *testing.F) {
	for _, s := range []string{
		"", "01890a5d-ac96-774b-bcce-b302099a8057", "00000000-0000-0000-0000-000000000000",
		"01890A5D-AC96-774B-BCCE-B302099A8057", "{01890a5d-ac96-774b-bcce-b302099a8057}", "01890a5dac96774bbcceb302099a8057",
		"01890a5d-ac96-774b-bcce-b302099a805g", "01890a5d_ac96-774b-bcce-b302099a8057", "0189-a5d-ac96-774b-bcce-b302099a8057",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		known, knownErr := uuid.Parse(s)
		canonical := knownErr == nil && known.String() == s
		if (err == nil) != canonical {
			t.Fatalf("%q: %v, canonical is %v", s, err, canonical)
		}
		if err == nil && (id.String() != s || id != ID(known)) {
			t.Fatalf("%q reads as %v", s, id)
		}
	})
}

func TestV7Time(t *testing.T) {
	id, err := ParseID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f") // the example of RFC 9562
	if err != nil {
		t.Fatal(err)
	}
	want := time.Date(2022, 2, 22, 19, 22, 22, 0, time.UTC)
	if got, ok := id.V7Time(); !ok || got != want {
		t.Errorf("%v %v, want %v", got, ok, want)
	}
	for _, s := range []string{"919108f7-52d1-4320-9bac-f847db4148a8", "017f22e2-79b0-7cc3-18c4-dc0c0c07398f"} {
		id, err := ParseID(s)
		if _, ok := id.V7Time(); ok || err != nil {
			t.Errorf("%s is taken for a UUIDv7 (%v)", s, err)
		}
	}
}
