package edge

import "testing"

func TestNoNeighbours(t *testing.T) {
	for address, ok := range map[string]bool{
		"10.1.0.5:8080": true, "127.0.0.1:8080": true, "[2001:db8::1]:443": true, "[fd00::5]:443": true,
		"169.254.169.254:80": false, "[::ffff:169.254.169.254]:80": false, "[fe80::1%lo]:80": false, "224.0.0.1:80": false, "[ff02::1]:80": false, "here:80": false,
	} {
		if err := noNeighbours("tcp", address, nil); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}
