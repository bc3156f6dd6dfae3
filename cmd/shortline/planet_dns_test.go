package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/internal/planet"
)

// dnsCities each have a network of their own: 20.N.0.0/24.
var dnsCities = []geo.Point{
	{Lat: 40.71, Lng: -74.01}, {Lat: 34.05, Lng: -118.24}, {Lat: 41.88, Lng: -87.63}, {Lat: 43.65, Lng: -79.38}, {Lat: 19.43, Lng: -99.13}, {Lat: -23.55, Lng: -46.63}, {Lat: -34.6, Lng: -58.38},
	{Lat: -12.05, Lng: -77.04}, {Lat: 4.71, Lng: -74.07}, {Lat: -33.45, Lng: -70.67}, {Lat: 51.51, Lng: -0.13}, {Lat: 48.86, Lng: 2.35}, {Lat: 52.52, Lng: 13.41}, {Lat: 40.42, Lng: -3.7},
	{Lat: 41.9, Lng: 12.5}, {Lat: 52.23, Lng: 21.01}, {Lat: 59.33, Lng: 18.07}, {Lat: 50.45, Lng: 30.52}, {Lat: 41.01, Lng: 28.98}, {Lat: 55.76, Lng: 37.62}, {Lat: 30.04, Lng: 31.24},
	{Lat: 6.52, Lng: 3.38}, {Lat: -1.29, Lng: 36.82}, {Lat: -26.2, Lng: 28.05}, {Lat: 33.57, Lng: -7.59}, {Lat: 25.2, Lng: 55.27}, {Lat: 24.71, Lng: 46.68}, {Lat: 35.69, Lng: 51.39},
	{Lat: 24.86, Lng: 67}, {Lat: 19.08, Lng: 72.88}, {Lat: 28.61, Lng: 77.21}, {Lat: 23.81, Lng: 90.41}, {Lat: 13.76, Lng: 100.5}, {Lat: -6.21, Lng: 106.85}, {Lat: 14.6, Lng: 120.98},
	{Lat: 21.03, Lng: 105.85}, {Lat: 22.32, Lng: 114.17}, {Lat: 31.23, Lng: 121.47}, {Lat: 39.9, Lng: 116.41}, {Lat: 25.03, Lng: 121.57}, {Lat: 37.57, Lng: 126.98}, {Lat: 35.68, Lng: 139.65},
	{Lat: -33.87, Lng: 151.21}, {Lat: -31.95, Lng: 115.86}, {Lat: -36.85, Lng: 174.76}, {Lat: 21.31, Lng: -157.86}, {Lat: 61.22, Lng: -149.9}, {Lat: 49.28, Lng: -123.12}, {Lat: 64.15, Lng: -21.94}, {Lat: 29.76, Lng: -95.37},
}

const (
	dnsZone = "shortline.test"
	dnsPort = "5353"
)

// TestPlanetDNS asks the name servers of three regions on behalf of clients in fifty cities, before and after one region is drained
// and another one dies.
func TestPlanetDNS(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three regions")
	}
	planet.NeedSeparable(t)
	w := startWorld(t, 1, planet.Options{Nodes: 1, Separate: true,
		NodeArgs: []string{"--dns-listen", "0.0.0.0:" + dnsPort, "--dns-zone", dnsZone, "--dns-rate", "-1", "--geoip", citiesGeoIP(t)}})
	us, eu, ap := w.Region("us-east"), w.Region("eu-west"), w.Region("ap-southeast")

	// answers tells whether all these name servers lead every city to the nearest region that is in use.
	answers := func(servers []*planet.Region, used ...*planet.Region) bool {
		for _, s := range servers {
			for i, city := range dnsCities {
				nearest := used[0]
				for _, r := range used[1:] {
					if geo.Distance(city, r.At) < geo.Distance(city, nearest.At) {
						nearest = r
					}
				}
				if got := w.lookUp(hostOf(s), i); got != hostOf(nearest) {
					return false
				}
			}
		}
		return true
	}
	gone := func(what string, servers []*planet.Region, used ...*planet.Region) {
		t.Helper()
		began := time.Now()
		w.eventually("no city is led to "+what, func() bool { return answers(servers, used...) })
		t.Logf("%s is in no answer after %v", what, time.Since(began).Round(10*time.Millisecond))
		for range 5 {
			if !answers(servers, used...) {
				t.Fatalf("an answer leads to %s again", what)
			}
		}
	}
	all := []*planet.Region{us, eu, ap}
	w.eventually("each city is led to the nearest region", func() bool { return answers(all, all...) })

	_, err := w.client(us.Nodes[0], new(client.Session)).AdminPost(w.deadline(), "regions/eu-west/drain", map[string]any{"reason": "a test"}, nil)
	w.check(err)
	gone("the drained region", all, us, ap)
	_, err = w.client(us.Nodes[0], new(client.Session)).AdminPost(w.deadline(), "regions/eu-west/undrain", map[string]any{"reason": "a test"}, nil)
	w.check(err)
	w.eventually("the region is back", func() bool { return answers(all, all...) })

	ap.Nodes[0].Kill()
	gone("the dead region", []*planet.Region{us, eu}, us, eu)
}

func hostOf(r *planet.Region) string {
	u, err := url.Parse(r.Nodes[0].API())
	if err != nil {
		panic(err)
	}
	return u.Hostname()
}

// citiesGeoIP makes a database of dnsCities.
func citiesGeoIP(t *testing.T) string {
	t.Helper()
	db, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-City", Description: map[string]string{"en": "test"}, RecordSize: 24, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range dnsCities {
		_, network, err := net.ParseCIDR(fmt.Sprintf("20.%d.0.0/24", i))
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Insert(network, mmdbtype.Map{"location": mmdbtype.Map{"latitude": mmdbtype.Float64(c.Lat), "longitude": mmdbtype.Float64(c.Lng)}}); err != nil {
			t.Fatal(err)
		}
	}
	return writtenGeoIP(t, db)
}

// lookUp asks a name server on behalf of a client in a city, as a resolver that tells the client's network does, and returns the one
// address that it answers; "" for anything else.
func (w *world) lookUp(server string, city int) string {
	w.Helper()
	name := dnsmessage.MustNewName(dnsZone + ".")
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: uint16(city + 1)})
	w.check(b.StartQuestions())
	w.check(b.Question(dnsmessage.Question{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}))
	w.check(b.StartAdditionals())
	var opt dnsmessage.ResourceHeader
	w.check(opt.SetEDNS0(1232, dnsmessage.RCodeSuccess, false))
	subnet := []byte{0, 1, 24, 0, 20, byte(city), 0} // RFC 7871: family, bits of the network, of the answer, the network
	w.check(b.OPTResource(opt, dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 8, Data: subnet}}}))
	query, err := b.Finish()
	w.check(err)
	conn, err := net.DialTimeout("udp", net.JoinHostPort(server, dnsPort), time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	answer := make([]byte, 1500)
	if _, err := conn.Write(query); err != nil {
		return ""
	}
	n, err := conn.Read(answer)
	if err != nil {
		return ""
	}
	var m dnsmessage.Message
	w.check(m.Unpack(answer[:n]))
	if len(m.Answers) != 1 {
		return ""
	}
	a, ok := m.Answers[0].Body.(*dnsmessage.AResource)
	if !ok {
		return ""
	}
	return netip.AddrFrom4(a.A).String()
}
