package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shortline/shortline/edge/client"
)

func newRouteCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "route", Short: "which region serves whom"}
	cmd.AddCommand(newRouteExplainCommand(a), newRouteExportCommand(a))
	return cmd
}

func newRouteExplainCommand(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain IP|LAT,LNG",
		Short: "which region would a client be sent to, and why?",
		Long: `Asks a node for the regions in the order that a client with that address, or at
that place, is given by /v1/route, DNS and redirects alike. Where an address is
is known only to nodes that have a database (serve --geoip).`,
		Example: "  shortline route explain 203.0.113.9\n  shortline route explain 51.5,-0.1",
		Args:    cobra.RangeArgs(1, 2),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what the API answered")
	to := newAdminTarget(a, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text := strings.TrimSpace(strings.Join(args, ","))
		var lat, lng float64
		addr, err := netip.ParseAddr(text)
		if err != nil {
			text = strings.Join(args, ",")
			if lat, lng, err = parsePlace(text); err != nil {
				return usagef(cmd, "%q is neither an IP address nor a place: %w", strings.TrimSpace(text), err)
			}
			text = ""
		} else {
			text = addr.String()
		}
		c, err := to.client(nil)
		if err != nil {
			return err
		}
		answer, err := c.ExplainRoute(cmd.Context(), text, lat, lng)
		if err != nil {
			return fmt.Errorf("explain the route: %w", to.explain(err))
		}
		if asJSON {
			return printRaw(a.stdout, answer.Raw)
		}
		return printRoute(a, answer)
	}
	return cmd
}

func printRoute(a *app, answer *client.RouteAnswer) error {
	by := map[string]string{"query": "as asked", "geoip": "by the GeoIP database", "region": "not known, so that of the node's own region", "header": "by the header " + answer.Client.Header}[answer.Client.Source]
	if _, err := fmt.Fprintf(a.stdout, "%s\nplace: %.4f,%.4f (%s)\n\n", printable(answer.Explanation), answer.Client.Lat, answer.Client.Lng, by); err != nil {
		return err
	}
	t := table{head: []string{"REGION", "DISTANCE", "HEALTH", "STATE", "URL", "WHY"}, right: []bool{false, true, false, false, false, false}}
	for _, r := range answer.Regions {
		t.add(r.Name, distance(r.DistanceM), r.Health, r.State, r.URL, r.Why)
	}
	return t.print(a.stdout, terminalWidth(a.stdout), a.bold)
}

// exports are the forms that the regions can be written in for others' DNS.
var exports = map[string]func(w io.Writer, zone string, rs []client.RegionInfo) error{
	"gdnsd": exportGdnsd, "powerdns": exportPowerDNS, "route53": exportRoute53,
}

func newRouteExportCommand(a *app) *cobra.Command {
	var zone string
	cmd := &cobra.Command{
		Use:   "export gdnsd|powerdns|route53",
		Short: "write the regions for another DNS server",
		Long: `Writes the regions, their places and their nodes' public addresses as another
server's configuration, for those who do not want to run serve --dns-listen:
gdnsd's geoip plugin, LUA records of PowerDNS, or a change batch for Amazon Route
53 with geoproximity. Drained regions are left out. Run it again when nodes come or go.`,
		Example:   "  shortline route export route53 --zone stores.example.org",
		Args:      cobra.ExactArgs(1),
		ValidArgs: []string{"gdnsd", "powerdns", "route53"},
	}
	cmd.Flags().StringVar(&zone, "zone", "", "`name` that clients ask for (required)")
	to := newTarget(a, cmd.Flags(), false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		export := exports[args[0]]
		if export == nil {
			return usagef(cmd, "%q is none of gdnsd, powerdns, route53", args[0])
		}
		if zone = strings.TrimSuffix(zone, "."); zone == "" || strings.ContainsAny(zone, " \"'\\{}\n") {
			return usagef(cmd, "--zone is the name that clients ask for, such as stores.example.org")
		}
		c, err := to.client(nil)
		if err != nil {
			return err
		}
		answer, err := c.Regions(cmd.Context())
		if err != nil {
			return fmt.Errorf("export the route: %w", to.explain(err))
		}
		var usable []client.RegionInfo
		for _, r := range answer.Regions {
			if r.State == "active" && r.Role != "witness" && len(addrsOf(r, false))+len(addrsOf(r, true)) > 0 {
				usable = append(usable, r)
			}
		}
		if len(usable) == 0 {
			return fmt.Errorf("no active region has a node with a public address; start nodes with --public-addr, or an IP address in --advertise-url")
		}
		return export(a.stdout, zone, usable)
	}
	return cmd
}

// addrsOf are the addresses of a region's nodes, of one kind.
func addrsOf(r client.RegionInfo, six bool) []string {
	var out []string
	for _, n := range r.Nodes {
		for _, text := range n.Addrs {
			if a, err := netip.ParseAddr(text); err == nil && a.Unmap().Is6() == six {
				out = append(out, a.Unmap().String())
			}
		}
	}
	return out
}

// exportGdnsd writes the parts of gdnsd's configuration and the zone's record.
func exportGdnsd(w io.Writer, zone string, rs []client.RegionInfo) error {
	var b strings.Builder
	var names, coords []string
	for _, r := range rs {
		names = append(names, r.Name)
		coords = append(coords, fmt.Sprintf("      %s => [ %.4f, %.4f ]", r.Name, r.Lat, r.Lng))
	}
	fmt.Fprintf(&b, "# gdnsd: into the file \"config\"; set geoip2_db to a city database\nservice_types => {\n  shortline => { plugin => http_status, url_path => /healthz, vhost => %s, port => %s }\n}\nplugins => { geoip => {\n  maps => { shortline => {\n    geoip2_db => /usr/share/GeoIP/city.mmdb,\n    datacenters => [ %s ],\n    auto_dc_coords => {\n%s\n    }\n  } }\n  resources => { shortline => {\n    map => shortline, service_types => shortline,\n    dcmap => {\n",
		zone, portOf(rs), strings.Join(names, ", "), strings.Join(coords, "\n"))
	for _, r := range rs {
		var addrs []string
		for i, a := range append(addrsOf(r, false), addrsOf(r, true)...) {
			addrs = append(addrs, fmt.Sprintf("n%d => %s", i+1, a))
		}
		fmt.Fprintf(&b, "      %s => { %s }\n", r.Name, strings.Join(addrs, ", "))
	}
	fmt.Fprintf(&b, "    }\n  } }\n} }\n\n# gdnsd: into the zone file\n%s. 30 DYNA geoip!shortline\n", zone)
	_, err := io.WriteString(w, b.String())
	return err
}

// portOf is the port of the nodes' API: health is asked there.
func portOf(rs []client.RegionInfo) string {
	for _, r := range rs {
		if u, err := url.Parse(r.URL); err == nil && u.Host != "" {
			if u.Port() != "" {
				return u.Port()
			}
			if u.Scheme == "https" {
				return "443"
			}
		}
	}
	return "80"
}

// exportPowerDNS writes LUA records that give the nearest addresses which answer.
func exportPowerDNS(w io.Writer, zone string, rs []client.RegionInfo) error {
	var b strings.Builder
	b.WriteString("; PowerDNS: enable-lua-records=yes and the geoip backend with a city database; EDNS client subnet: edns-subnet-processing=yes\n")
	for _, kind := range []struct {
		name string
		six  bool
	}{{"A", false}, {"AAAA", true}} {
		var all []string
		for _, r := range rs {
			for _, a := range addrsOf(r, kind.six) {
				all = append(all, "'"+a+"'")
			}
		}
		if len(all) > 0 {
			fmt.Fprintf(&b, "%s. 30 IN LUA %s \"ifportup(%s, {%s}, {selector='pickclosest'})\"\n", zone, kind.name, portOf(rs), strings.Join(all, ", "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// exportRoute53 writes a change batch: one record a region and kind, with the region's coordinates.
func exportRoute53(w io.Writer, zone string, rs []client.RegionInfo) error {
	type record struct {
		Name, Type, SetIdentifier string
		GeoProximityLocation      map[string]any
		TTL                       int
		ResourceRecords           []map[string]string
	}
	type change struct {
		Action            string
		ResourceRecordSet record
	}
	batch := struct {
		Comment string
		Changes []change
	}{Comment: "regions of Shortline; add a HealthCheckId to each"}
	for _, r := range rs {
		for _, kind := range []string{"A", "AAAA"} {
			addrs := addrsOf(r, kind == "AAAA")
			if len(addrs) == 0 {
				continue
			}
			rec := record{Name: zone + ".", Type: kind, SetIdentifier: r.Name, TTL: 30, GeoProximityLocation: map[string]any{"Bias": 0,
				"Coordinates": map[string]string{"Latitude": strconv.FormatFloat(r.Lat, 'f', 2, 64), "Longitude": strconv.FormatFloat(r.Lng, 'f', 2, 64)}}}
			for _, a := range addrs {
				rec.ResourceRecords = append(rec.ResourceRecords, map[string]string{"Value": a})
			}
			batch.Changes = append(batch.Changes, change{"UPSERT", rec})
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(batch)
}
