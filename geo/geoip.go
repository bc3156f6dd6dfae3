package geo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"
)

const (
	// geoIPPoll is how often the file is looked at for a new version.
	geoIPPoll = 5 * time.Second
	// GeoIPOld is from what age on a database is told to be old.
	GeoIPOld = 90 * 24 * time.Hour
	// maxGeoIPBytes bounds the file, which is kept in memory: mapping it would crash the node when it is cut short in place.
	maxGeoIPBytes = 1 << 30
)

// GeoIP finds where addresses are, in a file in MaxMind's format. When the file is replaced, the new one is used once it
// has proved to be whole; one that is broken, or older than what is in use, changes nothing but Problem.
type GeoIP struct {
	path    string
	log     *slog.Logger
	current atomic.Pointer[geoIPFile]
	problem atomic.Pointer[string]
}

type geoIPFile struct {
	reader *maxminddb.Reader
	stamp  geoIPStamp
	built  time.Time
}

// geoIPStamp tells versions of a file apart.
type geoIPStamp struct {
	size int64
	at   time.Time
}

// OpenGeoIP reads the file.
func OpenGeoIP(path string, log *slog.Logger) (*GeoIP, error) {
	g := &GeoIP{path: path, log: log}
	f, err := readGeoIP(path)
	if err != nil {
		return nil, err
	}
	g.use(f)
	return g, nil
}

func (g *GeoIP) use(f *geoIPFile) {
	g.current.Store(f)
	g.log.Info("GeoIP database in use", "path", g.path, "type", f.reader.Metadata.DatabaseType, "built", f.built.UTC().Format(time.DateOnly))
	if age := time.Since(f.built); age > GeoIPOld {
		g.log.Warn("the GeoIP database is old; places may be wrong", "path", g.path, "days", int(age.Hours()/24))
	}
}

func readGeoIP(path string) (*geoIPFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("GeoIP database: %w", err)
	}
	if info.Size() > maxGeoIPBytes {
		return nil, fmt.Errorf("GeoIP database %s: %d bytes are more than %d", path, info.Size(), maxGeoIPBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("GeoIP database: %w", err)
	}
	r, err := maxminddb.OpenBytes(data)
	if err == nil {
		err = r.Verify()
	}
	if err != nil {
		return nil, fmt.Errorf("GeoIP database %s: %w", path, err)
	}
	return &geoIPFile{reader: r, stamp: geoIPStamp{info.Size(), info.ModTime()}, built: time.Unix(int64(r.Metadata.BuildEpoch), 0)}, nil
}

// Find returns where the address is. ok is false where that is not known. It may be called at any time.
func (g *GeoIP) Find(addr netip.Addr) (p Point, ok bool) {
	var lat, lng *float64
	result := g.current.Load().reader.Lookup(addr.Unmap())
	if !result.Found() || result.DecodePath(&lat, "location", "latitude") != nil || result.DecodePath(&lng, "location", "longitude") != nil || lat == nil || lng == nil {
		return Point{}, false
	}
	p = Point{Lat: *lat, Lng: *lng}
	return p, p.Valid()
}

// Built is when the database in use was made.
func (g *GeoIP) Built() time.Time { return g.current.Load().built }

// Problem says what is wrong with the file as it lies there now, or that the one in use is old; empty: nothing.
func (g *GeoIP) Problem() string {
	if p := g.problem.Load(); p != nil && *p != "" {
		return *p
	}
	if age := time.Since(g.Built()); age > GeoIPOld {
		return fmt.Sprintf("it was built %d days ago", int(age.Hours()/24))
	}
	return ""
}

// Run looks for new versions until ctx ends, and returns nil.
func (g *GeoIP) Run(ctx context.Context) error {
	tick := time.NewTicker(geoIPPoll)
	defer tick.Stop()
	seen := g.current.Load().stamp
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			seen = g.look(seen)
		}
	}
}

var errOlder = errors.New("it was built before the one in use")

// look takes a new version over if it is a good one, and returns the stamp that was looked at.
func (g *GeoIP) look(seen geoIPStamp) geoIPStamp {
	info, err := os.Stat(g.path)
	if err != nil {
		g.blame(fmt.Errorf("GeoIP database: %w", err))
		return geoIPStamp{}
	}
	stamp := geoIPStamp{info.Size(), info.ModTime()}
	if stamp == seen {
		return seen
	}
	f, err := readGeoIP(g.path)
	if err == nil && f.built.Before(g.Built()) {
		err = fmt.Errorf("GeoIP database %s: %w", g.path, errOlder)
	}
	if err != nil {
		g.blame(err)
		return stamp
	}
	g.problem.Store(new(string))
	g.use(f)
	return stamp
}

// blame tells of a fault once.
func (g *GeoIP) blame(err error) {
	text := err.Error() + "; the one read before stays in use"
	if last := g.problem.Load(); last != nil && *last == text {
		return
	}
	g.problem.Store(&text)
	g.log.Error("the GeoIP database was not replaced", "err", err)
}
