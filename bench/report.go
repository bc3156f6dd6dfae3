package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/shortline/shortline/geo"
)

// The generated part of a page stands between these lines.
const (
	marker    = "<!-- bench: everything from here to the end marker is written by go run ./bench -o -->"
	endMarker = "<!-- bench: end -->"
)

// splice returns the page with its generated part replaced. The page must have both markers.
func splice(file string, text []byte) ([]byte, error) {
	page, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("-o: %w", err)
	}
	head, rest, ok := bytes.Cut(page, []byte(marker+"\n"))
	_, foot, okEnd := bytes.Cut(rest, []byte(endMarker))
	if !ok || !okEnd {
		return nil, fmt.Errorf("-o: %s lacks the lines %q and %q, between which the tables go", file, marker, endMarker)
	}
	return bytes.Join([][]byte{head, []byte(marker + "\n\n"), text, []byte("\n" + endMarker), foot}, nil), nil
}

func (b *bench) write(w io.Writer) {
	b.writeRun(w)
	b.writeIndex(w)
	b.writeEngines(w)
	b.writeUpdates(w)
	b.writeHTTP(w)
	b.writeWrites(w)
	b.writePlanet(w)
	b.writeLive(w)
	b.writeFailover(w)
	b.writeSoak(w)
}

func (b *bench) writeRun(w io.Writer) {
	p := printer{w}
	p.line("Command: `%s` (%s stores, took %s).", b.command, thousands(b.stores), time.Since(b.began).Round(time.Second))
	p.line("")
	p.line("Machine: %s.", strings.Join(b.machine.lines, "; "))
	p.line("")
	switch share := b.machine.disturbed(); {
	case math.IsNaN(share):
	case share > 0.05:
		p.line("**The machine was busy: others used %.0f %% of its CPU time during the run. Do not keep these figures; run again when it is quiet.**", 100*share)
	default:
		p.line("Others used %.1f %% of its CPU time during the run.", 100*share)
	}
	p.line("")
}

func (b *bench) writeIndex(w io.Writer) {
	if len(b.sized) == 0 {
		return
	}
	p := printer{w}
	p.line("### Index")
	p.line("")
	p.line("CPU time of one search for the nearest 5, in process, one thread: median over batches of 64 (mean).")
	p.line("")
	head := []string{"stores"}
	for _, l := range lookups {
		head = append(head, l.name)
	}
	p.head(append(head, "build", "index, bytes a store")...)
	for _, s := range b.sized {
		row := []string{thousands(s.stores)}
		for _, c := range s.nearby {
			row = append(row, fmt.Sprintf("%s (%s)", micros(c.median), micros(c.mean)))
		}
		p.row(append(row, fmt.Sprintf("%.2f s", s.build.Seconds()), fmt.Sprintf("%.1f", s.indexBytes))...)
	}
	p.line("")
	p.line("Wrong answers, against brute force in order and distance: **%d of %s** (brute force took %s).", b.index.wrong, thousands(b.index.checked), b.index.bruteTook.Round(100*time.Millisecond))
	if b.index.firstFault != "" {
		p.line("The first: %s.", b.index.firstFault)
	}
	p.line("")
	p.line("Memory of the whole catalog with %s stores (index, ids, positions, what filters need, live queues; no names and addresses): **%.0f bytes a store**.",
		thousands(b.stores), b.index.catalogBytes)
	p.line("")
	for _, s := range b.sized {
		if s.stores == 1_000_000 {
			p.line("Targets at a million: 5 km ≤ 3 µs median: %s; ≤ 64 bytes a store: %s; build ≤ 5 s: %s; 0 wrong of 10,000: %s.",
				met(s.nearby[1].median <= 3*time.Microsecond), met(s.indexBytes <= 64), met(s.build <= 5*time.Second), met(b.index.wrong == 0 && b.index.checked >= 10_000))
			p.line("")
		}
	}
}

func (b *bench) writeEngines(w io.Writer) {
	if len(b.engines.engines) == 0 {
		return
	}
	p := printer{w}
	p.line("### Beside Redis and PostGIS")
	p.line("")
	p.line("CPU time of the server's process for one query, mean: nearest 5, the same %s stores and the same places, pipelined by 50 over one connection.", thousands(b.stores))
	p.line("")
	head := []string{"engine"}
	for _, d := range b.engines.within {
		head = append(head, fmt.Sprintf("%.0f km", d/1000))
	}
	p.head(append(head, "start and load", "what brute force says of the answers")...)
	for _, e := range b.engines.engines {
		row := []string{e.name}
		if e.skipped != "" {
			for range b.engines.within {
				row = append(row, "–")
			}
			p.row(append(row, "–", "skipped: "+e.skipped)...)
			continue
		}
		var m mistakes
		for _, c := range e.cells {
			row = append(row, micros(c.cpu))
			m.join(c.wrong)
		}
		p.row(append(row, fmt.Sprintf("%.1f s", e.load.Seconds()), m.remark())...)
	}
	p.line("")
}

func (m *mistakes) join(o mistakes) {
	m.answers += o.answers
	m.differ += o.differ
	m.missing += o.missing
	m.extra += o.extra
	m.worst = max(m.worst, o.worst)
	m.worstRank = max(m.worstRank, o.worstRank)
}

func (m *mistakes) remark() string {
	if m.differ == 0 {
		return fmt.Sprintf("all %s right; distances within %s", thousands(m.answers), length(m.worst))
	}
	s := fmt.Sprintf("%s of %s (%.1f %%) have other stores or another order", thousands(m.differ), thousands(m.answers), 100*float64(m.differ)/float64(m.answers))
	if m.worstRank > 0 {
		s += fmt.Sprintf(", a rank off by up to %s", length(m.worstRank))
	}
	if m.missing > 0 {
		s += "; missing: " + plural(m.missing, "store")
	}
	if m.extra > 0 {
		s += "; from beyond the bound: " + plural(m.extra, "store")
	}
	return s + fmt.Sprintf("; distances off by up to %s", length(m.worst))
}

// length is a distance for people.
func length(d geo.Metres) string {
	switch {
	case d < 0.0005:
		return "1 mm"
	case d < 0.1:
		return fmt.Sprintf("%.0f mm", d*1000)
	}
	return fmt.Sprintf("%.1f m", d)
}

func (b *bench) writeUpdates(w io.Writer) {
	if len(b.updated.rows) == 0 {
		return
	}
	p := printer{w}
	p.line("### Reads while updating")
	p.line("")
	p.line("Nearest 5 within 5 km through the node's handler without a network, on all cores, in turns alone and while a feed applies store moves and as many queue updates (%s stores).", thousands(b.stores))
	p.line("")
	p.head("reads", "alone, a second and core", "while updating", "kept, median of pairs (least)", "applied a second", "cost of a change")
	for _, r := range b.updated.rows {
		p.row(r.name, thousands(int(r.alone)), thousands(int(r.updated)), fmt.Sprintf("**%.2f** (%.2f)", r.kept, r.least),
			fmt.Sprintf("%.0f moves, %.0f queues", r.written, r.written), micros(r.perWrite))
	}
	p.line("")
	p.line("Target: at least 0.80 kept: %s.", met(b.updated.rows[0].kept >= 0.8))
	p.line("")
}

func (b *bench) writeHTTP(w io.Writer) {
	if !b.wants("http") {
		return
	}
	p := printer{w}
	p.line("### HTTP nearby beside a canned answer")
	p.line("")
	if b.http.skipped != "" {
		p.line("Skipped: %s.", b.http.skipped)
		p.line("")
		return
	}
	p.line("%s stores, %d connections from %s, %s different queries, %d rounds of %v each in turns; CPU time is the server's, medians of the rounds.",
		thousands(b.stores), b.connections, b.http.generator, thousands(b.config.urls), b.rounds, b.turn)
	p.line("")
	p.head("query", "answer", "CPU a request: nearby", "canned", "ratio (least to greatest)", "requests/s: nearby", "canned", "ratio", "p50 / p99: nearby", "canned")
	for _, r := range b.http.rows {
		p.row(r.name, fmt.Sprintf("%s B", thousands(r.bytes)), micros(r.nearby.cpu), micros(r.canned.cpu), fmt.Sprintf("**%.2f** (%.2f–%.2f)", r.cpuRatio, r.least, r.worst),
			thousands(int(r.nearby.rate)), thousands(int(r.canned.rate)), fmt.Sprintf("%.2f", r.rateRatio),
			millis(r.nearby.p50)+" / "+millis(r.nearby.p99), millis(r.canned.p50)+" / "+millis(r.canned.p99))
	}
	p.line("")
	misses := 0
	for _, r := range b.http.rows {
		misses += r.misses
	}
	p.line("Misses of the details cache during the rounds: %s. Median answers; the canned server sends one of just that size. The stores of up to 2,000 answers of each of the first two kinds were compared with the index, and a difference would have ended the run.", thousands(misses))
	p.line("")
	if b.stores >= 1_000_000 {
		p.line("Target: nearest 5 costs at most 1.8 times the CPU of the canned answer: %s.", met(b.http.rows[0].cpuRatio <= 1.8))
	}
	p.line("")
}

// printer writes markdown to a buffer, which does not fail.
type printer struct{ io.Writer }

func (p printer) line(format string, args ...any) { _, _ = fmt.Fprintf(p, format+"\n", args...) }

func (p printer) row(cells ...string) { p.line("%s", "| "+strings.Join(cells, " | ")+" |") }

func (p printer) head(cells ...string) {
	p.row(cells...)
	p.line("%s", "|"+strings.Repeat("---|", len(cells)))
}

func met(ok bool) string {
	if ok {
		return "met"
	}
	return "**missed**"
}

func micros(d time.Duration) string {
	us := float64(d.Nanoseconds()) / 1000
	switch {
	case us < 10:
		return fmt.Sprintf("%.2f µs", us)
	case us < 100:
		return fmt.Sprintf("%.1f µs", us)
	case us < 10_000:
		return thousands(int(math.Round(us))) + " µs"
	}
	return fmt.Sprintf("%.1f ms", us/1000)
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return thousands(n) + " " + what + "s"
}

// thousands has a comma for every three digits.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for at := len(s) - 3; at > 0 && s[at-1] != '-'; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}
