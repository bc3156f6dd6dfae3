package main

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress shows how far an import is. It is safe for concurrent use; after close only nothing may be called.
type progress interface {
	// update says how many bytes of the file were read and what became known of how many rows.
	update(read int64, rows int)
	// say shows a line of its own.
	say(line string)
	// close leaves the last state standing.
	close(done bool)
}

// newProgress draws a bar on a terminal and writes a plain line every few seconds elsewhere.
func (a *app) newProgress(in *input) progress {
	if a.isTerminal(a.stderr) {
		return newBar(a.stderr, in.size)
	}
	return &plainLines{w: a.stderr, size: in.size, every: 3 * time.Second, began: time.Now(), last: time.Now()}
}

// bar is a progress bar; without a size it only counts.
type bar struct {
	all   *mpb.Progress
	bar   *mpb.Bar
	rows  atomic.Int64
	began time.Time
}

func newBar(w io.Writer, size int64) *bar {
	b := &bar{all: mpb.New(mpb.WithOutput(w), mpb.WithWidth(40)), began: time.Now()}
	rate := decor.Any(func(decor.Statistics) string {
		n := b.rows.Load()
		return fmt.Sprintf(" %d rows, %.0f rows/s", n, float64(n)/max(time.Since(b.began).Seconds(), 1e-3))
	})
	if size == 0 {
		b.bar = b.all.New(0, mpb.SpinnerStyle(), mpb.BarWidth(3), mpb.AppendDecorators(decor.CurrentKibiByte("% .1f"), rate))
		return b
	}
	b.bar = b.all.New(size, mpb.BarStyle().Rbound("]"), mpb.PrependDecorators(decor.Percentage(decor.WC{W: 5})),
		mpb.AppendDecorators(decor.CountersKibiByte(" % .1f / % .1f"), rate))
	return b
}

func (b *bar) update(read int64, rows int) {
	b.rows.Store(int64(rows))
	b.bar.SetCurrent(read)
}

func (b *bar) say(line string) { _, _ = io.WriteString(b.all, line+"\n") }

func (b *bar) close(done bool) {
	if done {
		b.bar.SetTotal(-1, true)
	} else {
		b.bar.Abort(false)
	}
	b.all.Wait()
}

// plainLines is progress for a log.
type plainLines struct {
	w           io.Writer
	size        int64
	every       time.Duration
	mu          sync.Mutex // guards last and the order of lines
	began, last time.Time
}

func (p *plainLines) update(read int64, rows int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.last) < p.every {
		return
	}
	p.last = now
	part := ""
	if p.size > 0 {
		part = fmt.Sprintf(" (%d%% of the file read)", min(100, 100*read/p.size))
	}
	_, _ = fmt.Fprintf(p.w, "%d rows so far%s, %.0f rows/s\n", rows, part, float64(rows)/max(now.Sub(p.began).Seconds(), 1e-3))
}

func (p *plainLines) say(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintln(p.w, line)
}

func (p *plainLines) close(bool) {}
