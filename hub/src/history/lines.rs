//! What the dashboard's search of log lines finds.

use crate::Hub;
use crate::dashboard::search::{FoundLine, FoundLines, LineFilter};
use serde_json::Value;

pub(crate) async fn lines(hub: &Hub, filter: &LineFilter) -> FoundLines {
    match hub.query(&sql(filter), filter.limit).await {
        Ok(answer) => Ok(answer.rows.iter().filter_map(|row| line(row)).collect()),
        Err(refusal) => Err(refusal.problem.message),
    }
}

fn sql(filter: &LineFilter) -> String {
    let mut wheres = vec![
        format!("time > '{}'", filter.after),
        format!("time <= '{}'", filter.until),
    ];
    if let Some(device) = &filter.device {
        wheres.push(format!("device = {}", literal(device.as_str())));
    }
    if !filter.namespace.is_empty() {
        wheres.push(format!("namespace = {}", literal(&filter.namespace)));
    }
    if !filter.pod.is_empty() {
        wheres.push(format!("starts_with(pod, {})", literal(&filter.pod)));
    }
    if !filter.levels.is_empty() {
        let levels: Vec<String> = filter.levels.iter().map(|level| literal(level)).collect();
        wheres.push(format!("severity IN ({})", levels.join(", ")));
    }
    if !filter.text.is_empty() {
        wheres.push(format!(
            "strpos(lower(body), lower({})) > 0",
            literal(&filter.text)
        ));
    }
    // Lines of one moment keep their places from page to page.
    format!(
        "SELECT time, device, severity, namespace, pod, container, source, attributes['service.name'], body FROM logs WHERE {}
         ORDER BY time DESC, device, namespace, pod, container, body LIMIT {} OFFSET {}",
        wheres.join(" AND "),
        filter.limit,
        filter.skip
    )
}

/// Text as SQL writes it: a quote is doubled, and nothing else means anything.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn line(row: &[Value]) -> Option<FoundLine> {
    let [
        time,
        device,
        level,
        namespace,
        pod,
        container,
        source,
        service,
        body,
    ] = row
    else {
        return None;
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(FoundLine {
        time: time.as_str()?.parse().ok()?,
        device: text(device),
        level: level.as_str().map(str::to_owned),
        namespace: text(namespace),
        pod: text(pod),
        container: text(container),
        source: text(source),
        service: text(service),
        body: text(body),
    })
}
