package plan

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"strconv"
)

// quantity is a number with its unit.
type quantity struct {
	value float64
	unit  unit
}

// world holds what formulas may name.
type world map[string]quantity

// eval computes a formula: names, numbers, + - * /, parentheses, and the functions below. It returns an error where a name is
// unknown or where units do not agree, so that bytes are never added to bits.
//
//	ceil(x)            the next whole number
//	max(x, …), min(…)  of one unit
//	none(p, n)         the probability that none of n independent parts is up, each up with probability p
//	fewer(k, p, n)     the probability that fewer than k of n are
//	tiers(x)           what x GB sent to the internet in a month cost, by the tiers of the price list
func (w world) eval(formula string, tiers func(gb float64) float64) (quantity, error) {
	tree, err := parser.ParseExpr(formula)
	if err != nil {
		return quantity{}, fmt.Errorf("formula %q: %w", formula, err)
	}
	q, err := w.expr(tree, tiers)
	if err != nil {
		return quantity{}, fmt.Errorf("formula %q: %w", formula, err)
	}
	return q, nil
}

func (w world) expr(e ast.Expr, tiers func(float64) float64) (quantity, error) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return w.expr(e.X, tiers)
	case *ast.BasicLit:
		v, err := strconv.ParseFloat(e.Value, 64)
		return quantity{v, unit{}}, err
	case *ast.Ident:
		q, ok := w[e.Name]
		if !ok {
			return quantity{}, fmt.Errorf("there is no %q", e.Name)
		}
		return q, nil
	case *ast.BinaryExpr:
		x, err := w.expr(e.X, tiers)
		if err != nil {
			return quantity{}, err
		}
		y, err := w.expr(e.Y, tiers)
		if err != nil {
			return quantity{}, err
		}
		return combine(e.Op, x, y)
	case *ast.CallExpr:
		name, ok := e.Fun.(*ast.Ident)
		if !ok {
			break
		}
		var args []quantity
		for _, a := range e.Args {
			q, err := w.expr(a, tiers)
			if err != nil {
				return quantity{}, err
			}
			args = append(args, q)
		}
		return call(name.Name, args, tiers)
	}
	return quantity{}, fmt.Errorf("%T is not part of formulas", e)
}

func combine(op token.Token, x, y quantity) (quantity, error) {
	switch op {
	case token.MUL:
		return quantity{x.value * y.value, x.unit.times(y.unit, 1)}, nil
	case token.QUO:
		return quantity{x.value / y.value, x.unit.times(y.unit, -1)}, nil
	case token.ADD, token.SUB:
		if !x.unit.equal(y.unit) {
			return quantity{}, fmt.Errorf("%s and %s cannot be added", x.unit, y.unit)
		}
		if op == token.SUB {
			y.value = -y.value
		}
		return quantity{x.value + y.value, x.unit}, nil
	}
	return quantity{}, fmt.Errorf("%s is not part of formulas", op)
}

func call(name string, args []quantity, tiers func(float64) float64) (quantity, error) {
	switch {
	case name == "ceil" && len(args) == 1:
		// What is whole but for the rounding of floating point stays as it is.
		return quantity{math.Ceil(args[0].value - 1e-9*math.Abs(args[0].value)), args[0].unit}, nil
	case (name == "max" || name == "min") && len(args) > 0:
		q := args[0]
		for _, a := range args[1:] {
			if !a.unit.equal(q.unit) {
				return quantity{}, fmt.Errorf("%s and %s cannot be compared", q.unit, a.unit)
			}
			if name == "max" {
				q.value = math.Max(q.value, a.value)
			} else {
				q.value = math.Min(q.value, a.value)
			}
		}
		return q, nil
	case name == "none" && len(args) == 2:
		return quantity{math.Pow(1-args[0].value, args[1].value), unit{}}, nil
	case name == "fewer" && len(args) == 3:
		return quantity{fewer(int(args[0].value), args[1].value, int(args[2].value)), unit{}}, nil
	case name == "tiers" && len(args) == 1 && args[0].unit.equal(unit{"GB": 1, "month": -1}):
		return quantity{tiers(args[0].value), unit{"USD": 1, "month": -1}}, nil
	}
	return quantity{}, fmt.Errorf("%s of %d is not part of formulas", name, len(args))
}

// fewer returns the probability that fewer than k of n independent parts are up, each with probability p.
func fewer(k int, p float64, n int) float64 {
	sum, ways := 0.0, 1.0
	for up := range min(k, n+1) {
		sum += ways * math.Pow(p, float64(up)) * math.Pow(1-p, float64(n-up))
		ways = ways * float64(n-up) / float64(up+1)
	}
	return sum
}

// names lists the names in a formula, in order of first use.
func names(formula string) []string {
	tree, err := parser.ParseExpr(formula)
	if err != nil {
		return nil
	}
	var out []string
	seen, functions := map[string]bool{}, map[*ast.Ident]bool{}
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok {
				functions[f] = true
			}
		case *ast.Ident:
			if !functions[n] && !seen[n.Name] {
				seen[n.Name] = true
				out = append(out, n.Name)
			}
		}
		return true
	})
	return out
}
