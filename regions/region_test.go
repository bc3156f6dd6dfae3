package regions

import "testing"

func TestParseID(t *testing.T) {
	for _, good := range []string{"eu-west", "a", "local", "r2"} {
		if id, err := ParseID(good); err != nil || string(id) != good {
			t.Errorf("%q: %q, %v", good, id, err)
		}
	}
	for _, bad := range []string{"", "EU", "a.b", "-a", "a-", "a b", "ä", "a23456789012345678901234567890123"} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestLSN(t *testing.T) {
	const text = "16/B374D848"
	l, err := ParseLSN(text)
	if err != nil || l != 0x16B374D848 || l.String() != text {
		t.Errorf("%v, %v", l, err)
	}
	for _, bad := range []string{"", "16", "x/y", "/"} {
		if _, err := ParseLSN(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestOrders(t *testing.T) {
	sorted := []Order{{1, 9, 9}, {2, 0, 0}, {2, 0, 5}, {2, 1, 0}, {2, 1, 1}}
	for i, a := range sorted {
		for j, b := range sorted {
			if a.Less(b) != (i < j) {
				t.Errorf("%v less than %v: %v", a, b, a.Less(b))
			}
		}
	}
}
