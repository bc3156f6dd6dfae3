package postgres

import _ "embed"

//go:embed grants.sql
var grantsText string

// Grants is the SQL that makes the three roles with the least rights that they need; see the file for how to run it. They
// have no passwords yet.
func Grants() string { return grantsText }
