package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/storefile"
)

const (
	chunkRows    = 1000
	chunkBytes   = 1<<20 - 64<<10 // a row more may come on top, and all is still within 1 MiB
	chunksAtOnce = 3
	rejectsShown = 20
	notesShown   = 5
)

// chunk is what one request carries.
type chunk struct {
	body  []byte
	lines []int    // of the file, by line of body
	ids   []string // to keep two rows of one store in their order
}

// importer moves the rows of one file to the server. One goroutine reads, at most chunksAtOnce send; rows of one store
// are applied in the order of the file, because a chunk waits while another one in flight has a store of its own.
type importer struct {
	app      *app
	in       *input
	rows     *storefile.Reader
	strict   bool
	rejects  *rejectsFile
	client   *client.Client
	explain  func(error) error
	progress progress
	began    time.Time

	mu       sync.Mutex // guards what follows
	inFlight map[string]int
	counts   importCounts
	notes    int
	err      error // why it stops
}

// importCounts is what became of the rows so far.
type importCounts struct {
	imported, unchanged, rejected, unnamed int // unnamed: rejected by the server without saying which
	line                                   int // read up to here
}

// errStrict is the first bad row of a strict import.
type errStrict struct{ row *storefile.RowError }

func (e errStrict) Error() string { return e.row.Error() }

// run reads and sends everything. Whatever happens, it returns only after every request has ended.
func (im *importer) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	slots := make(chan struct{}, chunksAtOnce)
	var sending sync.WaitGroup
	send := func(c *chunk) {
		if !im.claim(ctx, slots, c) {
			return
		}
		sending.Go(func() {
			defer func() { im.release(c); <-slots }()
			if err := im.send(ctx, c); err != nil {
				im.fail(err)
				cancel()
			}
		})
	}
	readErr := im.readChunks(ctx, send)
	sending.Wait()
	im.progress.close(readErr == nil && im.failure() == nil)
	return im.finish(readErr)
}

// readChunks cuts the rows into chunks and gives them to send. A strict import sends what came before the bad row.
func (im *importer) readChunks(ctx context.Context, send func(*chunk)) error {
	c := &chunk{}
	flush := func() {
		if len(c.lines) > 0 {
			send(c)
			c = &chunk{body: make([]byte, 0, len(c.body)+4096)}
		}
	}
	for ctx.Err() == nil {
		row, err := im.rows.Next()
		var bad *storefile.RowError
		switch {
		case errors.Is(err, io.EOF):
			flush()
			return nil
		case errors.As(err, &bad):
			im.at(bad.Line)
			if im.strict {
				flush()
				return errStrict{bad}
			}
			im.reject(bad)
			continue
		case err != nil:
			flush()
			return fmt.Errorf("after line %d: %w", im.so().line, err)
		}
		im.at(row.Line)
		im.note(row)
		if c.body, err = storefile.AppendNDJSON(c.body, &row.Store); err != nil {
			return fmt.Errorf("line %d: %w", row.Line, err)
		}
		c.lines, c.ids = append(c.lines, row.Line), append(c.ids, string(row.Store.ID))
		if len(c.lines) == chunkRows || len(c.body) > chunkBytes {
			flush()
		}
	}
	return ctx.Err()
}

// claim waits for a slot, and until no chunk in flight has a store of c. It is false when ctx ended first.
func (im *importer) claim(ctx context.Context, slots chan struct{}, c *chunk) bool {
	take := func() bool {
		select {
		case slots <- struct{}{}:
			return true
		case <-ctx.Done():
			return false
		}
	}
	if im.overlaps(c) { // rare: let everything in flight land
		for i := range chunksAtOnce {
			if !take() {
				for range i {
					<-slots
				}
				return false
			}
		}
		for range chunksAtOnce - 1 {
			<-slots
		}
	} else if !take() {
		return false
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	for _, id := range c.ids {
		im.inFlight[id]++
	}
	return true
}

func (im *importer) overlaps(c *chunk) bool {
	im.mu.Lock()
	defer im.mu.Unlock()
	for _, id := range c.ids {
		if im.inFlight[id] > 0 {
			return true
		}
	}
	return false
}

func (im *importer) release(c *chunk) {
	im.mu.Lock()
	defer im.mu.Unlock()
	for _, id := range c.ids {
		if im.inFlight[id]--; im.inFlight[id] <= 0 {
			delete(im.inFlight, id)
		}
	}
}

// send sends one chunk and counts what became of it.
func (im *importer) send(ctx context.Context, c *chunk) error {
	answer, err := im.client.ImportBytes(ctx, client.NDJSON, c.body)
	if err != nil {
		return im.explain(err)
	}
	taken := answer.Created + answer.Updated + answer.Unchanged
	if taken+answer.Rejected != len(c.lines) {
		return fmt.Errorf("the server answered for %d rows of %d that were sent; is it of another version?", taken+answer.Rejected, len(c.lines))
	}
	im.mu.Lock()
	im.counts.imported += answer.Created + answer.Updated
	im.counts.unchanged += answer.Unchanged
	im.counts.unnamed += max(0, answer.Rejected-len(answer.Errors))
	im.mu.Unlock()
	for _, e := range answer.Errors {
		bad := &storefile.RowError{Line: c.fileLine(e.Line), ID: e.ID, Faults: e.Errors}
		if im.strict {
			return errStrict{bad}
		}
		im.reject(bad)
	}
	im.show()
	return nil
}

// fileLine is the line of the file where the row on a line of the body stands; the chunk's first for a line that is none.
func (c *chunk) fileLine(bodyLine int) int {
	if bodyLine < 1 || bodyLine > len(c.lines) {
		return c.lines[0]
	}
	return c.lines[bodyLine-1]
}

func (im *importer) at(line int) {
	im.mu.Lock()
	im.counts.line = max(im.counts.line, line)
	im.mu.Unlock()
}

// so returns the counts so far.
func (im *importer) so() importCounts {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.counts
}

// show moves the progress on.
func (im *importer) show() {
	so := im.so()
	im.progress.update(im.in.read.Load(), so.imported+so.unchanged+so.rejected+so.unnamed)
}

// reject counts a bad row, shows it if it is one of the first, and keeps it in the file of --rejects.
func (im *importer) reject(bad *storefile.RowError) {
	im.mu.Lock()
	im.counts.rejected++
	n := im.counts.rejected
	err := im.rejects.add(bad)
	im.mu.Unlock()
	if err != nil {
		im.fail(err)
	}
	if n <= rejectsShown {
		im.progress.say(bad.Error())
	}
}

// note shows what reading had to change in a row, for the first few.
func (im *importer) note(row storefile.Row) {
	if len(row.Notes) == 0 {
		return
	}
	im.mu.Lock()
	im.notes++
	n := im.notes
	im.mu.Unlock()
	if n > notesShown {
		return
	}
	for _, f := range row.Notes {
		im.progress.say(fmt.Sprintf("line %d: note: %s: %s", row.Line, f.Field, f.Detail))
	}
}

// fail keeps the first reason to stop.
func (im *importer) fail(err error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.err == nil {
		im.err = err
	}
}

func (im *importer) failure() error {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.err
}

// finish says how it ended.
func (im *importer) finish(readErr error) error {
	so, err := im.so(), im.failure()
	if more := so.rejected - rejectsShown; more > 0 {
		im.say("and %d more rejected rows%s", more, im.whereRejects())
	}
	if so.unnamed > 0 {
		im.say("and %d rows that the server rejected without naming them", so.unnamed)
	}
	if more := im.notes - notesShown; more > 0 {
		im.say("and %d more notes", more)
	}
	if err == nil {
		err = readErr
	}
	var strict errStrict
	const again = "running it again is safe: what is there counts as unchanged"
	switch {
	case err == nil:
		return im.summary(so)
	case errors.As(err, &strict):
		return fmt.Errorf("%w; stopped because of --strict, %d other rows are in", err, so.imported+so.unchanged)
	case errors.Is(err, errInterrupted) || errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted near line %d, at least %d rows are in; %s", so.line, so.imported+so.unchanged, again)
	case so.imported+so.unchanged == 0:
		return err
	}
	return fmt.Errorf("stopped near line %d, at least %d rows are in: %w; %s", so.line, so.imported+so.unchanged, err, again)
}

func (im *importer) say(format string, args ...any) {
	_, _ = fmt.Fprintf(im.app.stderr, format+"\n", args...)
}

func (im *importer) whereRejects() string {
	if im.rejects == nil {
		return "; --rejects FILE writes them all"
	}
	return ", all in " + im.rejects.file.Name()
}

func (im *importer) summary(so importCounts) error {
	took := time.Since(im.began)
	rejected := so.rejected + so.unnamed
	rate := float64(so.imported+so.unchanged+rejected) / max(took.Seconds(), 1e-3)
	_, err := fmt.Fprintf(im.app.stdout, "imported %d, unchanged %d, rejected %d in %.1fs (%.0f rows/s)\n",
		so.imported, so.unchanged, rejected, took.Seconds(), rate)
	return err
}

// dryRun reads every row and shows the columns; nothing is sent.
func (im *importer) dryRun(ctx context.Context, format storefile.Format) error {
	good := 0
	err := im.readChunks(ctx, func(c *chunk) {
		good += len(c.lines)
		im.progress.update(im.in.read.Load(), good)
	})
	im.progress.close(err == nil)
	if more := im.counts.rejected - rejectsShown; more > 0 {
		im.say("and %d more bad rows%s", more, im.whereRejects())
	}
	if err == nil {
		err = im.failure()
	}
	if err != nil {
		return err
	}
	var out strings.Builder
	mapping := im.rows.Mapping()
	fmt.Fprintf(&out, "reads %s:\n", format)
	for _, field := range storefile.Fields() {
		if column, ok := mapping[field]; ok {
			fmt.Fprintf(&out, "  %-12s from %s\n", field, printable(column))
		}
	}
	if ignored := im.rows.Ignored(); len(ignored) > 0 {
		fmt.Fprintf(&out, "  not read:    %s\n", printable(strings.Join(ignored, ", ")))
	}
	fmt.Fprintf(&out, "%d rows are good, %d are bad; nothing was sent\n", good, im.counts.rejected)
	_, err = io.WriteString(im.app.stdout, out.String())
	return err
}

// rejectsFile is the file of --rejects; nil writes nothing.
type rejectsFile struct {
	file *os.File
	buf  *bufio.Writer
}

func createRejects(name string) (*rejectsFile, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("--rejects: %w", err)
	}
	return &rejectsFile{file: f, buf: bufio.NewWriter(f)}, nil
}

func (r *rejectsFile) add(bad *storefile.RowError) error {
	if r == nil {
		return nil
	}
	b, err := json.Marshal(bad)
	if err == nil {
		_, err = r.buf.Write(append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("--rejects: %w", err)
	}
	return nil
}

func (r *rejectsFile) close() error {
	if r == nil {
		return nil
	}
	if err := errors.Join(r.buf.Flush(), r.file.Close()); err != nil {
		return fmt.Errorf("--rejects: %w", err)
	}
	return nil
}
