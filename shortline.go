// Package shortline is the domain of Shortline in plain types: stores, their queues, opening hours, waits, API keys
// and the changes that carry all of these from the database to every node.
//
// It promises that a value which passed its Validate method can be stored, served and compared everywhere in the
// system. It imports the standard library only, knows neither HTTP nor any database, and does no I/O.
package shortline

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNotFound says that the store, queue or key that was asked for does not exist.
var ErrNotFound = errors.New("not found")

// FieldError is one thing that is wrong with one field of what a client sent.
type FieldError struct {
	// Field is the name as the client wrote it: a JSON path ("address.city"), a column, or a query parameter.
	Field string `json:"field"`
	// Detail says what is wrong and what would be right, as a sentence without a full stop.
	Detail string `json:"detail"`
}

// InvalidError reports every fault of one value at once; it never stands without a fault.
type InvalidError struct{ Faults []FieldError }

// Error joins the faults into one line.
func (e *InvalidError) Error() string {
	parts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		parts[i] = f.Field + ": " + f.Detail
	}
	return strings.Join(parts, "; ")
}

// faults collects FieldErrors while a value is checked.
type faults []FieldError

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, FieldError{Field: field, Detail: fmt.Sprintf(format, args...)})
}

func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return &InvalidError{Faults: f}
}
