package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
)

const redisKey = "stores"

type redisEngine struct {
	process *process
	client  *redis.Client
	dir     string
}

func startRedis(ctx context.Context, b *bench) (_ engine, err error) {
	program, err := found("redis-server")
	if err != nil {
		return nil, err
	}
	e := &redisEngine{}
	defer func() {
		if err != nil {
			e.stop()
		}
	}()
	if e.dir, err = os.MkdirTemp("", "shortline-bench-redis-"); err != nil {
		return nil, err
	}
	socket := filepath.Join(e.dir, "redis.sock")
	cmd := exec.Command(program, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", e.dir)
	if e.process, err = start(ctx, syscall.SIGTERM, cmd); err != nil {
		return nil, err
	}
	e.client = redis.NewClient(&redis.Options{Network: "unix", Addr: socket, PoolSize: 1, ReadTimeout: time.Minute, WriteTimeout: time.Minute})
	if err := e.process.await(ctx, 30*time.Second, func() error { return e.client.Ping(ctx).Err() }); err != nil {
		return nil, err
	}
	return e, e.load(ctx, b.data)
}

func (e *redisEngine) load(ctx context.Context, d *dataset) error {
	const chunk = 1000
	places := make([]*redis.GeoLocation, 0, chunk)
	for i, p := range d.points {
		places = append(places, &redis.GeoLocation{Name: string(storeID(i)), Latitude: p.Lat, Longitude: p.Lng})
		if len(places) == chunk || i == len(d.points)-1 {
			if err := e.client.GeoAdd(ctx, redisKey, places...).Err(); err != nil {
				return fmt.Errorf("load Redis: %w", err)
			}
			places = places[:0]
		}
	}
	return nil
}

func (e *redisEngine) ask(ctx context.Context, qs []question) ([][]answer, error) {
	replies := make([]*redis.GeoSearchLocationCmd, len(qs))
	_, err := e.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, q := range qs {
			replies[i] = p.GeoSearchLocation(ctx, redisKey, &redis.GeoSearchLocationQuery{WithDist: true, GeoSearchQuery: redis.GeoSearchQuery{
				Latitude: q.at.Lat, Longitude: q.at.Lng, Radius: float64(q.within), RadiusUnit: "m", Sort: "ASC", Count: q.k}})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ask Redis: %w", err)
	}
	out := make([][]answer, len(qs))
	for i, r := range replies {
		for _, place := range r.Val() {
			n, _ := storeNumber(shortline.StoreID(place.Name))
			out[i] = append(out[i], answer{geo.Ref(n), geo.Metres(place.Dist)})
		}
	}
	return out, nil
}

func (e *redisEngine) variants() []variant { return []variant{{"Redis GEOSEARCH", e.ask}} }

func (e *redisEngine) pid() int { return e.process.pid }

func (e *redisEngine) stop() {
	if e.client != nil {
		_ = e.client.Close()
	}
	if e.process != nil {
		e.process.stop()
	}
	if e.dir != "" {
		_ = os.RemoveAll(e.dir)
	}
}
