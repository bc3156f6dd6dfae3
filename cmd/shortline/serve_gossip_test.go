package main

import (
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/regions"
)

func TestPlaceSettings(t *testing.T) {
	good := func() placeSettings { return placeSettings{steer: "hint", steerMargin: 500} }
	for name, tt := range map[string]struct {
		region string
		change func(*placeSettings)
		want   string // in the error; empty: none
	}{
		"nothing set":         {"local", func(*placeSettings) {}, ""},
		"known region":        {"eu-west", func(s *placeSettings) { s.gossipListen = ":7946" }, ""},
		"unknown region":      {"moon", func(s *placeSettings) { s.gossipListen = ":7946" }, "--region-point is missing"},
		"point given":         {"moon", func(s *placeSettings) { s.gossipListen, s.point = ":7946", "1,2" }, ""},
		"point that is none":  {"moon", func(s *placeSettings) { s.point = "91,2" }, "--region-point"},
		"join without gossip": {"eu-west", func(s *placeSettings) { s.join = []string{"a:1"} }, "need --gossip-listen"},
		"bad seed":            {"eu-west", func(s *placeSettings) { s.gossipListen, s.join = ":1", []string{"a"} }, `seed "a"`},
		"short key":           {"eu-west", func(s *placeSettings) { s.gossipListen, s.gossipKeys = ":1", []string{"k"} }, "key 1"},
		"region with a dot":   {"eu.west", func(s *placeSettings) { s.gossipListen, s.point = ":1", "1,2" }, `region "eu.west"`},
		"capacity":            {"local", func(s *placeSettings) { s.capacity = -1 }, "--capacity"},
		"margin":              {"local", func(s *placeSettings) { s.steerMargin = -1 }, "--steer-margin"},
		"proxy":               {"local", func(s *placeSettings) { s.trustProxy = []string{"10.0.0.0/8", "10.1.1.1", "x"} }, `--trust-proxy "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			s, cfg := good(), edge.Config{Region: tt.region}
			tt.change(&s)
			err := s.apply(&cfg)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("the error is %v, want %q in it", err, tt.want)
			}
		})
	}
	s, cfg := good(), edge.Config{Region: "eu-west"}
	s.trustProxy = []string{"10.1.2.3/8", "::1"}
	if err := s.apply(&cfg); err != nil || cfg.Steer.Point.Lat < 53 || len(cfg.Steer.TrustProxies) != 2 || cfg.Steer.TrustProxies[0].String() != "10.0.0.0/8" || cfg.Steer.Margin != geo.Metres(500_000) {
		t.Errorf("%+v, %v", cfg.Steer, err)
	}
}

func TestRateMeter(t *testing.T) {
	var m rateMeter
	now, count := time.Unix(1e9, 0), uint64(5)
	for range 120 {
		m.measure(count, now)
		now, count = now.Add(time.Second), count+40
	}
	if got := m.measure(count, now); got < 39 || got > 41 {
		t.Errorf("40 a second are measured as %v", got)
	}
}

func TestKnownPoints(t *testing.T) {
	for _, id := range []regions.ID{"us-east", "us-east-1", "europe-west3", "japaneast", "ap-southeast-2"} {
		if p, ok := regions.KnownPoint(id); !ok || !p.Valid() {
			t.Errorf("%s is not known", id)
		}
	}
	if _, ok := regions.KnownPoint("moon"); ok {
		t.Error("the moon is known")
	}
}
