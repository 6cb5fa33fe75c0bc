package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const boundsDir = "testdata/bounds"

// Values are worked out, across packages and names; comments lose the name they begin with; what is no bound is left
// out.
func TestSection(t *testing.T) {
	s := section{title: "Visits", text: "What a visitor may do.", dir: boundsDir, skip: []string{"ratio"}, zeros: []string{"Visit"}}
	got, err := written(t, s)
	if err != nil {
		t.Fatal(err)
	}
	want := `
## Visits

What a visitor may do.

| name | value | meaning |
| --- | --- | --- |
| ` + "`roomsMax`" + ` | 4,096 (4 Ki) | bounds the rooms |
| ` + "`share`" + ` | 0.25 |  |
| ` + "`pageMax`" + ` | 1,000,000 | a variable only for tests. It may be small. |

Times of a visit.

| name | value | meaning |
| --- | --- | --- |
| ` + "`Patience`" + ` | 2m | how long a visitor waits |
| ` + "`longVisit`" + ` | 6m | a visit of this length is long |
| ` + "`season`" + ` | 90 days |  |

The fields of ` + "`Visit`" + `:

| field | meaning |
| --- | --- |
| ` + "`Length`" + ` | 0 means an hour |
| ` + "`Guests`" + ` | how many come; 0 means two |
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the section differs (-want +got):\n%s", diff)
	}
}

// A section that lost its source is an error, not an empty page.
func TestSectionRefusesToTellNothing(t *testing.T) {
	for _, s := range []section{
		{dir: boundsDir, skip: []string{"bounds.go"}},
		{dir: boundsDir, zeros: []string{"Stay"}},
	} {
		if got, err := written(t, s); err == nil || !strings.Contains(err.Error(), boundsDir) {
			t.Errorf("section %+v: got error %v, want one that names %s; wrote:\n%s", s, err, boundsDir, got)
		}
	}
}

func written(t *testing.T, s section) (string, error) {
	t.Helper()
	packages, err := loadPackages(boundsDir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	err = s.write(&b, packages[boundsDir])
	return b.String(), err
}

func TestFlagBlock(t *testing.T) {
	help := "A command.\n\nUsage:\n  x [flags]\n\nFlags:\n      --far int   how far\n                  it goes (default 3)\n  -h, --help      help for x\n\n" +
		"Global Flags:\n      --server string   where\n"
	if got, want := flagBlock(help), "      --far int   how far\n                  it goes (default 3)\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := flagBlock("A command.\n"); got != "" {
		t.Errorf("a help without flags gave %q", got)
	}
}
