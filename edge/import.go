package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
	"github.com/shortline/shortline/storefile"
)

const (
	// importChunk is how many rows an import commits at a time: a longer transaction would hold up everyone's writes.
	importChunk = 500
	// maxImportErrors is how many rejected rows an answer names; the rest is only counted.
	maxImportErrors = 1000
	// importPatience is how long an import may go without anything arriving, and how long a chunk may take to commit.
	importPatience = 30 * time.Second
)

// ImportAnswer counts what became of the rows of an import.
type ImportAnswer struct {
	Imported  int `json:"imported" doc:"Rows that made or changed a store: created + updated"`
	Created   int `json:"created"`
	Updated   int `json:"updated"`
	Unchanged int `json:"unchanged" doc:"Rows whose store was there already, the same in every field"`
	Rejected  int `json:"rejected" doc:"Rows that are not a store; the others went in all the same"`
	// Errors names the first rejected rows.
	Errors          []ImportError `json:"errors" doc:"The first 1,000 rejected rows"`
	ErrorsTruncated bool          `json:"errors_truncated" doc:"Whether there were more"`
}

// ImportError is one rejected row.
type ImportError struct {
	Line   int                    `json:"line" doc:"The line where the row begins, from 1"`
	ID     string                 `json:"id,omitempty" doc:"The row's id, where it could be read"`
	Errors []shortline.FieldError `json:"errors"`
}

func (a *ImportAnswer) reject(row *storefile.RowError) {
	a.Rejected++
	if len(a.Errors) == maxImportErrors {
		a.ErrorsTruncated = true
		return
	}
	a.Errors = append(a.Errors, ImportError{Line: row.Line, ID: clip(row.ID), Errors: row.Faults})
}

func (a *ImportAnswer) count(items []replication.ItemResult) {
	for _, item := range items {
		switch item.Status {
		case replication.StatusCreated:
			a.Created++
		case replication.StatusUpdated:
			a.Updated++
		default:
			a.Unchanged++
		}
	}
	a.Imported = a.Created + a.Updated
}

// importTypes are the media types of the formats.
var importTypes = map[string]storefile.Format{
	"text/csv":             storefile.CSV,
	"application/x-ndjson": storefile.NDJSON,
	"application/ndjson":   storefile.NDJSON,
	"application/geo+json": storefile.GeoJSON,
}

// importStores answers POST /v1/stores:import. The body is read as it arrives and committed in chunks, so it may be of any
// length; a row that is rejected does not stop the others, and sending the same file again changes nothing.
func (s *Server) importStores(c echo.Context) error {
	r := c.Request()
	if err := noParameters(r.URL.RawQuery); err != nil {
		return err
	}
	if _, err := s.allow(r, shortline.ScopeStoresWrite); err != nil {
		return err
	}
	if err := notCompressed(r); err != nil {
		return err
	}
	format, ok := importTypes[mediaType(r)]
	if !ok {
		return &apiError{kind: kindMedia, detail: fmt.Sprintf("the body is %q; send text/csv, application/x-ndjson or application/geo+json", clip(mediaType(r)))}
	}
	control := http.NewResponseController(c.Response())
	extend := func() error {
		now := time.Now()
		return errors.Join(control.SetReadDeadline(now.Add(importPatience)), control.SetWriteDeadline(now.Add(2*importPatience)))
	}
	if err := extend(); err != nil {
		return fmt.Errorf("extend the time of an import: %w", err)
	}
	answer := ImportAnswer{Errors: []ImportError{}}
	reader, err := storefile.NewReader(patientBody{r.Body, extend}, storefile.Options{Format: format})
	if err != nil {
		return importProblem(unreadable(err), &answer)
	}
	var last replication.Token
	items := make([]replication.Item, 0, importChunk)
	flush := func() error {
		if len(items) == 0 {
			return nil
		}
		token, err := s.importChunk(r.Context(), items, &answer)
		if err != nil {
			return err
		}
		items, last = items[:0:0], token
		return extend()
	}
	for {
		row, err := reader.Next()
		var bad *storefile.RowError
		switch {
		case err == nil:
			items = append(items, replication.Item{Put: &row.Store})
			if len(items) < importChunk {
				continue
			}
			if err := flush(); err != nil {
				return importProblem(err, &answer)
			}
		case errors.As(err, &bad):
			answer.reject(bad)
		case errors.Is(err, io.EOF):
			if err := flush(); err != nil {
				return importProblem(err, &answer)
			}
			text := s.appliedToken()
			if last != (replication.Token{}) {
				text = last.String()
			}
			return s.answer(c, http.StatusOK, text, &answer)
		default:
			return importProblem(unreadable(err), &answer)
		}
	}
}

// patientBody moves the deadlines of a request on whenever some of its body arrives: a slow sender is not a silent one.
type patientBody struct {
	body   io.Reader
	extend func() error
}

func (b patientBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if n > 0 {
		if late := b.extend(); err == nil {
			err = late
		}
	}
	return n, err
}

// importChunk commits one chunk; while too many writes are waiting it waits too, for the client is still sending.
func (s *Server) importChunk(ctx context.Context, items []replication.Item, answer *ImportAnswer) (replication.Token, error) {
	for wait := 50 * time.Millisecond; ; wait *= 2 {
		res, token, err := s.submit(ctx, replication.Write{Items: items})
		if err == nil {
			answer.count(res.Items)
			return token, nil
		}
		if !errors.Is(err, replication.ErrOverloaded) || wait > importPatience/4 {
			return token, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return token, ctx.Err()
		}
	}
}

// unreadable is the problem of a file that cannot be read any further.
func unreadable(err error) error {
	if e := asAPIError(err); e.kind.status != http.StatusInternalServerError {
		return e
	}
	return &apiError{kind: kindMalformed, detail: err.Error(), cause: err}
}

// importProblem says how far an import came before it failed; what was imported stays, and sending all again is safe.
func importProblem(err error, soFar *ImportAnswer) error {
	e := asAPIError(err)
	done := soFar.Imported + soFar.Unchanged
	if done == 0 {
		return e
	}
	more := *e
	more.detail = fmt.Sprintf("%s (%d rows before were taken, %d of them unchanged; sending the whole file again is safe)", e.detail, done, soFar.Unchanged)
	return &more
}
