//! Pods' DNS, asked by dig, forwarded to dnsmasq.

use super::rig::{OUTSIDE, Place, addresses, config, eventually, on_device, outside, run, service};
use model::PodId;
use runtime::embedded::network::Network;
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What dig says in a pod.
async fn dig_all(pod: &Place, network: &Network, arguments: &[&str]) -> String {
    let server = format!("@{}", network.gateway());
    let mut command = vec!["+noall", "+comments", "+answer", "+tries=1", "+time=5", &server];
    command.extend(arguments);
    let netns = pod.path();
    let command: Vec<String> = command.into_iter().map(str::to_owned).collect();
    // The answer comes from this very thread: it must not wait for dig.
    let asked = tokio::task::spawn_blocking(move || {
        let netns = std::fs::File::open(netns).unwrap();
        let work = || Command::new("dig").args(&command).output().unwrap();
        runtime::embedded::network::netns::enter(&netns, work).unwrap()
    });
    String::from_utf8(asked.await.unwrap().stdout).unwrap()
}

/// Status and data of the answers, sorted.
async fn dig(pod: &Place, network: &Network, arguments: &[&str]) -> String {
    let text = dig_all(pod, network, arguments).await;
    let status = text
        .split("status: ")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    let mut data: Vec<String> = records(&text)
        .map(|record| record.skip(4).collect::<Vec<_>>().join(" "))
        .collect();
    data.sort();
    format!("{} {}", status.unwrap_or("no answer"), data.join(", "))
        .trim_end()
        .to_owned()
}

/// The words of each record: name, seconds to live, class, type, data.
fn records(text: &str) -> impl Iterator<Item = std::str::SplitWhitespace<'_>> {
    text.lines()
        .filter(|line| !line.starts_with(';') && !line.is_empty())
        .map(str::split_whitespace)
}

/// A resolver on the machine outside that knows a few names.
fn resolver(outside: &Place) -> Running {
    let child = outside.inside(|| {
        Command::new("dnsmasq")
            .args([
                "--no-daemon",
                "--no-resolv",
                "--no-hosts",
                "--conf-file=/dev/null",
                "--pid-file",
            ])
            .args(["--bind-interfaces", "--listen-address=192.0.2.2", "--local-ttl=2"])
            .args(["--host-record=git.example,198.51.100.7", "--local=/example/"])
            .arg(format!(
                "--txt-record=long.example,{}",
                vec!["x".repeat(200); 8].join(",")
            ))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    });
    Running(child)
}

#[test]
fn netns_dns_knows_services_and_pods_with_no_way_out() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let network = Network::open(config(&state)).unwrap();
        let dns = tokio::spawn(network.serve_dns());
        let second = tokio::spawn(network.serve_dns());
        let (a, b) = (Place::new("a"), Place::new("b"));
        let (ip_a, ip_b) = (a.attach(&network, &[]).await, b.attach(&network, &[]).await);
        let mut headless = service("peers", &[&a, &b]);
        headless.headless = true;
        let services = [service("web", &[&b]), headless];
        let all = addresses(&[(&a, ip_a), (&b, ip_b)]);
        network.publish(&services, &all).await.unwrap();
        let web = network
            .service_address(&runtime::embedded::network::ServiceId::of(&services[0]))
            .unwrap();

        let ask = async |arguments: &[&str]| dig(&a, &network, arguments).await;
        eventually("dns listens", async || {
            ask(&["cluster.local"]).await.starts_with("NOERROR")
        })
        .await;
        let web = format!("NOERROR {web}");
        assert_eq!(ask(&["web.default.svc.cluster.local"]).await, web);
        assert_eq!(ask(&["+tcp", "web.default.svc.cluster.local"]).await, web);
        assert_eq!(ask(&["WEB.default.svc.cluster.local", "+noedns"]).await, web);
        assert_eq!(ask(&["web.default.svc.cluster.local", "AAAA"]).await, "NOERROR");
        assert_eq!(ask(&["none.default.svc.cluster.local"]).await, "NXDOMAIN");
        let both = format!("NOERROR {ip_a}, {ip_b}");
        assert_eq!(ask(&["peers.default.svc.cluster.local"]).await, both);
        assert_eq!(
            ask(&["b.peers.default.svc.cluster.local"]).await,
            format!("NOERROR {ip_b}")
        );
        let srv = ask(&["_http._tcp.web.default.svc.cluster.local", "SRV"]).await;
        assert_eq!(srv, "NOERROR 0 100 80 web.default.svc.cluster.local.");
        let name = format!("{}.default.pod.cluster.local", ip_b.to_string().replace('.', "-"));
        assert_eq!(ask(&[&name]).await, format!("NOERROR {ip_b}"));
        assert_eq!(ask(&["-x", &ip_b.to_string()]).await, format!("NOERROR {name}."));

        assert!(!second.is_finished(), "a second one waits for its turn");
        dns.abort();
        let of_second = async || ask(&["web.default.svc.cluster.local"]).await == web;
        eventually("the second one answers", of_second).await;

        // The search list and options that containers get lead there, too.
        let resolv = network.resolv_conf("default");
        assert!(resolv.contains("search default.svc.cluster.local svc.cluster.local cluster.local\n"));
        assert!(resolv.contains(&format!("nameserver {}\n", network.gateway())));

        network.detach(&b.id).await.unwrap();
        network
            .publish(&services[..1], &BTreeMap::<PodId, _>::new())
            .await
            .unwrap();
        assert_eq!(ask(&[&name]).await, "NXDOMAIN");
        assert_eq!(ask(&["peers.default.svc.cluster.local"]).await, "NXDOMAIN");
    });
}

#[test]
fn netns_dns_forwards_and_keeps_answering_when_the_link_is_cut() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let outside = outside();
        let upstream = resolver(&outside);
        let mut config = config(&state);
        config.dns = Some(vec![(OUTSIDE, 53).into()]);
        let network = Network::open(config).unwrap();
        let dns = tokio::spawn(network.serve_dns());
        let pod = Place::new("pod");
        pod.attach(&network, &[]).await;
        let ask = async |arguments: &[&str]| dig(&pod, &network, arguments).await;
        let git = "NOERROR 198.51.100.7";
        eventually("the resolver outside answers", async || {
            ask(&["git.example"]).await == git
        })
        .await;
        assert_eq!(ask(&["none.example"]).await, "NXDOMAIN");
        let long = ask(&["long.example", "TXT"]).await;
        assert_eq!(long.matches('x').count(), 1600, "by UDP, then TCP: {long}");

        // Cut as `leeward dev cut` does: packets vanish, nothing answers.
        run("nft", &["add", "table", "ip", "cut"]);
        run(
            "nft",
            &["add chain ip cut out { type filter hook output priority 0; }"],
        );
        run("nft", &["add rule ip cut out oifname uplink drop"]);
        // Its time ends (after 2 s), and it is better than nothing: for 30 s (RFC 8767).
        let to_live = async || {
            let text = dig_all(&pod, &network, &["git.example"]).await;
            records(&text)
                .next()
                .and_then(|mut record| record.nth(1))
                .map(str::to_owned)
        };
        eventually("the answer is stale", async || {
            to_live().await.as_deref() == Some("30")
        })
        .await;
        assert_eq!(ask(&["git.example"]).await, git);
        assert_eq!(ask(&["never-asked.example"]).await, "SERVFAIL");
        assert_eq!(ask(&["cluster.local"]).await, "NOERROR");

        run("nft", &["delete", "table", "ip", "cut"]);
        eventually("names resolve again", async || {
            ask(&["new.example"]).await == "NXDOMAIN"
        })
        .await;
        assert_eq!(ask(&["git.example"]).await, git);

        // No address, no route: the kernel itself says no.
        drop(upstream);
        run("ip", &["address", "flush", "dev", "uplink"]);
        assert_eq!(ask(&["never-asked.example"]).await, "SERVFAIL");
        assert_eq!(ask(&["git.example"]).await, git);
        dns.abort();
    });
}
