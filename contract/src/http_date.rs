//! HTTP-date in its three forms (RFC 9110 §5.6.7), read as robustly as the RFC encourages.
//!
//! What this decides: which texts are dates. Case does not matter and the name of the day is not
//! checked against the date; everything else, down to the single spaces, has to be as the grammar
//! says. What is not a date is never guessed at: an `Expires` that does not parse means "already
//! expired".

/// Seconds since the Unix epoch, or `None` for what is no HTTP-date or lies before 1970.
pub(crate) fn parse(text: &[u8]) -> Option<u64> {
    let comma = text.iter().position(|&byte| byte == b',');
    match comma {
        Some(3) => imf_fixdate(text),
        Some(comma) => rfc850(text.get(..comma)?, text.get(comma + 1..)?),
        None => asctime(text),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &[u8]) -> Option<u64> {
    let [
        n1,
        n2,
        n3,
        b',',
        b' ',
        d1,
        d2,
        b' ',
        m1,
        m2,
        m3,
        b' ',
        y1,
        y2,
        y3,
        y4,
        b' ',
        clock @ ..,
    ] = text
    else {
        return None;
    };
    is_short_day(&[*n1, *n2, *n3]).then_some(())?;
    let year = number(&[*y1, *y2, *y3, *y4])?;
    seconds(
        year,
        month(&[*m1, *m2, *m3])?,
        number(&[*d1, *d2])?,
        time(clock.get(..8)?)?,
    )
    .filter(|_| is_gmt(clock.get(8..).unwrap_or_default()))
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(name: &[u8], rest: &[u8]) -> Option<u64> {
    const LONG: [&str; 7] = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    LONG.iter()
        .any(|day| name.eq_ignore_ascii_case(day.as_bytes()))
        .then_some(())?;
    let [
        b' ',
        d1,
        d2,
        b'-',
        m1,
        m2,
        m3,
        b'-',
        y1,
        y2,
        b' ',
        clock @ ..,
    ] = rest
    else {
        return None;
    };
    let year = number(&[*y1, *y2])?;
    // The RFC moves years more than 50 ahead into the past; a fixed turn keeps reading free of the
    // clock.
    let year = if year < 70 { 2000 + year } else { 1900 + year };
    seconds(
        year,
        month(&[*m1, *m2, *m3])?,
        number(&[*d1, *d2])?,
        time(clock.get(..8)?)?,
    )
    .filter(|_| is_gmt(clock.get(8..).unwrap_or_default()))
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<u64> {
    let [n1, n2, n3, b' ', m1, m2, m3, b' ', d1, d2, b' ', clock @ ..] = text else {
        return None;
    };
    is_short_day(&[*n1, *n2, *n3]).then_some(())?;
    let day = if *d1 == b' ' {
        number(&[*d2])?
    } else {
        number(&[*d1, *d2])?
    };
    let (b' ', year) = (clock.get(8)?, clock.get(9..)?) else {
        return None;
    };
    let year = (year.len() == 4).then(|| number(year)).flatten()?;
    seconds(year, month(&[*m1, *m2, *m3])?, day, time(clock.get(..8)?)?)
}

fn is_short_day(name: &[u8]) -> bool {
    ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
        .iter()
        .any(|day| name.eq_ignore_ascii_case(day.as_bytes()))
}

fn is_gmt(zone: &[u8]) -> bool {
    zone.eq_ignore_ascii_case(b" GMT")
}

fn month(name: &[u8]) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    MONTHS
        .iter()
        .zip(1..)
        .find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()))
        .map(|(_, number)| number)
}

/// `08:49:37`, as seconds of the day. A leap second counts as the one before it.
fn time(clock: &[u8]) -> Option<u64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = clock else {
        return None;
    };
    let (hour, minute, second) = (
        number(&[*h1, *h2])?,
        number(&[*m1, *m2])?,
        number(&[*s1, *s2])?,
    );
    (hour < 24 && minute < 60 && second <= 60).then(|| hour * 3600 + minute * 60 + second.min(59))
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + u64::from(digit - b'0'))
    })
}

fn seconds(year: u64, month: u64, day: u64, second_of_day: u64) -> Option<u64> {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let length = match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if year < 1970 || day == 0 || day > length {
        return None;
    }
    // Days before the month in a year that begins in March, so that the leap day comes last.
    let (shifted_year, shifted_month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * shifted_year + shifted_year / 4 - shifted_year / 100
        + shifted_year / 400
        + (153 * shifted_month + 2) / 5
        + day;
    const DAYS_TO_1970: u64 = 719_469;
    Some((days - DAYS_TO_1970) * 86_400 + second_of_day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn all_three_forms_name_the_same_second() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "sUN, 06 nov 1994 08:49:37 gmt",
            "Mon, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn what_the_grammar_does_not_allow_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 18 Aug 2050 02:01:18 GMT ",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 30 Feb 2050 02:01:18 GMT",
            "Thu, 18 Aug 1969 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:00:00 GMT",
            "Thu, 18 Aug 2050 02:01:18 GMT,Thu, 18 Aug 2050 02:01:18 GMT",
            "Blu, 18 Aug 2050 02:01:18 GMT",
            "Thu Aug 08 02:01:18 50",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_second_that_can_be_written_is_read_back(second in 0u64..253_402_300_800) {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            prop_assert_eq!(parse(text.as_bytes()), Some(second));
        }

        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&text);
        }

        #[test]
        fn what_the_library_reads_is_read_alike(text in "(Mon|Tue|Wed), [0-3][0-9] (Jan|Feb|Dec) [0-9]{4} [0-2][0-9]:[0-9]{2}:[0-5][0-9] GMT") {
            if let Ok(time) = httpdate::parse_http_date(&text) {
                prop_assert_eq!(parse(text.as_bytes()), time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs()));
            }
        }
    }
}
