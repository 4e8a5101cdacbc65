//! The answer to an append: awaited or waited for.

use crate::error::AppendError;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Becomes the record's sequence number once the stream's promise holds for it.
///
/// Dropping it does not take the record back.
#[must_use = "the record is not durable before this answers"]
#[derive(Debug)]
pub struct Pending(pub(crate) Arc<Ticket>);

impl Pending {
    /// Blocks until answered.
    pub fn wait(self) -> Result<u64, AppendError> {
        let mut held = self.0.lock();
        loop {
            if let Some(answer) = &held.answer {
                return answer.clone();
            }
            held.blocked = true;
            held = self.0.answered.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Future for Pending {
    type Output = Result<u64, AppendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut held = self.0.lock();
        match &held.answer {
            Some(answer) => Poll::Ready(answer.clone()),
            None => {
                held.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The I/O thread's end.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    held: Mutex<Held>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    answer: Option<Result<u64, AppendError>>,
    waker: Option<Waker>,
    blocked: bool,
}

impl Ticket {
    pub(crate) fn answer(&self, answer: Result<u64, AppendError>) {
        let mut held = self.lock();
        held.answer = Some(answer);
        let waker = held.waker.take();
        let blocked = held.blocked;
        drop(held);
        if let Some(waker) = waker {
            waker.wake();
        }
        // A wake without a waiter is a system call for nothing, and there is one per record.
        if blocked {
            self.answered.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
