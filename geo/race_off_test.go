//go:build !race

package geo

const raceOn = false
