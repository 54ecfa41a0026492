//! The periods of a table in their order: days, weeks of years, or a plain count of weeks.
//!
//! Week 52 is followed by week 1, and 202552 by 202601: a week number has its place beside its year, or where it cannot
//! have begun anew. Refuses to guess: numbers that may be of two years have no order, and the reason is told.

use std::collections::BTreeSet;

use carrel_ingest::show_day;

use crate::frame::{Column, Frame, NO_DAY, Values, number};
use crate::role::{Role, normalise};

/// Names of columns that hold the year of a week.
const YEARS: [&str; 6] = ["year", "yr", "fiscal_year", "fiscal_yr", "fy", "calendar_year"];
/// No year has more weeks.
const MOST_WEEKS: i64 = 53;
/// Years further apart are no years of one file.
const YEARS_APART: i64 = 50;

/// The periods of one table.
pub(crate) struct Calendar<'a> {
    kind: Kind,
    /// The columns that name a period together.
    pub(crate) columns: Vec<&'a Column>,
    /// The period of each row.
    pub(crate) of_row: Vec<Option<i64>>,
    /// Distinct periods in order.
    pub(crate) all: Vec<i64>,
}

/// How periods are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Days,
    /// Year × 100 + week, written so or in two columns, the year's being called this.
    Weeks {
        year: Option<String>,
    },
    Count,
}

impl<'a> Calendar<'a> {
    /// The periods of a table, or why they have no order.
    pub(crate) fn of(frame: &'a Frame) -> Result<Self, String> {
        let column = frame.role(Role::Period).ok_or_else(|| format!("{} has no week or date", frame.title()))?;
        let alone = |kind, of_row| Ok(Self::new(kind, vec![column], of_row));
        let weeks = match &column.values {
            Values::Day(days) => {
                return alone(Kind::Days, days.iter().map(|d| (*d != NO_DAY).then_some(i64::from(*d))).collect());
            }
            Values::Text { .. } => return Err(format!("{} of {} is text", column.name, frame.title())),
            Values::Number { values, .. } => whole(values),
        };
        let Some((first, last)) = ends(&weeks) else { return alone(Kind::Count, weeks) };
        if weeks.iter().flatten().all(|week| (1900..=2200).contains(&(week / 100)) && is_week(week % 100)) {
            return alone(Kind::Weeks { year: None }, weeks);
        }
        // No week of a year, so its numbers did not begin anew with one.
        if last > MOST_WEEKS {
            return alone(Kind::Count, weeks);
        }
        if let Some(year) = frame.columns.iter().find(|column| YEARS.contains(&normalise(&column.name).as_str())) {
            return beside(frame, column, &weeks, year);
        }
        // All of a year, or the end of one and the beginning of the next.
        if first <= 4 && last >= 49 {
            let (name, file) = (&column.name, frame.title());
            return Err(format!("{name} of {file} runs from {first} to {last}: it may be of two years"));
        }
        alone(Kind::Count, weeks)
    }

    fn new(kind: Kind, columns: Vec<&'a Column>, of_row: Vec<Option<i64>>) -> Self {
        let all: BTreeSet<i64> = of_row.iter().flatten().copied().collect();
        Self { kind, columns, of_row, all: all.into_iter().collect() }
    }

    pub(crate) fn label(&self, period: i64) -> String {
        match &self.kind {
            Kind::Days => i32::try_from(period).map_or_else(|_| period.to_string(), show_day),
            Kind::Weeks { year: Some(_) } if period < 100 => format!("week {period}"),
            Kind::Weeks { year: Some(_) } => format!("{} week {}", period / 100, period % 100),
            Kind::Weeks { year: None } | Kind::Count => number(period as f64),
        }
    }

    /// What is taken for granted in it.
    pub(crate) fn assumed(&self) -> Option<&'static str> {
        (self.kind == Kind::Count)
            .then_some("Its week numbers carry no year; they are taken to count on, without beginning anew.")
    }

    /// Names of the columns that name a period.
    pub(crate) fn name(&self) -> String {
        self.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(" and ")
    }

    /// The step of an unbroken series of days or weeks; `None` for anything else.
    pub(crate) fn step(&self) -> Option<i64> {
        let mut steps: Vec<i64> = self.all.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        steps.sort_unstable();
        let step = steps.get(steps.len() / 2).copied()?;
        (step == 1 || (step == 7 && self.kind == Kind::Days)).then_some(step)
    }

    /// Every period from the first to the last at that step; `None` if there are more than any series of files has.
    pub(crate) fn series(&self, step: i64) -> Option<Vec<i64>> {
        const MOST: i64 = 2000;
        let (first, last) = (*self.all.first()?, *self.all.last()?);
        if let Kind::Weeks { .. } = self.kind {
            let years = first.div_euclid(100)..=last.div_euclid(100);
            let weeks = years.flat_map(|year| (1..=self.weeks_of(year)).map(move |week| year * 100 + week));
            return Some(weeks.filter(|period| (first..=last).contains(period)).collect());
        }
        let span = last.saturating_sub(first) / step;
        (span <= MOST).then(|| (0..=span).map(|at| first + at * step).collect())
    }

    /// A year has a 53rd week if a row says so.
    fn weeks_of(&self, year: i64) -> i64 {
        let longest = year * 100 + MOST_WEEKS;
        if self.all.binary_search(&longest).is_ok() { MOST_WEEKS } else { MOST_WEEKS - 1 }
    }

    /// Days of the week, from 0, on which some row stands; `None` for anything but single days.
    pub(crate) fn weekdays(&self) -> Option<BTreeSet<i64>> {
        let daily = self.kind == Kind::Days && self.step() == Some(1);
        daily.then(|| self.all.iter().map(|day| day.rem_euclid(7)).collect())
    }

    /// What it counts, in words: calendars that say the same can be laid beside each other.
    pub(crate) fn rhythm(&self) -> String {
        match (&self.kind, self.step()) {
            (Kind::Days, Some(1)) => "days".to_owned(),
            (Kind::Days, Some(_)) => "weeks by date".to_owned(),
            (Kind::Days, None) => "dates without a rhythm of days or weeks".to_owned(),
            (Kind::Weeks { year: Some(year) }, _) => format!("weeks of a {year}"),
            (Kind::Weeks { year: None }, _) => "weeks written with their year".to_owned(),
            (Kind::Count, Some(_)) => "week numbers".to_owned(),
            (Kind::Count, None) => "numbers that are no unbroken count of weeks".to_owned(),
        }
    }
}

/// Week numbers beside the column of their year.
fn beside<'a>(
    frame: &Frame,
    column: &'a Column,
    weeks: &[Option<i64>],
    year: &'a Column,
) -> Result<Calendar<'a>, String> {
    let refuse = |why: String| Err(format!("{} of {}: {why}", column.name, frame.title()));
    if let Some(odd) = weeks.iter().flatten().find(|week| !is_week(**week)) {
        return refuse(format!("{odd} is no week of a year"));
    }
    let years = match &year.values {
        Values::Number { values, whole: true } => whole(values),
        _ => return one_year(frame, column, weeks, year),
    };
    if ends(&years).is_some_and(|(first, last)| first < 0 || last - first > YEARS_APART) {
        return refuse(format!("{} holds no years", year.name));
    }
    let of_row: Vec<Option<i64>> =
        weeks.iter().zip(&years).map(|(week, year)| Some((*year)? * 100 + (*week)?)).collect();
    Ok(Calendar::new(Kind::Weeks { year: Some(normalise(&year.name)) }, vec![year, column], of_row))
}

/// Week numbers beside a year that is written as no number, as in `FY26`: several of those have no order that is known.
fn one_year<'a>(
    frame: &Frame,
    column: &'a Column,
    weeks: &[Option<i64>],
    year: &'a Column,
) -> Result<Calendar<'a>, String> {
    let labels = year.keys().labels;
    if labels.len() > 1 {
        let (name, file) = (&column.name, frame.title());
        return Err(format!("{name} of {file} is of {} years, which {} writes as text", labels.len(), year.name));
    }
    let called = Some(format!("{} {}", normalise(&year.name), labels.join("")));
    Ok(Calendar::new(Kind::Weeks { year: called }, vec![year, column], weeks.to_vec()))
}

fn is_week(week: i64) -> bool {
    (1..=MOST_WEEKS).contains(&week)
}

fn whole(values: &[f64]) -> Vec<Option<i64>> {
    values.iter().map(|value| (!value.is_nan()).then_some(*value as i64)).collect()
}

/// The least and the greatest.
fn ends(values: &[Option<i64>]) -> Option<(i64, i64)> {
    values.iter().flatten().min().copied().zip(values.iter().flatten().max().copied())
}
