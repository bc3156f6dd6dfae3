package planet

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
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
	Witness  *processState `json:"witness,omitempty"`
}

type processState struct {
	Admin string `json:"admin"`
	PID   *int   `json:"pid"`
}

type regionState struct {
	Name     regions.ID    `json:"name"`
	Lat      float64       `json:"lat"`
	Lng      float64       `json:"lng"`
	Nodes    []nodeState   `json:"nodes"`
	Postgres postgresState `json:"postgres"`
	Agent    processState  `json:"agent"`
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

func (p *Planet) stateLocked() state {
	s := state{AdminKey: p.key, Primary: cmp.Or(p.primary, p.first())}
	if p.witness != nil {
		s.Witness = &processState{p.witness.Admin(), pidOf(&p.witness.server)}
	}
	for _, r := range p.regions {
		rs := regionState{Name: r.ID, Lat: r.At.Lat, Lng: r.At.Lng,
			Postgres: postgresState{serverState{r.Postgres.Addr(), nil}, r.Postgres.DSN(operatorRole, database), r.Postgres.Data()},
			Agent:    processState{r.Postgres.Admin(), pidOf(&r.Postgres.server)}}
		if pid := r.Postgres.ServerPID(); pid != 0 {
			rs.Postgres.PID = &pid
		}
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

const (
	// watchEvery is how old planet.json may be, but for the primary, which nodes are asked for every askEvery.
	watchEvery = 50 * time.Millisecond
	askEvery   = 200 * time.Millisecond
)

// follow keeps in mind which region takes writes, until ctx ends.
func (p *Planet) follow(ctx context.Context) {
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		if id, ok := p.askPrimary(ctx); ok {
			p.mu.Lock()
			p.primary = id
			p.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// askPrimary asks one node after the other which region takes writes, until one knows.
func (p *Planet) askPrimary(ctx context.Context) (regions.ID, bool) {
	for _, n := range p.Nodes() {
		if !n.Running() {
			continue
		}
		var answer struct {
			Regions []struct {
				Name regions.ID `json:"name"`
				Role string     `json:"role"`
			} `json:"regions"`
		}
		if getJSON(ctx, n.API()+"/v1/regions", &answer) != nil {
			continue
		}
		for _, r := range answer.Regions {
			if r.Role == "primary" {
				return r.Name, true
			}
		}
	}
	return "", false
}

// getJSON asks with a deadline of a second.
func getJSON(ctx context.Context, url string, to any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(to)
}

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
	text, err := json.MarshalIndent(p.stateLocked(), "", " ")
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
	if p.witness != nil {
		all = append(all, &p.witness.server)
	}
	return all
}
