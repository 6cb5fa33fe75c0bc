package demo

import (
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree makes a directory with the given files, a directory and a symbolic link.
func tree(t *testing.T, files map[string]string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func TestDigest(t *testing.T) {
	root := tree(t, map[string]string{"a": "abc", "d/empty": ""})
	files, err := list(root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "d/empty"}, files); diff != "" {
		t.Error(diff)
	}
	// SHA-256 of "abc" and of nothing, from FIPS 180-2; sizes as gzip(1) has them, without a name in the header.
	want := []Digest{
		{"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3, gzipped(t, "abc")},
		{"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0, gzipped(t, "")},
	}
	for range 2 { // the second time with compressors that were used before
		got, err := digests(t.Context(), root, files, func() {})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := digests(t.Context(), root, []string{"a", "none"}, func() {}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := digest(root, "../outside"); err == nil {
		t.Error("a path out of the root was read")
	}
}

// gzipped compresses with a writer of its own.
func gzipped(t *testing.T, content string) int64 {
	t.Helper()
	var n counter
	z := gzip.NewWriter(&n)
	if _, err := io.WriteString(z, content); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return int64(n)
}
