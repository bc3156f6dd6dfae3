package control

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

type hclogger = hclog.Logger

// raftLog passes raft's log on. What raft takes for news is of interest to those who look for a fault, so Info becomes Debug.
func raftLog(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(sink{log})
	return l
}

// repeated is what raft says again and again while a voter is away; that it is, is said once by life.beat.
var repeated = []string{"failed to heartbeat", "failed to appendEntries", "failed to contact", "failed to make requestVote", "failed to make requestPreVote",
	"failed to pipeline", "Election timeout reached", "heartbeat timeout reached", "pre-vote", "rejecting", "failed to get previous log", "failed to send snapshot"}

type sink struct{ log *slog.Logger }

// Accept is part of hclog.SinkAdapter.
func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Warn:
		to = slog.LevelWarn
	case hclog.Error:
		to = slog.LevelError
	}
	for _, again := range repeated {
		if strings.HasPrefix(msg, again) {
			to = slog.LevelDebug
		}
	}
	if !s.log.Enabled(context.Background(), to) {
		return
	}
	for i := 1; i < len(args); i += 2 { // values such as an hclog.Format are of no use elsewhere
		switch args[i].(type) {
		case string, int, uint64, error, fmt.Stringer:
		default:
			args[i] = fmt.Sprint(args[i])
		}
	}
	s.log.Log(context.Background(), to, "raft: "+msg, args...)
}
