package rediscache

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/planet"
)

func TestConfigReportsEveryFault(t *testing.T) {
	err := Config{Deployment: "a:{b}", Database: "x y", TTL: 1, Queue: -1}.Validate()
	if err == nil {
		t.Fatal("no fault")
	}
	for _, want := range []string{"host:port", `"a:{b}"`, `"x y"`, "CellOf", "TTL", "Queue"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	good := Config{Addrs: []string{"a:1"}, Deployment: "prod", CellOf: anyCell}
	if err := good.withDefaults().Validate(); err != nil {
		t.Error(err)
	}
}

func TestStartChecks(t *testing.T) {
	planet.Need(t)
	single := func(settings map[string]string) string {
		r, err := planet.StartRedisSingle(deadline(t), planet.RedisConfig{Settings: settings})
		must(t, err)
		t.Cleanup(func() { must(t, r.Stop()) })
		return r.Addr()
	}
	gone, err := planet.StartRedisSingle(deadline(t), planet.RedisConfig{})
	must(t, err)
	must(t, gone.Stop())
	refused := func(addrs ...string) error {
		t.Helper()
		c, err := New(deadline(t), config(t, addrs), newWorld())
		if err == nil {
			_ = c.Close()
			t.Fatal("it started")
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("more than a line: %q", err)
		}
		t.Log(err)
		return err
	}
	if err := refused(single(nil)); !strings.Contains(err.Error(), "not in cluster mode") {
		t.Error(err)
	}
	if err := refused(single(map[string]string{"requirepass": "secret"})); !strings.Contains(err.Error(), "refuses the login") {
		t.Error(err)
	}
	if err := refused(gone.Addr(), gone.Addr()); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), gone.Addr()) {
		t.Error(err)
	}
	// A patient cache reads from the database meanwhile, and uses Redis once it is there.
	patient := config(t, []string{gone.Addr()})
	patient.Patient, patient.Pause = true, 20*time.Millisecond
	late, err := New(deadline(t), patient, newWorld())
	must(t, err)
	defer late.Close()
	if late.usable.Load() {
		t.Error("a Redis that is gone counts as usable")
	}
	if _, err := late.Rows(deadline(t), []shortline.StoreID{storeID(1)}); err != nil {
		t.Errorf("without Redis: %v", err)
	}
	late.cfg.Addrs = sharedCluster(t).Addrs() // it comes up
	late.client = newClient(late.cfg, &late.breakers)
	late.seek(deadline(t))
	if !late.usable.Load() {
		t.Error("a Redis that came up is not used")
	}
	// One node that does not answer is no reason not to start.
	c, err := New(deadline(t), config(t, append([]string{gone.Addr()}, sharedCluster(t).Addrs()...)), newWorld())
	must(t, err)
	must(t, c.Close())
}

func TestJudgeInfo(t *testing.T) {
	for info, want := range map[string]string{
		"redis_version:7.0.15\r\ncluster_enabled:1\r\n": "",
		"redis_version:8.2\r\ncluster_enabled:1":        "",
		"redis_version:6.2.14\r\ncluster_enabled:1\r\n": "upgrade to 7",
		"redis_version:7.0.15\r\ncluster_enabled:0\r\n": "not in cluster mode",
		"cluster_enabled:1\r\n":                         "upgrade to 7",
		"":                                              "not in cluster mode",
	} {
		err := judgeInfo("a:1", info)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", info, err)
		}
	}
}

// A node that does not know its database yet does without Redis until it does, and no longer.
func TestDatabaseNotKnownAtTheStart(t *testing.T) {
	w := newWorld()
	w.put(0)
	cfg := config(t, sharedCluster(t).Addrs())
	asked, known := new(atomic.Int32), new(atomic.Bool)
	cfg.Database, cfg.Patient, cfg.Pause = "", true, 5*time.Millisecond
	cfg.DatabaseOf = func(context.Context) (shortline.StoreID, error) {
		if asked.Add(1); !known.Load() {
			return "", errors.New("it does not answer")
		}
		return "db1", nil
	}
	c := start(t, cfg, w)
	eventually(t, "it is asked again", func() bool { return asked.Load() > 2 })
	read(t, c, w, 0)
	if n := c.count(hit) + c.count(absent); n != 0 {
		t.Errorf("Redis was asked %d times", n)
	}
	known.Store(true)
	eventually(t, "Redis is used", func() bool { return c.usable.Load() })
	read(t, c, w, 0)
	settle(t, c)
	read(t, c, w, 0)
	if c.count(hit) != 1 || c.owner != cfg.owner()+"db1" {
		t.Errorf("%d hits; the keys are of %q", c.count(hit), c.owner)
	}
}

func TestDeploymentsShareACluster(t *testing.T) {
	addrs := sharedCluster(t).Addrs()
	a, b := newWorld(), newWorld()
	a.put(0)
	b.put(0)
	b.put(0)
	first := config(t, addrs)
	first.Database = "db1"
	c := start(t, first, a)
	read(t, c, a, 0)
	settle(t, c)

	second := first
	second.Registerer, second.Database = nil, "db2"
	_, err := New(deadline(t), second, b)
	if err == nil || !strings.Contains(err.Error(), `belong to database "db1"`) || !strings.Contains(err.Error(), "DEL ") {
		t.Fatalf("the same name with another database: %v", err)
	}
	// The marker is lost, and both run: neither believes the other's values.
	must(t, c.client.Del(context.Background(), c.markerKey()).Err())
	d := start(t, second, b)
	read(t, d, b, 0)
	settle(t, d)
	read(t, d, b, 0)
	read(t, c, a, 0)
	if d.count(garbage) != 1 || d.count(hit) != 1 || c.count(garbage) != 1 {
		t.Errorf("garbage %d and %d, hits %d", d.count(garbage), c.count(garbage), d.count(hit))
	}

	third := second
	third.Deployment += "-other"
	e := start(t, third, b)
	read(t, e, b, 0)
	if e.count(absent) != 1 {
		t.Errorf("%d absent", e.count(absent))
	}
	must(t, e.client.Del(context.Background(), e.markerKey()).Err())
	must(t, e.client.RPush(context.Background(), e.markerKey(), "x").Err())
	if _, err := New(deadline(t), third, b); err == nil || !strings.Contains(err.Error(), "DEL it") {
		t.Errorf("a marker that is a list: %v", err)
	}
}
