package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shortline/shortline/geo"
)

// engine is a database that was started, filled and made ready.
type engine interface {
	// variants are the ways to ask it.
	variants() []variant
	// pid is the process whose CPU time counts.
	pid() int
	// stop ends it and removes what it left.
	stop()
}

// variant is one way to ask an engine.
type variant struct {
	name string
	// ask answers the questions, all with one k and bound, in order, over one connection on which all are sent before the
	// first answer is read.
	ask func(ctx context.Context, qs []question) ([][]answer, error)
}

// engineResults are of this process's index and of each engine that could be had.
type engineResults struct {
	within  []geo.Metres
	engines []engineResult
}

type engineResult struct {
	name    string
	skipped string // why there is nothing else
	load    time.Duration
	cells   []engineCell // of each of within
}

type engineCell struct {
	cpu     time.Duration // a query
	queries int
	wrong   mistakes
}

// mistakes are what brute force says of an engine's answers.
type mistakes struct {
	answers   int
	differ    int        // that have other stores or another order, where distances differ by more than a millimetre
	missing   int        // stores of the true answers that the engine's answers lack
	extra     int        // stores that are farther away than asked
	worst     geo.Metres // error of a distance
	worstRank geo.Metres // by how much stores stand in the wrong order
}

func (b *bench) measureEngines(ctx context.Context) error {
	r := &b.engines
	for _, l := range lookups[:3] {
		r.within = append(r.within, l.within)
	}
	own, truth, err := b.measureOwn(ctx)
	if err != nil {
		return err
	}
	r.engines = append(r.engines, own)
	for _, e := range []struct {
		name  string
		start func(context.Context, *bench) (engine, error)
	}{{"Redis GEOSEARCH", startRedis}, {"PostGIS KNN", startPostGIS}} {
		if err := b.rival(ctx, e.name, e.start, truth); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

// rival starts an engine, measures it and stops it.
func (b *bench) rival(ctx context.Context, name string, start func(context.Context, *bench) (engine, error), truth [][][]answer) error {
	b.say("%s: starting and loading", name)
	began := time.Now()
	running, err := start(ctx, b)
	var skip *skipped
	if errors.As(err, &skip) {
		b.say("%s: skipped: %s", name, skip.why)
		b.engines.engines = append(b.engines.engines, engineResult{name: name, skipped: skip.why})
		return nil
	}
	if err != nil {
		return err
	}
	defer running.stop()
	load := time.Since(began)
	for _, v := range running.variants() {
		result := engineResult{name: v.name, load: load}
		if err := b.measureEngine(ctx, running.pid(), v, truth, &result); err != nil {
			return err
		}
		b.engines.engines = append(b.engines.engines, result)
	}
	return nil
}

// compared is how many questions at most are put to an engine for each bound; truth has the answers to as many.
const compared = 2500

func (b *bench) measureOwn(ctx context.Context) (engineResult, [][][]answer, error) {
	r := engineResult{name: "Shortline's index, in process"}
	began := time.Now()
	x, err := buildIndex(b.data.points)
	if err != nil {
		return r, nil, err
	}
	r.load = time.Since(began)
	brute := newBrute(b.data.points)
	var truth [][][]answer
	for _, within := range b.engines.within {
		if err := ctx.Err(); err != nil {
			return r, nil, err
		}
		qs := asked(b.near[:1<<14], 5, within)
		want := brute.answers(qs[:compared])
		truth = append(truth, want)
		cell := engineCell{cpu: nearbyCost(x, qs, 100_000).mean, queries: 100_000}
		var hits []geo.Hit
		for i, q := range qs[:compared] {
			hits = search(x, q, hits)
			got := make([]answer, len(hits))
			for j, h := range hits {
				got[j] = answer{h.Ref, h.Distance}
			}
			cell.wrong.add(b.data.points, q, got, want[i])
		}
		r.cells = append(r.cells, cell)
	}
	return r, truth, nil
}

// measureEngine asks in portions until the time is up or the questions are at their end.
func (b *bench) measureEngine(ctx context.Context, pid int, v variant, truth [][][]answer, r *engineResult) error {
	const portion = 50
	for i, within := range b.engines.within {
		qs := asked(b.near[:1<<14], 5, within)
		if _, err := v.ask(ctx, qs[compared:compared+4*portion]); err != nil { // warm
			return err
		}
		var cell engineCell
		before, err := cpuOf(pid)
		if err != nil {
			return err
		}
		for began := time.Now(); time.Since(began) < b.budget; cell.queries += portion {
			at := cell.queries % compared
			got, err := v.ask(ctx, qs[at:at+portion])
			if err != nil {
				return err
			}
			for j := range got {
				if cell.queries < compared { // costs this process, not the engine
					cell.wrong.add(b.data.points, qs[at+j], got[j], truth[i][at+j])
				}
			}
		}
		after, err := cpuOf(pid)
		if err != nil {
			return err
		}
		cell.cpu = (after - before) / time.Duration(cell.queries)
		r.cells = append(r.cells, cell)
		b.say("%s: within %.0f km: %v a query", r.name, within/1000, cell.cpu)
	}
	return nil
}

// add judges one answer.
func (m *mistakes) add(points []geo.Point, q question, got, want []answer) {
	m.answers++
	differs := len(got) != len(want)
	for i, g := range got {
		d := haversine(q.at, points[g.ref])
		m.worst = max(m.worst, abs(g.distance-d))
		if d > q.within+millimetre {
			m.extra++
			differs = true
		}
		if i < len(want) {
			if off := abs(d - want[i].distance); off > millimetre {
				differs = true
				m.worstRank = max(m.worstRank, off)
			}
		}
	}
	for _, w := range want {
		known := false
		for _, g := range got {
			if known = abs(haversine(q.at, points[g.ref])-w.distance) <= millimetre; known { // it, or one as near
				break
			}
		}
		if !known {
			m.missing++
		}
	}
	if differs {
		m.differ++
	}
}

// newest is the last path of a pattern, which for folders named by version is the newest.
func newest(glob string) string {
	paths, _ := filepath.Glob(glob)
	if len(paths) == 0 {
		return ""
	}
	return paths[len(paths)-1]
}

// commandAs makes a command that runs as another user where one is given.
func commandAs(user *syscall.Credential, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	if user != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
		for _, v := range os.Environ() { // not what belongs to the other user
			if strings.HasPrefix(v, "PATH=") || strings.HasPrefix(v, "LANG=") || strings.HasPrefix(v, "LC_") {
				cmd.Env = append(cmd.Env, v)
			}
		}
	}
	return cmd
}
