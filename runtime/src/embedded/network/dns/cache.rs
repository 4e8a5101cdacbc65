//! Answers of other resolvers, kept past their time for when the link is down (RFC 8767).

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Entries held; at a few hundred bytes each, well below a megabyte.
const MOST: usize = 1024;
/// How long past its time an answer may still be given.
const STALE: Duration = Duration::from_secs(3 * 24 * 3600);
/// Seconds that a client may keep an answer past its time.
const STALE_TTL: u32 = 30;
/// Longest time that an answer counts as fresh.
const LONGEST: u32 = 24 * 3600;
/// Longest time that a "no such name" counts as fresh (RFC 2308 allows more; names appear).
const LONGEST_NO: u32 = 300;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    name: Name,
    kind: RecordType,
    dnssec: bool,
}

impl Key {
    /// The key of a question; `dnssec` is the client's DO bit.
    pub fn of(query: &Query, dnssec: bool) -> Self {
        Self {
            name: query.name.to_lowercase(),
            kind: query.query_type,
            dnssec,
        }
    }
}

#[derive(Debug)]
struct Entry {
    message: Message,
    stored: Instant,
    fresh_for: Duration,
}

/// What the cache has.
#[derive(Debug)]
pub enum Cached {
    /// Within its time, with the time that is left.
    Fresh(Message),
    /// Past its time.
    Stale(Message),
    /// Nothing.
    Nothing,
}

/// A bounded cache.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
}

impl Cache {
    /// What is known about `key` at `now`.
    pub fn get(&self, key: &Key, now: Instant) -> Cached {
        let Some(entry) = self.entries.get(key) else {
            return Cached::Nothing;
        };
        let age = now.saturating_duration_since(entry.stored);
        let mut message = entry.message.clone();
        if age < entry.fresh_for {
            let passed = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
            each_ttl(&mut message, |ttl| ttl.saturating_sub(passed).max(1));
            Cached::Fresh(message)
        } else if age < entry.fresh_for + STALE {
            each_ttl(&mut message, |_| STALE_TTL);
            Cached::Stale(message)
        } else {
            Cached::Nothing
        }
    }

    /// Keeps an answer, if it is one to keep.
    pub fn put(&mut self, key: Key, message: &Message, now: Instant) {
        let Some(fresh_for) = fresh_for(message) else {
            return;
        };
        if self.entries.len() >= MOST && !self.entries.contains_key(&key) {
            self.make_room(now);
        }
        let entry = Entry {
            message: message.clone(),
            stored: now,
            fresh_for,
        };
        self.entries.insert(key, entry);
    }

    /// Drops the eighth that has been past its time for longest, so that room is rarely made.
    fn make_room(&mut self, now: Instant) {
        let mut ends: Vec<(Instant, Key)> = self
            .entries
            .iter()
            .map(|(key, entry)| (entry.stored + entry.fresh_for, key.clone()))
            .collect();
        ends.sort_by_key(|(end, _)| *end);
        for (_, key) in ends.into_iter().take(MOST / 8) {
            self.entries.remove(&key);
        }
        tracing::trace!(left = self.entries.len(), ?now, "made room for names");
    }
}

fn each_ttl(message: &mut Message, change: impl Fn(u32) -> u32) {
    let sections = [
        &mut message.answers,
        &mut message.authorities,
        &mut message.additionals,
    ];
    for record in sections.into_iter().flatten() {
        record.ttl = change(record.ttl);
    }
}

/// How long an answer counts as fresh; `None` for one that is not to be kept.
fn fresh_for(message: &Message) -> Option<Duration> {
    if message.metadata.truncation {
        return None;
    }
    let seconds = match message.metadata.response_code {
        ResponseCode::NoError if !message.answers.is_empty() => {
            let shortest = message.answers.iter().map(|record| record.ttl).min()?;
            shortest.min(LONGEST)
        }
        ResponseCode::NoError | ResponseCode::NXDomain => message
            .authorities
            .iter()
            .find_map(|record| match &record.data {
                RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
                _ => None,
            })?
            .min(LONGEST_NO),
        _ => return None,
    };
    Some(Duration::from_secs(u64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::A;

    fn answer(name: &str, ttl: u32) -> (Key, Message) {
        let name = Name::from_ascii(name).unwrap();
        let query = Query::query(name.clone(), RecordType::A);
        let mut message = Message::response(1, OpCode::Query);
        message.add_answer(Record::from_rdata(name, ttl, RData::A(A::new(192, 0, 2, 1))));
        (Key::of(&query, false), message)
    }

    #[test]
    fn an_answer_ages_and_then_is_stale() {
        let mut cache = Cache::default();
        let start = Instant::now();
        let (key, message) = answer("Example.com.", 60);
        cache.put(key, &message, start);
        let key = answer("example.com.", 60).0;
        let at = |seconds| start + Duration::from_secs(seconds);
        let Cached::Fresh(fresh) = cache.get(&key, at(20)) else {
            panic!("not fresh")
        };
        assert_eq!(fresh.answers[0].ttl, 40);
        let Cached::Stale(stale) = cache.get(&key, at(3600)) else {
            panic!("not stale")
        };
        assert_eq!(stale.answers[0].ttl, STALE_TTL);
        assert!(matches!(cache.get(&key, at(4 * 24 * 3600)), Cached::Nothing));
    }

    #[test]
    fn it_stays_bounded_and_drops_the_oldest() {
        let mut cache = Cache::default();
        let start = Instant::now();
        for i in 0..3 * MOST {
            let (key, message) = answer(&format!("n{i}.example."), 60);
            cache.put(key, &message, start + Duration::from_secs(i as u64));
            assert!(cache.entries.len() <= MOST);
        }
        let newest = answer(&format!("n{}.example.", 3 * MOST - 1), 60).0;
        assert!(cache.entries.contains_key(&newest));
        assert!(!cache.entries.contains_key(&answer("n0.example.", 60).0));
    }

    #[test]
    fn failures_and_cut_answers_are_not_kept() {
        let (_, mut message) = answer("example.com.", 60);
        message.metadata.truncation = true;
        assert_eq!(fresh_for(&message), None);
        message.metadata.truncation = false;
        message.metadata.response_code = ResponseCode::ServFail;
        assert_eq!(fresh_for(&message), None);
    }
}
