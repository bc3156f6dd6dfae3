package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shortline/shortline/internal/planet"
)

// writeStores is how many stores the writes go to: day one's.
const writeStores = 10_000

// writeResults are rates of queue updates a second.
type writeResults struct {
	skipped string // why there are none
	rounds  []writeRound
}

// writeRound has the figures of seconds of one another.
type writeRound struct {
	rivals [len(writeRivals)]float64
	nodes  [len(writeLoads)]load
	cpu    [len(writeLoads)]time.Duration // of the node, for one update
}

// writeRivals are pgbench with one statement a transaction, prepared: an upsert of a queue's row and the insert of a change.
var writeRivals = [...]struct{ clients int }{{1}, {8}, {64}}

// writeLoads go through the HTTP API of one node. Each waits for an answer before it sends the next request.
var writeLoads = [...]struct {
	name             string
	clients, updates int
}{{"64 clients, one update a request", 64, 1}, {"1,000 clients, one update a request", 1000, 1}, {"16 clients, 500 updates a request", 16, 500}}

// rivalSchema and rivalScript are what pgbench works on: the rows that a queue update is about, without idempotency, hours of
// the week, tombstones or epochs.
const (
	rivalSchema = `CREATE TABLE rival_queues (store int PRIMARY KEY, rev bigint NOT NULL, length int NOT NULL, observed_at timestamptz NOT NULL) WITH (fillfactor = 70);
		CREATE TABLE rival_changes (xid xid8 NOT NULL DEFAULT pg_current_xact_id(), store int NOT NULL, rev bigint NOT NULL, length int NOT NULL,
			observed_at timestamptz NOT NULL, PRIMARY KEY (xid, store));
		INSERT INTO rival_queues SELECT i, 1, 0, now() FROM generate_series(0, %d) i;`
	rivalScript = `\set store random(0, %d)
\set length random(0, 40)
WITH q AS (INSERT INTO rival_queues AS q (store, rev, length, observed_at) VALUES (:store, 1, :length, now())
	ON CONFLICT (store) DO UPDATE SET rev = q.rev + 1, length = excluded.length, observed_at = excluded.observed_at RETURNING store, rev, length, observed_at)
INSERT INTO rival_changes (store, rev, length, observed_at) SELECT * FROM q;
`
	// writeScript is wrk's. Its arguments: the key, updates a request, stores, a seed.
	writeScript = `
local key, updates, stores
function init(args)
  key, updates, stores = args[1], tonumber(args[2]), tonumber(args[3])
  math.randomseed(tonumber(args[4]))
  wrk.headers["Authorization"] = "Bearer " .. key
  wrk.headers["Content-Type"] = "application/json"
end
function request()
  if updates == 1 then
    return wrk.format("POST", "/v1/stores/w" .. math.random(0, stores - 1) .. "/queue", nil, '{"length":' .. math.random(0, 40) .. '}')
  end
  local all = {}
  for i = 1, updates do all[i] = '{"id":"w' .. math.random(0, stores - 1) .. '","length":' .. math.random(0, 40) .. '}' end
  return wrk.format("POST", "/v1/queues", nil, '{"updates":[' .. table.concat(all, ",") .. ']}')
end
` + doneScript
	doneScript = `function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format("LOAD requests=%d took_us=%d failed=%d p50_us=%d p99_us=%d\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
`
)

// writesRig is a PostgreSQL with fsync on, the rival's tables in it, and a node of ours on it.
type writesRig struct {
	dir      string
	pgbench  string
	database *planet.Postgres
	node     *process
	api, key string
}

func (b *bench) measureWrites(ctx context.Context) (err error) {
	pgbench, err := found("pgbench", "/usr/lib/postgresql/*/bin/pgbench")
	_, errWrk := found("wrk")
	if err = errors.Join(err, errWrk); err != nil {
		b.writes.skipped = err.Error()
		return nil
	}
	rig := &writesRig{pgbench: pgbench}
	defer func() { err = errors.Join(err, rig.stop()) }()
	if err := rig.start(ctx, b); err != nil {
		return err
	}
	for round := range b.rounds {
		var r writeRound
		for i, rival := range writeRivals {
			if r.rivals[i], err = rig.rival(ctx, rival.clients, b.turn); err != nil {
				return err
			}
		}
		for i, l := range writeLoads {
			before := processTime(rig.node.pid)
			if r.nodes[i], err = writeLoad(ctx, rig.api, rig.key, l.clients, l.updates, b.turn, round); err != nil {
				return err
			}
			if n := r.nodes[i].requests * l.updates; n > 0 {
				r.cpu[i] = (processTime(rig.node.pid) - before) / time.Duration(n)
			}
			b.say("writes: %s: %.0f updates a second, p99 %s, %d failed", l.name, r.nodes[i].rate()*float64(l.updates), r.nodes[i].p99, r.nodes[i].failed)
		}
		b.writes.rounds = append(b.writes.rounds, r)
	}
	for end := time.Now().Add(10 * time.Second); ; { // what the generator did not wait for may be under way
		if err = rig.verify(ctx); err == nil || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
	}
}

// rate is requests answered a second.
func (l *load) rate() float64 { return float64(l.requests) / l.took.Seconds() }

// processTime is the CPU time that a process has used; 0 where the system does not tell.
func processTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

func (r *writesRig) start(ctx context.Context, b *bench) (err error) {
	if r.dir, err = os.MkdirTemp("", "shortline-bench-writes-"); err != nil {
		return err
	}
	program := filepath.Join(r.dir, "shortline")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/shortline").CombinedOutput(); err != nil {
		return fmt.Errorf("build the node: %w\n%s", err, out)
	}
	b.say("writes: starting PostgreSQL with fsync on, and a node")
	r.database, err = planet.StartPostgres(ctx, planet.PostgresConfig{Name: "writes", Roles: []string{"shortline"}, Settings: map[string]string{
		"shared_buffers": "256MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}})
	if err != nil {
		return err
	}
	if err := r.database.Exec(ctx, "postgres", "CREATE DATABASE shortline OWNER shortline"); err != nil {
		return err
	}
	conn, err := r.database.Connect(ctx, "shortline", "shortline")
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, fmt.Sprintf(rivalSchema, writeStores-1))
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.dir, "rival.sql"), []byte(fmt.Sprintf(rivalScript, writeStores-1)), 0o600); err != nil {
		return err
	}
	data := filepath.Join(r.dir, "data")
	out := newLines()
	cmd := exec.Command(program, "serve", "--data", data, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--local-snapshot=false")
	cmd.Env, cmd.Stdout = append(os.Environ(), "SHORTLINE_POSTGRES="+r.database.DSN("shortline", "shortline")), out
	if r.node, err = start(ctx, syscall.SIGTERM, cmd); err != nil {
		return err
	}
	err = r.node.await(ctx, time.Minute, func() error {
		select {
		case line := <-out.c:
			r.api = strings.TrimPrefix(line, "ready ")
			return nil
		default:
			return errors.New("no ready line")
		}
	})
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(data, "admin.key"))
	if err != nil {
		return err
	}
	r.key = strings.TrimSpace(string(key))
	return bringIn(ctx, r.api, r.key)
}

// bringIn makes the stores that are written, through the API.
func bringIn(ctx context.Context, api, key string) error {
	var rows bytes.Buffer
	for i := range writeStores {
		fmt.Fprintf(&rows, `{"id":"w%d","name":"Store %d","lat":%.4f,"lng":%.4f}`+"\n", i, i, -60+float64(i%120), float64(i%360)-180)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, api+"/v1/stores:import", &rows)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/x-ndjson")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("import: %s %s: %w", res.Status, text, err)
	}
	return nil
}

// rival runs pgbench and returns transactions a second.
func (r *writesRig) rival(ctx context.Context, clients int, d time.Duration) (float64, error) {
	conn := strings.Replace(r.database.DSN("shortline", "shortline"), "postgres://", "postgresql://", 1)
	seconds := int((d + time.Second - 1) / time.Second)
	cmd := exec.CommandContext(ctx, r.pgbench, "-n", "-M", "prepared", "-c", fmt.Sprint(clients), "-j", fmt.Sprint(min(clients, 2)),
		"-T", fmt.Sprint(seconds), "-f", filepath.Join(r.dir, "rival.sql"), conn)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	_, after, ok := strings.Cut(string(out), "tps = ")
	var tps float64
	if _, err := fmt.Sscanf(after, "%f", &tps); !ok || err != nil {
		return 0, fmt.Errorf("pgbench printed no rate:\n%s", out)
	}
	return tps, nil
}

// writeLoad writes through the API for a while.
func writeLoad(ctx context.Context, api, key string, clients, updates int, d time.Duration, seed int) (load, error) {
	script, err := os.CreateTemp("", "shortline-bench-*.lua")
	if err != nil {
		return load{}, err
	}
	defer func() { _ = os.Remove(script.Name()) }()
	_, err = script.WriteString(writeScript)
	if err = errors.Join(err, script.Close()); err != nil {
		return load{}, err
	}
	seconds := int((d + time.Second - 1) / time.Second)
	cmd := exec.CommandContext(ctx, "wrk", "-t1", fmt.Sprintf("-c%d", clients), fmt.Sprintf("-d%ds", seconds), "--timeout", "10s",
		"-s", script.Name(), api, "--", key, fmt.Sprint(updates), fmt.Sprint(writeStores), fmt.Sprint(seed))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	return parseLoad(out)
}

// verify compares what the node answers with what the database holds.
func (r *writesRig) verify(ctx context.Context) error {
	conn, err := r.database.Connect(ctx, "shortline", "shortline")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, "SELECT store, length FROM shortline.queues WHERE length IS NOT NULL ORDER BY store LIMIT 100")
	if err != nil {
		return err
	}
	want := map[string]int{}
	for rows.Next() {
		var id string
		var n int
		if err := rows.Scan(&id, &n); err != nil {
			return err
		}
		want[id] = n
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for id, n := range want {
		res, err := http.Get(r.api + "/v1/stores/" + id + "/queue?consistency=strong")
		if err != nil {
			return err
		}
		var q struct{ Length int }
		err = json.NewDecoder(res.Body).Decode(&q)
		_ = res.Body.Close()
		if err != nil || q.Length != n {
			return fmt.Errorf("the queue of %s is %d in the database and %d by the node's account (%v)", id, n, q.Length, err)
		}
	}
	return nil
}

func (r *writesRig) stop() (err error) {
	if r.node != nil {
		r.node.stop()
	}
	if r.database != nil {
		err = r.database.Stop()
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

func (b *bench) writeWrites(w io.Writer) {
	p := printer{w}
	switch {
	case b.writes.skipped != "":
		p.line("### Writes")
		p.line("")
		p.line("Skipped: %s.", b.writes.skipped)
		p.line("")
		return
	case len(b.writes.rounds) == 0:
		return
	}
	p.line("### Writes")
	p.line("")
	p.line("Queue updates a second to %s stores at random, PostgreSQL with `fsync=on` and no standby, generator, node and server on this machine. "+
		"Beside it pgbench (prepared, one statement a transaction): an upsert of the queue's row and the insert of a change. Median of %d rounds (least to most).", thousands(writeStores), len(b.writes.rounds))
	p.line("")
	p.head("who", "updates a second", "p50", "p99", "failed", "CPU of the node an update")
	for i, rival := range writeRivals {
		var rates []float64
		for _, r := range b.writes.rounds {
			rates = append(rates, r.rivals[i])
		}
		p.row(fmt.Sprintf("pgbench, %d connections", rival.clients), spread(rates), "", "", "", "")
	}
	for i, l := range writeLoads {
		var rates, p50, p99, cpu []float64
		failed := 0
		for _, r := range b.writes.rounds {
			rates = append(rates, r.nodes[i].rate()*float64(l.updates))
			p50, p99 = append(p50, r.nodes[i].p50.Seconds()*1000), append(p99, r.nodes[i].p99.Seconds()*1000)
			cpu = append(cpu, float64(r.cpu[i].Nanoseconds())/1000)
			failed += r.nodes[i].failed
		}
		p.row(l.name, spread(rates), fmt.Sprintf("%.1f ms", median(p50)), fmt.Sprintf("%.1f ms", median(p99)), fmt.Sprint(failed), fmt.Sprintf("%.0f µs", median(cpu)))
	}
	p.line("")
	b.writeWriteTargets(p)
}

// writeAims are updates a second: what is aimed at for each of writeLoads.
var writeAims = [len(writeLoads)]float64{15_000, 15_000, 50_000}

// writeWriteTargets sets the rates of each round against pgbench's in the same round.
func (b *bench) writeWriteTargets(p printer) {
	head := []string{"times pgbench's rate, median of the rounds"}
	for _, rival := range writeRivals {
		head = append(head, fmt.Sprintf("%d connections", rival.clients))
	}
	p.head(append(head, "5 times one connection", "aim a second")...)
	for i, l := range writeLoads {
		row := []string{l.name}
		var rates, one []float64
		for j := range writeRivals {
			var times []float64
			for _, r := range b.writes.rounds {
				times = append(times, r.nodes[i].rate()*float64(l.updates)/r.rivals[j])
			}
			if j == 0 {
				one = times
			}
			row = append(row, fmt.Sprintf("%.1f", median(times)))
		}
		for _, r := range b.writes.rounds {
			rates = append(rates, r.nodes[i].rate()*float64(l.updates))
		}
		p.row(append(row, met(median(one) >= 5), fmt.Sprintf("%s: %s", thousands(int(writeAims[i])), met(median(rates) >= writeAims[i])))...)
	}
	p.line("")
	p.line("The target, 5 times single-row upserts, is held against pgbench on one connection: a program that upserts each row as it comes and waits for it. "+
		"With more connections PostgreSQL makes one flush for many commits, as the node does, and pgbench speaks no HTTP, keeps no idempotency, hours or epochs, and shows nothing to readers; "+
		"those columns tell what all that costs on %d cores which generator, node and server share.", runtime.NumCPU())
	p.line("")
}

func spread(v []float64) string {
	lo, hi := v[0], v[0]
	for _, x := range v {
		lo, hi = min(lo, x), max(hi, x)
	}
	return fmt.Sprintf("%s (%s to %s)", thousands(int(median(v))), thousands(int(lo)), thousands(int(hi)))
}
