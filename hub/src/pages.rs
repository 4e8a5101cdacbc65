//! The dashboard at this hub: its pages, with the output of containers through the devices' sessions.

use crate::dashboard::charts::{ChartSource, Charts, Window};
use crate::dashboard::search::{FoundLines, LineFilter, LogSearch};
use crate::dashboard::{self, Dashboard, LogChunks, LogSource, LogTail};
use crate::logs::Answer;
use crate::{Hub, history};
use axum::Router;
use http_body::Body as _;
use jiff::Timestamp;
use model::DeviceName;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use wire::api::ERROR_TRAILER;
use wire::frame::{LogAsk, Question};

/// All pages of this hub.
pub(crate) fn router(hub: &Arc<Hub>) -> Router {
    let logs = Arc::new(SessionLogs(hub.clone()));
    let pages = Dashboard::new(hub.store.clone(), logs, true, hub.tasks.stop());
    let past = Arc::new(PastOfHub(hub.clone()));
    dashboard::router(pages.with_charts(past.clone()).with_lines(past))
}

/// Asks the hub's history.
struct PastOfHub(Arc<Hub>);

impl ChartSource for PastOfHub {
    fn charts(
        &self,
        device: Option<&DeviceName>,
        window: Window,
        now: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Charts> + Send + '_>> {
        let device = device.cloned();
        Box::pin(async move { history::charts(&self.0, device.as_ref(), window, now).await })
    }
}

impl LogSearch for PastOfHub {
    fn search(&self, filter: LineFilter) -> Pin<Box<dyn Future<Output = FoundLines> + Send + '_>> {
        Box::pin(async move { history::lines(&self.0, &filter).await })
    }
}

/// Asks devices through their sessions.
struct SessionLogs(Arc<Hub>);

impl LogSource for SessionLogs {
    fn tail(
        &self,
        device: &DeviceName,
        tail: LogTail,
    ) -> Pin<Box<dyn Future<Output = Result<LogChunks, String>> + Send + '_>> {
        let device = device.clone();
        let ask = LogAsk {
            namespace: tail.namespace,
            pod: tail.pod,
            container: Some(tail.container),
            follow: tail.follow,
            timestamps: true,
            tail: Some(tail.lines.into()),
            ..LogAsk::default()
        };
        Box::pin(async move {
            let asked = self.0.ask(&device, Question::Logs(ask)).await;
            let answer = asked.map_err(|refusal| refusal.problem.message)?;
            let (out, chunks) = mpsc::channel(8);
            tokio::spawn(pass_on(answer, out));
            Ok(chunks)
        })
    }
}

/// Ends, and lets the device stop, when nobody reads any more.
async fn pass_on(mut answer: Answer, out: mpsc::Sender<Result<bytes::Bytes, String>>) {
    loop {
        let frame = tokio::select! {
            frame = poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)) => frame,
            () = out.closed() => return,
        };
        let Some(Ok(frame)) = frame else { return };
        let item = match frame.into_data() {
            Ok(data) => Ok(data),
            Err(frame) => match frame
                .trailers_ref()
                .and_then(|trailers| trailers.get(ERROR_TRAILER))
            {
                Some(why) => Err(String::from_utf8_lossy(why.as_bytes()).into_owned()),
                None => return,
            },
        };
        if out.send(item).await.is_err() {
            return;
        }
    }
}
