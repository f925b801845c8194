//! Connections to Redis that break in every way a network knows, and the store that heals by
//! itself.

use std::time::Duration;

use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_sidecar::store::redis::{Redis, Seal, Settings, Tls, follow};
use larder_sidecar::{Purges, Store, Waiting};
use larder_stack::link::{Link, Mode};
use larder_stack::{RedisServer, eventually};

mod certificates;

use certificates::Certificates;

const KEY: KeyDigest = KeyDigest([7; 32]);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Within so long everything has healed: two to three seconds, and what a busy machine needs on top.
const SECONDS: Duration = Duration::from_secs(10);

fn settings(url: &str) -> Settings {
    Settings {
        url: url.to_owned(),
        namespace: "t".to_owned(),
        max_variants: 4,
        timeout: Duration::from_millis(200),
        seal: Seal::default(),
        tls: Tls::default(),
    }
}

/// A store behind a proxy.
async fn behind_a_proxy() -> (RedisServer, Link, Redis) {
    let server = RedisServer::start().await.unwrap();
    let proxy = Link::to(&server.address()).await.unwrap();
    // With a database of its own the handshake has something to be refused.
    let store = Redis::connect(settings(&format!("redis://{}/1", proxy.address())))
        .await
        .unwrap();
    (server, proxy, store)
}

async fn heals(store: &Redis) {
    let well = || async { store.ping().await.is_ok().then_some(()) };
    assert!(
        eventually(SECONDS, well).await.is_some(),
        "still: {:?}",
        store.ping().await
    );
}

#[tokio::test]
async fn a_connection_that_fell_silent_is_given_up_and_another_made() {
    let (_server, proxy, store) = behind_a_proxy().await;
    proxy.half_open();
    heals(&store).await;
}

#[tokio::test]
async fn a_connection_that_is_reset_while_it_is_made_is_tried_again() {
    let (_server, proxy, store) = behind_a_proxy().await;
    proxy.become_(Mode::Reset);
    let made = proxy.made();
    let tried = || async {
        let _ = store.ping().await;
        (proxy.made() > made + 1).then_some(())
    };
    eventually(SECONDS, tried).await.unwrap();
    assert!(store.ping().await.is_err());
    proxy.become_(Mode::Open);
    heals(&store).await;
}

#[tokio::test]
async fn a_password_that_is_required_for_a_while_ends_nothing_for_ever() {
    let (server, _proxy, store) = behind_a_proxy().await;
    server.cli(&["CONFIG", "SET", "requirepass", "briefly"]);
    server.cli(&["-a", "briefly", "CLIENT", "KILL", "TYPE", "normal"]);
    let refused = || async {
        store
            .ping()
            .await
            .err()
            .filter(|fault| fault.0.contains("NOAUTH"))
    };
    assert!(
        eventually(SECONDS, refused).await.is_some(),
        "{:?}",
        store.ping().await
    );
    server.cli(&["-a", "briefly", "CONFIG", "SET", "requirepass", ""]);
    heals(&store).await;
}

#[tokio::test]
async fn a_follower_whose_channel_fell_silent_subscribes_anew() {
    let (server, proxy, store) = behind_a_proxy().await;
    tokio::spawn(follow(
        store.link(),
        "t".to_owned(),
        Waiting::default(),
        Purges::default(),
    ));
    let subscribed = |count: &'static str| {
        let server = &server;
        move || async move {
            server
                .cli(&["PUBSUB", "NUMSUB", "t:wake"])
                .trim()
                .ends_with(count)
                .then_some(())
        }
    };
    eventually(SECONDS, subscribed("\n1")).await.unwrap();
    proxy.half_open_the_last();
    // The proxy holds the silent one open towards Redis, so there are two.
    assert!(eventually(SECONDS, subscribed("\n2")).await.is_some());
}

#[tokio::test]
async fn garbled_answers_end_the_connection_and_nothing_else() {
    let (_server, proxy, store) = behind_a_proxy().await;
    proxy.garble(true);
    assert!(store.ping().await.is_err());
    let told = || async {
        store
            .ping()
            .await
            .err()
            .filter(|fault| fault.0.contains("no Redis"))
    };
    assert!(
        eventually(SECONDS, told).await.is_some(),
        "{:?}",
        store.ping().await
    );
    proxy.garble(false);
    heals(&store).await;
}

#[tokio::test]
async fn a_master_that_becomes_a_replica_is_left_for_whom_the_address_leads_to_now() {
    let (server, proxy, store) = behind_a_proxy().await;
    let successor = RedisServer::start().await.unwrap();
    tokio::spawn(follow(
        store.link(),
        "t".to_owned(),
        Waiting::default(),
        Purges::default(),
    ));
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let refused = || async { store.invalidate(&[KEY], at(1), false).await.err() };
    let refused = eventually(SECONDS, refused).await.unwrap();
    assert!(
        refused.0.contains("READONLY") && refused.0.contains("REDIS_URL"),
        "{refused}"
    );
    // The old one goes on answering: what it reads is still of use.
    store.ping().await.unwrap();
    proxy.lead_to(&successor.address());
    let written = || async { store.invalidate(&[KEY], at(1), false).await.ok() };
    assert!(eventually(SECONDS, written).await.is_some());
    let heard = || async {
        successor
            .cli(&["PUBSUB", "NUMSUB", "t:wake"])
            .trim()
            .ends_with("\n1")
            .then_some(())
    };
    assert!(
        eventually(SECONDS, heard).await.is_some(),
        "the channel moves too"
    );
}

#[tokio::test]
async fn a_redis_that_comes_later_is_found() {
    let mut server = RedisServer::start().await.unwrap();
    server.kill();
    let store = Redis::open(settings(&server.url())).unwrap();
    let fault = store.answers().await.unwrap_err();
    assert!(
        fault.0.contains("REDIS_URL") && fault.0.contains("takes no connection"),
        "{fault}"
    );
    server.restart().await.unwrap();
    heals(&store).await;
}

#[tokio::test]
async fn a_connection_that_ends_is_replaced_before_a_command_needs_it() {
    let (_server, proxy, store) = behind_a_proxy().await;
    let made = proxy.made();
    proxy.cut();
    eventually(SECONDS, || async { (proxy.made() > made).then_some(()) })
        .await
        .unwrap();
    store.ping().await.unwrap();
}

/// Something on a port that answers whatever comes with the same bytes.
async fn answering(bytes: &'static [u8]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(bytes).await;
            let _ = stream.read(&mut asked).await;
        }
    });
    address.to_string()
}

async fn trouble(url: &str) -> String {
    let problem = Redis::connect(settings(url))
        .await
        .err()
        .expect("no connection")
        .0;
    assert!(
        problem.contains("REDIS_URL") && !problem.contains('\n') && !problem.contains("secret"),
        "{problem}"
    );
    problem
}

#[tokio::test]
async fn each_kind_of_trouble_is_one_line_that_names_the_setting_and_the_way_out() {
    let http = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(
        trouble(&format!("redis://{http}"))
            .await
            .contains("HTTP server")
    );
    assert!(
        trouble(&format!("rediss://{http}"))
            .await
            .contains("redis://"),
        "it speaks no TLS"
    );
    let tls = answering(b"\x15\x03\x03\x00\x02\x02\x46").await;
    assert!(
        trouble(&format!("redis://{tls}"))
            .await
            .contains("rediss://")
    );
    assert!(
        trouble("redis://:secret@nosuch.invalid")
            .await
            .contains("takes no connection")
    );
    assert!(
        trouble("redis://:secret@127.0.0.1:1")
            .await
            .contains("refused")
    );
    let server = RedisServer::start().await.unwrap();
    let address = server.url().replace("redis://", "");
    assert!(
        trouble(&format!("redis+cluster://{address}"))
            .await
            .contains("no cluster")
    );
    assert!(
        trouble(&format!("redis://{address}/77"))
            .await
            .contains("no database")
    );
    server.cli(&["CONFIG", "SET", "requirepass", "right"]);
    assert!(
        trouble(&format!("redis://{address}"))
            .await
            .contains("user:password@")
    );
    let refused = trouble(&format!("redis://:secret@{address}")).await;
    assert!(refused.contains("does not accept"), "{refused}");
    assert!(
        trouble(&format!("redis+cluster://{address}"))
            .await
            .contains("user:password@")
    );
    assert!(
        trouble(&format!("redis+sentinel://{address}/main"))
            .await
            .contains("sentinel")
    );
}

#[tokio::test]
async fn a_cluster_connection_that_fell_silent_is_given_up_too() {
    let proxy = Link::to_nowhere().await.unwrap();
    let announced = proxy.port().to_string();
    let node = RedisServer::with(|_| {
        [
            "--cluster-enabled",
            "yes",
            "--cluster-announce-port",
            &announced,
        ]
        .map(str::to_owned)
        .into()
    })
    .await
    .unwrap();
    proxy.lead_to(&node.address());
    let slots: Vec<String> = (0..16_384).map(|slot| slot.to_string()).collect();
    node.cli(
        &["CLUSTER", "ADDSLOTS"]
            .into_iter()
            .chain(slots.iter().map(String::as_str))
            .collect::<Vec<_>>(),
    );
    let whole = || async {
        node.cli(&["CLUSTER", "INFO"])
            .contains("cluster_state:ok")
            .then_some(())
    };
    eventually(Duration::from_secs(10), whole).await.unwrap();
    let url = format!("redis+cluster://{}", proxy.address());
    let store = Redis::connect(settings(&url)).await.unwrap();
    proxy.half_open();
    heals(&store).await;
    proxy.become_(Mode::Reset);
    assert!(
        eventually(SECONDS, || async { store.ping().await.err() })
            .await
            .is_some()
    );
    proxy.become_(Mode::Open);
    heals(&store).await;
}

/// A sentinel that names a port of this machine as the master, whatever it is asked for.
async fn sentinel_that_names(port: u16) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                    let asked = String::from_utf8_lossy(&bytes[..count]).into_owned();
                    for command in asked.split('*').filter(|command| !command.is_empty()) {
                        let port = port.to_string();
                        let answer = if command.contains("SENTINEL") {
                            format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len())
                        } else {
                            "+OK\r\n".to_owned()
                        };
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                }
            });
        }
    });
    own
}

#[tokio::test]
async fn a_master_that_fell_silent_is_asked_for_anew() {
    let server = RedisServer::start().await.unwrap();
    let proxy = Link::to(&server.address()).await.unwrap();
    let sentinel = sentinel_that_names(proxy.port()).await;
    let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel}/main");
    let store = Redis::connect(settings(&url)).await.unwrap();
    proxy.half_open();
    heals(&store).await;
    proxy.become_(Mode::Reset);
    assert!(
        eventually(SECONDS, || async { store.ping().await.err() })
            .await
            .is_some()
    );
    proxy.become_(Mode::Open);
    heals(&store).await;
}

#[tokio::test]
async fn tls_with_an_authority_a_certificate_and_a_name_of_ones_own() {
    let certificates = Certificates::new();
    let server = certificates.server().await;
    let url = format!("rediss://127.0.0.1:{}", server.port());
    let with = |change: fn(&mut Tls)| {
        let mut tls = certificates.tls();
        change(&mut tls);
        Redis::connect(Settings {
            tls,
            ..settings(&url)
        })
    };
    let store = with(|_| {}).await.unwrap();
    store.invalidate(&[KEY], at(1), false).await.unwrap();
    let refused = async |change: fn(&mut Tls), setting: &str| {
        let problem = with(change).await.err().unwrap().0;
        assert!(
            problem.contains(setting) && !problem.contains('\n'),
            "{setting}: {problem}"
        );
    };
    refused(|tls| tls.ca_file = None, "LARDER_REDIS_CA_FILE").await;
    refused(|tls| tls.server_name = None, "LARDER_REDIS_SERVER_NAME").await;
    let without = |tls: &mut Tls| (tls.cert_file, tls.key_file) = (None, None);
    refused(without, "LARDER_REDIS_CERT_FILE").await;
    let plain = settings(&url.replace("rediss", "redis"));
    assert!(
        Redis::connect(plain)
            .await
            .err()
            .unwrap()
            .0
            .contains("rediss://")
    );
    // The channel is reached in the same way.
    tokio::spawn(follow(
        store.link(),
        "t".to_owned(),
        Waiting::default(),
        Purges::default(),
    ));
    eventually(SECONDS, || async {
        (store.link().pubsub().await.is_ok()).then_some(())
    })
    .await
    .unwrap();
}

#[test]
fn what_is_wrong_with_the_files_is_said_at_the_start() {
    let certificates = Certificates::new();
    assert_eq!(certificates.tls().mistakes(), Vec::<String>::new());
    let tls = Tls {
        ca_file: Some(certificates.path("server.key")),
        cert_file: Some(certificates.path("client.pem")),
        key_file: None,
        server_name: Some("a b".to_owned()),
    };
    let mistakes = tls.mistakes();
    assert_eq!(mistakes.len(), 3, "{mistakes:?}");
    let missing = Tls {
        ca_file: Some("/nowhere".into()),
        ..Tls::default()
    };
    assert!(missing.mistakes()[0].contains("/nowhere cannot be read"));
}
