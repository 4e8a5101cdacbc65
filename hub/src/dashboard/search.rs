//! `/logs`: the lines of the whole fleet, searched in what the hub keeps of them. One form, one table, no scripts.

use super::layout::{self, Place};
use super::login::{Viewer, percent_encode};
use super::parts::{self, Tone};
use super::{Dashboard, PageError};
use crate::store::DeviceFilter;
use axum::extract::{Query, State};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use model::DeviceName;
use serde::Deserialize;
use std::future::Future;
use std::pin::Pin;

/// Lines on one page.
const PAGE: usize = 200;
/// Pages at most: whoever would turn further asks a narrower question.
const MOST_PAGES: usize = 50;

/// In the year 2200.
const MOST_SECOND: i64 = 7_258_118_400;
/// Names that the form offers.
const NAMES: usize = 500;

/// The levels that a line may have, the mildest first, with the words of the form.
const LEVELS: [(&str, &str); 6] = [
    ("trace", "trace and worse"),
    ("debug", "debug and worse"),
    ("info", "info and worse"),
    ("warn", "warn and worse"),
    ("error", "error and worse"),
    ("fatal", "fatal"),
];

/// How far back, in the words of the address and of the form.
const SPANS: [(&str, &str, i64); 5] = [
    ("15m", "15 minutes", 15),
    ("1h", "hour", 60),
    ("6h", "6 hours", 6 * 60),
    ("24h", "24 hours", 24 * 60),
    ("7d", "7 days", 7 * 24 * 60),
];

/// Which lines; what is empty does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFilter {
    /// Of this device.
    pub device: Option<DeviceName>,
    /// Of pods of this namespace.
    pub namespace: String,
    /// Of pods whose names begin so.
    pub pod: String,
    /// Of any of these levels; of none as well where the list is empty.
    pub levels: Vec<&'static str>,
    /// Which hold this text, whatever its case.
    pub text: String,
    /// Written after this,
    pub after: Timestamp,
    /// and not after this.
    pub until: Timestamp,
    /// So many at most, the newest first,
    pub limit: usize,
    /// after as many that are passed over.
    pub skip: usize,
}

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLine {
    /// When it was written, by the device's clock.
    pub time: Timestamp,
    /// Who sent it.
    pub device: String,
    /// Its level, where it says one.
    pub level: Option<String>,
    /// Of its pod; empty where no pod wrote it.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its container.
    pub container: String,
    /// `container`, `journald`, `syslog`, `file`, where it is known.
    pub source: String,
    /// Who wrote it: a workload, a unit, a program.
    pub service: String,
    /// The line.
    pub body: String,
}

/// Lines, the newest first; or in words for people why there are none.
pub type FoundLines = Result<Vec<FoundLine>, String>;

/// Knows what devices wrote; the hub's history does.
pub trait LogSearch: Send + Sync + 'static {
    /// Finds lines.
    fn search(&self, filter: LineFilter) -> Pin<Box<dyn Future<Output = FoundLines> + Send + '_>>;
}

/// What the form sends. Everything is text: a field that is wrong is shown again, with what is wrong about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    device: String,
    namespace: String,
    pod: String,
    level: String,
    text: String,
    last: String,
    until: String,
    page: String,
}

impl Asked {
    fn span(&self) -> (&'static str, &'static str, i64) {
        let known = SPANS.into_iter().find(|(word, ..)| *word == self.last);
        known.unwrap_or(SPANS[1])
    }

    fn page(&self) -> usize {
        self.page.parse().unwrap_or(0).min(MOST_PAGES - 1)
    }

    /// The end of the time that is searched; now where none is named.
    fn end(&self, now: Timestamp) -> Result<Timestamp, String> {
        let text = self.until.trim();
        if text.is_empty() {
            return Ok(now);
        }
        text.parse::<Timestamp>()
            .or_else(|_| {
                text.parse::<DateTime>()
                    .and_then(|time| TimeZone::UTC.to_timestamp(time))
            })
            .ok()
            // What the history can count in nanoseconds, by far.
            .filter(|time| (0..MOST_SECOND).contains(&time.as_second()))
            .ok_or_else(|| format!("{text:?} is no time since 1970: write it as 2026-01-31T18:30"))
    }

    fn device(&self) -> Result<Option<DeviceName>, String> {
        match self.device.trim() {
            "" => Ok(None),
            name => name.parse().map(Some).map_err(|_| {
                format!("{name:?} is no name of a device: these are small letters, digits and hyphens")
            }),
        }
    }

    fn levels(&self) -> Vec<&'static str> {
        let from = LEVELS.iter().position(|(level, _)| *level == self.level);
        from.map_or_else(Vec::new, |from| {
            LEVELS[from..].iter().map(|(level, _)| *level).collect()
        })
    }

    /// The address of another page of the same search, whose end stays where it is.
    fn link(&self, end: Timestamp, page: usize) -> String {
        let end = end.to_string();
        let page = page.to_string();
        let pairs = [
            ("device", &self.device),
            ("namespace", &self.namespace),
            ("pod", &self.pod),
            ("level", &self.level),
            ("text", &self.text),
            ("last", &self.last),
            ("until", &end),
            ("page", &page),
        ];
        let given = pairs.iter().filter(|(_, value)| !value.is_empty());
        let query: Vec<String> = given
            .map(|(name, value)| format!("{name}={}", percent_encode(value)))
            .collect();
        format!("/logs?{}", query.join("&"))
    }
}

/// `GET /logs`.
pub(super) async fn page(
    viewer: Viewer,
    State(dashboard): State<Dashboard>,
    Query(asked): Query<Asked>,
) -> Result<Markup, PageError> {
    let now = dashboard.store.options().clock.now();
    let (device, end) = (asked.device(), asked.end(now));
    let result = match (&device, &end) {
        (Ok(device), Ok(end)) => {
            let found = search(&dashboard, &asked, device.clone(), *end).await;
            results(&asked, *end, &found)
        }
        // What is wrong is said at its field.
        _ => html! {},
    };
    let known = DeviceFilter {
        search: String::new(),
        health: None,
        offset: 0,
        limit: NAMES,
    };
    let devices = dashboard.store.fleet(known).await?.devices;
    let names: Vec<DeviceName> = devices.into_iter().map(|device| device.name).collect();
    let content = html! {
        div .title { h1 { "Logs" } p .muted { "What containers and systems of the fleet wrote, as far as the hub keeps it." } }
        (form(&asked, &names, device.err().as_deref(), end.err().as_deref()))
        (result)
    };
    Ok(layout::page(&viewer, Place::Logs, "Logs", None, &content))
}

async fn search(
    dashboard: &Dashboard,
    asked: &Asked,
    device: Option<DeviceName>,
    end: Timestamp,
) -> FoundLines {
    let Some(source) = &dashboard.lines else {
        return Err("This hub keeps no log lines.".to_owned());
    };
    let (.., minutes) = asked.span();
    let filter = LineFilter {
        device,
        namespace: asked.namespace.trim().to_owned(),
        pod: asked.pod.trim().to_owned(),
        levels: asked.levels(),
        text: asked.text.clone(),
        after: end
            .saturating_sub(SignedDuration::from_mins(minutes))
            .unwrap_or(Timestamp::MIN),
        until: end,
        // One more tells whether there is another page.
        limit: PAGE + 1,
        skip: asked.page() * PAGE,
    };
    source.search(filter).await
}

fn form(asked: &Asked, names: &[DeviceName], bad_device: Option<&str>, bad_end: Option<&str>) -> Markup {
    let (last, ..) = asked.span();
    html! {
        form .logsearch role="search" aria-label="Log lines" method="get" action="/logs" {
            div .field.grow {
                label for="log-text" { "Text" }
                input #log-text type="search" name="text" value=(asked.text) autocomplete="off" spellcheck="false";
            }
            div .field {
                label for="log-level" { "Level" }
                select #log-level name="level" {
                    option value="" { "any, or none" }
                    @for (level, words) in LEVELS { option value=(level) selected[asked.level == level] { (words) } }
                }
            }
            div .field {
                label for="log-device" { "Device" }
                input #log-device name="device" value=(asked.device) list="log-devices" autocomplete="off" spellcheck="false"
                    aria-invalid=[bad_device.map(|_| "true")] aria-describedby=[bad_device.map(|_| "log-device-bad")];
                datalist #log-devices { @for name in names { option value=(name) {} } }
                (complaint("log-device-bad", bad_device))
            }
            div .field {
                label for="log-namespace" { "Namespace" }
                input #log-namespace name="namespace" value=(asked.namespace) autocomplete="off" spellcheck="false";
            }
            div .field {
                label for="log-pod" { "Pod, or how its name begins" }
                input #log-pod name="pod" value=(asked.pod) autocomplete="off" spellcheck="false";
            }
            div .field {
                label for="log-last" { "In the last" }
                select #log-last name="last" {
                    @for (word, words, _) in SPANS { option value=(word) selected[word == last] { (words) } }
                }
            }
            div .field {
                label for="log-until" { "Before (UTC; now where empty)" }
                input #log-until name="until" value=(asked.until) placeholder="2026-01-31T18:30" autocomplete="off" spellcheck="false"
                    aria-invalid=[bad_end.map(|_| "true")] aria-describedby=[bad_end.map(|_| "log-until-bad")];
                (complaint("log-until-bad", bad_end))
            }
            button .primary type="submit" { "Search" }
        }
    }
}

fn complaint(id: &str, what: Option<&str>) -> Markup {
    html! { @if let Some(what) = what { p #(id) .trouble role="alert" { (what) } } }
}

fn results(asked: &Asked, end: Timestamp, found: &FoundLines) -> Markup {
    let lines = match found {
        Ok(lines) => lines,
        Err(why) => {
            return html! { p .notice.is-bad role="alert" { (parts::icon(Tone::Bad)) span { (why) } } };
        }
    };
    let page = asked.page();
    let shown = &lines[..lines.len().min(PAGE)];
    let more = lines.len() > PAGE && page + 1 < MOST_PAGES;
    let (_, span, _) = asked.span();
    html! {
        p #log-count .muted role="status" {
            @if shown.is_empty() && page == 0 { "No line matches in the " (span) " before " (moment(end)) "." }
            @else if shown.is_empty() { "No more lines." }
            @else {
                "Lines " (page * PAGE + 1) " to " (page * PAGE + shown.len()) ", the newest first, of the " (span) " before " (moment(end)) "."
                @if lines.len() > PAGE && !more { " There are more than are shown: narrow the search." }
            }
        }
        @if !shown.is_empty() { (parts::scrolling("Log lines", &table(shown, &asked.text))) }
        nav .pager aria-label="Pages" {
            @if page > 0 { a rel="prev" href=(asked.link(end, page - 1)) { "Newer" } }
            @if more { a rel="next" href=(asked.link(end, page + 1)) { "Older" } }
        }
    }
}

fn table(lines: &[FoundLine], text: &str) -> Markup {
    html! {
        table .loglines {
            caption .hidden { "Log lines, the newest first" }
            thead { tr {
                th scope="col" { "Time (UTC)" } th scope="col" { "Level" } th scope="col" { "Where" } th scope="col" { "Line" }
            } }
            tbody {
                @for line in lines {
                    tr {
                        td .nowrap { (moment(line.time)) }
                        td { (level(line.level.as_deref())) }
                        td .from {
                            a href=(format!("/devices/{}", line.device)) { (line.device) }
                            @if !line.pod.is_empty() { span .sub { (line.namespace) "/" (line.pod) } }
                            @else if !line.source.is_empty() { span .sub { (line.source) " " (line.service) } }
                            @if !line.container.is_empty() { span .sub { (line.container) } }
                        }
                        td .line { (marked(&line.body, text)) }
                    }
                }
            }
        }
    }
}

/// To the millisecond, since lines are told apart by that.
fn moment(time: Timestamp) -> Markup {
    let shown = time.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
    html! { time datetime=(time) { (shown) } }
}

fn level(level: Option<&str>) -> Markup {
    let tone = match level {
        None => return parts::none(),
        Some("fatal" | "error") => Tone::Bad,
        Some("warn") => Tone::Warn,
        Some(_) => Tone::Quiet,
    };
    parts::badge(tone, level.unwrap_or_default())
}

/// The line with what was searched for marked, where it stands there letter by letter but for the case of ASCII.
fn marked(body: &str, text: &str) -> Markup {
    let mut pieces = Vec::new();
    let mut rest = body;
    if !text.is_empty() {
        let (folded, text) = (body.to_ascii_lowercase(), text.to_ascii_lowercase());
        let mut from = 0;
        while let Some(at) = folded[from..].find(&text) {
            let (start, end) = (from + at, from + at + text.len());
            pieces.push((&body[from..start], &body[start..end]));
            from = end;
        }
        rest = &body[from..];
    }
    html! { @for (before, hit) in &pieces { (before) mark { (hit) } } (rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(until: &str) -> Asked {
        Asked {
            until: until.to_owned(),
            ..Asked::default()
        }
    }

    #[test]
    fn an_end_is_a_time_or_now() {
        let now: Timestamp = "2026-11-25T10:00:00Z".parse().unwrap();
        assert_eq!(asked(" ").end(now), Ok(now));
        for text in [
            "2026-01-31T18:30",
            "2026-01-31 18:30:00",
            "2026-01-31T18:30:00Z",
            "2026-01-31T19:30:00+01:00",
        ] {
            assert_eq!(
                asked(text).end(now),
                Ok("2026-01-31T18:30:00Z".parse().unwrap()),
                "{text}"
            );
        }
        assert!(asked("9999-01-01T00:00").end(now).is_err());
        let why = asked("yesterday").end(now).unwrap_err();
        assert!(
            why.contains("\"yesterday\"") && why.contains("2026-01-31T18:30"),
            "{why}"
        );
    }

    #[test]
    fn a_page_is_of_the_same_search() {
        let asked = Asked {
            device: "gate-1".into(),
            text: "a&b=\"c\"".into(),
            last: "6h".into(),
            ..Asked::default()
        };
        let end = "2026-11-25T10:00:00.123456789Z".parse().unwrap();
        assert_eq!(
            asked.link(end, 2),
            "/logs?device=gate-1&text=a%26b%3D%22c%22&last=6h&until=2026-11-25T10%3A00%3A00.123456789Z&page=2"
        );
    }

    #[test]
    fn levels_are_those_from_here_on() {
        let levels = |level: &str| {
            Asked {
                level: level.into(),
                ..Asked::default()
            }
            .levels()
        };
        assert_eq!(levels("error"), ["error", "fatal"]);
        assert_eq!(levels(""), Vec::<&str>::new());
        assert_eq!(levels("' OR 1=1"), Vec::<&str>::new());
    }

    #[test]
    fn hits_are_marked_and_markup_is_text() {
        assert_eq!(
            marked("Gate <b> GATE", "gate").into_string(),
            "<mark>Gate</mark> &lt;b&gt; <mark>GATE</mark>"
        );
        assert_eq!(marked("Ünïted", "ï").into_string(), "Ün<mark>ï</mark>ted");
        assert_eq!(marked("plain", "").into_string(), "plain");
    }
}
