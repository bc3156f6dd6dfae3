package planet

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

const (
	keptLines   = 30
	longestLine = 64 << 10 // a longer one is cut in pieces
)

// output takes what a server prints: it hands whole lines on, each with the server's name before it, and remembers the
// last ones for errors. A writer that blocks, blocks the server; errors of the writer are ignored.
type output struct {
	prefix string
	to     io.Writer
	each   func(line string) (show bool) // is told every line, and whether it goes on (nil: all do)

	mu   sync.Mutex
	part []byte   // guarded by mu: a line that has not ended
	kept []string // guarded by mu
}

func newOutput(name string, to io.Writer) *output {
	return &output{prefix: name + " | ", to: serial(to)}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.part = append(o.part, p...)
	for {
		line, rest, ok := bytes.Cut(o.part, []byte("\n"))
		if !ok && len(o.part) < longestLine {
			o.part = bytes.Clone(o.part) // lets go of the lines before
			return len(p), nil
		}
		o.part = rest
		o.kept = append(o.kept, string(line))
		if extra := len(o.kept) - keptLines; extra > 0 {
			o.kept = append(o.kept[:0], o.kept[extra:]...)
		}
		if o.each != nil && !o.each(string(line)) {
			continue
		}
		_, _ = io.WriteString(o.to, o.prefix+string(line)+"\n")
	}
}

// forget drops what was remembered.
func (o *output) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept, o.part = nil, nil
}

// tail is last with fewer lines.
func (o *output) tail(n int) string {
	lines := strings.Split(o.last(), "\n")
	if len(lines) <= n+1 {
		return strings.Join(lines, "\n")
	}
	return "\n" + strings.Join(lines[len(lines)-n:], "\n")
}

// last is the end of an error: the lines remembered, each on its own line, or "".
func (o *output) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := o.kept
	if len(o.part) > 0 {
		lines = append(lines[:len(lines):len(lines)], string(o.part))
	}
	if len(lines) == 0 {
		return ""
	}
	return "\n" + strings.Join(lines, "\n")
}

// serial makes a writer that several servers may share. nil discards.
func serial(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	if s, ok := w.(*serialWriter); ok {
		return s
	}
	return &serialWriter{w: w}
}

type serialWriter struct {
	mu sync.Mutex
	w  io.Writer // guarded by mu
}

func (s *serialWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}
