package bench

import (
	"os"
	"runtime"
	"testing"
)

func TestHostIsMeasured(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // nothing to read elsewhere, see host_other.go
	}
	before, err := processCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for own, _ := ownCPU(); ; {
		if now, err := ownCPU(); err != nil || now > own+30_000_000 {
			break // two ticks of /proc have passed
		}
	}
	after, err := processCPU(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("processor time %v then %v: %v", before, after, err)
	}
	rss, err := residentMemory(os.Getpid())
	if err != nil || rss < 1<<20 || rss > 1<<34 {
		t.Errorf("memory %d: %v", rss, err)
	}
	cost, err := syncCost(t.TempDir())
	if err != nil || cost <= 0 {
		t.Errorf("cost of a sync %v: %v", cost, err)
	}
	if fs, err := fileSystem(os.TempDir()); err != nil || fs == "" {
		t.Errorf("file system %q: %v", fs, err)
	}
	if fs, err := fileSystem("/dev/shm"); err != nil || fs != "tmpfs" {
		t.Errorf("file system of /dev/shm %q: %v", fs, err)
	}
}
