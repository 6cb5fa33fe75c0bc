package bench

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"
)

// Environment says where a report was made.
type Environment struct {
	// FS is the file system that the stores were on ("ext4"); unknown if the server was somebody else's.
	FS string `json:"fs"`
	// FsyncMicros is the median cost of one fdatasync after an append of 4 KiB there, in µs.
	FsyncMicros float64 `json:"fsync_us"`
	// CPUs is the number of processors that client and server shared.
	CPUs int `json:"cpus"`
	// Go is the version of Go.
	Go string `json:"go"`
	// OS is the operating system and architecture.
	OS string `json:"os"`
	// Version is the version of stint.
	Version string `json:"version"`
	// Payload is the size of a job's payload in bytes.
	Payload int `json:"payload"`
	// Limits is how many limits a job names, Keys how many keys each of them has.
	Limits int `json:"limits,omitempty"`
	Keys   int `json:"keys,omitempty"`
	// Batch is the number of jobs a message, where the scenario does not say otherwise.
	Batch int `json:"batch"`
	// Streams is the number of Submit streams, where the scenario does not say otherwise.
	Streams int `json:"streams"`
	// Workers is the number of Work streams.
	Workers int `json:"workers"`
	// Date is when the report was begun, in UTC.
	Date time.Time `json:"date"`
}

func environmentOf(c Config) (Environment, error) {
	e := Environment{
		CPUs: runtime.NumCPU(), Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH,
		Version: c.Version, Date: time.Now().UTC().Truncate(time.Second), FS: "unknown",
	}
	if c.Server != "" {
		return e, nil
	}
	var err error
	if e.FS, err = fileSystem(c.Data); err != nil {
		return e, err
	}
	cost, err := syncCost(c.Data)
	e.FsyncMicros = float64(cost.Nanoseconds()) / 1e3
	return e, err
}

const (
	syncAppends = 200
	syncBytes   = 4096
)

// syncCost is the median time of one append of 4 KiB to a file in the directory and the sync after it.
func syncCost(dir string) (cost time.Duration, err error) {
	f, err := os.CreateTemp(dir, "stint-bench-sync-")
	if err != nil {
		return 0, fmt.Errorf("measure a sync: %w", err)
	}
	defer func() {
		_ = f.Close()
		if gone := os.Remove(f.Name()); err == nil {
			err = gone
		}
	}()
	block := randomBytes(syncBytes)
	times := make([]time.Duration, 0, syncAppends)
	for range syncAppends {
		begin := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, fmt.Errorf("measure a sync: %w", err)
		}
		if err := syncData(f); err != nil {
			return 0, fmt.Errorf("measure a sync: %w", err)
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
