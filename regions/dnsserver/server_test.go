package dnsserver

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/miekg/dns"

	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/regions"
)

// cities are fifty cities; each has a subnet of its own in the test database, 20.N.0.0/24 and 2001:db8:N::/48.
var cities = []struct {
	name     string
	lat, lng float64
}{
	{"New York", 40.71, -74.01}, {"Los Angeles", 34.05, -118.24}, {"Chicago", 41.88, -87.63}, {"Toronto", 43.65, -79.38}, {"Mexico City", 19.43, -99.13},
	{"São Paulo", -23.55, -46.63}, {"Buenos Aires", -34.6, -58.38}, {"Lima", -12.05, -77.04}, {"Bogotá", 4.71, -74.07}, {"Santiago", -33.45, -70.67},
	{"London", 51.51, -0.13}, {"Paris", 48.86, 2.35}, {"Berlin", 52.52, 13.41}, {"Madrid", 40.42, -3.7}, {"Rome", 41.9, 12.5},
	{"Warsaw", 52.23, 21.01}, {"Stockholm", 59.33, 18.07}, {"Kyiv", 50.45, 30.52}, {"Istanbul", 41.01, 28.98}, {"Moscow", 55.76, 37.62},
	{"Cairo", 30.04, 31.24}, {"Lagos", 6.52, 3.38}, {"Nairobi", -1.29, 36.82}, {"Johannesburg", -26.2, 28.05}, {"Casablanca", 33.57, -7.59},
	{"Dubai", 25.2, 55.27}, {"Riyadh", 24.71, 46.68}, {"Tehran", 35.69, 51.39}, {"Karachi", 24.86, 67}, {"Mumbai", 19.08, 72.88},
	{"Delhi", 28.61, 77.21}, {"Dhaka", 23.81, 90.41}, {"Bangkok", 13.76, 100.5}, {"Jakarta", -6.21, 106.85}, {"Manila", 14.6, 120.98},
	{"Hanoi", 21.03, 105.85}, {"Hong Kong", 22.32, 114.17}, {"Shanghai", 31.23, 121.47}, {"Beijing", 39.9, 116.41}, {"Taipei", 25.03, 121.57},
	{"Seoul", 37.57, 126.98}, {"Tokyo", 35.68, 139.65}, {"Sydney", -33.87, 151.21}, {"Perth", -31.95, 115.86}, {"Auckland", -36.85, 174.76},
	{"Honolulu", 21.31, -157.86}, {"Anchorage", 61.22, -149.9}, {"Suva", -18.14, 178.44}, {"Reykjavík", 64.15, -21.94}, {"Ponta Delgada", 37.74, -25.67},
}

func cityDatabase(t testing.TB) *geo.GeoIP {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-City", Description: map[string]string{"en": "test"}, RecordSize: 24, BuildEpoch: time.Now().Unix(), IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range cities {
		for _, cidr := range []string{fmt.Sprintf("20.%d.0.0/24", i), fmt.Sprintf("2001:db8:%x::/48", i)} {
			_, n, err := net.ParseCIDR(cidr)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Insert(n, mmdbtype.Map{"location": mmdbtype.Map{"latitude": mmdbtype.Float64(c.lat), "longitude": mmdbtype.Float64(c.lng)}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "city.mmdb")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := geo.OpenGeoIP(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// world is six regions with two nodes each.
var world = map[regions.ID]geo.Point{
	"us-east": {Lat: 39, Lng: -77.5}, "us-west": {Lat: 45.8, Lng: -119.7}, "sa-east": {Lat: -23.55, Lng: -46.63},
	"eu-west": {Lat: 53.3, Lng: -6.3}, "ap-south": {Lat: 19, Lng: 72.9}, "ap-northeast": {Lat: 35.7, Lng: 139.7},
}

// addrOf is the address of a region's node; those of one region are alike but for the last byte.
func addrOf(id regions.ID, node int) netip.Addr {
	n := byte(0)
	for other := range world {
		if other < id {
			n++
		}
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, n*10 + byte(node)})
}

func nodesOf(change func(*regions.Node)) []regions.Node {
	var nodes []regions.Node
	for id, p := range world {
		for i := range 2 {
			n := regions.Node{NodeStatus: regions.NodeStatus{Name: fmt.Sprintf("%s/%d", id, i), Region: id, Point: p, Health: regions.Healthy, API: "https://" + string(id) + ".example",
				Addrs: []netip.Addr{addrOf(id, i), netip.MustParseAddr(fmt.Sprintf("2001:db8:ffff::%s:%d", addrOf(id, i).String()[8:], i))}}, Alive: true}
			if change != nil {
				change(&n)
			}
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// rig is a server with a view that the test changes.
type rig struct {
	*Server
	view atomic.Pointer[regions.View]
}

func (r *rig) set(state *regions.State, change func(*regions.Node)) {
	r.view.Store(regions.NewView("eu-west/0", "eu-west", nodesOf(change), state, time.Now()))
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	r := new(rig)
	r.set(nil, nil)
	cfg := Config{Listen: "127.0.0.1:0", Zone: "Stores.Example.org", View: r.view.Load, GeoIP: cityDatabase(t).Find, Point: world["eu-west"], CAA: []string{"letsencrypt.org"}, Rate: -1,
		Nameservers: []string{"ns1.stores.example.org=192.0.2.250+2001:db8::250", "ns.elsewhere.example"}}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return r
}

// ask goes through packets, as from an address.
func (r *rig) ask(t testing.TB, m *dns.Msg, from string, tcp bool) *dns.Msg {
	t.Helper()
	q, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	b := r.handle(q, netip.MustParseAddr(from), tcp, false, nil)
	if b == nil {
		return nil
	}
	res := new(dns.Msg)
	if err := res.Unpack(b); err != nil {
		t.Fatal(err)
	}
	if !res.Response || res.Id != m.Id || res.RecursionAvailable {
		t.Errorf("not an answer: %v", res)
	}
	if !tcp && len(b) > maxUDPAnswer {
		t.Errorf("%d bytes by UDP", len(b))
	}
	return res
}

func question(name string, kind uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, kind) }

func withSubnet(m *dns.Msg, cidr string) *dns.Msg {
	p := netip.MustParsePrefix(cidr)
	family := uint16(1)
	if p.Addr().Is6() {
		family = 2
	}
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()})
	return m
}

// regionOf tells whose addresses an answer holds; all must be of one region.
func regionOf(t testing.TB, res *dns.Msg) regions.ID {
	t.Helper()
	found := regions.ID("")
	for _, rr := range res.Answer {
		a, ok := rr.(*dns.A)
		if !ok {
			t.Fatalf("an answer is %v", rr)
		}
		for id := range world {
			for i := range 2 {
				if addrOf(id, i).String() == a.A.String() {
					if found != "" && found != id {
						t.Errorf("addresses of %s and %s", found, id)
					}
					found = id
				}
			}
		}
	}
	return found
}

// nearest is by the law of cosines, for comparison.
func nearest(lat, lng float64, without regions.ID) regions.ID {
	best, at := regions.ID(""), geo.Metres(1e9)
	for id, p := range world {
		if d := geo.Distance(geo.Point{Lat: lat, Lng: lng}, p); id != without && d < at {
			best, at = id, d
		}
	}
	return best
}

func TestFiftyCities(t *testing.T) {
	r := newRig(t, nil)
	for i, c := range cities {
		for _, cidr := range []string{fmt.Sprintf("20.%d.0.0/24", i), fmt.Sprintf("2001:db8:%x::/48", i)} {
			res := r.ask(t, withSubnet(question("stores.example.org.", dns.TypeA), cidr), "198.51.100.1", false)
			if got, want := regionOf(t, res), nearest(c.lat, c.lng, ""); got != want {
				t.Errorf("%s from %s gets %s, want %s", c.name, cidr, got, want)
			}
			e := res.IsEdns0().Option[0].(*dns.EDNS0_SUBNET)
			if int(e.SourceScope) != netip.MustParsePrefix(cidr).Bits() || !res.Authoritative || len(res.Answer) != 2 || res.Answer[0].Header().Ttl != 30 {
				t.Errorf("%s: %v", c.name, res)
			}
		}
		if got := regionOf(t, r.ask(t, question("stores.example.org.", dns.TypeA), fmt.Sprintf("20.%d.0.7", i), false)); got != nearest(c.lat, c.lng, "") {
			t.Errorf("%s by the resolver's address gets %s", c.name, got)
		}
	}
	// The very next answer after a drain, or a death, leaves the region out.
	drained := &regions.State{Regions: map[regions.ID]regions.RegionState{}}
	for id, p := range world {
		drained.Regions[id] = regions.RegionState{Point: p, Duty: regions.Active}
	}
	drained.Regions["eu-west"] = regions.RegionState{Point: world["eu-west"], Duty: regions.Draining}
	london := withSubnet(question("stores.example.org.", dns.TypeA), "20.10.0.0/24")
	r.set(drained, nil)
	if got := regionOf(t, r.ask(t, london, "198.51.100.1", false)); got != nearest(51.51, -0.13, "eu-west") {
		t.Errorf("after a drain London gets %s", got)
	}
	r.set(nil, func(n *regions.Node) { n.Alive = n.Region != "eu-west" })
	if got := regionOf(t, r.ask(t, london, "198.51.100.1", false)); got != nearest(51.51, -0.13, "eu-west") {
		t.Errorf("after a death London gets %s", got)
	}
	r.set(nil, func(n *regions.Node) { n.Health = regions.Unhealthy })
	if got := regionOf(t, r.ask(t, london, "198.51.100.1", false)); got != "eu-west" {
		t.Errorf("when all are ill London gets %s", got)
	}
	r.set(nil, func(n *regions.Node) { n.Alive = n.Name != "eu-west/0" })
	if res := r.ask(t, london, "198.51.100.1", false); len(res.Answer) != 1 || res.Answer[0].(*dns.A).A.String() != addrOf("eu-west", 1).String() {
		t.Errorf("with one node dead: %v", res)
	}
	r.set(nil, func(n *regions.Node) { n.Alive = false })
	if res := r.ask(t, london, "198.51.100.1", false); res.Rcode != dns.RcodeServerFailure || res.Authoritative {
		t.Errorf("with all dead: %v", res)
	}
}

func TestAnswers(t *testing.T) {
	r := newRig(t, nil)
	const zone = "stores.example.org."
	tests := []struct {
		name  string
		kind  uint16
		rcode int
		count int    // of answers
		want  string // in their text
	}{
		{zone, dns.TypeA, 0, 2, "192.0.2."},
		{"sToReS.eXaMpLe.OrG.", dns.TypeA, 0, 2, "sToReS.eXaMpLe.OrG."},
		{zone, dns.TypeAAAA, 0, 2, "2001:db8:ffff:"},
		{zone, dns.TypeHTTPS, 0, 1, `1 . alpn="h2,http/1.1" ipv4hint=`},
		{zone, dns.TypeSOA, 0, 1, "ns1.stores.example.org. hostmaster.stores.example.org."},
		{zone, dns.TypeNS, 0, 2, "ns.elsewhere.example."},
		{zone, dns.TypeCAA, 0, 1, `issue "letsencrypt.org"`},
		{zone, dns.TypeMX, 0, 0, ""},
		{zone, dns.TypeTXT, 0, 0, ""},
		{zone, 65280, 0, 0, ""},
		{"us-west." + zone, dns.TypeA, 0, 2, "us-west." + zone},
		{"US-West." + zone, dns.TypeAAAA, 0, 2, "US-West." + zone},
		{"us-west." + zone, dns.TypeNS, 0, 0, ""},
		{"us-west." + zone, dns.TypeSOA, 0, 0, ""},
		{"ns1." + zone, dns.TypeA, 0, 1, "192.0.2.250"},
		{"ns1." + zone, dns.TypeAAAA, 0, 1, "2001:db8::250"},
		{"ns1." + zone, dns.TypeHTTPS, 0, 0, ""},
		{"moon." + zone, dns.TypeA, dns.RcodeNameError, 0, ""},
		{"a.us-west." + zone, dns.TypeA, dns.RcodeNameError, 0, ""},
		{"example.org.", dns.TypeA, dns.RcodeRefused, 0, ""},
		{"xstores.example.org.", dns.TypeA, dns.RcodeRefused, 0, ""},
		{".", dns.TypeNS, dns.RcodeRefused, 0, ""},
		{zone, dns.TypeANY, dns.RcodeRefused, 0, ""},
		{zone, dns.TypeAXFR, dns.RcodeRefused, 0, ""},
		{zone, dns.TypeIXFR, dns.RcodeRefused, 0, ""},
	}
	for _, tt := range tests {
		for _, tcp := range []bool{false, true} {
			res := r.ask(t, question(tt.name, tt.kind), "198.51.100.1", tcp)
			var text string
			for _, rr := range res.Answer {
				text += rr.String() + "\n"
			}
			text = strings.ReplaceAll(text, "\t", " ")
			if res.Rcode != tt.rcode || len(res.Answer) != tt.count || !strings.Contains(text, tt.want) {
				t.Errorf("%s %s: %s, %d answers\n%s", tt.name, dns.TypeToString[tt.kind], dns.RcodeToString[res.Rcode], len(res.Answer), text)
			}
			negative := tt.rcode == dns.RcodeNameError || tt.rcode == 0 && tt.count == 0
			if soa := len(res.Ns) == 1 && res.Ns[0].Header().Rrtype == dns.TypeSOA; soa != negative {
				t.Errorf("%s %s: the authority section is %v", tt.name, dns.TypeToString[tt.kind], res.Ns)
			}
			if res.Authoritative != (tt.rcode != dns.RcodeRefused) {
				t.Errorf("%s %s: authoritative %v", tt.name, dns.TypeToString[tt.kind], res.Authoritative)
			}
		}
	}
	if res := r.ask(t, question(zone, dns.TypeNS), "198.51.100.1", false); len(res.Extra) != 2 {
		t.Errorf("the glue is %v", res.Extra)
	}
	// Two clients of one region begin with different nodes.
	first := map[string]bool{}
	for i := range 40 {
		m := withSubnet(question("us-west."+zone, dns.TypeA), fmt.Sprintf("203.0.%d.0/24", i))
		first[r.ask(t, m, "198.51.100.1", false).Answer[0].(*dns.A).A.String()] = true
	}
	if len(first) != 2 {
		t.Errorf("clients begin with %v", first)
	}
}

func TestHostileQueries(t *testing.T) {
	r := newRig(t, nil)
	const zone = "stores.example.org."
	chaos := question("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	class := question(zone, dns.TypeA)
	class.Question[0].Qclass = dns.ClassANY
	update := question(zone, dns.TypeSOA)
	update.Opcode = dns.OpcodeUpdate
	notify := question(zone, dns.TypeSOA)
	notify.Opcode = dns.OpcodeNotify
	two := question(zone, dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	version := question(zone, dns.TypeA).SetEdns0(1232, false)
	version.IsEdns0().SetVersion(1)
	scope := withSubnet(question(zone, dns.TypeA), "20.1.0.0/24")
	scope.IsEdns0().Option[0].(*dns.EDNS0_SUBNET).SourceScope = 24
	for name, tt := range map[string]struct {
		m     *dns.Msg
		rcode int
	}{
		"chaos": {chaos, dns.RcodeRefused}, "class any": {class, dns.RcodeRefused}, "update": {update, dns.RcodeNotImplemented}, "notify": {notify, dns.RcodeNotImplemented},
		"two questions": {two, dns.RcodeFormatError}, "no question": {&dns.Msg{}, dns.RcodeFormatError}, "EDNS version": {version, dns.RcodeBadVers}, "scope in a query": {scope, dns.RcodeFormatError},
	} {
		if res := r.ask(t, tt.m, "198.51.100.1", false); res == nil || res.Rcode != tt.rcode || len(res.Answer) > 0 {
			t.Errorf("%s: %v", name, res)
		}
	}
	answer := question(zone, dns.TypeA)
	answer.Response = true
	if res := r.ask(t, answer, "198.51.100.1", false); res != nil {
		t.Errorf("an answer is answered: %v", res)
	}
	for _, junk := range [][]byte{nil, {1}, make([]byte, 11)} {
		if b := r.handle(junk, netip.MustParseAddr("198.51.100.1"), false, false, nil); b != nil {
			t.Errorf("%v is answered with %v", junk, b)
		}
	}
	private := withSubnet(question(zone, dns.TypeA), "0.0.0.0/0")
	if res := r.ask(t, private, "20.41.0.1", false); regionOf(t, res) != "ap-northeast" {
		t.Errorf("a client that wants nothing told of it: %v", res)
	}
}

func TestRateLimit(t *testing.T) {
	now := time.Unix(1e9, 0)
	r := newRig(t, func(c *Config) { c.Rate, c.Now = 10, func() time.Time { return now } })
	r.limit.born = now
	q, err := question("stores.example.org.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	count := func(from string, n int) (full, slipped, dropped int) {
		for range n {
			b := r.packet(q, netip.MustParseAddr(from), nil)
			res := new(dns.Msg)
			switch {
			case b == nil:
				dropped++
			case res.Unpack(b) == nil && res.Truncated && len(res.Answer) == 0:
				slipped++
			default:
				full++
			}
		}
		return full, slipped, dropped
	}
	if full, slipped, dropped := count("203.0.113.1", 50); full != 10 || slipped != 20 || dropped != 20 {
		t.Errorf("%d full, %d empty, %d dropped", full, slipped, dropped)
	}
	if full, _, _ := count("203.0.113.77", 5); full != 0 {
		t.Errorf("a neighbour in the same network gets %d", full)
	}
	if full, _, _ := count("198.51.100.1", 5); full != 5 {
		t.Errorf("another network gets %d of 5", full)
	}
	now = now.Add(500 * time.Millisecond)
	if full, _, _ := count("203.0.113.1", 20); full < 4 || full > 6 {
		t.Errorf("half a second later it gets %d", full)
	}
	r.limit.rate = -1 // the mutant
	if full, _, _ := count("203.0.113.1", 50); full != 50 {
		t.Errorf("without a limit it gets %d", full)
	}
}

// TestOverTheNetwork asks the running server by UDP and TCP, also on a socket of every address.
func TestOverTheNetwork(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", ":0"} {
		r := newRig(t, func(c *Config) { c.Listen = listen })
		pc, l, err := r.listen()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- r.Serve(ctx, pc, l) }()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for _, network := range []string{"udp", "tcp"} {
			c := dns.Client{Net: network, Timeout: 10 * time.Second}
			res, _, err := c.Exchange(withSubnet(question("stores.example.org.", dns.TypeA), "20.41.0.0/24"), "127.0.0.1:"+port)
			if err != nil || regionOf(t, res) != "ap-northeast" {
				t.Errorf("%s %s: %v, %v", listen, network, res, err)
			}
		}
		tr := new(dns.Transfer)
		if ch, err := tr.In(new(dns.Msg).SetAxfr("stores.example.org."), "127.0.0.1:"+port); err == nil {
			for e := range ch {
				if e.Error == nil {
					t.Errorf("a transfer gave %v", e.RR)
				}
			}
		}
		idle, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("it ended with %v", err)
		}
		_ = idle.Close()
	}
}

func TestConfigFaults(t *testing.T) {
	_, err := New(Config{Listen: "x", Zone: "bad_zone..", TTL: 2 * time.Hour, Nameservers: []string{"n s", "ns1.bad", "ns.example.org=1.2.3.4", "ns=x"}, Contact: "nobody", CAA: []string{"a b"}})
	for _, want := range []string{"zone", "address", "View", "kept", "n s", `address "x"`, "outside", "contact", "certificate"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	view := func() *regions.View { return nil }
	for _, ns := range []string{"ns1.stores.example.org", "stores.example.org=192.0.2.1", "a.b.stores.example.org=192.0.2.1"} {
		if _, err := New(Config{Listen: ":0", Zone: "stores.example.org", View: view, Nameservers: []string{ns}}); err == nil {
			t.Errorf("the name server %s is accepted", ns)
		}
	}
}

func FuzzPacket(f *testing.F) {
	for _, m := range []*dns.Msg{question("stores.example.org.", dns.TypeA), withSubnet(question("us-west.stores.example.org.", dns.TypeHTTPS), "20.1.0.0/24"), question("x.org.", dns.TypeANY)} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	r := newRig(f, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, tcp := range []bool{false, true} {
			out := r.handle(b, netip.MustParseAddr("198.51.100.1"), tcp, false, nil)
			if out == nil {
				continue
			}
			res := new(dns.Msg)
			if err := res.Unpack(out); err != nil {
				t.Fatalf("an answer that cannot be read: %v", err)
			}
			if !res.Response || res.RecursionAvailable || !tcp && len(out) > maxUDPAnswer {
				t.Errorf("%d bytes: %v", len(out), res)
			}
		}
	})
}

func BenchmarkPacket(b *testing.B) {
	r := newRig(b, func(c *Config) { c.Rate = 200 })
	var qs [][]byte
	for i := range cities {
		q, err := withSubnet(question("stores.example.org.", dns.TypeA), fmt.Sprintf("20.%d.0.0/24", i)).Pack()
		if err != nil {
			b.Fatal(err)
		}
		qs = append(qs, q)
	}
	out := make([]byte, 0, maxUDPAnswer)
	from := netip.MustParseAddr("198.51.100.1")
	i := 0
	for b.Loop() {
		if r.handle(qs[i%len(qs)], from, false, false, out) == nil {
			b.Fatal("no answer")
		}
		i++
	}
}

// BenchmarkLoopback asks a running server by UDP from many networks, and reports the answers a second. With -cpu 1 the server
// shares its one processor with those who ask.
func BenchmarkLoopback(b *testing.B) {
	r := newRig(b, func(c *Config) { c.Rate = 100_000 })
	pc, l, err := r.listen()
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, pc, l) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()
	var qs [][]byte
	for i := range cities {
		q, err := withSubnet(question("stores.example.org.", dns.TypeA), fmt.Sprintf("20.%d.0.0/24", i)).Pack()
		if err != nil {
			b.Fatal(err)
		}
		qs = append(qs, q)
	}
	const askers, window = 8, 16
	var left atomic.Int64
	var wrong atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	start := time.Now()
	var all sync.WaitGroup
	for i := range askers {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, byte(i+1), 1)}, pc.LocalAddr().(*net.UDPAddr))
		if err != nil {
			b.Fatal(err)
		}
		all.Go(func() {
			defer func() { _ = c.Close() }()
			buf := make([]byte, 2048)
			for n := 0; left.Load() > 0; n++ {
				for w := range window {
					if _, err := c.Write(qs[(n+w)%len(qs)]); err != nil {
						wrong.Add(1)
					}
				}
				for range window {
					_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
					m, err := c.Read(buf)
					if err != nil || m < 12 || buf[3]&15 != 0 || buf[7] == 0 {
						wrong.Add(1)
						continue
					}
					left.Add(-1)
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(int64(b.N)-left.Load())/time.Since(start).Seconds(), "answers/s")
	if n := wrong.Load(); n > 0 {
		b.Errorf("%d of %d queries got no answer, or a wrong one", n, b.N)
	}
}
