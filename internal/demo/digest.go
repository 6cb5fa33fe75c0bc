package demo

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
)

// Digest is the result of one job.
type Digest struct {
	// SHA256 of the file's content, in hexadecimal.
	SHA256 string `json:"sha256"`
	// Bytes is the file's size.
	Bytes int64 `json:"bytes"`
	// GzipBytes is its size under gzip at the default level.
	GzipBytes int64 `json:"gzip_bytes"`
}

// list names all regular files under the root, in lexical order.
func list(root *os.Root) ([]string, error) {
	var files []string
	err := fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the files: %w", err)
	}
	return files, nil
}

// compressors are gzip writers to use again: each is near a megabyte.
var compressors = sync.Pool{New: func() any { return gzip.NewWriter(io.Discard) }}

// digest does the work of one job.
func digest(root *os.Root, path string) (Digest, error) {
	f, err := root.Open(path)
	if err != nil {
		return Digest{}, err
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	var size counter
	z := compressors.Get().(*gzip.Writer)
	defer compressors.Put(z)
	z.Reset(&size)
	n, err := io.Copy(io.MultiWriter(sum, z), f)
	if err != nil {
		return Digest{}, fmt.Errorf("read %s: %w", path, err)
	}
	if err := z.Close(); err != nil {
		return Digest{}, fmt.Errorf("compress %s: %w", path, err)
	}
	return Digest{SHA256: hex.EncodeToString(sum.Sum(nil)), Bytes: n, GzipBytes: int64(size)}, nil
}

// counter counts the bytes written to it.
type counter int64

// Write never fails.
func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// digests computes the results directly, on all processors; done is told of each.
func digests(ctx context.Context, root *os.Root, files []string, done func()) ([]Digest, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	all := make([]Digest, len(files))
	var next atomic.Int64
	var running sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		running.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(files) {
					return
				}
				d, err := digest(root, files[i])
				if err != nil {
					cancel(err)
				}
				all[i] = d
				done()
			}
		})
	}
	running.Wait()
	return all, context.Cause(ctx)
}
