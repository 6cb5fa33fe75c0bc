package sidecar

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
)

// environment is the worker's own with the job's particulars in it. What the worker itself inherited of a job or trace
// does not shine through: a worker may be run by a job.
func (c *Command) environment(job Job, files *files) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "STINT_") || strings.HasPrefix(v, "TRACEPARENT=") || strings.HasPrefix(v, "TRACESTATE=")
	})
	labels, err := json.Marshal(job.Labels)
	if err != nil || job.Labels == nil {
		labels = []byte("{}")
	}
	env = append(env,
		"STINT_SERVER="+c.Server,
		"STINT_JOB_ID="+job.ID,
		"STINT_QUEUE="+job.Queue,
		"STINT_RUN="+strconv.FormatUint(uint64(job.Run), 10),
		"STINT_FENCE="+strconv.FormatUint(job.Fence, 10),
		"STINT_SUBJECT="+job.Subject,
		"STINT_PRIORITY="+strconv.Itoa(int(job.Priority)),
		"STINT_CONTENT_TYPE="+job.ContentType,
		"STINT_LABELS="+string(labels),
		"STINT_RESULT_FILE="+files.resultPath(),
		"STINT_INTERRUPT_FILE="+files.interruptPath(),
	)
	if job.Traceparent != "" {
		env = append(env, "TRACEPARENT="+job.Traceparent)
		if job.Tracestate != "" {
			env = append(env, "TRACESTATE="+job.Tracestate)
		}
	}
	return env
}
