package regions

import "time"

// Watch turns what a controller sees from time to time into for how long it has been so. It has no clock: every call is
// told the time since some fixed moment, which must not run backwards. It is not safe for concurrent use.
type Watch struct {
	sights map[ID]*watched
	led    mark
	term   uint64
	step   mark
	doing  string // which step of which operation step dates
}

type watched struct {
	status                DatabaseStatus
	known                 bool
	err                   string
	silent, failing, away mark
	steady                mark
}

// mark is since when something holds, if it does.
type mark struct {
	since time.Duration
	on    bool
}

func (m *mark) set(on bool, now time.Duration) {
	if on && !m.on {
		m.since = now
	}
	m.on = on
}

// age is at least 1 ns while it holds, so that 0 says that it does not.
func (m mark) age(now time.Duration) time.Duration {
	if !m.on {
		return 0
	}
	return max(1, now-m.since)
}

// Saw notes the answer of a database's agent, or that there was none.
func (w *Watch) Saw(id ID, st DatabaseStatus, err error, now time.Duration) {
	if w.sights == nil {
		w.sights = map[ID]*watched{}
	}
	d := w.sights[id]
	if d == nil {
		d = &watched{}
		w.sights[id] = d
	}
	d.silent.set(err != nil, now)
	d.err = st.Err
	if err != nil {
		d.err = err.Error()
		d.failing.set(true, now)
		return
	}
	d.status, d.known = st, true
	d.failing.set(st.Role != RolePrimary && st.Role != RoleStandby, now)
}

// Leads notes whether this controller leads, and in which term.
func (w *Watch) Leads(term uint64, leads bool, now time.Duration) {
	if term != w.term {
		w.led.on = false
	}
	if leads && !w.led.on {
		w.sights = nil // what it saw in an earlier term says nothing of now
	}
	w.term = term
	w.led.set(leads, now)
}

// Term is the one in which this controller last looked.
func (w *Watch) Term() uint64 { return w.term }

// Situation puts together what is known. renewed is how long ago this controller applied the last renewal, in any term.
func (w *Watch) Situation(s State, renewed, now time.Duration) Situation {
	doing := ""
	if op := s.Operation; op != nil {
		doing = utoa(op.Epoch) + string(op.Step)
	}
	if doing != w.doing {
		w.doing, w.step = doing, mark{}
	}
	w.step.set(doing != "", now)
	out := Situation{State: s, Term: w.term, Led: w.led.age(now), InHand: w.step.age(now), Sights: make(map[ID]Sight, len(w.sights))}
	out.Renewed = min(renewed, out.Led)
	primary := w.sights[s.Primary]
	for _, id := range s.Databases() {
		d := w.sights[id]
		if d == nil {
			continue
		}
		if id != s.Primary {
			streams := d.known && !d.silent.on && d.status.Streaming && d.status.Upstream == s.Primary
			if primary != nil && primary.known && !primary.failing.on {
				_, streams = primary.status.Standbys[id]
			}
			d.away.set(!streams, now)
			d.steady.set(streams, now)
		}
		out.Sights[id] = Sight{Status: d.status, Known: d.known, Err: d.err, Silent: d.silent.age(now), Failing: d.failing.age(now),
			Away: d.away.age(now), Steady: d.steady.age(now)}
	}
	return out
}
