//! Pods, Services and ports of the device.

use super::rig::{
    DEVICE, OUTSIDE, Place, addresses, call, call_udp, config, eventually, host_port, keeps_sending_until,
    on_device, outside, run, seen, service,
};
use model::Protocol;
use runtime::embedded::network::{HostPort, Network, NetworkError, ServiceId};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

#[test]
fn netns_pods_talk_without_a_default_route() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let network = Network::open(config(&state)).unwrap();
        let (a, b) = (Place::new("a"), Place::new("b"));
        let (ip_a, ip_b) = (a.attach(&network, &[]).await, b.attach(&network, &[]).await);
        b.serve(8080);
        assert_eq!(a.call((ip_b, 8080)).unwrap(), format!("b {ip_a}"));
        assert_eq!(call((ip_b, 8080)).unwrap(), format!("b {}", network.gateway()));
    });
}

/// br_netfilter sends bridged packets through nftables or past it; both are found on devices.
fn with_and_without_br_netfilter(check: impl Fn()) {
    for value in ["0", "1"] {
        let setting = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        if std::fs::write(setting, value).is_err() {
            eprintln!("SKIPPED: no br_netfilter in this kernel, so only without it");
            return check();
        }
        check();
    }
}

#[test]
fn netns_a_service_spreads_over_its_pods_and_reaches_even_the_caller() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let network = Network::open(config(&state)).unwrap();
        let (a, b, c) = (Place::new("a"), Place::new("b"), Place::new("c"));
        let mut ips = Vec::new();
        for pod in [&a, &b, &c] {
            ips.push(pod.attach(&network, &[]).await);
            pod.serve(8080);
        }
        let all = addresses(&[(&a, ips[0]), (&b, ips[1]), (&c, ips[2])]);
        let services = [
            service("web", &[&b, &c]),
            service("self", &[&a]),
            service("empty", &[]),
        ];
        network.publish(&services, &all).await.unwrap();
        let address = |name: &str| {
            let id = ServiceId {
                namespace: "default".into(),
                name: name.into(),
            };
            (network.service_address(&id).unwrap(), 80)
        };
        with_and_without_br_netfilter(|| {
            let answers: BTreeSet<String> = (0..64).map(|_| a.call(address("web")).unwrap()).collect();
            // The pods see who calls.
            let want = [format!("b {}", ips[0]), format!("c {}", ips[0])];
            assert_eq!(answers, BTreeSet::from(want));
            assert!(
                call(address("web"))
                    .unwrap()
                    .ends_with(&network.gateway().to_string())
            );
            assert!(a.call(address("self")).unwrap().starts_with("a "), "hairpin");
        });
        let refused = |result: std::io::Result<String>| result.unwrap_err().kind();
        assert_eq!(
            refused(a.call(address("empty"))),
            std::io::ErrorKind::ConnectionRefused
        );
        assert_eq!(
            refused(call(address("empty"))),
            std::io::ErrorKind::ConnectionRefused
        );

        // One pod is no longer ready, then the whole Service goes.
        let held = address("web");
        network.publish(&[service("web", &[&c])], &all).await.unwrap();
        assert_eq!(address("web"), held);
        for _ in 0..16 {
            assert!(a.call(held).unwrap().starts_with("c "));
        }
        network.publish(&[], &all).await.unwrap();
        assert_eq!(refused(a.call(held)), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn netns_host_ports_answer_outside_on_the_device_and_in_pods() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let network = Network::open(config(&state)).unwrap();
        let outside = outside();
        outside.serve(7070);
        let (web, other) = (Place::new("web"), Place::new("other"));
        let udp = HostPort {
            protocol: Protocol::Udp,
            ..host_port(8000, 5353)
        };
        let only_loopback = HostPort {
            host_ip: Some(Ipv4Addr::LOCALHOST),
            ..host_port(8001, 80)
        };
        let ports = [host_port(8000, 80), udp, only_loopback];
        web.attach(&network, &ports).await;
        let other_ip = other.attach(&network, &[]).await;
        web.serve(80);
        web.serve_udp(5353);

        assert_eq!(outside.call((DEVICE, 8000)).unwrap(), format!("web {OUTSIDE}"));
        assert_eq!(
            outside.inside(|| call_udp((DEVICE, 8000))).unwrap(),
            format!("web {OUTSIDE}")
        );
        assert!(call((Ipv4Addr::LOCALHOST, 8000)).unwrap().starts_with("web "));
        assert!(call_udp((Ipv4Addr::LOCALHOST, 8000)).unwrap().starts_with("web "));
        assert!(call((DEVICE, 8000)).unwrap().starts_with("web "));
        assert_eq!(other.call((DEVICE, 8000)).unwrap(), format!("web {other_ip}"));
        assert!(web.call((DEVICE, 8000)).unwrap().starts_with("web "), "hairpin");
        assert!(call((Ipv4Addr::LOCALHOST, 8001)).unwrap().starts_with("web "));
        assert!(outside.call((DEVICE, 8001)).is_err(), "bound to loopback only");

        // Another machine's port of the same number is not ours.
        outside.serve(8000);
        assert_eq!(call((OUTSIDE, 8000)).unwrap(), format!("outside {DEVICE}"));
        // Pods go out under the device's address.
        assert_eq!(web.call((OUTSIDE, 7070)).unwrap(), format!("outside {DEVICE}"));

        network.detach(&web.id).await.unwrap();
        assert!(outside.call((DEVICE, 8000)).is_err());
        web.inside(|| assert!(!run("ip", &["link"]).contains("eth0")));
        network.detach(&web.id).await.unwrap();
    });
}

#[test]
fn netns_pods_do_not_reach_the_devices_loopback() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let network = Network::open(config(&state)).unwrap();
        let pod = Place::new("pod");
        pod.attach(&network, &[]).await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 9090)).unwrap();
        let caught = pod.inside(|| {
            // What a hostile container with NET_ADMIN would do.
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            run("ip", &["address", "flush", "dev", "lo"]);
            let gateway = network.gateway().to_string();
            run(
                "ip",
                &["route", "add", "127.0.0.0/8", "via", &gateway, "dev", "eth0"],
            );
            let to = (Ipv4Addr::LOCALHOST, 9090).into();
            std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_secs(2)).is_ok()
        });
        assert!(!caught, "a pod reached 127.0.0.1 of the device");
        drop(listener);
    });
}

#[test]
fn netns_node_ports_and_taken_ports() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let network = Network::open(config(&state)).unwrap();
        let outside = outside();
        let (a, b) = (Place::new("a"), Place::new("b"));
        let ip = a.attach(&network, &[host_port(8000, 8080)]).await;
        a.serve(8080);
        let node_port = |name: &str, port| {
            let mut service = service(name, &[&a]);
            service.ports[0].node_port = Some(port);
            service
        };
        let all = addresses(&[(&a, ip)]);
        network.publish(&[node_port("web", 30080)], &all).await.unwrap();
        assert_eq!(outside.call((DEVICE, 30080)).unwrap(), format!("a {OUTSIDE}"));
        assert!(call((Ipv4Addr::LOCALHOST, 30080)).unwrap().starts_with("a "));

        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let by_device = taken.local_addr().unwrap().port();
        let error = async |port| {
            let wanted = [host_port(port, 80)];
            network
                .attach(&b.id, &b.path(), &wanted)
                .await
                .unwrap_err()
                .to_string()
        };
        let text = error(8000).await;
        assert!(
            text.contains("default/b") && text.contains("8000/tcp") && text.contains("default/a"),
            "{text}"
        );
        let text = error(30080).await;
        assert!(
            text.contains("default/b") && text.contains("default/web"),
            "{text}"
        );
        let text = error(by_device).await;
        assert!(
            text.contains("default/b") && text.contains(&std::process::id().to_string()),
            "{text}"
        );
        b.inside(|| assert!(!run("ip", &["link"]).contains("eth0"), "half-attached"));

        let services = [
            node_port("early", 30080),
            node_port("host", 8000),
            node_port("web", 30080),
        ];
        let err = network.publish(&services, &all).await.unwrap_err();
        let NetworkError::ServicesRefused(refused) = err else {
            panic!("{err}")
        };
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert!(
            refused[0].contains("default/early") && refused[0].contains("default/web"),
            "{refused:?}"
        );
        assert!(
            refused[1].contains("default/host") && refused[1].contains("pod default/a"),
            "{refused:?}"
        );
        assert_eq!(outside.call((DEVICE, 30080)).unwrap(), format!("a {OUTSIDE}"));
    });
}

#[test]
fn netns_a_restarted_agent_finds_everything_in_place() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let outside = outside();
        let (a, b, gone) = (Place::new("a"), Place::new("b"), Place::new("gone"));
        let web = ServiceId {
            namespace: "default".into(),
            name: "web".into(),
        };
        let network = Network::open(config(&state)).unwrap();
        let ip = a.attach(&network, &[host_port(8000, 8080)]).await;
        let ip_b = b.attach(&network, &[]).await;
        gone.attach(&network, &[host_port(8009, 8080)]).await;
        a.serve(8080);
        let services = [service("web", &[&a])];
        let all = addresses(&[(&a, ip), (&b, ip_b)]);
        network.publish(&services, &all).await.unwrap();
        let address = network.service_address(&web).unwrap();
        drop(network);
        assert!(b.call((address, 80)).is_ok(), "works while no agent runs");

        let network = Network::open(config(&state)).unwrap();
        let works = || {
            assert!(b.call((address, 80)).is_ok());
            assert!(outside.call((DEVICE, 8000)).is_ok());
        };
        works();
        let link = || run("ip", &["-o", "link", "show", "master", "leeward0"]);
        let before = link();
        assert_eq!(a.attach(&network, &[host_port(8000, 8080)]).await, ip);
        assert_eq!(link(), before, "the link of a running pod was touched");
        network
            .retain(&BTreeSet::from([a.id.clone(), b.id.clone()]))
            .await
            .unwrap();
        assert_eq!(link().lines().count(), 2);
        works();
        network.publish(&services, &all).await.unwrap();
        assert_eq!(network.service_address(&web), Some(address));
        works();
        network.publish(&services, &all).await.unwrap();
        works();
        assert!(gone.attach(&network, &[host_port(8009, 8080)]).await != ip);

        // The device rebooted: same pods, new namespaces, same addresses.
        let a = Place::new("a");
        a.serve(8080);
        assert_eq!(a.attach(&network, &[host_port(8000, 8080)]).await, ip);
        works();
    });
}

#[test]
fn netns_nothing_is_left_after_clean_up() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let before = (
            run("ip", &["-o", "link"]),
            run("ip", &["route"]),
            run("nft", &["list", "ruleset"]),
        );
        let network = Network::open(config(&state)).unwrap();
        let pod = Place::new("pod");
        let ip = pod.attach(&network, &[host_port(8000, 80)]).await;
        network
            .publish(&[service("web", &[&pod])], &addresses(&[(&pod, ip)]))
            .await
            .unwrap();
        network.clean_up().await.unwrap();
        let after = (
            run("ip", &["-o", "link"]),
            run("ip", &["route"]),
            run("nft", &["list", "ruleset"]),
        );
        assert_eq!(after, before);
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
        pod.inside(|| assert!(!run("ip", &["link"]).contains("eth0")));
    });
}

#[test]
fn netns_pods_pass_a_firewall_that_drops_what_it_does_not_know() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let outside = outside();
        // As Docker sets it up.
        run("iptables", &["-P", "FORWARD", "DROP"]);
        run("iptables", &["-P", "INPUT", "DROP"]);
        let rules = run("iptables", &["-S"]);
        let network = Network::open(config(&state)).unwrap();
        drop(network);
        let network = Network::open(config(&state)).unwrap();
        let (a, b) = (Place::new("a"), Place::new("b"));
        let ip = a.attach(&network, &[host_port(8000, 80)]).await;
        let ip_b = b.attach(&network, &[]).await;
        a.serve(80);
        assert_eq!(outside.call((DEVICE, 8000)).unwrap(), format!("a {OUTSIDE}"));
        assert_eq!(seen(&b.call((ip, 80)).unwrap()), ip_b);
        let added = run("iptables", &["-S", "FORWARD"]);
        assert_eq!(added.lines().count(), 3, "once, though opened twice: {added}");
        let added = run("iptables", &["-S", "INPUT"]);
        assert_eq!(added.lines().count(), 3, "pods reach DNS: {added}");
        network.clean_up().await.unwrap();
        assert_eq!(run("iptables", &["-S"]), rules);
    });
}

#[test]
fn netns_pods_pass_an_nftables_firewall_that_drops_by_policy() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let outside = outside();
        outside.serve(7070);
        for chain in ["input", "forward"] {
            let made = format!(
                "add chain inet filter {chain} {{ type filter hook {chain} priority 0; policy drop; }}"
            );
            run("nft", &["add table inet filter"]);
            run("nft", &[&made]);
        }
        let rules = run("nft", &["list", "ruleset"]);
        for _ in 0..2 {
            Network::open(config(&state)).unwrap();
        }
        let network = Network::open(config(&state)).unwrap();
        let (a, b) = (Place::new("a"), Place::new("b"));
        let ip = a.attach(&network, &[host_port(8000, 80)]).await;
        b.attach(&network, &[]).await;
        a.serve(80);
        assert_eq!(outside.call((DEVICE, 8000)).unwrap(), format!("a {OUTSIDE}"));
        assert!(a.call((OUTSIDE, 7070)).is_ok());
        assert!(b.call((ip, 80)).is_ok());
        let ours = run("nft", &["list", "table", "inet", "filter"])
            .matches("leeward0\" ")
            .count();
        assert_eq!(ours, 5, "once, though opened three times");

        // It is no open door: from outside straight to a pod is not let pass.
        outside.inside(|| run("ip", &["route", "add", &format!("{ip}/32"), "via", "192.0.2.1"]));
        let straight =
            outside.inside(|| TcpStream::connect_timeout(&(ip, 80).into(), Duration::from_secs(1)).is_ok());
        assert!(!straight);
        network.clean_up().await.unwrap();
        assert_eq!(run("nft", &["list", "ruleset"]), rules);
    });
}

#[test]
fn netns_a_range_that_the_devices_network_uses_is_refused() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let _outside = outside();
        let mut wrong = config(&state);
        wrong.service_cidr = "192.0.2.0/25".parse().unwrap();
        let text = Network::open(wrong).unwrap_err().to_string();
        assert!(
            text.contains("192.0.2.0/25") && text.contains("192.0.2.1/24"),
            "{text}"
        );
        assert!(!run("ip", &["-o", "link"]).contains("leeward0"), "half-made");
    });
}

#[test]
fn netns_a_sender_of_datagrams_finds_each_new_pod() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let network = Network::open(config(&state)).unwrap();
        let outside = outside();
        let syslog = HostPort {
            protocol: Protocol::Udp,
            ..host_port(5140, 8080)
        };
        // It sends before there is a pod; the kernel remembers that it leads nowhere, for as long as it sends.
        let sender = outside.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
        sender.connect((DEVICE, 5140)).unwrap();
        sender.send(b"?").unwrap();
        let (a, b) = (Place::new("a"), Place::new("b"));
        let ports = [syslog];
        let ip_a = a.attach(&network, &ports).await;
        a.serve_udp(8080);
        keeps_sending_until(&sender, "a ");
        network.detach(&a.id).await.unwrap();
        let ip_b = b.attach(&network, &ports).await;
        b.serve_udp(8080);
        keeps_sending_until(&sender, "b ");

        let ip_a2 = a.attach(&network, &[]).await;
        assert_ne!(ip_a2, ip_a);
        let all = addresses(&[(&a, ip_a2), (&b, ip_b)]);
        let mut log = service("log", &[&b]);
        log.ports[0].protocol = Protocol::Udp;
        log.ports[0].node_port = Some(30514);
        network.publish(&[log.clone()], &all).await.unwrap();
        let by_node = outside.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
        by_node.connect((DEVICE, 30514)).unwrap();
        let by_address = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let address = network.service_address(&ServiceId::of(&log)).unwrap();
        by_address.connect((address, 80)).unwrap();
        keeps_sending_until(&by_node, "b ");
        keeps_sending_until(&by_address, "b ");
        log.endpoints = vec![a.id.clone()];
        network.publish(&[log], &all).await.unwrap();
        keeps_sending_until(&by_node, "a ");
        keeps_sending_until(&by_address, "a ");
    });
}

#[test]
fn netns_a_service_leads_to_a_pod_on_the_devices_own_network() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let network = Network::open(config(&state)).unwrap();
        let outside = outside();
        let (host, pod) = (Place::of_this_thread("host"), Place::new("pod"));
        pod.attach(&network, &[]).await;
        host.serve(8080);
        let mut web = service("web", &[&host]);
        web.ports[0].node_port = Some(30080);
        network
            .publish(
                std::slice::from_ref(&web),
                &addresses(&[(&host, network.gateway())]),
            )
            .await
            .unwrap();
        let address = network.service_address(&ServiceId::of(&web)).unwrap();
        assert!(pod.call((address, 80)).unwrap().starts_with("host "));
        assert!(call((address, 80)).unwrap().starts_with("host "));
        assert!(call((Ipv4Addr::LOCALHOST, 30080)).unwrap().starts_with("host "));
        assert_eq!(outside.call((DEVICE, 30080)).unwrap(), format!("host {OUTSIDE}"));
    });
}

#[test]
fn netns_a_client_stays_with_its_pod_where_asked() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let network = Network::open(config(&state)).unwrap();
        let servers: Vec<Place> = (0..3).map(|i| Place::new(&format!("server{i}"))).collect();
        let clients: Vec<Place> = (0..8).map(|i| Place::new(&format!("client{i}"))).collect();
        let mut known = Vec::new();
        for server in &servers {
            known.push((server, server.attach(&network, &[]).await));
            server.serve(8080);
        }
        for client in &clients {
            client.attach(&network, &[]).await;
        }
        let mut web = service("web", &servers.iter().collect::<Vec<_>>());
        web.client_affinity = true;
        network
            .publish(std::slice::from_ref(&web), &addresses(&known))
            .await
            .unwrap();
        let address = network.service_address(&ServiceId::of(&web)).unwrap();
        let server = |client: &Place| {
            client
                .call((address, 80))
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .to_owned()
        };
        let first: Vec<String> = clients.iter().map(server).collect();
        for _ in 0..5 {
            assert_eq!(clients.iter().map(server).collect::<Vec<_>>(), first);
        }
        assert!(
            first.iter().collect::<BTreeSet<_>>().len() > 1,
            "all at one: {first:?}"
        );
        // Another agent process puts the same rule back.
        drop(network);
        let network = Network::open(config(&state)).unwrap();
        network.publish(&[web], &addresses(&known)).await.unwrap();
        assert_eq!(clients.iter().map(server).collect::<Vec<_>>(), first);
    });
}

#[test]
fn netns_what_other_programs_take_away_is_put_back() {
    on_device(async || {
        let state = tempfile::tempdir().unwrap();
        let network = Network::open(config(&state)).unwrap();
        let outside = outside();
        let pod = Place::new("pod");
        let ip = pod.attach(&network, &[host_port(8000, 8080)]).await;
        pod.serve(8080);
        let web = service("web", &[&pod]);
        network
            .publish(std::slice::from_ref(&web), &addresses(&[(&pod, ip)]))
            .await
            .unwrap();
        let address = network.service_address(&ServiceId::of(&web)).unwrap();
        let upkeep = tokio::spawn(network.keep_up());

        // What `systemctl reload nftables` does.
        run("nft", &["flush", "ruleset"]);
        assert!(outside.call((DEVICE, 8000)).is_err());
        eventually("the rules are back", async || {
            outside.call((DEVICE, 8000)).is_ok()
        })
        .await;
        assert!(call((address, 80)).is_ok());

        // Docker starts after us.
        run("iptables", &["-P", "FORWARD", "DROP"]);
        eventually("pods pass the new policy", async || {
            run("iptables", &["-S", "FORWARD"]).contains("leeward0")
        })
        .await;
        assert!(outside.call((DEVICE, 8000)).is_ok());
        upkeep.abort();
    });
}
