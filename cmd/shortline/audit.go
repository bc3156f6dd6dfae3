package main

import (
	"io"
	"log/slog"
	"os"
	"sync"
)

// auditor is where administrators' deeds are written down.
func (s *serveSettings) auditor(stderr io.Writer, log *slog.Logger) *slog.Logger {
	switch s.auditFile {
	case "":
		return log.With("part", "audit")
	case "-":
		return slog.New(slog.NewJSONHandler(stderr, nil))
	}
	return slog.New(slog.NewJSONHandler(&auditFile{path: s.auditFile, fallback: log}, nil))
}

// auditFile appends to a file, which may be moved away at any time: then it is made anew. There is one event now and then, so it is opened
// for each.
type auditFile struct {
	path     string
	fallback *slog.Logger // gets the events, and the error, while the file cannot be written
	mu       sync.Mutex   // one line at a time
}

// Write is part of io.Writer; it gets a line at a time.
func (a *auditFile) Write(line []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, err := os.OpenFile(a.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		_, err = f.Write(line)
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}
	if err != nil {
		a.fallback.Error("the audit log cannot be written", "err", err, "event", string(line))
	}
	return len(line), nil
}
