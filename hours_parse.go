package shortline

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ParseHours reads opening hours in OpenStreetMap's opening_hours form. The error says which part of the text is not
// understood and what was expected there, fit to be shown to whoever wrote the text. It is understood:
//
//   - rules, divided by ";" (replaces), "," (adds) and "||" (asked if those before are silent); see Hours for what these mean
//   - 24/7
//   - weekdays: Mo-Fr, Sa,Su, Fr-Mo, by their number in the month Mo[1], Th[1,3], Su[2-4], Fr[-1]; PH and SH, which never match
//   - dates: Jan-Mar, Nov-Feb, Dec 25, Dec 24-26, Dec 24,31, Mar 1-Oct 31, Mar 1+, and with years 2030 Dec 31,
//     2030 Dec 24-2031 Jan 6, 2030 Mar 1+
//   - years: 2030, 2030-2032, 2030-2040/2, 2030+
//   - ISO weeks: week 10, week 1-53/2
//   - times: 08:00-12:00,13:00-18:00, past midnight 18:00-02:00 or 18:00-26:00, with an open end 17:00+
//   - open, off, closed, unknown, and "comments" after a rule, or with a colon before it
//
// Upper and lower case, more or fewer blanks, one-digit hours, longer English names (Mon, Sept), dashes for hyphens, a
// colon after the days and a semicolon at the end are tolerated. Not supported, and errors: sunrise, sunset, dawn, dusk,
// easter, distances in days (PH +1 day, Mo[1] -2 days), ranges from one numbered weekday to another
// (Mar Su[-1]-Oct Su[-1]), single times and repeated ones (10:00-16:00/90).
func ParseHours(s string) (*Hours, error) {
	switch {
	case len(s) > MaxHoursBytes:
		return nil, fmt.Errorf("is %d bytes long, at most %d are allowed", len(s), MaxHoursBytes)
	case !utf8.ValidString(s):
		return nil, errors.New("is not valid UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		return nil, errors.New("contains control characters; line breaks and tabs are not allowed")
	}
	p := hoursParser{text: s, tokens: lexHours(s)}
	h := &Hours{text: s}
	if err := p.parse(h); err != nil {
		return nil, err
	}
	h.compile()
	return h, nil
}

// hoursParser reads tokens from left to right, without going back; each loop consumes at least one token a turn.
type hoursParser struct {
	text   string
	tokens []hoursToken
	i      int // never past the last token, tokenEnd
}

func (p *hoursParser) tok() hoursToken { return p.tokens[p.i] }

// peek returns the token n places ahead, or tokenEnd.
func (p *hoursParser) peek(n int) hoursToken { return p.tokens[min(p.i+n, len(p.tokens)-1)] }

func (p *hoursParser) skip(n int) { p.i = min(p.i+n, len(p.tokens)-1) }

// accept consumes the next token if it is of the kind.
func (p *hoursParser) accept(kind byte) bool {
	if p.tok().kind != kind {
		return false
	}
	p.skip(1)
	return true
}

// expected reports the next token as the one that is not understood.
func (p *hoursParser) expected(format string, args ...any) error {
	t := p.tok()
	detail := "expected " + fmt.Sprintf(format, args...)
	switch t.kind {
	case tokenBad:
		detail = t.detail
	case tokenEnd:
		return errors.New("ends too early: " + detail)
	}
	return p.fault(t, detail)
}

// fault quotes the text from t on.
func (p *hoursParser) fault(t hoursToken, detail string) error {
	const most = 40
	part := p.text[t.pos:]
	if len(part) > most {
		end := most
		for !utf8.RuneStart(part[end]) {
			end--
		}
		part = part[:end]
	}
	return fmt.Errorf("cannot read %q: %s", part, detail)
}

func (p *hoursParser) parse(h *Hours) error {
	group, adds := 0, false
	for {
		r := hoursRule{group: group, adds: adds, state: hoursOpen}
		possible, err := p.rule(&r)
		if err != nil {
			return err
		}
		if possible {
			h.rules = append(h.rules, r)
		}
		switch p.tok().kind {
		case tokenEnd:
			return nil
		case ';':
			if adds = false; p.peek(1).kind == tokenEnd {
				return nil
			}
		case ',':
			adds = true
		case '|':
			group++
			adds = false
		default:
			return p.expected(`";" between rules, or one of open, off and unknown`)
		}
		p.skip(1)
	}
}

// rule reads one rule. It is not possible if it speaks of holidays only.
func (p *hoursParser) rule(r *hoursRule) (possible bool, err error) {
	start := p.i
	possible = true
	if p.tok().kind == tokenComment && p.peek(1).kind == ':' {
		p.skip(2)
	}
	if p.atAlways() {
		p.skip(3)
	} else if possible, err = p.selectors(r); err != nil {
		return false, err
	}
	t := p.tok()
	if p.i > start && p.tokens[p.i-1].kind == ':' && t.kind != tokenState && t.kind != tokenComment {
		return false, p.expected("days or times after the colon")
	}
	if t.kind == tokenState {
		p.skip(1)
		r.state = hoursState(t.n)
		p.accept(tokenComment)
	} else if p.accept(tokenComment) {
		r.state = hoursUnknown
	}
	if p.i == start {
		return false, p.expected("a rule such as Mo-Fr 08:00-18:00")
	}
	return possible, nil
}

func (p *hoursParser) selectors(r *hoursRule) (possible bool, err error) {
	start := p.i
	if p.atYear() && p.peek(1).kind != tokenMonth {
		if r.years, err = p.ranges("a year of four digits", 1000, 9999); err != nil {
			return false, err
		}
	}
	if p.tok().kind == tokenMonth || p.atYear() {
		if err = p.dates(r); err != nil {
			return false, err
		}
	}
	if p.accept(tokenWeek) {
		if r.weeks, err = p.ranges("the number of a week, 1 to 53", 1, 53); err != nil {
			return false, err
		}
	}
	if p.i > start {
		p.accept(':')
	}
	start = p.i
	if possible, err = p.weekdays(r); err != nil {
		return false, err
	}
	if p.i > start {
		p.accept(':')
	}
	return possible, p.times(r)
}

// atAlways tells whether 24/7 is next.
func (p *hoursParser) atAlways() bool {
	t, u := p.tok(), p.peek(2)
	return t.kind == tokenNumber && t.n == 24 && p.peek(1).kind == '/' && u.kind == tokenNumber && u.n == 7
}

// number consumes a number from least to most.
func (p *hoursParser) number(what string, least, most int) (int, error) {
	t := p.tok()
	if t.kind != tokenNumber || t.n < least || t.n > most {
		return 0, p.expected("%s", what)
	}
	p.skip(1)
	return t.n, nil
}

// times reads time spans, or 24/7 in their place.
func (p *hoursParser) times(r *hoursRule) error {
	if p.atAlways() {
		p.skip(3)
		return nil
	}
	if p.tok().kind == tokenNumber {
		return p.expected("a time with minutes such as 08:00")
	}
	for p.tok().kind == tokenTime {
		if err := p.span(r); err != nil {
			return err
		}
		if p.tok().kind != ',' || p.peek(1).kind != tokenTime {
			return nil
		}
		p.skip(1)
	}
	return nil
}

func (p *hoursParser) span(r *hoursRule) error {
	from := p.tok()
	if from.n >= minutesPerDay {
		return p.expected("a span that starts before 24:00")
	}
	p.skip(1)
	to := minutesPerDay
	if !p.accept('+') {
		if !p.accept('-') {
			return p.expected(`"-" and a closing time after %s`, p.text[from.pos:from.end])
		}
		if p.tok().kind != tokenTime {
			return p.expected("a closing time such as 18:00")
		}
		if to = p.tok().n; to <= from.n {
			to += minutesPerDay
		}
		p.skip(1)
		p.accept('+')
	}
	if p.tok().kind == '/' {
		return p.expected("no repetition; only spans are opening hours")
	}
	r.spans = append(r.spans, hoursSpan{from: uint16(from.n), to: uint16(to)})
	return nil
}
