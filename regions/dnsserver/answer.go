package dnsserver

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/shortline/shortline/regions"
)

// maxAddrs bounds the addresses of one kind in an answer.
const maxAddrs = 4

// handle answers one query; nil: there is to be no answer. truncate makes an empty answer that asks to come by TCP. out is where the
// answer may be written.
func (s *Server) handle(packet []byte, from netip.Addr, tcp, truncate bool, out []byte) []byte {
	proto := "udp"
	if tcp {
		proto = "tcp"
	}
	q := new(dns.Msg)
	res, result := new(dns.Msg), "malformed"
	switch err := q.Unpack(packet); {
	case len(packet) < 12 || packet[2]&0x80 != 0: // no header, or an answer: answering it would make a loop
		s.queries.WithLabelValues(proto, "ignored").Inc()
		return nil
	case err != nil:
		res.Id, res.Response, res.Rcode = uint16(packet[0])<<8|uint16(packet[1]), true, dns.RcodeFormatError
		res.Opcode = int(packet[2] >> 3 & 15)
	case truncate:
		res.SetReply(q)
		res.Truncated, result = true, "truncated"
	default:
		result = s.answer(q, res, from)
	}
	res.RecursionAvailable, res.AuthenticatedData, res.CheckingDisabled, res.Compress = false, false, false, true
	size := dns.MaxMsgSize
	if !tcp {
		size = dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDPAnswer)
		}
		res.Truncate(size)
	}
	b, err := res.PackBuffer(out[:cap(out)])
	if err != nil {
		s.queries.WithLabelValues(proto, "failed").Inc()
		s.cfg.Log.Debug("an answer cannot be written", "err", err)
		return nil
	}
	s.queries.WithLabelValues(proto, result).Inc()
	return b
}

// answer fills res and says what it is.
func (s *Server) answer(q, res *dns.Msg, from netip.Addr) string {
	res.SetReply(q)
	res.RecursionDesired = q.RecursionDesired
	fail := func(rcode int, result string) string {
		res.Rcode = rcode
		return result
	}
	opt := q.IsEdns0()
	if opt != nil {
		res.SetEdns0(maxUDPAnswer, false)
	}
	switch {
	case q.Opcode != dns.OpcodeQuery:
		return fail(dns.RcodeNotImplemented, "not_implemented")
	case len(q.Question) != 1:
		return fail(dns.RcodeFormatError, "malformed")
	case opt != nil && opt.Version() != 0:
		res.IsEdns0().SetExtendedRcode(dns.RcodeBadVers)
		return fail(dns.RcodeBadVers, "malformed")
	}
	question := q.Question[0]
	name := strings.ToLower(question.Name)
	if question.Qclass != dns.ClassINET || !dns.IsSubDomain(s.zone, name) {
		return fail(dns.RcodeRefused, "refused") // the zone of somebody else
	}
	switch question.Qtype {
	case dns.TypeAXFR, dns.TypeIXFR, dns.TypeANY, dns.TypeMAILA, dns.TypeMAILB, dns.TypeOPT, dns.TypeTSIG, dns.TypeTKEY:
		return fail(dns.RcodeRefused, "refused")
	}
	subnet, ok := clientSubnet(opt)
	if !ok {
		return fail(dns.RcodeFormatError, "malformed")
	}
	res.Authoritative = true
	return s.resolve(question, name, subnet, from, res)
}

// clientSubnet is the network that the resolver asks for, invalid where it tells none; ok is false where it is not well formed.
func clientSubnet(opt *dns.OPT) (p netip.Prefix, ok bool) {
	if opt == nil {
		return p, true
	}
	for _, o := range opt.Option {
		e, is := o.(*dns.EDNS0_SUBNET)
		if !is {
			continue
		}
		addr, valid := netip.AddrFromSlice(e.Address)
		if !valid && e.SourceNetmask == 0 { // the client wants nothing told of it
			return netip.Prefix{}, true
		}
		addr = addr.Unmap()
		want := 4
		if e.Family == 2 {
			want = 16
		}
		if !valid || e.SourceScope != 0 || e.Family != 1 && e.Family != 2 || addr.BitLen() != want*8 || int(e.SourceNetmask) > addr.BitLen() {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(addr, int(e.SourceNetmask)).Masked(), true
	}
	return p, true
}

// resolve answers a question about a name in the zone.
func (s *Server) resolve(q dns.Question, name string, subnet netip.Prefix, from netip.Addr, res *dns.Msg) string {
	v := s.cfg.View()
	header := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: q.Name, Rrtype: kind, Class: dns.ClassINET, Ttl: s.ttl}
	}
	var place *regions.Place
	label := strings.TrimSuffix(strings.TrimSuffix(name, s.zone), ".")
	apex := label == ""
	ns := s.nameserver(name)
	switch {
	case apex:
		var scope int
		place, scope = s.choose(v, subnet, from)
		s.tellScope(res, subnet, scope)
	case ns != nil:
		if len(ns.addrs) == 0 {
			place = v.Place(v.Region)
		}
	default:
		if place = v.Place(regions.ID(label)); place == nil {
			res.Rcode = dns.RcodeNameError
			res.Ns = []dns.RR{s.soa(v)}
			return "nxdomain"
		}
		s.tellScope(res, subnet, 0)
	}
	switch q.Qtype {
	case dns.TypeSOA:
		if apex {
			soa := s.soa(v)
			soa.Hdr.Name = q.Name
			res.Answer = append(res.Answer, soa)
		}
	case dns.TypeNS:
		if apex {
			s.addNS(v, header(dns.TypeNS), res)
		}
	case dns.TypeCAA:
		if apex {
			for _, ca := range s.cfg.CAA {
				res.Answer = append(res.Answer, &dns.CAA{Hdr: header(dns.TypeCAA), Tag: "issue", Value: ca})
			}
		}
	case dns.TypeA, dns.TypeAAAA:
		addrs := nsAddrs(ns)
		if addrs == nil {
			if addrs = placeAddrs(place, key(subnet, from)); len(addrs) == 0 {
				res.Rcode = dns.RcodeServerFailure // better asked again than remembered
				res.Authoritative = false
				return "no_address"
			}
		}
		res.Answer = appendAddrs(res.Answer, header(q.Qtype), addrs)
	case dns.TypeHTTPS:
		if rr := https(header(dns.TypeHTTPS), place, key(subnet, from)); rr != nil && ns == nil {
			res.Answer = append(res.Answer, rr)
		}
	}
	if len(res.Answer) == 0 {
		res.Ns = []dns.RR{s.soa(v)}
		return "nodata"
	}
	return "answered"
}

func nsAddrs(ns *nameserver) []netip.Addr {
	if ns == nil {
		return nil
	}
	return ns.addrs
}

func (s *Server) nameserver(name string) *nameserver {
	for i := range s.ns {
		if s.ns[i].name == name && dns.IsSubDomain(s.zone, name) {
			return &s.ns[i]
		}
	}
	return nil
}

// choose finds the region for a client, nil where none has an address, and how many bits of the subnet that took.
func (s *Server) choose(v *regions.View, subnet netip.Prefix, from netip.Addr) (p *regions.Place, scope int) {
	point := s.cfg.Point
	if s.cfg.GeoIP != nil {
		if subnet.IsValid() && subnet.Bits() > 0 {
			scope = subnet.Bits()
			if at, ok := s.cfg.GeoIP(subnet.Addr()); ok {
				point = at
			} else if at, ok := s.cfg.GeoIP(from); ok {
				point = at
			}
		} else if at, ok := s.cfg.GeoIP(from); ok {
			point = at
		}
	}
	var room [8]regions.Choice
	for _, c := range v.Route(regions.Client{Point: point, Key: key(subnet, from)}, room[:0]).Choices {
		if hasAddrs(c.Place) {
			return c.Place, scope
		}
	}
	return nil, scope
}

// key tells clients apart by their networks.
func key(subnet netip.Prefix, from netip.Addr) uint64 {
	if !subnet.IsValid() || subnet.Bits() == 0 {
		subnet = netPrefix(from)
	}
	return regions.ClientKey(subnet.String())
}

// tellScope says for which part of the subnet the answer holds.
func (s *Server) tellScope(res *dns.Msg, subnet netip.Prefix, scope int) {
	opt := res.IsEdns0()
	if opt == nil || !subnet.IsValid() {
		return
	}
	family := uint16(1)
	if subnet.Addr().Is6() {
		family = 2
	}
	opt.Option = append(opt.Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: uint8(subnet.Bits()),
		SourceScope: uint8(scope), Address: subnet.Addr().AsSlice()})
}

func hasAddrs(p *regions.Place) bool {
	for i := range p.Nodes {
		if n := &p.Nodes[i]; n.Alive && len(n.Addrs) > 0 {
			return true
		}
	}
	return false
}

// placeAddrs are the addresses of the nodes that are ready, or else of those alive, beginning with another node for each client.
func placeAddrs(p *regions.Place, key uint64) []netip.Addr {
	if p == nil {
		return nil
	}
	var out []netip.Addr
	n := len(p.Nodes)
	for pass := range 2 {
		for i := range n {
			node := &p.Nodes[(i+int(key%uint64(n)))%n]
			if node.Ready() || pass == 1 && node.Alive {
				out = append(out, node.Addrs...)
			}
		}
		if len(out) > 0 {
			break
		}
	}
	return out
}

func appendAddrs(rrs []dns.RR, header dns.RR_Header, addrs []netip.Addr) []dns.RR {
	n := 0
	for _, a := range addrs {
		if n == maxAddrs {
			break
		}
		switch {
		case header.Rrtype == dns.TypeA && a.Is4():
			rrs = append(rrs, &dns.A{Hdr: header, A: net.IP(a.AsSlice())})
			n++
		case header.Rrtype == dns.TypeAAAA && a.Is6():
			rrs = append(rrs, &dns.AAAA{Hdr: header, AAAA: net.IP(a.AsSlice())})
			n++
		}
	}
	return rrs
}

// https tells browsers of the port and the addresses at once; nil where the region is not reached by HTTPS.
func https(header dns.RR_Header, p *regions.Place, key uint64) dns.RR {
	if p == nil {
		return nil
	}
	rr := &dns.HTTPS{SVCB: dns.SVCB{Hdr: header, Priority: 1, Target: "."}}
	for i := range p.Nodes {
		port, ok := apiPort(p.Nodes[i].API)
		if !ok {
			continue
		}
		rr.Value = append(rr.Value, &dns.SVCBAlpn{Alpn: []string{"h2", "http/1.1"}})
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && n != 443 {
			rr.Value = append(rr.Value, &dns.SVCBPort{Port: uint16(n)})
		}
		var v4, v6 []net.IP
		for _, a := range placeAddrs(p, key) {
			if a.Is4() && len(v4) < maxAddrs {
				v4 = append(v4, a.AsSlice())
			} else if a.Is6() && len(v6) < maxAddrs {
				v6 = append(v6, a.AsSlice())
			}
		}
		if v4 != nil {
			rr.Value = append(rr.Value, &dns.SVCBIPv4Hint{Hint: v4})
		}
		if v6 != nil {
			rr.Value = append(rr.Value, &dns.SVCBIPv6Hint{Hint: v6})
		}
		return rr
	}
	return nil
}

func (s *Server) soa(v *regions.View) *dns.SOA {
	serial := max(v.At.Unix(), s.born.Unix())
	return &dns.SOA{Hdr: dns.RR_Header{Name: s.zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: s.ttl}, Ns: s.ns[0].name, Mbox: s.contact,
		Serial: uint32(serial), Refresh: 3600, Retry: 600, Expire: 86400, Minttl: s.ttl}
}

// addNS adds the zone's name servers, with the addresses of those inside.
func (s *Server) addNS(v *regions.View, header dns.RR_Header, res *dns.Msg) {
	header.Ttl = 3600
	for i := range s.ns {
		ns := &s.ns[i]
		res.Answer = append(res.Answer, &dns.NS{Hdr: header, Ns: ns.name})
		if !dns.IsSubDomain(s.zone, ns.name) {
			continue
		}
		addrs := ns.addrs
		if len(addrs) == 0 {
			addrs = placeAddrs(v.Place(v.Region), 0)
		}
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
			glue := appendAddrs(nil, dns.RR_Header{Name: ns.name, Rrtype: kind, Class: dns.ClassINET, Ttl: s.ttl}, addrs)
			at := len(res.Extra)
			if opt := res.IsEdns0(); opt != nil { // that comes last
				at--
			}
			res.Extra = append(res.Extra[:at:at], append(glue, res.Extra[at:]...)...)
		}
	}
}
