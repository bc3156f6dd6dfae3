package shortline

import (
	"fmt"
	"math"
)

// This file reads the selectors of days: years, dates, weeks and weekdays.

func (p *hoursParser) atYear() bool {
	t := p.tok()
	return t.kind == tokenNumber && t.end-t.pos == 4
}

// ranges reads years or weeks: numbers, ranges with or without a step, and "from this one on".
func (p *hoursParser) ranges(what string, least, most int) ([]hoursRange, error) {
	var all []hoursRange
	for {
		first := p.tok()
		from, err := p.number(what, least, most)
		if err != nil {
			return nil, err
		}
		x := hoursRange{from: from, to: from, step: 1}
		if p.accept('+') {
			x.to = math.MaxInt
		} else if p.accept('-') {
			if x.to, err = p.number(what, least, most); err != nil {
				return nil, err
			}
			if x.to < x.from {
				return nil, p.fault(first, "the range ends before it begins; expected the smaller number first")
			}
			if p.accept('/') {
				if x.step, err = p.number("a step of 1 or more", 1, most); err != nil {
					return nil, err
				}
			}
		}
		all = append(all, x)
		if !p.accept(',') {
			return all, nil
		}
	}
}

// dates reads months and dates; one without a year takes that of the one before it.
func (p *hoursParser) dates(r *hoursRule) error {
	year := 0
	for {
		if p.atYear() {
			year = p.tok().n
			p.skip(1)
		}
		t := p.tok()
		if t.kind != tokenMonth {
			return p.expected("a month or a date such as Dec 25")
		}
		p.skip(1)
		if k := p.tok(); k.kind != tokenNumber || p.atYear() {
			if err := p.months(r, year, t); err != nil {
				return err
			}
		} else if err := p.monthDays(r, year, t.n); err != nil {
			return err
		}
		if !p.accept(',') {
			return nil
		}
	}
}

// months reads the rest of a month or a range of months.
func (p *hoursParser) months(r *hoursRule, year int, first hoursToken) error {
	toYear, to := year, first.n
	if p.accept('-') {
		explicit := year != 0 && p.atYear()
		if explicit {
			toYear = p.tok().n
			p.skip(1)
		}
		t := p.tok()
		if t.kind != tokenMonth {
			return p.expected("a month at the end of the range")
		}
		if to = t.n; year != 0 && !explicit && to < first.n {
			toYear++
		}
		p.skip(1)
		if p.tok().kind == tokenNumber && !p.atAlways() {
			return p.expected("no day here, or also one at the start of the range, as in Mar 1-Oct 31")
		}
	}
	x := hoursDates{dated: year != 0, from: dateKey(year, first.n, 1), to: dateKey(toYear, to, 31)}
	return p.addDates(r, x, first)
}

// monthDays reads days of the month, ranges of them, and ranges that end in another month.
func (p *hoursParser) monthDays(r *hoursRule, year, month int) error {
	for {
		first := p.tok()
		day, err := p.day(year, month)
		if err != nil {
			return err
		}
		x := hoursDates{dated: year != 0, from: dateKey(year, month, day)}
		x.to = x.from
		if p.accept('+') {
			if x.to = dateKey(0, 12, 31); x.dated {
				x.to = math.MaxInt
			}
		} else if p.accept('-') {
			if x.to, err = p.lastDate(year, month, day); err != nil {
				return err
			}
		}
		if err = p.addDates(r, x, first); err != nil {
			return err
		}
		next := p.peek(1)
		if p.tok().kind != ',' || next.kind != tokenNumber || next.end-next.pos > 2 {
			return nil
		}
		p.skip(1)
	}
}

// lastDate reads the end of a range that began on the given date: a day of the same month, or a date.
func (p *hoursParser) lastDate(year, month, day int) (key int, err error) {
	start := dateKey(year, month, day)
	if p.tok().kind == tokenNumber && !p.atYear() {
		first := p.tok()
		if day, err = p.day(year, month); err == nil && dateKey(year, month, day) < start {
			err = p.fault(first, "the range ends before it begins; expected a later day")
		}
		return dateKey(year, month, day), err
	}
	explicit := p.atYear()
	if explicit {
		if year == 0 {
			return 0, p.expected("a date without a year, because the range begins without one")
		}
		year = p.tok().n
		p.skip(1)
	}
	t := p.tok()
	if t.kind != tokenMonth {
		return 0, p.expected("a day or a date at the end of the range")
	}
	p.skip(1)
	next := p.tok()
	if !explicit && year != 0 && next.kind == tokenNumber && dateKey(year, t.n, next.n) < start {
		year++
	}
	if day, err = p.day(year, t.n); err != nil {
		return 0, err
	}
	return dateKey(year, t.n, day), nil
}

func (p *hoursParser) day(year, month int) (int, error) {
	most := daysIn(year, month)
	return p.number(fmt.Sprintf("a day of the month, 1 to %d", most), 1, most)
}

func (p *hoursParser) addDates(r *hoursRule, x hoursDates, first hoursToken) error {
	if x.dated && x.to < x.from {
		return p.fault(first, "the range ends before it begins; expected a later date at its end")
	}
	r.dates = append(r.dates, x)
	return nil
}

// weekdays reads weekdays and holidays. It is not possible to match if there are holidays only, or weekdays only where
// they are holidays ("PH Mo-Fr").
func (p *hoursParser) weekdays(r *hoursRule) (possible bool, err error) {
	possible = true
	if k := p.tok().kind; k != tokenWeekday && k != tokenHoliday {
		return possible, nil
	}
	weekday, narrowed := false, false
	for {
		switch p.tok().kind {
		case tokenWeekday:
			weekday = true
			if err := p.weekdayRange(r); err != nil {
				return false, err
			}
		case tokenHoliday:
			p.skip(1)
			if p.tok().kind == tokenWeekday {
				narrowed = true
				continue
			}
		default:
			return false, p.expected("a day such as Mo or PH")
		}
		if !p.accept(',') {
			return weekday && !narrowed, nil
		}
	}
}

func (p *hoursParser) weekdayRange(r *hoursRule) error {
	from := p.tok().n
	p.skip(1)
	if p.accept('[') {
		if err := p.numbers(r, uint8(from)); err != nil {
			return err
		}
		if k := p.tok().kind; k == '-' || k == '+' {
			return p.expected("times; distances and ranges from a numbered weekday are not supported")
		}
		return nil
	}
	to := from
	if p.accept('-') {
		if p.tok().kind != tokenWeekday {
			return p.expected("a weekday at the end of the range")
		}
		to = p.tok().n
		p.skip(1)
		if p.tok().kind == '[' {
			return p.expected("a single weekday before [, not a range")
		}
	}
	for d := from; ; d = (d + 1) % 7 {
		r.weekdays |= 1 << d
		if d == to {
			return nil
		}
	}
}

// numbers reads what stands between [ and ] after a weekday.
func (p *hoursParser) numbers(r *hoursRule, weekday uint8) error {
	const what = "a number from 1 to 5 or from -5 to -1, as in Mo[1] and Fr[-1]"
	n := hoursNumbered{weekday: weekday}
	for {
		if p.accept('-') {
			last, err := p.number(what, 1, 5)
			if err != nil {
				return err
			}
			n.in |= 1 << (4 + last)
		} else {
			from, err := p.number(what, 1, 5)
			if err != nil {
				return err
			}
			to := from
			if p.accept('-') {
				if to, err = p.number("a greater number, up to 5", from, 5); err != nil {
					return err
				}
			}
			for ; from <= to; from++ {
				n.in |= 1 << (from - 1)
			}
		}
		if p.accept(']') {
			r.numbered = append(r.numbered, n)
			return nil
		}
		if !p.accept(',') {
			return p.expected(`"," or "]"`)
		}
	}
}
