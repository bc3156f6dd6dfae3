package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// failoverSettings are the flags of the part about changes of the primary.
type failoverSettings struct {
	failoverRuns   int
	failoverWrites int // a second
	failoverReads  int // a second
	failoverWAN    string
	failoverList   string
	failoverKinds  []string
}

func (s *failoverSettings) bind(f *flag.FlagSet) {
	f.IntVar(&s.failoverRuns, "failover-runs", 20, "failover: how often each kind")
	f.IntVar(&s.failoverWrites, "failover-writes", 500, "failover: writes a second meanwhile")
	f.IntVar(&s.failoverReads, "failover-reads", 2000, "failover: reads a second meanwhile")
	f.StringVar(&s.failoverWAN, "failover-wan", "no", "failover: with the round trips between regions: no, yes or both")
	f.StringVar(&s.failoverList, "failover-kinds", strings.Join(failoverKinds, ","), "failover: which `kinds`: a planned switchover, the primary region killed or cut off, the leader of the control plane killed")
}

func (s *failoverSettings) validate() error {
	var faults []error
	s.failoverKinds = strings.Split(s.failoverList, ",")
	for _, k := range s.failoverKinds {
		if !slices.Contains(failoverKinds, k) {
			faults = append(faults, fmt.Errorf("-failover-kinds: %q is none of %s", k, strings.Join(failoverKinds, ", ")))
		}
	}
	if s.failoverRuns < 1 || s.failoverWrites < 1 || s.failoverReads < 0 {
		faults = append(faults, errors.New("-failover-runs and -failover-writes must be at least 1, -failover-reads at least 0"))
	}
	if !slices.Contains([]string{"no", "yes", "both"}, s.failoverWAN) {
		faults = append(faults, fmt.Errorf("-failover-wan: %q is not no, yes or both", s.failoverWAN))
	}
	return errors.Join(faults...)
}

func (b *bench) writeFailover(w io.Writer) {
	if len(b.failovers) == 0 {
		return
	}
	p := printer{w}
	p.line("### Changes of the primary")
	p.line("")
	p.line("Three regions with two nodes each, a PostgreSQL and a Redis Cluster of three; quorum commit, `fsync` on. the writes and reads a second of the table, or the half of them that the machine bears, come from a process of its own, sent without")
	p.line("waiting for earlier ones, every other read with a token; where a region is killed or cut off, to the others. Pause: the longest time without an acknowledged write, as the clients saw it.")
	p.line("Failed: answered with anything but success, reads that went back within a session among them. Lost: acknowledged, and not in the database at the end.")
	p.line("")
	p.head("what", "wan", "writes and reads a second", "runs", "pause p50", "p99", "max", "writes", "reads", "failed writes", "failed reads", "lost", "twice", "back as a standby p50", "")
	for _, s := range b.failovers {
		var pauses, homes []time.Duration
		writes, reads, failedWrites, failedReads := 0, 0, 0, 0
		for _, r := range s.runs {
			pauses, homes = append(pauses, r.load.Pause), append(homes, r.home)
			writes, reads = writes+r.load.Writes, reads+r.load.Reads
			failedWrites, failedReads = failedWrites+r.load.FailedWrites, failedReads+r.load.FailedReads
		}
		p50, p99, most := pauseSpread(pauses)
		home, _, _ := pauseSpread(homes)
		back := "–"
		if home > 0 {
			back = seconds(home)
		}
		ok := s.cut == "" && s.lost+s.twice+s.late+failedReads+failedWrites == 0 && s.met(p50, p99, most)
		p.row(s.what(), fmt.Sprint(s.wan), fmt.Sprintf("%d, %d", s.writeRate, s.readRate), fmt.Sprint(len(s.runs)), seconds(p50), seconds(p99), seconds(most), thousands(writes), thousands(reads),
			fmt.Sprint(failedWrites), fmt.Sprint(failedReads), fmt.Sprint(s.lost), fmt.Sprint(s.twice), back, met(ok))
	}
	p.line("")
	for _, s := range b.failovers {
		if s.cut != "" {
			p.line("Cut short: %s, wan %v: %s", s.kind, s.wan, firstWords(s.cut))
			p.line("")
		}
	}
	p.line("What the pause is made of as the controller measures it, from the intent on: median (greatest), in ms. A step that can be done before the intent, or after writes flow again, is not among them.")
	p.line("")
	var steps []string
	for _, s := range b.failovers {
		for _, r := range s.runs {
			for _, m := range r.entry.Steps {
				if !slices.Contains(steps, string(m.Step)) {
					steps = append(steps, string(m.Step))
				}
			}
		}
	}
	p.head(append([]string{"what", "wan", "whole"}, steps...)...)
	for _, s := range b.failovers {
		if s.kind == "leader" || len(s.runs) == 0 {
			continue
		}
		row := []string{s.what(), fmt.Sprint(s.wan)}
		share := func(of func(r *failoverResult) float64) {
			var all []float64
			for i := range s.runs {
				all = append(all, of(&s.runs[i]))
			}
			slices.Sort(all)
			row = append(row, fmt.Sprintf("%.0f (%.0f)", all[len(all)/2], all[len(all)-1]))
		}
		share(func(r *failoverResult) float64 { return r.entry.PauseMS })
		for _, step := range steps {
			share(func(r *failoverResult) (sum float64) {
				for _, m := range r.entry.Steps {
					if string(m.Step) == step {
						sum += m.TookMS
					}
				}
				return sum
			})
		}
		p.row(row...)
	}
	p.line("")
}

func (s *failoverSeries) what() string {
	return map[string]string{"switchover": "planned switchover", "kill": "primary region killed", "isolate": "primary region cut off", "leader": "control leader killed"}[s.kind]
}

// met tells whether the pauses are what they should be.
func (s *failoverSeries) met(p50, p99, most time.Duration) bool {
	switch s.kind {
	case "switchover":
		if !s.wan {
			return p99 <= 500*time.Millisecond
		}
		bound := 500*time.Millisecond + 6*s.trip
		return p50 <= bound && p99 <= bound+time.Second
	case "leader":
		return most <= 4*time.Second
	}
	return p50 <= 4*time.Second && most <= 8*time.Second
}

func pauseSpread(all []time.Duration) (p50, p99, most time.Duration) {
	if len(all) == 0 {
		return 0, 0, 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2], sorted[len(sorted)*99/100], sorted[len(sorted)-1]
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func firstWords(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s[:min(len(s), 300)]
}
