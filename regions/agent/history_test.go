package agent

import (
	"testing"

	"github.com/shortline/shortline/regions"
)

func TestChooseWay(t *testing.T) {
	one := beginning{"10", "monday"}
	two, other := beginning{"20", "tuesday"}, beginning{"20", "wednesday"}
	u := upstream{timeline: 2, history: history{{1, 100}}, received: 130, epoch: 2, lineage: lineage{1: one, 2: two}}
	for _, test := range []struct {
		name string
		me   self
		want way
		fork regions.LSN
	}{
		{"a standby that is behind the fork", self{timeline: 1, position: 90, lineage: lineage{1: one}}, wayAttach, 100},
		{"a standby at the fork", self{timeline: 1, position: 100, lineage: lineage{1: one}}, wayAttach, 100},
		{"a standby with the beginning of a record more, as the primary had", self{timeline: 1, position: 130, lineage: lineage{1: one}}, wayAttach, 100},
		{"a standby that is ahead", self{timeline: 1, position: 131, lineage: lineage{1: one}}, wayRewind, 100},
		{"the old primary", self{primary: true, timeline: 1, position: 140, lineage: lineage{1: one}}, wayRewind, 100},
		{"a standby on its timeline", self{timeline: 2, position: 140, lineage: lineage{1: one, 2: two}}, wayAttach, 0},
		{"a standby that has not replayed the epoch", self{timeline: 2, position: 140, lineage: lineage{1: one}}, wayAttach, 0},
		{"an abandoned target", self{primary: true, timeline: 2, position: 140, lineage: lineage{1: one, 2: other}}, wayCopy, 0},
		{"an abandoned epoch that never was", self{primary: true, timeline: 3, position: 140, lineage: lineage{1: one, 3: other}}, wayCopy, 0},
		{"an abandoned target without its epoch", self{primary: true, timeline: 2, position: 140, lineage: lineage{1: one}, promoted: &regions.Promotion{Epoch: 2}}, wayCopy, 0},
		{"a target that was not promoted any more", self{timeline: 1, position: 90, lineage: lineage{1: one}, promoted: &regions.Promotion{Epoch: 2}}, wayCopy, 0},
		{"another timeline", self{timeline: 7, position: 90, lineage: lineage{1: one}}, wayRewind, 0},
		{"two primaries of one timeline", self{primary: true, timeline: 2, position: 90, lineage: lineage{1: one}}, wayCopy, 0},
	} {
		got, fork, why := chooseWay(test.me, u)
		if got != test.want || fork != test.fork {
			t.Errorf("%s: %v at %v (%s), want %v at %v", test.name, got, fork, why, test.want, test.fork)
		}
	}
	for name, me := range map[string]self{
		"what it received was of an earlier timeline": {timeline: 1, position: 130},
		"the record goes on in another segment":       {timeline: 2, position: 1 << 20},
	} {
		late := upstream{timeline: 3, history: history{{1, 100}, {2, 1<<20 - 8}}, received: 1 << 20}
		if got, _, why := chooseWay(me, late); got != wayRewind {
			t.Errorf("%s: %v (%s)", name, got, why)
		}
	}
}

func TestCommonEnd(t *testing.T) {
	u := upstream{timeline: 3, history: history{{1, 100}, {2, 200}}}
	for _, test := range []struct {
		name string
		mine history
		me   self
		told regions.LSN
		want regions.LSN
	}{
		{"ahead on the first timeline", nil, self{timeline: 1, position: 150}, 0, 100},
		{"ahead on the second", history{{1, 100}}, self{timeline: 2, position: 260}, 0, 200},
		{"promoted earlier", history{{1, 80}}, self{timeline: 2, position: 150}, 0, 80},
		{"promoted later", history{{1, 120}}, self{timeline: 2, position: 150}, 0, 100},
		{"another third timeline", history{{1, 100}, {2, 200}}, self{timeline: 3, position: 250}, 0, 200},
		{"another third timeline, and the fork is told", history{{1, 100}, {2, 200}}, self{timeline: 3, position: 250}, 210, 210},
		{"a fourth", history{{1, 100}, {2, 190}}, self{timeline: 4, position: 250}, 0, 190},
	} {
		if got := commonEnd(test.mine, test.me, u, test.told); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestParseHistory(t *testing.T) {
	h, err := parseHistory("1\t0/3000148\tno recovery target specified\n\n# a remark\n2\t16/B374D848\tat restart\n")
	if check(t, err); len(h) != 2 || h[0] != (ended{1, 0x3000148}) || h[1] != (ended{2, 0x16B374D848}) {
		t.Errorf("%v", h)
	}
	for _, bad := range []string{"1\n", "x\t0/1\n", "1\tsoon\n"} {
		if _, err := parseHistory(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestSettings(t *testing.T) {
	ids := []regions.ID{"eu-west", "ap-south"}
	text := syncSetting(ids)
	if text != `ANY 1 ("eu-west", "ap-south")` {
		t.Error(text)
	}
	back, ok := parseSync(text)
	if !ok || len(back) != 2 || back[0] != ids[0] || back[1] != ids[1] {
		t.Error(back, ok)
	}
	if _, ok := parseSync("FIRST 1 (a)"); ok {
		t.Error("another form was taken")
	}
	got := editedAuto("# kept\nwork_mem = '5MB'\nprimary_conninfo = 'host=a'\n", map[string]string{conninfo: `password='it\'s'`, readOnly: "on"})
	want := "# kept\nwork_mem = '5MB'\ndefault_transaction_read_only = 'on'\nprimary_conninfo = 'password=''it\\\\''s'''\n"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := fullXID(0xfffffff0, 1<<32+5); got != 0xfffffff0 {
		t.Errorf("a transaction of the round before: %d", got)
	}
	if got := fullXID(3, 1<<32+5); got != 1<<32+3 {
		t.Errorf("a transaction of this round: %d", got)
	}
}

func TestSegmentName(t *testing.T) {
	for _, c := range []struct {
		timeline uint32
		at       string
		size     uint64
		want     string
	}{
		{1, "0/0", 16 << 20, "000000010000000000000000"},
		{1, "0/4DFEB88", 16 << 20, "000000010000000000000004"},
		{1, "0/4FFFFFF", 16 << 20, "000000010000000000000004"},
		{1, "0/5000000", 16 << 20, "000000010000000000000005"},
		{11, "2/FF000000", 16 << 20, "0000000B00000002000000FF"},
		{2, "3/0", 64 << 20, "000000020000000300000000"},
		{2, "2/FC000000", 64 << 20, "00000002000000020000003F"},
	} {
		at, err := regions.ParseLSN(c.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := segmentName(c.timeline, at, c.size); got != c.want {
			t.Errorf("%d %s of %d bytes: %s, want %s", c.timeline, c.at, c.size, got, c.want)
		}
	}
}
