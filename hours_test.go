package shortline

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
	_ "time/tzdata" // so that the tests need no zone database
)

// at reads "2024-03-10 01:59" as local time of New York.
func at(t testing.TB, text string) time.Time {
	t.Helper()
	local, err := time.ParseInLocation("2006-01-02 15:04", text, newYork(t))
	if err != nil {
		t.Fatal(err)
	}
	return local
}

func newYork(t testing.TB) *time.Location {
	t.Helper()
	loc, err := LoadTimezone("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// 2024-01-01 was a Monday, and 2024 a leap year.
func TestOpenAt(t *testing.T) {
	const week = "Mo-Fr 06:00-21:00; Sa-Su 07:00-20:00"
	for _, c := range []struct {
		hours, at string
		open      bool
	}{
		// weekdays and times
		{week, "2024-01-01 05:59", false},
		{week, "2024-01-01 06:00", true},
		{week, "2024-01-01 20:59", true},
		{week, "2024-01-01 21:00", false},
		{week, "2024-01-06 06:30", false},
		{week, "2024-01-06 07:00", true},
		{week, "2024-01-07 19:59", true},
		{week, "2024-01-07 20:00", false},
		{"24/7", "2024-01-07 23:59", true},
		{"24/7", "2024-01-01 00:00", true},
		{"24 / 7", "2024-01-01 00:00", true},
		{"Mo-Fr 24/7", "2024-01-05 23:59", true},
		{"Mo-Fr 24/7", "2024-01-06 00:00", false},
		{"24/7 off", "2024-01-01 12:00", false},
		{"08:00-18:00", "2024-01-07 08:00", true},
		{"08:00-18:00", "2024-01-07 18:00", false},
		{"Mo,We,Fr 08:00-12:00,13:00-18:00", "2024-01-03 12:30", false},
		{"Mo,We,Fr 08:00-12:00,13:00-18:00", "2024-01-03 13:00", true},
		{"Mo,We,Fr 08:00-12:00, 13:00-18:00", "2024-01-02 13:00", false},
		{"Fr-Mo 10:00-12:00", "2024-01-07 11:00", true},
		{"Fr-Mo 10:00-12:00", "2024-01-01 11:00", true},
		{"Fr-Mo 10:00-12:00", "2024-01-04 11:00", false},
		{"Su-Sa 10:00-12:00", "2024-01-04 11:00", true},
		{"Mo-Fr", "2024-01-05 23:59", true},
		{"Mo-Fr", "2024-01-06 00:00", false},
		{"open", "2024-01-06 00:00", true},
		{"off", "2024-01-06 00:00", false},
		// tolerance
		{"mo-FR 6:00-21:00", "2024-01-05 06:00", true},
		{"Mo – Fr  6:00 – 21:00 ;", "2024-01-05 20:59", true},
		{"Mon-Fri: 08:00-18:00; Sept: Saturday 10:00-12:00", "2024-09-07 10:00", true},
		{"Mo-Fr08:00-18:00", "2024-01-05 17:59", true},
		{"Mo-Fr\u00a008:00\u201218:00", "2024-01-05 17:59", true},
		// past midnight
		{"Fr,Sa 18:00-02:00", "2024-01-05 18:00", true},
		{"Fr,Sa 18:00-02:00", "2024-01-05 01:59", false},
		{"Fr,Sa 18:00-02:00", "2024-01-06 01:59", true},
		{"Fr,Sa 18:00-02:00", "2024-01-06 02:00", false},
		{"Fr,Sa 18:00-02:00", "2024-01-07 01:59", true},
		{"Su 18:00-02:00", "2024-01-08 01:59", true},
		{"Su 18:00-02:00", "2024-01-08 02:00", false},
		{"Su 18:00-26:00", "2024-01-08 01:59", true},
		{"Su 18:00-26:00", "2024-01-08 02:00", false},
		{"Fr 18:00-48:00", "2024-01-06 23:59", true},
		{"Fr 18:00-48:00", "2024-01-07 00:00", false},
		{"Mo 00:00-00:00", "2024-01-01 23:59", true},
		{"Mo 08:00-08:00", "2024-01-02 07:59", true},
		{"Mo 08:00-08:00", "2024-01-02 08:00", false},
		{"Mo 00:00-24:00", "2024-01-02 00:00", false},
		{"Fr 18:00-02:00; Sa off", "2024-01-06 01:00", true},
		{"Fr 18:00-02:00; Sa 10:00-12:00", "2024-01-06 01:00", true},
		{"Fr 18:00-02:00; Sa 00:00-01:00 off", "2024-01-06 00:30", false},
		{"Fr 18:00-02:00; Sa 00:00-01:00 off", "2024-01-06 01:30", true},
		{"Fr 18:00-02:00, Fr off", "2024-01-06 01:00", false},
		{"24/7; Sa 22:00-04:00 off", "2024-01-07 03:59", false},
		{"24/7; Sa 22:00-04:00 off", "2024-01-07 04:00", true},
		{"Dec 31 20:00-04:00", "2025-01-01 03:00", true},
		{"2024 Dec 31 20:00-04:00", "2025-01-01 03:00", true},
		{"2024 Dec 31 20:00-04:00", "2024-01-01 03:00", false},
		// open ends
		{"Mo 17:00+", "2024-01-01 23:59", true},
		{"Mo 17:00+", "2024-01-02 00:00", false},
		{"Mo 17:00-23:00+", "2024-01-01 23:00", false},
		// rules over rules
		{"Mo-Su 08:00-18:00; We 10:00-12:00", "2024-01-03 09:00", false},
		{"Mo-Su 08:00-18:00; We 10:00-12:00", "2024-01-03 10:00", true},
		{"We 10:00-12:00; 08:00-18:00", "2024-01-03 09:00", true},
		{"Mo-Su 08:00-18:00; We off", "2024-01-03 09:00", false},
		{"We off; Mo-Su 08:00-18:00", "2024-01-03 09:00", true},
		{"Mo-Fr 08:00-18:00; 12:00-13:00 off", "2024-01-03 12:30", false},
		{"Mo-Fr 08:00-18:00; 12:00-13:00 off", "2024-01-03 13:00", true},
		{"Mo-Fr 08:00-12:00, We 14:00-18:00", "2024-01-03 09:00", true},
		{"Mo-Fr 08:00-12:00, We 14:00-18:00", "2024-01-03 14:00", true},
		{"Mo-Fr 08:00-12:00; We 14:00-18:00", "2024-01-03 09:00", false},
		{"Mo-Fr 08:00-12:00,Sa 14:00-18:00", "2024-01-06 14:00", true},
		{"Mo off, Tu 08:00-10:00", "2024-01-02 09:00", true},
		{"Mo-Fr 08:00-18:00, 12:00-13:00 unknown", "2024-01-02 12:00", false},
		{"Mo-Fr 08:00-12:00 || Mo-Su 10:00-14:00", "2024-01-01 13:00", true},
		{"Mo-Fr 08:00-12:00 || Mo-Su 10:00-14:00", "2024-01-06 13:00", true},
		{"Mo-Fr 08:00-12:00; Sa off || Mo-Su 10:00-14:00", "2024-01-06 13:00", false},
		{"Mo-Fr unknown || 10:00-14:00", "2024-01-01 13:00", false},
		{"Sa 08:00-09:00 || PH off || Mo 10:00-14:00; Tu 10:00-11:00", "2024-01-02 10:00", true},
		{"Sa off || Su 10:00-14:00", "2024-01-07 10:00", true},
		// modifiers and comments
		{`Mo-Fr 08:00-18:00 open "ring the bell"`, "2024-01-01 08:00", true},
		{`Mo-Fr 08:00-18:00 "by appointment; call, or || ring"`, "2024-01-01 08:00", false},
		{`"by appointment"`, "2024-01-01 08:00", false},
		{`"summer": Jun-Aug 08:00-18:00`, "2024-07-01 08:00", true},
		{`"summer": Jun-Aug 08:00-18:00`, "2024-05-31 08:00", false},
		{"Mo-Fr 08:00-18:00 unknown", "2024-01-01 08:00", false},
		{`24/7; Dec 25 CLOSED "Christmas"`, "2024-12-25 08:00", false},
		// holidays match no day
		{"Mo-Fr 08:00-18:00; PH off", "2024-12-25 08:00", true},
		{"PH 08:00-18:00", "2024-12-25 08:00", false},
		{"Mo-Su,PH 09:00-18:00", "2024-01-07 09:00", true},
		{"PH,Mo,SH 09:00-18:00", "2024-01-01 09:00", true},
		{"PH,Mo,SH 09:00-18:00", "2024-01-02 09:00", false},
		{"SH Mo-Fr 09:00-18:00", "2024-01-01 09:00", false},
		{"PH off", "2024-01-01 09:00", false},
		// weekdays by their number
		{"Mo[1] 10:00-12:00", "2024-01-01 10:00", true},
		{"Mo[1] 10:00-12:00", "2024-01-08 10:00", false},
		{"Th[1,3] 10:00-12:00", "2024-01-18 10:00", true},
		{"Th[1,3] 10:00-12:00", "2024-01-11 10:00", false},
		{"Su[2-4] 10:00-12:00", "2024-01-28 10:00", true},
		{"Su[2-4] 10:00-12:00", "2024-01-07 10:00", false},
		{"Fr[-1] 10:00-12:00", "2024-02-23 10:00", true},
		{"Fr[-1] 10:00-12:00", "2024-02-16 10:00", false},
		{"Th[-1] 10:00-12:00", "2024-02-29 10:00", true},
		{"Th[5] 10:00-12:00", "2024-02-29 10:00", true},
		{"Th[-5] 10:00-12:00", "2024-02-01 10:00", true},
		{"Mo,Fr[-1] 10:00-12:00", "2024-02-05 10:00", true},
		{"24/7; Nov Th[4] off", "2024-11-28 10:00", false},
		{"24/7; Nov Th[4] off", "2024-11-21 10:00", true},
		{"Fr[-1] 20:00-04:00", "2024-02-24 03:59", true},
		// months, dates, years
		{"Jan-Mar 08:00-18:00", "2024-03-31 08:00", true},
		{"Jan-Mar 08:00-18:00", "2024-04-01 08:00", false},
		{"Nov-Feb 08:00-18:00", "2024-02-29 08:00", true},
		{"Nov-Feb 08:00-18:00", "2024-03-01 08:00", false},
		{"Jan,Jul-Aug Mo-Fr 08:00-18:00", "2024-08-01 08:00", true},
		{"Jan,Jul-Aug Mo-Fr 08:00-18:00", "2024-08-03 08:00", false},
		{"08:00-18:00; Dec 24-26 off", "2024-12-26 08:00", false},
		{"08:00-18:00; Dec 24-26 off", "2024-12-27 08:00", true},
		{"08:00-18:00; Dec 24,31 off", "2024-12-31 08:00", false},
		{"08:00-18:00; Dec 24,31 off", "2024-12-25 08:00", true},
		{"08:00-18:00; Jan 1,Dec 25,26 off", "2024-12-26 08:00", false},
		{"08:00-18:00; Dec 24: 08:00-12:00", "2024-12-24 12:00", false},
		{"Mar 1-Oct 31 08:00-18:00", "2024-10-31 08:00", true},
		{"Mar 1-Oct 31 08:00-18:00", "2024-11-01 08:00", false},
		{"Dec 24-Jan 2 08:00-18:00", "2024-01-02 08:00", true},
		{"Dec 24-Jan 2 08:00-18:00", "2024-01-03 08:00", false},
		{"Mar 15+ 08:00-18:00", "2024-12-31 08:00", true},
		{"Mar 15+ 08:00-18:00", "2025-01-01 08:00", false},
		{"Feb 29 08:00-18:00", "2024-02-29 08:00", true},
		{"2024 Dec 31 08:00-18:00", "2024-12-31 08:00", true},
		{"2024 Dec 31 08:00-18:00", "2023-12-31 08:00", false},
		{"2024 Dec 31,2025 Jan 1 08:00-18:00", "2025-01-01 08:00", true},
		{"2024 Dec 24-2025 Jan 6 08:00-18:00", "2025-01-06 08:00", true},
		{"2024 Dec 24-2025 Jan 6 08:00-18:00", "2025-12-25 08:00", false},
		{"2024 Dec 24-Jan 6 08:00-18:00", "2025-01-06 08:00", true},
		{"2024 Nov-Feb 08:00-18:00", "2025-02-28 08:00", true},
		{"2024 Nov-2026 Feb 08:00-18:00", "2025-07-01 08:00", true},
		{"2024 Jan,Mar 08:00-18:00", "2025-03-01 08:00", false},
		{"2024 Mar 1+ 08:00-18:00", "2031-01-01 08:00", true},
		{"2024 Mar 1+ 08:00-18:00", "2024-02-29 08:00", false},
		{"2024-2026 Mo 08:00-18:00", "2026-01-05 08:00", true},
		{"2024-2026 Mo 08:00-18:00", "2027-01-04 08:00", false},
		{"2024,2026 Dec 24 08:00-18:00", "2026-12-24 08:00", true},
		{"2024,2026 Dec 24 08:00-18:00", "2025-12-24 08:00", false},
		{"2020-2030/2 08:00-18:00", "2025-01-01 08:00", false},
		{"2020-2030/2 08:00-18:00", "2026-01-01 08:00", true},
		{"2025+ 08:00-18:00", "2024-12-31 08:00", false},
		{"Mo-Fr 08:00-18:00; 2024 Dec 31 08:00-12:00", "2024-12-31 12:00", false},
		// ISO weeks: 2024-12-30 is in week 1, 2021-01-03 in week 53
		{"week 1 08:00-18:00", "2024-12-30 08:00", true},
		{"week 53 08:00-18:00", "2021-01-03 08:00", true},
		{"week 1-53/2 Mo 08:00-18:00", "2024-01-08 08:00", false},
		{"week 1-53/2 Mo 08:00-18:00", "2024-01-15 08:00", true},
		{"week 2,5-10: Mo 08:00-18:00", "2024-02-05 08:00", true},
		// days on which the clock changes in New York: 02:00 to 03:00 is missing on March 10 and 01:00 to 02:00 comes
		// twice on November 3
		{"Su 01:00-03:00", "2024-03-10 01:59", true},
		{"Su 01:00-03:00", "2024-03-10 03:00", false},
		{"Su 03:00-04:00", "2024-03-10 03:00", true},
		{"Sa 22:00-03:00", "2024-03-10 01:59", true},
		{"Sa 22:00-03:00", "2024-03-10 03:00", false},
		{"Mar 10 00:00-24:00", "2024-03-10 23:59", true},
		{"Mar 10 00:00-24:00", "2024-03-11 00:00", false},
		{"Su 01:00-02:00", "2024-11-03 01:30", true},
		{"Su 00:00-24:00", "2024-11-03 23:59", true},
		{"Su 00:00-24:00", "2024-11-04 00:00", false},
	} {
		h, err := ParseHours(c.hours)
		if err != nil {
			t.Errorf("ParseHours(%q): %v", c.hours, err)
			continue
		}
		if got := h.OpenAt(at(t, c.at)); got != c.open {
			t.Errorf("%q at %s: open = %v", c.hours, c.at, got)
		}
		if h.String() != c.hours {
			t.Errorf("%q became %q", c.hours, h)
		}
	}
}

// An hour that the clock repeats is judged twice alike, and seconds do not matter.
func TestOpenAtRepeatedHour(t *testing.T) {
	first := time.Date(2024, 11, 3, 5, 59, 59, 999, time.UTC).In(newYork(t)) // 01:59:59 EDT
	for _, text := range []string{"Su 01:00-02:00", "Nov 3 01:00-02:00"} {
		h, err := ParseHours(text)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []bool{true, true, false} {
			if now := first.Add(time.Duration(i) * time.Hour); h.OpenAt(now) != want {
				t.Errorf("%q at %s: open = %v", text, now, !want)
			}
		}
	}
}

func TestParseHoursFaults(t *testing.T) {
	const day = "expected a day (Mo, Tu,"
	for _, c := range []struct{ hours, want string }{
		{"", "ends too early: expected a rule such as Mo-Fr 08:00-18:00"},
		{"  ", "ends too early: expected a rule"},
		{";", `cannot read ";": expected a rule`},
		{"Mo 08:00-10:00;; Tu 08:00-10:00", `cannot read "; Tu 08:00-10:00": expected a rule`},
		{"Mo 08:00-10:00,", "ends too early: expected a rule"},
		{"Mo 08:00-10:00 ||", "ends too early: expected a rule"},
		{"Mo 08:00-10:00 | Tu 08:00-10:00", `cannot read "| Tu 08:00-10:00": expected days and times`},
		{"always", `cannot read "always": ` + day},
		{"Mo-Xy 08:00-10:00", `cannot read "Xy 08:00-10:00": ` + day},
		{"M 08:00-10:00", `cannot read "M 08:00-10:00": ` + day},
		{"Moon 08:00-10:00", `cannot read "Moon 08:00-10:00": ` + day},
		{"Mittwoch 08:00-10:00", `cannot read "Mittwoch 08:00-10:00": ` + day},
		{"Donaudampfschiff 08:00-10:00", `cannot read "Donaudampfschiff 08:00-10:00": ` + day},
		{"Mo-Fr 25:00-26:00", `cannot read "25:00-26:00": expected a span that starts before 24:00`},
		{"Mo-Fr 24:00-26:00", `cannot read "24:00-26:00": expected a span that starts before 24:00`},
		{"Mo-Fr 08:00-48:01", `cannot read "48:01": expected a time such as 08:30, up to 48:00`},
		{"Mo-Fr 08:60-10:00", `cannot read "08:60-10:00": expected a time such as 08:30`},
		{"Mo-Fr 08:0-10:00", `cannot read "08:0-10:00": expected a time such as 08:30`},
		{"Mo-Fr 008:00-10:00", `cannot read "008:00-10:00": expected a time such as 08:30`},
		{"Mo-Fr 08:00:00-10:00", `cannot read ":00-10:00": expected "-" and a closing time after 08:00`},
		{"Mo-Fr 8-18", `cannot read "8-18": expected a time with minutes such as 08:00`},
		{"8am-6pm", `cannot read "8am-6pm": expected a time with minutes such as 08:00`},
		{"Mo-Fr 08:00", `ends too early: expected "-" and a closing time after 08:00`},
		{"Mo-Fr 08:00-", "ends too early: expected a closing time such as 18:00"},
		{"Mo-Fr 08:00,10:00", `cannot read ",10:00": expected "-" and a closing time after 08:00`},
		{"Mo-Fr 10:00-16:00/90", `cannot read "/90": expected no repetition`},
		{"Mo-Fr sunrise-sunset", `cannot read "sunrise-sunset": sunrise is not supported; expected a time of the clock`},
		{"Mo-Fr 08:00-SUNSET", `cannot read "SUNSET": sunset is not supported`},
		{"dusk-dawn", "dusk is not supported"},
		{"easter off", "easter is not supported; expected a date"},
		{"Mo-Fr 08:00-18:00 Sa 09:00-12:00", `cannot read "Sa 09:00-12:00": expected ";" between rules`},
		{"Mo-Fr, 08:00-12:00", `cannot read "08:00-12:00": expected a day such as Mo or PH`},
		{"Mo-Fr PH 08:00-12:00", `cannot read "PH 08:00-12:00": expected ";" between rules`},
		{"Mo- 08:00-12:00", `cannot read "08:00-12:00": expected a weekday at the end of the range`},
		{"Mo-PH 08:00-12:00", `cannot read "PH 08:00-12:00": expected a weekday`},
		{"PH +1 day off", `cannot read "+1 day off": expected ";"`},
		{"Mo[0] 08:00-12:00", `cannot read "0] 08:00-12:00": expected a number from 1 to 5`},
		{"Mo[6]", `cannot read "6]": expected a number from 1 to 5`},
		{"Mo[-6]", `cannot read "6]": expected a number from 1 to 5`},
		{"Mo[3-1]", `cannot read "1]": expected a greater number`},
		{"Mo[1", `ends too early: expected "," or "]"`},
		{"Mo[1]-Fr 08:00-12:00", `cannot read "-Fr 08:00-12:00": expected times; distances and ranges`},
		{"Mo[1] +2 days", `cannot read "+2 days": expected times; distances and ranges`},
		{"Mo-Fr[1] 08:00-12:00", `cannot read "[1] 08:00-12:00": expected a single weekday before [`},
		{"Mo-Fr: ", "ends too early: expected days or times after the colon"},
		{`"summer":`, "ends too early: expected days or times after the colon"},
		{": Mo", `cannot read ": Mo": expected a rule`},
		{`Mo-Fr 08:00-12:00 "by appointment`, "cannot read \"\\\"by appointment\": expected a closing \" after the comment"},
		{`Mo-Fr "a" "b"`, `cannot read "\"b\"": expected ";" between rules`},
		{"Mo off off", `cannot read "off": expected ";" between rules`},
		{"24/7 08:00-12:00", `cannot read "08:00-12:00": expected ";" between rules`},
		{"24/8", `cannot read "24/8": expected a time with minutes`},
		{"Dec 32 off", `cannot read "32 off": expected a day of the month, 1 to 31`},
		{"Feb 30 off", `cannot read "30 off": expected a day of the month, 1 to 29`},
		{"Apr 31 off", `cannot read "31 off": expected a day of the month, 1 to 30`},
		{"2023 Feb 29 off", `cannot read "29 off": expected a day of the month, 1 to 28`},
		{"2023 Feb 1-2100 Feb 29 off", `cannot read "29 off": expected a day of the month, 1 to 28`},
		{"Dec 0 off", `cannot read "0 off": expected a day of the month`},
		{"Dec 26-24 off", `cannot read "24 off": the range ends before it begins; expected a later day`},
		{"Dec 24-2025 Jan 2 off", `cannot read "2025 Jan 2 off": expected a date without a year`},
		{"2025 Dec 24-2025 Jan 2 off", `cannot read "24-2025 Jan 2 off": the range ends before it begins`},
		{"2025 Dec-2025 Jan off", `cannot read "Dec-2025 Jan off": the range ends before it begins`},
		{"Dec 24-Mo off", `cannot read "Mo off": expected a day or a date at the end of the range`},
		{"Mar 1-Oct off", `cannot read "off": expected a day of the month`},
		{"Mar-Oct 15 off", `cannot read "15 off": expected no day here, or also one at the start of the range`},
		{"Jan-Mo off", `cannot read "Mo off": expected a month at the end of the range`},
		{"Mar Su[-1]-Oct Su[-1] 08:00-12:00", `cannot read "-Oct Su[-1] 08:00-12:00": expected times; distances`},
		{"Dec 25, Mo 08:00-12:00", `cannot read "Mo 08:00-12:00": expected a month or a date`},
		{"2024-12-25 off", `cannot read "12-25 off": expected a year of four digits`},
		{"2026-2024 off", `cannot read "2026-2024 off": the range ends before it begins`},
		{"0000 off", `cannot read "0000 off": expected a year of four digits`},
		{"20240 off", `cannot read "20240 off": expected a number of at most four digits`},
		{"Dec 2025 off", `cannot read "2025 off": expected a time with minutes`},
		{"week 54 Mo 08:00-12:00", `cannot read "54 Mo 08:00-12:00": expected the number of a week, 1 to 53`},
		{"week Mo", `cannot read "Mo": expected the number of a week, 1 to 53`},
		{"week 1-53/0 Mo", `cannot read "0 Mo": expected a step of 1 or more`},
		{"week 9-2 Mo", `cannot read "9-2 Mo": the range ends before it begins`},
		{"Mo-Fr 08:00-12:00 (lunch)", `cannot read "(lunch)": expected days and times`},
		{"Ｍｏ 08:00-12:00", `cannot read "Ｍｏ 08:00-12:00": ` + day},
		{"Mo-Fr\t08:00-12:00", "contains control characters"},
		{"Mo-Fr 08:00-12:00 \"a\x00\"", "contains control characters"},
		{"Mo-Fr 08:00-12:00 \"\xff\"", "is not valid UTF-8"},
		{strings.Repeat("Mo off;", 200), "is 1400 bytes long, at most 1024 are allowed"},
		{"Mo !" + strings.Repeat("é", 100), `cannot read "!` + strings.Repeat("é", 19) + `": expected`},
	} {
		h, err := ParseHours(c.hours)
		if err == nil {
			t.Errorf("ParseHours(%q) = %+v, want an error with %q", c.hours, h, c.want)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseHours(%q): %v\nwant %s", c.hours, err, c.want)
		}
	}
}

// weekRule is a rule of weekdays as the reference evaluator knows it: apart from the parser and its types.
type weekRule struct {
	separator string // before it; "" for the first
	days      [7]bool
	spans     [][2]int // minutes of the day; none: the whole day
	state     string
}

func (r weekRule) String() string {
	names := []string{"Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"}
	var days, spans []string
	for d, on := range r.days {
		if on {
			days = append(days, names[d])
		}
	}
	for _, s := range r.spans {
		spans = append(spans, fmt.Sprintf("%02d:%02d-%02d:%02d", s[0]/60, s[0]%60, s[1]/60, s[1]%60))
	}
	return r.separator + strings.Join([]string{strings.Join(days, ","), strings.Join(spans, ","), r.state}, " ")
}

func randomWeekRules(rnd *rand.Rand) []weekRule {
	rules := make([]weekRule, 1+rnd.IntN(5))
	states := []string{"", "", "", "open", "off", "off", "unknown", `"ring"`}
	for i := range rules {
		r := &rules[i]
		if i > 0 {
			r.separator = []string{"; ", "; ", ", ", " || "}[rnd.IntN(4)]
		}
		r.days[rnd.IntN(7)] = true
		for d := range r.days {
			r.days[d] = r.days[d] || rnd.IntN(2) == 0
		}
		for range rnd.IntN(4) {
			from := rnd.IntN(48) * 30
			r.spans = append(r.spans, [2]int{from, min(from+1+rnd.IntN(1500), 2880)})
		}
		if r.state = states[rnd.IntN(len(states))]; r.state == "" && len(r.spans) == 0 {
			r.state = "open" // bare days would join the days of a rule added with a comma
		}
	}
	return rules
}

// paintWeek evaluates rules by painting, for each weekday, the two days that follow its midnight with 1 (closed), 2 (unknown) or 3
// (open), and laying each day over the second half of the day before.
func paintWeek(rules []weekRule) (open [minutesPerWeek]bool) {
	var answer [minutesPerWeek]byte
	var paint [7][2 * minutesPerDay]byte
	settle := func() {
		for m := range answer {
			d := m / minutesPerDay
			a, b := paint[d][m%minutesPerDay], paint[(d+6)%7][m%minutesPerDay+minutesPerDay]
			if answer[m] == 0 {
				answer[m] = max(a, b)
			}
		}
		clear(paint[:])
	}
	for _, r := range rules {
		if r.separator == " || " {
			settle()
		}
		ink := map[string]byte{"": 3, "open": 3, "off": 1, "unknown": 2, `"ring"`: 2}[r.state]
		for d, on := range r.days {
			if !on {
				continue
			}
			spans := r.spans
			cut := ink == 1 && len(spans) > 0
			if len(spans) == 0 {
				spans = [][2]int{{0, minutesPerDay}}
			}
			if !cut && (r.separator != ", " || ink == 1) {
				clear(paint[d][:])
			}
			for _, s := range spans {
				for m := s[0]; m < s[1]; m++ {
					paint[d][m] = ink
					if cut && m < minutesPerDay {
						paint[(d+6)%7][m+minutesPerDay] = ink
					} else if cut {
						paint[(d+1)%7][m-minutesPerDay] = ink
					}
				}
			}
		}
	}
	settle()
	for m, ink := range answer {
		open[m] = ink == 3
	}
	return open
}

// The compiled week, the rules one by one, and the rules bound to dates that always hold agree with the painter, for every
// minute of a week over which the clock changes nowhere.
func TestCompiledWeekAgainstPainter(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	monday := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for seed := range uint64(rounds) {
		rules := randomWeekRules(rand.New(rand.NewPCG(seed, 1)))
		text, dated := "", ""
		for _, r := range rules {
			text += r.String()
			d := r
			d.separator = ""
			dated += r.separator + "Jan-Dec " + d.String()
		}
		compiled, err := ParseHours(text)
		if err != nil {
			t.Fatalf("ParseHours(%q): %v", text, err)
		}
		if !compiled.weekly {
			t.Fatalf("%q was not compiled", text)
		}
		slow, err := ParseHours(dated)
		if err != nil {
			t.Fatalf("ParseHours(%q): %v", dated, err)
		}
		for m, want := range paintWeek(rules) {
			now := monday.Add(time.Duration(m) * time.Minute)
			if compiled.OpenAt(now) != want {
				t.Fatalf("seed %d: %q on %s: compiled says open = %v", seed, text, now.Format("Mon 15:04"), !want)
			}
			if slow.OpenAt(now) != want {
				t.Fatalf("seed %d: %q on %s: rules say open = %v", seed, dated, now.Format("Mon 15:04"), !want)
			}
		}
	}
}

// Reading the date from seconds agrees with package time, in zones with odd offsets, from before 1970 on.
func TestHoursDayAgainstTime(t *testing.T) {
	zones := []*time.Location{time.UTC, newYork(t), time.FixedZone("+5:45", 20700), time.FixedZone("-11:59:30", -43170)}
	rnd := rand.New(rand.NewPCG(7, 7))
	for range 2000 {
		now := time.Unix(rnd.Int64N(8e9)-3e9, 0).In(zones[rnd.IntN(len(zones))])
		y, m, d := now.Date()
		_, week := now.ISOWeek()
		last := 1 + (time.Date(y, m+1, 0, 0, 0, 0, 0, time.UTC).Day()-d)/7
		from := now.Format("15:04")
		text := fmt.Sprintf("%04d %s %d %s-%s", y, now.Format("Jan"), d, from, from)
		for _, text := range []string{
			text,
			fmt.Sprintf("week %d %s[%d] %s+", week, now.Format("Mon"), 1+(d-1)/7, from),
			fmt.Sprintf("%s[-%d] %s+", now.Format("Mon"), last, from),
		} {
			h, err := ParseHours(text)
			if err != nil {
				t.Fatal(err)
			}
			if !h.OpenAt(now) || h.OpenAt(now.Add(-time.Minute)) && now.Add(-time.Minute).Day() == d {
				t.Fatalf("%q is wrong around %s", text, now)
			}
		}
	}
}

func TestHoursAreShared(t *testing.T) {
	h, err := ParseHours("Mo-Fr 08:00-18:00; Dec 25 off")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				h.OpenAt(time.Unix(int64(i)*3600, 0).UTC())
			}
		})
	}
	wg.Wait()
}

func TestOpenAtDoesNotAllocate(t *testing.T) {
	now := at(t, "2024-03-10 03:00")
	for _, text := range []string{"Mo-Fr 06:00-21:00; Sa-Su 07:00-20:00", "Mo-Fr 06:00-21:00; Dec 25 off; week 1-53/2 Sa[1] 08:00-02:00"} {
		h, err := ParseHours(text)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { h.OpenAt(now) }); n != 0 {
			t.Errorf("%q: %v allocations", text, n)
		}
	}
}

func FuzzParseHours(f *testing.F) {
	for _, s := range []string{
		"24/7", "Mo-Fr 06:00-21:00; Sa-Su 07:00-20:00", "Fr-Mo 18:00-26:00,10:00+; PH off", `Mo[1,-1],Th[2-3] open "x" || off`,
		"2024 Dec 24-Jan 2,2026 Feb-Mar off", "week 1-53/2 Mo: 8:00 – 18:00", `"s": Jan 1,Dec 25,26 closed`, "2020-2030/2,2040+ Mar 15+",
		"Mo-Fr 08:00-12:00, We 14:00-18:00 unknown", "sunrise-sunset", "Mo-Fr 8-18", "Feb 29", `"`,
	} {
		f.Add(s, int64(1_700_000_000), int32(-18000))
	}
	f.Add("Dec 25 off; week 53 Mo[-1]", int64(math.MinInt64), int32(math.MinInt32))
	f.Add("Dec 25 off; week 53 Mo[-1]", int64(math.MaxInt64), int32(math.MaxInt32))
	f.Fuzz(func(t *testing.T, text string, unix int64, offset int32) {
		h, err := ParseHours(text)
		if err != nil {
			if h != nil || len(err.Error()) > 600 {
				t.Fatalf("ParseHours(%q) = %v, %v", text, h, err)
			}
			return
		}
		again, err := ParseHours(h.String())
		if err != nil || h.String() != text {
			t.Fatalf("%q became %q: %v", text, h, err)
		}
		now := time.Unix(unix, 0).In(time.FixedZone("", int(offset)))
		if h.OpenAt(now) != again.OpenAt(now) {
			t.Fatalf("%q at %s: two answers", text, now)
		}
	})
}

func BenchmarkOpenAt(b *testing.B) {
	now := at(b, "2024-06-12 15:04")
	for name, text := range map[string]string{
		"week":  "Mo-Fr 06:00-21:00; Sa-Su 07:00-20:00",
		"busy":  "Mo-Th 08:00-12:00,13:00-18:00; Fr 08:00-12:00,13:00-02:00; Sa 10:00-03:00; Su 10:00-11:00,12:00-13:00",
		"dated": "Mo-Fr 06:00-21:00; Sa-Su 07:00-20:00; Dec 24 08:00-12:00; Dec 25-26 off; Jan 1 off",
		"weeks": "week 1-53/2 Mo-Fr 06:00-21:00; Sa[1] 07:00-20:00",
	} {
		b.Run(name, func(b *testing.B) {
			h, err := ParseHours(text)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				h.OpenAt(now)
			}
		})
	}
}

func BenchmarkParseHours(b *testing.B) {
	for name, text := range map[string]string{
		"week":    "Mo-Fr 06:00-21:00; Sa-Su 07:00-20:00",
		"longest": strings.Repeat("8:01-9:02,", MaxHoursBytes/10-1) + "8:01-9:02",
		"rules":   strings.Repeat("Mo off;", MaxHoursBytes/7),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseHours(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
