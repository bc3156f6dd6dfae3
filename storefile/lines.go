package storefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// errLongLine says that a line, or the lines looked at together, exceed the bound.
var errLongLine = errors.New("line too long")

// lines looks at a stream line by line without taking more than max bytes into view, and takes lines off its front.
type lines struct {
	r    io.Reader
	buf  []byte // buf[pos:end] is read and not yet taken
	pos  int
	end  int
	max  int
	line int   // the number of the line that starts at pos
	err  error // what r ended with
}

const readChunk = 64 << 10

func newLines(r io.Reader, maxBytes int) *lines {
	return &lines{r: r, max: maxBytes, line: 1}
}

// peek finds the line that starts off bytes behind the front: its text is view(off, end), and the line after it starts at
// next. It returns io.EOF where there is no such line, and errLongLine where more than max bytes from the front would be
// needed to see its end. A last line needs no line feed.
func (l *lines) peek(off int) (end, next int, err error) {
	seen := off
	for {
		if i := bytes.IndexByte(l.buf[l.pos+seen:l.end], '\n'); i >= 0 {
			end, next = seen+i, seen+i+1
			break
		}
		seen = l.end - l.pos
		if seen > l.max+1 { // one more for the carriage return
			return 0, 0, errLongLine
		}
		if l.err == nil {
			l.fill()
			continue
		}
		if !errors.Is(l.err, io.EOF) {
			return 0, 0, fmt.Errorf("line %d: %w", l.line, l.err)
		}
		if seen == off {
			return 0, 0, io.EOF
		}
		end, next = seen, seen
		break
	}
	if end > off && l.buf[l.pos+end-1] == '\r' {
		end--
	}
	if end > l.max {
		return 0, 0, errLongLine
	}
	return end, next, nil
}

// view is the bytes from off to end behind the front; it is valid until the next peek, take or skip.
func (l *lines) view(off, end int) []byte { return l.buf[l.pos+off : l.pos+end] }

// take removes n bytes, which are whole lines in number, from the front.
func (l *lines) take(n, number int) {
	l.pos += n
	l.line += number
}

// skip removes the first line, however long. It gives up where that is longer than maxSkipBytes.
func (l *lines) skip() error {
	for skipped := 0; ; {
		if i := bytes.IndexByte(l.buf[l.pos:l.end], '\n'); i >= 0 {
			l.take(i+1, 1)
			return nil
		}
		skipped += l.end - l.pos
		l.pos = l.end
		if skipped > maxSkipBytes {
			return fmt.Errorf("line %d is longer than %d MiB; this does not look like a file of lines", l.line, maxSkipBytes>>20)
		}
		if errors.Is(l.err, io.EOF) {
			return nil
		}
		if l.err != nil {
			return fmt.Errorf("line %d: %w", l.line, l.err)
		}
		l.fill()
	}
}

// fill reads once, growing the buffer to at most max and a chunk.
func (l *lines) fill() {
	if l.pos == l.end {
		l.pos, l.end = 0, 0
	}
	if l.end == len(l.buf) && l.pos > 0 {
		l.end = copy(l.buf, l.buf[l.pos:l.end])
		l.pos = 0
	}
	if l.end == len(l.buf) {
		size := min(max(2*len(l.buf), readChunk), l.max+readChunk)
		l.buf = append(make([]byte, 0, size), l.buf...)[:size]
	}
	for range 100 {
		n, err := l.r.Read(l.buf[l.end:])
		l.end += n
		l.err = err
		if n > 0 || err != nil {
			return
		}
	}
	l.err = io.ErrNoProgress
}
