// Package regions says which regions there are, which of them takes writes, and where a client should go: the state that
// the control plane agrees on, the decision what to do about a failure, and the choice of a region for a client.
//
// It promises that deciding is pure: a state machine here reads neither clock nor randomness, and the same inputs give the
// same action. What acts, and what talks to other nodes or to databases, lies in the packages below it. It knows no HTTP,
// no raft, no memberlist and no SQL.
package regions

import (
	"fmt"
	"strings"

	"github.com/shortline/shortline/geo"
)

// ID is the name of a region, such as "eu-west": 1 to 32 lower-case letters, digits and '-', as in a DNS label.
type ID string

// ParseID checks a region's name.
func ParseID(s string) (ID, error) {
	bad := strings.IndexFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' })
	if s == "" || len(s) > 32 || bad >= 0 || s[0] == '-' || s[len(s)-1] == '-' {
		return "", fmt.Errorf("region %q must be 1 to 32 lower-case letters, digits or '-', and neither begin nor end with '-'", s)
	}
	return ID(s), nil
}

// Region is a place where a deployment runs.
type Region struct {
	ID    ID        `json:"name"`
	Point geo.Point `json:"point"`
	// Agents are the addresses of the database agent's internal listener.
	Agent string `json:"agent,omitempty"`
	// Witness says that it has a vote and nothing else: no nodes, no database.
	Witness bool `json:"witness,omitempty"`
}

// LSN is a position in PostgreSQL's log.
type LSN uint64

// String is how PostgreSQL writes it: "16/B374D848".
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN is the inverse of LSN.String.
func ParseLSN(s string) (LSN, error) {
	var hi, lo uint32
	if n, err := fmt.Sscanf(s, "%X/%X", &hi, &lo); n != 2 || err != nil {
		return 0, fmt.Errorf("%q is not a log position such as 16/B374D848", s)
	}
	return LSN(hi)<<32 | LSN(lo), nil
}
