package main

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
)

// bentWay is the way of requests to nodes. It loses every tenth answer to a write, so that clients have to ask what became of it; without a header
// nodes do as if they did not know it.
type bentWay struct {
	http.RoundTripper
	strip string
	n     atomic.Uint64
}

var errAnswerLost = errors.New("the answer is lost")

func (b *bentWay) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.strip != "" {
		r = r.Clone(r.Context())
		r.Header.Del(b.strip)
	}
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil && r.Method == http.MethodPost && b.n.Add(1)%10 == 0 {
		_, _ = io.Copy(io.Discard, res.Body) // the next one has the connection
		_ = res.Body.Close()
		return nil, errAnswerLost
	}
	return res, err
}

// bent is a load over a way that loses answers.
func (w *world) bent(strip string) *steadyLoad {
	other := *w
	client := *w.http
	client.Transport = &bentWay{RoundTripper: w.http.Transport, strip: strip}
	other.http = &client
	w.zero(w.Region(w.Primary()).Nodes[0])
	return other.load(w.Nodes(), true)
}

// found tells whether the load has found a fault of a kind.
func (l *steadyLoad) found(kind string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.twoWriters()
	for _, err := range l.failed {
		all = append(all, err.Error())
	}
	return slices.ContainsFunc(all, func(f string) bool { return strings.Contains(f, kind) })
}

// The accounting of the tests over a planet finds what it looks for: with a safeguard switched off it reports, with all of them it does not.
func TestPlanetMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("starts planets")
	}
	w := startWorld(t, 8, planet.Options{Nodes: 1})
	w.eventually("writes are confirmed", w.durable)
	for _, m := range []struct{ name, strip, finds string }{
		{"none: every tenth answer is lost", "", ""},
		{"the token is ignored", "Shortline-Token", "the session went backwards"},
		{"idempotency is off", "Idempotency-Key", "acknowledged writes, says"},
	} {
		t.Run(m.name, func(t *testing.T) {
			w := w.part(t)
			l := w.bent(m.strip)
			behind := w.Region("eu-west").Postgres // it confirms, and shows nothing new
			_, err := behind.Rows(w.deadline(), "shortline", "SELECT pg_wal_replay_pause()")
			w.check(err)
			if m.finds == "" {
				w.eventually("answers are lost, and sessions come by where nothing is new", func() bool {
					l.mu.Lock()
					defer l.mu.Unlock()
					return l.refused > 50 && l.reads > 200
				})
			} else {
				w.eventually("it is found", func() bool { return l.found(m.finds) })
			}
			w.eventually("it goes on", func() bool { // unless what goes on cancels the question
				_, err := behind.Rows(w.deadline(), "shortline", "SELECT pg_wal_replay_resume()")
				return err == nil
			})
			if m.finds == "" {
				l.settle(m.name)
			}
			l.end()
		})
	}
}

// In async mode the lease is the only fence, and what is acknowledged may be lost: both show. The same without the lease has two writers.
func TestPlanetMutantsOfFences(t *testing.T) {
	if !longTests {
		t.Skip("starts two planets; set SHORTLINE_TEST_LONG=1")
	}
	planet.NeedSeparable(t)
	for _, m := range []struct {
		name string
		env  []string
		two  bool
	}{
		{"async instead of quorum", nil, false},
		{"async, and the lease's fence off", []string{"SHORTLINE_TEST_MUTANT=gate"}, true},
	} {
		t.Run(m.name, func(t *testing.T) {
			w := startWorld(t, 8, planet.Options{Nodes: 1, Separate: true, Async: true, Env: m.env})
			c := &chaos{world: w, log: w.out, began: time.Now()}
			old := w.Region(w.Primary())
			c.within(time.Minute, "both standbys follow", func(v regions.Cluster) bool { return len(v.Sync) == 2 })
			w.zero(old.Nodes[0])
			l := w.load(w.Nodes(), true)
			w.eventually("writes are acknowledged", func() bool { return l.count() > 30 })
			// The log of the primary gets to nobody while it goes on acknowledging; then all is cut.
			for _, r := range w.Regions() {
				if r != old {
					w.check(w.Drop(old.ID, r.ID, planet.DatabaseLink))
				}
			}
			before := l.count()
			w.eventually("writes go on", func() bool { return l.count() > before+50 })
			w.check(w.Drop(old.ID, "", planet.Everything))
			c.moves(old.ID, l)
			w.eventually("the loss is found", func() bool { return l.found("acknowledged writes, says") })
			if m.two {
				w.eventually("two writers are found", func() bool { return l.found("was begun") })
			} else if l.end(); l.found("was begun") {
				t.Error("there are two writers in spite of the lease")
			}
			l.end()
		})
	}
}
