package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/shortline/shortline/edge/client"
)

var exportedRegions = []client.RegionInfo{
	{Name: "eu-west", Lat: 53.35, Lng: -6.26, State: "active", URL: "https://eu.example:8443", Nodes: []client.RegionNode{{Name: "a", Addrs: []string{"192.0.2.1", "2001:db8::1"}}, {Name: "b", Addrs: []string{"192.0.2.2"}}}},
	{Name: "us-east", Lat: 39.04, Lng: -77.49, State: "active", Nodes: []client.RegionNode{{Name: "c", Addrs: []string{"192.0.2.9"}}, {Name: "d", Addrs: []string{"no address"}}}},
}

func TestRouteExports(t *testing.T) {
	for name, want := range map[string][]string{
		"gdnsd":    {"eu-west => [ 53.3500, -6.2600 ]", "eu-west => { n1 => 192.0.2.1, n2 => 192.0.2.2, n3 => 2001:db8::1 }", "us-east => { n1 => 192.0.2.9 }", "port => 8443", "stores.example.org. 30 DYNA geoip!shortline"},
		"powerdns": {`stores.example.org. 30 IN LUA A "ifportup(8443, {'192.0.2.1', '192.0.2.2', '192.0.2.9'}, {selector='pickclosest'})"`, "LUA AAAA", "'2001:db8::1'"},
		"route53":  {`"SetIdentifier": "us-east"`, `"Latitude": "39.04"`, `"Longitude": "-77.49"`, `"Value": "2001:db8::1"`},
	} {
		var b strings.Builder
		if err := exports[name](&b, "stores.example.org", exportedRegions); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s does not have %s:\n%s", name, w, b.String())
			}
		}
		if strings.Contains(b.String(), "no address") {
			t.Errorf("%s has what is no address", name)
		}
		if name == "route53" && !json.Valid([]byte(b.String())) {
			t.Errorf("%s is no JSON", name)
		}
	}
}
