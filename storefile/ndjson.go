package storefile

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/shortline/shortline"
)

// ndjsonSource reads one store a line.
type ndjsonSource struct {
	*lines
	skipped bool // the first line is over-long, was reported, and is still to be skipped
	started bool
}

func (s *ndjsonSource) next() (Row, error) {
	if s.skipped {
		s.skipped = false
		if err := s.skip(); err != nil {
			return Row{}, err
		}
	}
	for {
		end, next, err := s.peek(0)
		if errors.Is(err, errLongLine) {
			s.skipped, s.started = true, true
			return Row{}, rowFault(s.line, "is longer than %d bytes", s.max)
		}
		if err != nil {
			return Row{}, err
		}
		b, line := bytes.TrimSpace(s.view(0, end)), s.line
		s.take(next, 1) // b stays as it is until the next peek
		if len(b) == 0 {
			continue
		}
		if !s.started && b[0] == '[' {
			return Row{}, fmt.Errorf("line %d: the file is a JSON array; NDJSON has one store a line without brackets and commas", line)
		}
		s.started = true
		return ndjsonRow(line, b)
	}
}

func ndjsonRow(line int, b []byte) (Row, error) {
	if !utf8.Valid(b) {
		return Row{}, rowFault(line, "is not valid UTF-8")
	}
	store, err := shortline.DecodeStore(b)
	if err == nil {
		err = store.Validate()
	}
	var invalid *shortline.InvalidError
	if errors.As(err, &invalid) {
		return Row{}, rowError(line, string(store.ID), invalid.Faults)
	}
	if err != nil {
		return Row{}, rowFault(line, "%v", err)
	}
	return Row{Line: line, Store: store}, nil
}
