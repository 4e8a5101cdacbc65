//! The dashboard in a real Chromium: what people see, without reload, by keyboard, and with nothing from elsewhere.

mod browser;
mod device;
mod log_search;
mod seed;
mod site;
mod with_hub;

use browser::Browser;
use hub::store::Options;
use jiff::Timestamp;
use model::Phase;
use serde_json::json;
use site::{Site, made};
use std::time::Duration;

#[tokio::test]
async fn only_those_who_log_in_see_the_fleet() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let site = Site::calm().await;
    browser.open(&format!("{}/devices/crane-cam-1", site.base)).await;
    browser.until("location.pathname === '/login'").await;
    browser
        .run("token.value = 'wrong'; document.querySelector('.login form').submit()")
        .await;
    browser
        .until("document.querySelector('[role=alert]')?.textContent.includes('not known')")
        .await;
    let fill = format!(
        "token.value = '{}'; document.querySelector('.login form').submit()",
        seed::TOKEN
    );
    browser.run(&fill).await;
    browser
        .until("location.pathname === '/devices/crane-cam-1' && document.querySelector('h1')")
        .await;
    assert_eq!(
        browser.run("return document.cookie").await,
        json!(""),
        "scripts must not see the session"
    );

    // A login code opens one session only.
    site.log_in(&browser, "/").await;
    browser
        .until("document.querySelectorAll('#rows tr').length === 6")
        .await;
    browser.open(&format!("{}/login?code=code-/", site.base)).await;
    browser
        .until("document.querySelector('[role=alert]')?.textContent.includes('used already')")
        .await;

    browser.open(&site.base).await;
    browser
        .run("document.querySelector('form[action=\"/logout\"]').submit()")
        .await;
    browser.until("location.pathname === '/login'").await;
    browser.open(&site.base).await;
    browser.until("location.pathname === '/login'").await;
    let actions: Vec<(String, String)> = site
        .store
        .audit_rows(None, 100)
        .await
        .unwrap()
        .into_iter()
        .filter(|row| row.action == "login")
        .map(|row| (row.who, row.outcome))
        .collect();
    let expected = [
        ("ann", "ok"),
        ("ann", "ok"),
        ("somebody", "the token is not known"),
    ];
    assert_eq!(actions, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[tokio::test]
async fn the_fleet_is_shown_and_a_change_appears_without_reload() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let site = Site::calm().await;
    site.log_in(&browser, "/").await;
    browser
        .until("document.getElementById('live').classList.contains('on')")
        .await;
    let row = |name: &str| format!("document.getElementById('row-{name}').innerText");
    for (name, words) in [
        (
            "crane-cam-1",
            ["Ready", "jetson-orin-nx", "Up", "8c1f0a62d9e4", "61", "°C"],
        ),
        (
            "crane-cam-2",
            ["Progressing", "8c1f0a62d9e4 →", "e27b94c10f35", "3/4", "88", "71"],
        ),
        (
            "gate-reader-2",
            [
                "Rolled back",
                "raspberry-pi-5",
                "Candidate 51aa7de0c8b2 failed",
                "main-gate",
                "17",
                "25",
            ],
        ),
        (
            "tide-gauge-1",
            [
                "Unknown",
                "Down",
                "2 h 14 min ago",
                "Its link is down",
                "1840",
                "3/3",
            ],
        ),
        (
            "tide-gauge-2",
            [
                "Ready",
                "Source: clusters/edge-pi/apps.yaml:12",
                "3/3",
                "now",
                "46",
                "33",
            ],
        ),
    ] {
        let text = browser.run(&format!("return {}", row(name))).await;
        let text = text.as_str().unwrap();
        words
            .iter()
            .for_each(|word| assert!(text.contains(word), "{name}: {word:?} in {text}"));
    }
    // Unknown does not look like failed, and what it said last does not look like now.
    let then = "[...document.querySelectorAll('#row-tide-gauge-1 .then')].length";
    assert_eq!(browser.run(&format!("return {then}")).await, json!(5));

    browser
        .run("window.untouched = true; document.getElementById('link-gate-reader-1').focus()")
        .await;
    let mut told = seed::status(&made("gate-reader-1"), Timestamp::now());
    told.phase = Phase::Degraded;
    told.facts.cpu_percent = Some(97.0);
    told.conditions[0].message = "Deployment badge-reader: <script>alert(1)</script>".into();
    seed::say(&site.store, &told).await;
    browser
        .until(&format!(
            "{}.includes('Degraded') && {}.includes('97')",
            row("gate-reader-1"),
            row("gate-reader-1")
        ))
        .await;
    assert_eq!(
        browser.run("return window.untouched").await,
        json!(true),
        "the page was loaded anew"
    );
    assert_eq!(
        browser.run("return document.activeElement.id").await,
        json!("link-gate-reader-1"),
        "the focus was lost"
    );
    browser
        .until("document.getElementById('said').textContent === 'gate-reader-1 is now Degraded'")
        .await;
    assert_eq!(
        browser
            .run("return document.querySelectorAll('#rows script').length")
            .await,
        json!(0)
    );
    browser
        .until("document.querySelector('.chip.is-bad .count').textContent === '1'")
        .await;

    // A device that joins appears, one that matches no filter does not.
    browser.open(&format!("{}/?health=Degraded", site.base)).await;
    browser
        .until("document.querySelectorAll('#rows tr').length === 1")
        .await;
    browser
        .until("document.getElementById('live').classList.contains('on')")
        .await;
    let mut told = seed::status(&made("crane-cam-1"), Timestamp::now());
    told.phase = Phase::Degraded;
    seed::say(&site.store, &told).await;
    browser
        .until("document.querySelectorAll('#rows tr').length === 2")
        .await;
    browser
        .run("q.value = 'gate'; q.dispatchEvent(new Event('input', { bubbles: true }))")
        .await;
    browser
        .until("document.querySelectorAll('#rows tr').length === 1 && location.search.includes('q=gate')")
        .await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn silence_becomes_visible_by_itself() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let site = Site::start(Options {
        heartbeat: Duration::from_secs(2),
        missed: 2,
        ..Options::default()
    })
    .await;
    site.log_in(&browser, "/").await;
    // Nothing is written from here on: time alone makes it so.
    browser
        .until("document.querySelectorAll('#rows tr.is-unknown').length === 6")
        .await;
    let text = browser
        .run("return document.getElementById('row-crane-cam-1').innerText")
        .await;
    assert!(text.as_str().unwrap().contains("Silent"), "{text}");
}

#[tokio::test]
async fn a_device_page_tells_what_runs_and_why_and_tails_logs() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let site = Site::calm().await;
    site.log_in(&browser, "/devices/gate-reader-2").await;
    let text = |id: &str| format!("document.getElementById('{id}').innerText");
    for (id, words) in [
        ("head", vec!["Rolled back", "Candidate 51aa7de0c8b2 failed"]),
        (
            "generation",
            vec![
                "8c1f0a62d9e4",
                "51aa7de0c8b2",
                seed::FAILURE,
                "Raise the camera frame rate",
            ],
        ),
        (
            "workloads",
            vec![
                "badge-reader-90aa-0",
                "10.88.0.6",
                "hub.harbour.example/badge-reader:3.1",
                "2/2",
            ],
        ),
        (
            "plan",
            vec![
                "Deployment.apps/edge/badge-reader",
                "keep",
                "it runs from this template",
            ],
        ),
        ("events", vec!["RolledBack", "back to 8c1f0a62d9e4"]),
        (
            "machine",
            vec!["Raspberry Pi 5", "cpu-thermal", "12 d 5 h", "10.20.2.22"],
        ),
        ("conditions", vec!["SourceReady", "Fetched"]),
        ("trust", vec!["operational certificate"]),
    ] {
        let shown = browser.run(&format!("return {}", text(id))).await;
        words.iter().for_each(|word| {
            assert!(
                shown.as_str().unwrap().contains(word),
                "{id}: {word:?} in {shown}"
            )
        });
    }
    browser
        .until(&format!(
            "/events\\s+spool 1 · up to 6\\s+6\\s+0\\s+0\\s+2/.test({})",
            text("streams")
        ))
        .await;

    browser
        .run("document.querySelector('a.log[data-log=\"badge-reader-90aa-0/reader\"]').click()")
        .await;
    browser
        .until(&format!(
            "{}.includes('reader: handled request 23')",
            text("log-lines")
        ))
        .await;
    // What a container prints is text, never markup.
    assert_eq!(
        browser
            .run("return document.querySelectorAll('#log-lines b').length")
            .await,
        json!(0)
    );
    browser.run("document.getElementById('log-lines').focus()").await;
    browser.press("\u{e00c}").await;
    browser
        .until("document.getElementById('log').hidden && document.activeElement.className === 'log'")
        .await;

    let mut told = seed::status(&made("gate-reader-2"), Timestamp::now());
    told.workloads[0].pods[0].restarts = 41;
    seed::say(&site.store, &told).await;
    browser
        .until(&format!("{}.includes('41')", text("workloads")))
        .await;

    browser.open(&format!("{}/devices/tide-gauge-1", site.base)).await;
    browser
        .until("document.querySelector('.stale').innerText.includes('it may no longer hold')")
        .await;
    browser.run("document.querySelector('a.log').click()").await;
    browser
        .until(&format!(
            "{}.includes('The link to tide-gauge-1 is down')",
            text("log-state")
        ))
        .await;
    browser.open(&format!("{}/devices/nobody", site.base)).await;
    browser
        .until("document.querySelector('h1').textContent === 'No such device'")
        .await;
}

#[tokio::test]
async fn themes_keyboard_and_narrow_screens() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let site = Site::calm().await;
    site.log_in(&browser, "/").await;
    let ground = "return getComputedStyle(document.body).backgroundColor";
    let prefers = async |scheme: &str| {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.devtools("Emulation.setEmulatedMedia", features).await;
        browser.run(ground).await
    };
    let (light, dark) = (prefers("light").await, prefers("dark").await);
    assert_ne!(light, dark);
    // The choice holds against the system's, and over a reload.
    browser
        .run("document.querySelector('#theme button').click()")
        .await;
    assert_eq!(browser.run(ground).await, light);
    browser.open(&site.base).await;
    assert_eq!(browser.run(ground).await, light);

    // The first stop of the keyboard leads past the navigation.
    browser.press("\u{e004}").await;
    let skip = "document.activeElement.className === 'skip' && document.activeElement.getBoundingClientRect().top >= 0";
    browser.until(skip).await;
    browser.press("\u{e007}").await;
    browser.until("document.activeElement.id === 'main'").await;
    // Every stop after it can be seen to have the focus.
    for _ in 0..12 {
        browser.press("\u{e004}").await;
        let seen = "const e = document.activeElement, s = getComputedStyle(e); return e === document.body || s.outlineStyle !== 'none'";
        assert_eq!(
            browser.run(seen).await,
            json!(true),
            "{}",
            browser.run("return document.activeElement.outerHTML").await
        );
    }
    let landmarks = "return ['header', 'nav', 'main', 'table caption', 'th[scope=col]', 'th[scope=row]', '[aria-live]', 'form[role=search]'].filter(s => !document.querySelector(s))";
    assert_eq!(browser.run(landmarks).await, json!([]));

    for width in [360, 800, 900, 1024, 1280, 1920] {
        let screen = json!({"width": width, "height": 780, "deviceScaleFactor": 1, "mobile": false});
        browser
            .devtools("Emulation.setDeviceMetricsOverride", screen)
            .await;
        for page in ["/", "/devices/crane-cam-2", "/logs?text=request", "/audit"] {
            browser.open(&format!("{}{page}", site.base)).await;
            let wide = "return document.documentElement.scrollWidth - innerWidth";
            let wide = browser.run(wide).await.as_i64().unwrap();
            assert!(wide <= 0, "{page} at {width} scrolls sideways by {wide}");
        }
    }
}

#[tokio::test]
async fn text_stands_out_enough_to_be_read() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let site = Site::calm().await;
    site.log_in(&browser, "/").await;
    // WCAG 2.2, 1.4.3: 4.5 to 1, for every text on its own ground.
    let measure = "
      const lum = (c) => { const v = c.map((x) => x / 255).map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
      const read = (s) => s.match(/[\\d.]+/g).map(Number);
      const ground = (e) => { for (; e; e = e.parentElement) { const c = read(getComputedStyle(e).backgroundColor);
        if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
      const bad = [];
      for (const e of document.querySelectorAll('body *')) {
        if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility()) continue;
        const [a, b] = [lum(read(getComputedStyle(e).color)), lum(ground(e))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(`${e.outerHTML.slice(0, 80)} ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
      }
      return bad;";
    for scheme in ["light", "dark"] {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.devtools("Emulation.setEmulatedMedia", features).await;
        for page in [
            "/",
            "/devices/crane-cam-2",
            "/devices/gate-reader-2",
            "/devices/tide-gauge-1",
            "/logs?text=request&device=No%20name&until=never",
            "/logs?text=request",
            "/audit",
        ] {
            browser.open(&format!("{}{page}", site.base)).await;
            assert_eq!(browser.run(measure).await, json!([]), "{page}, {scheme}");
        }
    }
}

#[tokio::test]
async fn nothing_comes_from_elsewhere_and_nothing_runs_inline() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let site = Site::calm().await;
    site.log_in(&browser, "/").await;
    for page in ["/", "/devices/crane-cam-1", "/audit"] {
        browser.open(&format!("{}{page}", site.base)).await;
        browser
            .until("document.getElementById('live').classList.contains('on')")
            .await;
    }
    let requests = browser.requests().await;
    assert!(
        requests.iter().any(|url| url.ends_with("dashboard.js")),
        "{requests:?}"
    );
    let elsewhere: Vec<_> = requests
        .iter()
        .filter(|url| !url.starts_with(&site.base))
        .collect();
    assert_eq!(elsewhere, Vec::<&String>::new());
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    // What is asked for comes back as text only.
    let hostile = "%22%3E%3Cimg%20src=x%20onerror=%22window.owned=2%22%3E";
    browser.open(&format!("{}/?q={hostile}", site.base)).await;
    browser
        .until("document.getElementById('q').value.includes('<img') && !document.querySelector('img')")
        .await;
    browser.open(&format!("{}/devices/{hostile}", site.base)).await;
    browser
        .until(
            "document.querySelector('main p').textContent.includes('<img') && !document.querySelector('img')",
        )
        .await;
    // An answer of 404 is one, and is the only thing to be said.
    assert!(browser.complaints().await.iter().all(|text| text.contains("404")));
    // The policy stops what an injected element would do.
    browser.run("const s = document.createElement('script'); s.textContent = 'window.owned = 1'; document.body.append(s)").await;
    assert_eq!(browser.run("return window.owned ?? null").await, json!(null));
    let complaints = browser.complaints().await;
    assert!(
        complaints
            .iter()
            .any(|text| text.contains("Content Security Policy")),
        "{complaints:?}"
    );
}

#[tokio::test]
async fn browser_charts_show_gaps_as_gaps_and_have_their_numbers_behind_them() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let site = Site::calm().await;
    site.log_in(&browser, "/").await;
    browser
        .until("document.querySelectorAll('#charts figure').length === 3")
        .await;
    browser.open(&format!("{}/devices/crane-cam-1", site.base)).await;
    browser
        .until("document.querySelectorAll('#charts figure').length === 3")
        .await;
    // It was away once: each line has two pieces.
    let pieces = "return [...document.querySelectorAll('#charts path')].map(p => p.getAttribute('d').split('M').length - 1)";
    assert_eq!(browser.run(pieces).await, json!([2, 2, 2, 2, 2]));
    let said = "return [...document.querySelectorAll('#charts svg')].every(s => s.getAttribute('aria-labelledby').split(' ').every(id => document.getElementById(id).textContent.length > 10))";
    assert_eq!(browser.run(said).await, json!(true));
    let rows = "return document.querySelectorAll('#charts figure:first-of-type tbody tr').length";
    assert_eq!(browser.run(rows).await, json!(48));
    // Another window is a link, and works without scripts.
    browser
        .run("document.querySelector('.windows a[href*=\"7d\"]').click()")
        .await;
    browser
        .until("location.search === '?window=7d' && document.querySelector('.windows a[aria-current]').textContent === '7d'")
        .await;
    browser
        .until("document.querySelector('#charts title').textContent === 'CPU over the last 7 days'")
        .await;
    browser.open(&format!("{}/devices/tide-gauge-1", site.base)).await;
    browser
        .until(
            "document.getElementById('charts').innerText.includes('Nothing was measured in the last hour')",
        )
        .await;
    // Lines are seen on both grounds: 3 to 1 (WCAG 2.2, 1.4.11).
    browser.open(&format!("{}/devices/crane-cam-1", site.base)).await;
    let contrast = "
      const lum = (c) => { const v = c.map((x) => x / 255).map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
      const read = (s) => s.match(/[\\d.]+/g).map(Number);
      const ground = (e) => { for (; e; e = e.parentElement) { const c = read(getComputedStyle(e).backgroundColor);
        if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
      return [...document.querySelectorAll('#charts path')].map((p) => {
        const [a, b] = [lum(read(getComputedStyle(p).stroke)), lum(ground(p.closest('section')))].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05); }).filter((ratio) => ratio < 3);";
    for scheme in ["light", "dark"] {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.devtools("Emulation.setEmulatedMedia", features).await;
        assert_eq!(browser.run(contrast).await, json!([]), "{scheme}");
    }
}
