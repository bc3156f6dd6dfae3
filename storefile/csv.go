package storefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// csvRecords splits lines into records. encoding/csv is not used because it takes a whole record into memory however
// long it is, and because an open quote costs it the rest of the file.
//
// Every quote is an opening one, a closing one, half of a doubled one, or a fault. So a record that starts at a line with
// an odd number of quotes ends, well or badly, at the next such line, and going back to the line after a bad start reads
// no byte more than twice.
type csvRecords struct {
	*lines
	delim   byte
	skipped bool   // the first line is over-long, was reported, and is still to be skipped
	text    []byte // the fields, one after the other
	ends    []int  // where each ends in text
	inQuote bool
}

// next reads a record into text and ends and returns the line where it starts, or a *RowError with nothing lost but that
// line, or io.EOF, or what ended the file.
func (c *csvRecords) next() (int, error) {
	if c.skipped {
		c.skipped = false
		if err := c.skip(); err != nil {
			return 0, err
		}
	}
	var first int // where the second line starts
	c.text, c.ends, c.inQuote = c.text[:0], c.ends[:0], false
	for off, number := 0, 1; ; number++ {
		end, next, err := c.peek(off)
		switch {
		case errors.Is(err, errLongLine) && off == 0:
			c.skipped = true
			return 0, rowFault(c.line, "is longer than %d bytes", c.max)
		case errors.Is(err, errLongLine):
			return 0, c.giveUp(first, fmt.Sprintf("a quote opens in this line and is not closed within %d bytes", c.max))
		case errors.Is(err, io.EOF) && off > 0:
			return 0, c.giveUp(first, "a quote opens in this line and is not closed")
		case err != nil:
			return 0, err
		}
		if off == 0 {
			if end == 0 { // a blank line is no record
				c.take(next, 1)
				number--
				continue
			}
			first = next
		}
		done, fault := c.parse(c.view(off, end))
		if fault != "" {
			return 0, c.giveUp(first, fault)
		}
		if done {
			line := c.line
			c.take(next, number)
			return line, nil
		}
		off = next
	}
}

// giveUp takes the record's first line off and reports the fault.
func (c *csvRecords) giveUp(first int, fault string) *RowError {
	e := rowFault(c.line, "%s", fault)
	c.take(first, 1)
	return e
}

// parse goes on with the record in one more line. It is done unless the line ends within quotes.
func (c *csvRecords) parse(b []byte) (done bool, fault string) {
	for {
		if !c.inQuote {
			if t := bytes.TrimLeft(b, " "); len(t) > 0 && t[0] == '"' {
				c.inQuote = true
				b = t[1:]
				continue
			}
			i := bytes.IndexByte(b, c.delim)
			field := b
			if i >= 0 {
				field = b[:i]
			}
			if bytes.IndexByte(field, '"') >= 0 {
				return false, fmt.Sprintf("field %d has a quote in the middle; put the whole field in quotes and double those inside", len(c.ends)+1)
			}
			c.text = append(c.text, field...)
			c.ends = append(c.ends, len(c.text))
			if i < 0 {
				return true, ""
			}
			b = b[i+1:]
			continue
		}
		i := bytes.IndexByte(b, '"')
		if i < 0 {
			c.text = append(append(c.text, b...), '\n')
			return false, ""
		}
		c.text = append(c.text, b[:i]...)
		b = b[i+1:]
		if len(b) > 0 && b[0] == '"' {
			c.text = append(c.text, '"')
			b = b[1:]
			continue
		}
		c.inQuote = false
		b = bytes.TrimLeft(b, " ")
		if len(b) > 0 && b[0] != c.delim {
			return false, fmt.Sprintf("field %d goes on after its closing quote; is a quote not closed, or not doubled?", len(c.ends)+1)
		}
		c.ends = append(c.ends, len(c.text))
		if len(b) == 0 {
			return true, ""
		}
		b = b[1:]
	}
}

// field is the i-th field of the record.
func (c *csvRecords) field(i int) []byte {
	start := 0
	if i > 0 {
		start = c.ends[i-1]
	}
	return c.text[start:c.ends[i]]
}

// csvSource makes stores of records.
type csvSource struct {
	rec    csvRecords
	header []string
	column [numFields]int // of each field, or -1
	// The last value of each field, as read and as cleaned: brand, country and time zone repeat from row to row.
	raw, clean [numFields]string
}

func newCSV(r io.Reader, maxBytes int, col *columns) (*csvSource, error) {
	s := &csvSource{rec: csvRecords{lines: newLines(r, maxBytes)}}
	if err := s.readHeader(); err != nil {
		return nil, err
	}
	if err := col.match(s.header, &s.column); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *csvSource) readHeader() error {
	l := s.rec.lines
	for {
		end, next, err := l.peek(0)
		if errors.Is(err, io.EOF) {
			return errors.New("the file is empty; its first line must name the columns")
		}
		if errors.Is(err, errLongLine) {
			return fmt.Errorf("the header in line %d is longer than %d bytes", l.line, l.max)
		}
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(l.view(0, end))) > 0 {
			s.rec.delim = delimiter(l.view(0, end))
			break
		}
		l.take(next, 1)
	}
	_, err := s.rec.next()
	var bad *RowError
	if errors.As(err, &bad) {
		return fmt.Errorf("the header cannot be read: %w", bad)
	}
	if err != nil {
		return err
	}
	switch {
	case !utf8.Valid(s.rec.text):
		return errors.New("the header is not valid UTF-8; save the file as UTF-8")
	case bytes.IndexByte(s.rec.text, '\r') >= 0:
		return errors.New("the lines end in lone carriage returns; save the file with LF or CRLF line ends")
	}
	for i := range s.rec.ends {
		s.header = append(s.header, cleanText(string(s.rec.field(i))))
	}
	return nil
}

// delimiter is the character that separates the names in a header.
func delimiter(header []byte) byte {
	var n [256]int
	inQuote := false
	for _, c := range header {
		if c == '"' {
			inQuote = !inQuote
		} else if !inQuote {
			n[c]++
		}
	}
	best := byte(',')
	for _, d := range []byte{';', '\t'} {
		if n[d] > n[best] {
			best = d
		}
	}
	return best
}

func (s *csvSource) next() (Row, error) {
	for {
		line, err := s.rec.next()
		if err != nil {
			return Row{}, err
		}
		n := len(s.rec.ends)
		if len(bytes.TrimSpace(s.rec.text)) == 0 {
			continue
		}
		if n != len(s.header) {
			return Row{}, rowFault(line, "has %d fields, but the header has %d; a text with a %q in it must be in quotes", n, len(s.header), string(s.rec.delim))
		}
		return s.row(line)
	}
}

func (s *csvSource) row(line int) (Row, error) {
	var v values
	for f, c := range s.column {
		if c < 0 {
			continue
		}
		b := s.rec.field(c)
		if string(b) != s.raw[f] {
			if !utf8.Valid(b) {
				v.fault(field(f), fmt.Sprintf("column %q is not valid UTF-8; save the file as UTF-8", s.header[c]))
				v.text[f] = strings.ToValidUTF8(cleanText(string(b)), "\uFFFD")
				continue
			}
			s.raw[f] = string(b)
			s.clean[f] = cleanText(s.raw[f])
		}
		v.text[f] = s.clean[f]
	}
	return v.row(line)
}
