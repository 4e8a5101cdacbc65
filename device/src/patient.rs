//! Questions to the kernel that may never be answered: a gated engine's sensor, a file system whose server is gone.
//!
//! They are asked one after another on a thread of their own. One that is not answered in time is passed over and
//! left alone while it hangs; a new thread goes on with the next.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A question; `None` where there is no answer.
pub type Question<T> = Box<dyn FnOnce() -> Option<T> + Send>;
type Queue<T> = Arc<Mutex<VecDeque<Question<T>>>>;

/// Asks, and remembers what hangs.
pub struct Patient<T> {
    each: Duration,
    hanging: BTreeMap<PathBuf, Receiver<Option<T>>>,
}

impl<T> std::fmt::Debug for Patient<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patient")
            .field("hanging", &self.hanging.keys())
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Patient<T> {
    /// Waits so long for each answer.
    pub fn new(each: Duration) -> Self {
        Self {
            each,
            hanging: BTreeMap::new(),
        }
    }

    /// Answers that came in time, in the order of the questions.
    pub fn ask(&mut self, questions: Vec<(PathBuf, Question<T>)>) -> Vec<(PathBuf, T)> {
        // What hung and has answered may be asked again; that answer is too old.
        self.hanging
            .retain(|_, answer| matches!(answer.try_recv(), Err(TryRecvError::Empty)));
        let open = questions
            .into_iter()
            .filter(|(path, _)| !self.hanging.contains_key(path));
        let (mut order, open): (VecDeque<PathBuf>, VecDeque<Question<T>>) = open.unzip();
        let queue: Queue<T> = Arc::new(Mutex::new(open));
        let mut found = Vec::new();
        while !order.is_empty() {
            let Some((answers, left_alone)) = work(Arc::clone(&queue)) else {
                return found;
            };
            while let Some(path) = order.pop_front() {
                match answers.recv_timeout(self.each) {
                    Ok(answer) => found.extend(answer.map(|answer| (path, answer))),
                    Err(_) => {
                        left_alone.store(true, Ordering::Release);
                        self.hanging.insert(path, answers);
                        break;
                    }
                }
            }
        }
        found
    }

    /// How many questions hang.
    pub fn hanging(&self) -> usize {
        self.hanging.len()
    }
}

/// A thread that answers questions until it is left alone or there are no more.
fn work<T: Send + 'static>(queue: Queue<T>) -> Option<(Receiver<Option<T>>, Arc<AtomicBool>)> {
    let (sender, answers) = channel();
    let left_alone = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&left_alone);
    let next = move || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let started = thread::Builder::new()
        .name("sensors".into())
        .stack_size(64 * 1024)
        .spawn(move || {
            while !ends.load(Ordering::Acquire) {
                let Some(question) = next() else { return };
                if sender.send(question()).is_err() {
                    return;
                }
            }
        });
    started.is_ok().then_some((answers, left_alone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;
    use std::time::Instant;

    #[test]
    fn what_hangs_is_passed_over_until_it_answers() {
        let mut patient = Patient::new(Duration::from_secs(1));
        let (open, gate) = sync_channel::<()>(0);
        let gate = Arc::new(Mutex::new(gate));
        let ask = |patient: &mut Patient<u32>| {
            let questions = (0..4_u32).map(|n| {
                let gate = Arc::clone(&gate);
                let question: Question<u32> = Box::new(move || {
                    if n == 1 {
                        gate.lock().unwrap().recv().ok()?;
                    }
                    (n != 2).then_some(n)
                });
                (PathBuf::from(n.to_string()), question)
            });
            let found = patient.ask(questions.collect());
            found.into_iter().map(|(_, n)| n).collect::<Vec<_>>()
        };
        assert_eq!(ask(&mut patient), [0, 3]);
        assert_eq!((ask(&mut patient), patient.hanging()), (vec![0, 3], 1));
        drop(open);
        // It answers that it failed; from then on it is asked again, and answers so at once.
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            assert_eq!(ask(&mut patient), [0, 3]);
            if patient.hanging() == 0 {
                return;
            }
            assert!(Instant::now() < deadline);
        }
    }
}
