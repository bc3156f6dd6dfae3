package geo

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// writeGeoIP makes a database of a few networks.
func writeGeoIP(t *testing.T, built time.Time, places map[string]Point) []byte {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-City", Description: map[string]string{"en": "test"}, RecordSize: 24, BuildEpoch: built.Unix(), IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for network, p := range places {
		_, n, err := net.ParseCIDR(network)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Insert(n, mmdbtype.Map{"location": mmdbtype.Map{"latitude": mmdbtype.Float64(p.Lat), "longitude": mmdbtype.Float64(p.Lng)}}); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGeoIP(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.mmdb")
	put := func(b []byte) {
		next := path + ".new"
		if err := os.WriteFile(next, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	if _, err := OpenGeoIP(path, log); err == nil {
		t.Error("a file that is not there was opened")
	}
	put([]byte("no database"))
	if _, err := OpenGeoIP(path, log); err == nil {
		t.Error("a file that is none was opened")
	}
	now := time.Now().Truncate(time.Second)
	good := writeGeoIP(t, now.Add(-time.Hour), map[string]Point{"203.0.113.0/24": {Lat: 1, Lng: 2}, "2001:db8::/32": {Lat: 3, Lng: 4}})
	put(good)
	g, err := OpenGeoIP(path, log)
	if err != nil {
		t.Fatal(err)
	}
	find := func(addr string) Point {
		p, _ := g.Find(netip.MustParseAddr(addr))
		return p
	}
	for addr, want := range map[string]Point{"203.0.113.9": {Lat: 1, Lng: 2}, "::ffff:203.0.113.9": {Lat: 1, Lng: 2}, "2001:db8::1": {Lat: 3, Lng: 4}, "198.51.100.1": {}, "::1": {}} {
		if got := find(addr); got != want {
			t.Errorf("%s is at %v, want %v", addr, got, want)
		}
	}
	seen := g.current.Load().stamp
	broken := bytes.Clone(good)
	for i := range 40 {
		broken[i] = 0xff
	}
	for name, b := range map[string][]byte{"garbage": []byte("garbage"), "cut short": good[:len(good)/2], "broken tree": broken, "empty": nil,
		"older": writeGeoIP(t, now.Add(-2*time.Hour), map[string]Point{"203.0.113.0/24": {Lat: 9, Lng: 9}})} {
		put(b)
		seen = g.look(seen)
		if got := find("203.0.113.9"); got != (Point{Lat: 1, Lng: 2}) || g.Problem() == "" {
			t.Errorf("%s: found at %v, problem %q", name, got, g.Problem())
		}
	}
	put(writeGeoIP(t, now, map[string]Point{"203.0.113.0/24": {Lat: 5, Lng: 6}}))
	g.look(seen)
	if got := find("203.0.113.9"); got != (Point{Lat: 5, Lng: 6}) || g.Problem() != "" {
		t.Errorf("after a good one: %v, problem %q", got, g.Problem())
	}
	put(writeGeoIP(t, now.Add(-GeoIPOld*2), nil))
	if old, err := OpenGeoIP(path, log); err != nil || old.Problem() == "" {
		t.Errorf("an old one: %v", err)
	}
}
