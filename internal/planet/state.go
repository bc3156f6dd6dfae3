package planet

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/shortline/shortline/regions"
)

// state is planet.json, for programs that drive a planet. A part that does not run has null for its process.
type state struct {
	AdminKey string        `json:"admin_key"`
	Primary  regions.ID    `json:"primary"`
	Regions  []regionState `json:"regions"`
}

type regionState struct {
	Name     regions.ID    `json:"name"`
	Lat      float64       `json:"lat"`
	Lng      float64       `json:"lng"`
	Nodes    []nodeState   `json:"nodes"`
	Postgres postgresState `json:"postgres"`
	Redis    []serverState `json:"redis"`
}

type nodeState struct {
	Name  string `json:"name"`
	API   string `json:"api"`
	Admin string `json:"admin"`
	PID   *int   `json:"pid"`
}

type postgresState struct {
	serverState
	DSN  string `json:"dsn"`
	Data string `json:"data"`
}

type serverState struct {
	Addr string `json:"addr"`
	PID  *int   `json:"pid"`
}

func (p *Planet) state() state {
	s := state{AdminKey: p.key, Primary: p.Primary()}
	for _, r := range p.regions {
		rs := regionState{Name: r.ID, Lat: r.At.Lat, Lng: r.At.Lng,
			Postgres: postgresState{serverState{r.Postgres.Addr(), pidOf(&r.Postgres.server)}, r.Postgres.DSN(operatorRole, database), r.Postgres.Data()}}
		for _, n := range r.Nodes {
			rs.Nodes = append(rs.Nodes, nodeState{n.name, n.API(), n.Admin(), pidOf(&n.server)})
		}
		for _, n := range r.Redis.Nodes() {
			rs.Redis = append(rs.Redis, serverState{n.Addr(), pidOf(&n.server)})
		}
		s.Regions = append(s.Regions, rs)
	}
	return s
}

func pidOf(s *server) *int {
	if pid := s.PID(); pid != 0 {
		return &pid
	}
	return nil
}

// watchEvery is how old planet.json may be.
const watchEvery = 50 * time.Millisecond

// watch keeps planet.json true and tells which parts end by themselves, until ctx ends.
func (p *Planet) watch(ctx context.Context) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	told := false
	for {
		err := p.update()
		if err != nil && !told {
			p.say("%s cannot be kept true: %v", p.File(), err)
		}
		told = err != nil
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// update writes planet.json if it is not true any more, whole.
func (p *Planet) update() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.servers() {
		proc := s.current()
		if proc == nil || proc.running() || p.seen[s] == proc {
			continue
		}
		p.seen[s] = proc
		if !proc.asked.Load() {
			p.guard.remove(proc.pid)
			p.say("%s has ended by itself: %s%s", strings.TrimSuffix(s.out.prefix, " | "), ended(proc), s.out.tail(5))
		}
	}
	text, err := json.MarshalIndent(p.state(), "", " ")
	if err != nil || string(text) == p.written {
		return err
	}
	temporary := p.File() + ".new"
	if err := os.WriteFile(temporary, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", p.File(), err)
	}
	if err := os.Rename(temporary, p.File()); err != nil {
		return err
	}
	p.written = string(text)
	return nil
}

func (p *Planet) servers() []*server {
	var all []*server
	for _, r := range p.regions {
		for _, n := range r.Nodes {
			all = append(all, &n.server)
		}
		all = append(all, &r.Postgres.server)
		for _, n := range r.Redis.Nodes() {
			all = append(all, &n.server)
		}
	}
	return all
}
