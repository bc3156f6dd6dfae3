package storefile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// capture keeps the first max bytes of something.
type capture struct {
	buf  []byte
	max  int
	over bool // there were more
}

func (c *capture) reset() { c.buf, c.over = c.buf[:0], false }

// add is fine on a nil capture, which keeps nothing.
func (c *capture) add(b byte) {
	switch {
	case c == nil:
	case len(c.buf) < c.max:
		c.buf = append(c.buf, b)
	default:
		c.over = true
	}
}

// jsonScanner follows the structure of JSON in a stream and counts lines. It sees where values begin and end, not whether
// they are right within: brackets of both kinds count alike.
type jsonScanner struct {
	r    *bufio.Reader
	line int
}

// peek skips blanks and returns the byte after them without taking it.
func (s *jsonScanner) peek() (byte, error) {
	for skipped := 0; ; skipped++ {
		c, err := s.r.ReadByte()
		if err != nil {
			return 0, err
		}
		switch c {
		case '\n':
			s.line++
		case ' ', '\t', '\r':
		default:
			return c, s.r.UnreadByte()
		}
		if skipped > maxSkipBytes {
			return 0, fmt.Errorf("more than %d MiB of blanks", maxSkipBytes>>20)
		}
	}
}

// take takes one byte.
func (s *jsonScanner) take(into *capture) error {
	c, err := s.r.ReadByte()
	if err != nil {
		return err
	}
	if c == '\n' {
		s.line++
	}
	into.add(c)
	return nil
}

// expect takes the byte want after any blanks.
func (s *jsonScanner) expect(want byte, into *capture) error {
	c, err := s.peek()
	if err != nil {
		return err
	}
	if c != want {
		return fmt.Errorf("found %q where %q must stand", c, want)
	}
	return s.take(into)
}

// value takes one whole value, which must start at the next byte, and gives its bytes to both captures.
func (s *jsonScanner) value(a, b *capture) error {
	depth, inString, escaped, literal := 0, false, false, false
	for n := 0; ; n++ {
		if n > maxSkipBytes {
			return fmt.Errorf("a value is larger than %d MiB", maxSkipBytes>>20)
		}
		c, err := s.r.ReadByte()
		if err != nil {
			if literal && errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if !inString && depth == 0 {
			switch c {
			case '{', '[', '"':
				if literal {
					return s.r.UnreadByte()
				}
			case ',', ':', '}', ']', ' ', '\t', '\r', '\n':
				if !literal {
					return fmt.Errorf("found %q where a value must start", c)
				}
				return s.r.UnreadByte()
			default:
				literal = true
			}
		}
		if c == '\n' {
			s.line++
		}
		a.add(c)
		b.add(c)
		switch {
		case inString && escaped:
			escaped = false
		case inString && c == '\\':
			escaped = true
		case inString && c == '"':
			inString = false
			if depth == 0 {
				return nil
			}
		case inString:
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return nil
			}
		}
	}
}

// wrap adds the line to what ended the file.
func (s *jsonScanner) wrap(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
		return fmt.Errorf("line %d: the file ends in the middle of a value: %w", s.line, err)
	}
	return fmt.Errorf("line %d: %w", s.line, err)
}
