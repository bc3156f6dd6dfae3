package planet

import (
	"bytes"
	"fmt"
	"io"
)

// painter gives each part's prefix a colour of its own, for terminals. It is written to a line at a time.
type painter struct{ w io.Writer }

// Write is part of io.Writer.
func (p *painter) Write(line []byte) (int, error) {
	name, rest, ok := bytes.Cut(line, []byte(" | "))
	if !ok {
		return p.w.Write(line)
	}
	if _, err := fmt.Fprintf(p.w, "\x1b[%dm%-20s |\x1b[0m %s", colourOf(string(name)), name, rest); err != nil {
		return 0, err
	}
	return len(line), nil
}

// colourOf is one of the twelve colours that can be read on dark and light alike; the same name has always the same.
func colourOf(name string) int {
	sum := 0
	for _, c := range []byte(name) {
		sum = sum*31 + int(c)
	}
	colours := []int{31, 32, 33, 34, 35, 36, 91, 92, 93, 94, 95, 96}
	return colours[uint(sum)%uint(len(colours))]
}
