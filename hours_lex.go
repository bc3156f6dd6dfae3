package shortline

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// hoursToken is a word, number or sign of an opening_hours value. Signs are their own kind.
type hoursToken struct {
	kind     byte
	n        int // weekday (Monday is 0), month, number, minute of the day, or hoursState
	pos, end int
	detail   string // of tokenBad
}

const (
	tokenEnd     = 'E'
	tokenBad     = 'B' // not a word of the language; detail says what was expected
	tokenWeekday = 'D'
	tokenMonth   = 'M'
	tokenHoliday = 'H'
	tokenWeek    = 'W'
	tokenState   = 'S'
	tokenNumber  = 'N'
	tokenTime    = 'T'
	tokenComment = 'C'
)

var (
	weekdayNames = [...]string{"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}
	monthNames   = [...]string{
		"january", "february", "march", "april", "may", "june",
		"july", "august", "september", "october", "november", "december",
	}
)

// lexHours splits s into tokens, the last of which is tokenEnd. The text of tokens is never copied.
func lexHours(s string) []hoursToken {
	tokens := make([]hoursToken, 0, 2+len(s)/2)
	for pos := 0; pos < len(s); {
		r, size := utf8.DecodeRuneInString(s[pos:])
		if unicode.Is(unicode.Zs, r) { // no tabs and line breaks: Validate refuses them everywhere
			pos += size
			continue
		}
		t := hoursToken{pos: pos, end: pos + size}
		switch {
		case r >= '0' && r <= '9':
			t.lexNumber(s)
		case unicode.IsLetter(r):
			t.lexWord(s)
		case r == '"':
			t.lexComment(s)
		case r == '|' && strings.HasPrefix(s[pos:], "||"):
			t.kind, t.end = '|', pos+2
		case strings.ContainsRune("-\u2010\u2011\u2012\u2013\u2014\u2212", r): // hyphens, dashes and the minus sign
			t.kind = '-'
		case r < utf8.RuneSelf && strings.ContainsRune(",;:+/[]", r):
			t.kind = byte(r)
		default:
			t.kind, t.detail = tokenBad, "expected days and times such as Mo-Fr 08:00-18:00"
		}
		tokens = append(tokens, t)
		pos = t.end
	}
	return append(tokens, hoursToken{kind: tokenEnd, pos: len(s), end: len(s)})
}

// lexNumber reads a number, or a time: digits, a colon and digits without blanks between.
func (t *hoursToken) lexNumber(s string) {
	t.kind = tokenNumber
	t.n, t.end = digits(s, t.pos)
	if t.end-t.pos > 4 {
		t.kind, t.detail = tokenBad, "expected a number of at most four digits"
		return
	}
	if t.end+1 >= len(s) || s[t.end] != ':' || s[t.end+1] < '0' || s[t.end+1] > '9' {
		return
	}
	minute, end := digits(s, t.end+1)
	ok := t.end-t.pos <= 2 && end-t.end == 3 && minute < 60
	t.n, t.end = t.n*60+minute, end
	t.kind = tokenTime
	if !ok || t.n > 2*minutesPerDay {
		t.kind, t.detail = tokenBad, "expected a time such as 08:30, up to 48:00"
	}
}

// digits reads decimal digits from pos on; n is right for up to four of them.
func digits(s string, pos int) (n, end int) {
	for end = pos; end < len(s) && s[end] >= '0' && s[end] <= '9'; end++ {
		if end-pos < 4 {
			n = n*10 + int(s[end]-'0')
		}
	}
	return n, end
}

func (t *hoursToken) lexComment(s string) {
	t.kind = tokenComment
	n := strings.IndexByte(s[t.end:], '"')
	if n < 0 {
		t.kind, t.end, t.detail = tokenBad, len(s), `expected a closing " after the comment`
		return
	}
	t.end += n + 1
}

// lexWord reads a word in upper or lower case. Days may be written with two letters or more, months with three or more.
func (t *hoursToken) lexWord(s string) {
	for t.end < len(s) {
		r, size := utf8.DecodeRuneInString(s[t.end:])
		if !unicode.IsLetter(r) {
			break
		}
		t.end += size
	}
	word := s[t.pos:t.end]
	if len(word) > len("wednesday") { // the longest word there is
		t.kind, t.detail = tokenBad, unknownWord
		return
	}
	switch word = strings.ToLower(word); word {
	case "ph", "sh":
		t.kind = tokenHoliday
	case "week":
		t.kind = tokenWeek
	case "open":
		t.kind, t.n = tokenState, int(hoursOpen)
	case "off", "closed":
		t.kind, t.n = tokenState, int(hoursClosed)
	case "unknown":
		t.kind, t.n = tokenState, int(hoursUnknown)
	case "dawn", "sunrise", "sunset", "dusk":
		t.kind, t.detail = tokenBad, fmt.Sprintf("%s is not supported; expected a time of the clock such as 18:00", word)
	case "easter":
		t.kind, t.detail = tokenBad, "easter is not supported; expected a date such as Apr 21 or 2030 Apr 21"
	default:
		if n := abbreviated(word, weekdayNames[:], 2); n >= 0 {
			t.kind, t.n = tokenWeekday, n
		} else if n = abbreviated(word, monthNames[:], 3); n >= 0 {
			t.kind, t.n = tokenMonth, n+1
		} else {
			t.kind, t.detail = tokenBad, unknownWord
		}
	}
}

const unknownWord = "expected a day (Mo, Tu, We, Th, Fr, Sa, Su, PH, SH), a month (Jan to Dec), week, open, off or unknown"

// abbreviated returns which of the names begins with the word, which must have at least shortest letters; -1 if none does.
func abbreviated(word string, names []string, shortest int) int {
	if len(word) < shortest {
		return -1
	}
	for i, name := range names {
		if strings.HasPrefix(name, word) {
			return i
		}
	}
	return -1
}
