//! A start that tells the truth: `make run` says that it is ready when a request was answered, and
//! else why not.
//!
//! The programs run from a copy of the checkout, with a `.env` of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use larder_stack::process::Process;
use larder_stack::{RedisServer, eventually};
use reqwest::Client;

use crate::support::{Answer, patient};

/// A checkout with the built programs and nothing of the one that they were built in.
struct Checkout {
    folder: tempfile::TempDir,
    envoy: PathBuf,
}

impl Checkout {
    fn new() -> Self {
        let root = larder_stack::stack::project_root();
        let envoy = std::path::absolute(larder_stack::stack::envoy_binary(&root).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "release/larder",
            "release/larder-sidecar",
            "release/larder-mock-origin",
        ]
        .into_iter()
        .chain(["wasm32-wasip1/wasm/larder_filter.wasm"])
        {
            let name = format!("target/{name}");
            copy(
                &larder_stack::stack::built(&root, &name, "make build").unwrap(),
                &folder.path().join(&name),
            );
        }
        copy(
            &root.join("envoy/envoy.yaml"),
            &folder.path().join("envoy/envoy.yaml"),
        );
        for name in ["demo", "default"] {
            let name = format!("envoy/filters/{name}.json");
            copy(&root.join(&name), &folder.path().join(&name));
        }
        Self { folder, envoy }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    fn write(&self, relative: &str, text: &str) {
        std::fs::write(self.path(relative), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("target/release/larder"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("ENVOY", &self.envoy);
        for name in [
            "CARGO_TARGET_DIR",
            "REDIS_URL",
            "LARDER_PURGE_TOKEN",
            "LARDER_STORE_SECRET",
        ] {
            command.env_remove(name);
        }
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// `make run` without make.
    fn run(&self, port: u16, arguments: &[&str]) -> Running {
        let port = port.to_string();
        let command = self.command(&[&["run", "--port", port.as_str()], arguments].concat());
        Running(Process::start("larder", command, &self.path(&format!("{port}.log"))).unwrap())
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap();
}

struct Running(Process);

impl Running {
    /// What it has said, once it has said `words`.
    async fn says(&mut self, words: &str) -> String {
        let said = eventually(Duration::from_secs(60), || {
            let (output, ended) = (self.0.output(), !self.0.is_running());
            let end = output.contains(words) || ended;
            async move { end.then_some(output) }
        });
        let said = said.await.unwrap_or_else(|| self.0.output());
        assert!(said.contains(words), "{words} is not in: {said}");
        said
    }
}

fn free_port() -> u16 {
    larder_stack::launch::free_port().unwrap()
}

/// What a refused start says: one line, and never that it is ready.
fn refusal(output: &Output) -> String {
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        !output.status.success() && !out.contains("ready"),
        "{out}{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
    error.into_owned()
}

#[test]
fn a_refused_configuration_is_told_and_nothing_is_ready() {
    let checkout = Checkout::new();
    checkout.write(
        "bad.json",
        r#"{"stor": 1, "rules": [{"policy": {"cache": "yes"}}]}"#,
    );
    let told = refusal(&checkout.output(&[
        "run",
        "--port",
        &free_port().to_string(),
        "--config",
        "bad.json",
    ]));
    assert!(
        told.contains("stor is not known") && told.contains("rules[0].policy.cache"),
        "{told}"
    );
    let told = refusal(&checkout.output(&[
        "run",
        "--port",
        &free_port().to_string(),
        "--config",
        "missing.json",
    ]));
    assert!(told.contains("missing.json"), "{told}");
}

#[test]
fn an_envoy_that_cannot_run_the_filter_is_told_and_nothing_is_ready() {
    let checkout = Checkout::new();
    // To Envoy a module that does not load is what a module is to an Envoy without V8.
    checkout.write(
        "target/wasm32-wasip1/wasm/larder_filter.wasm",
        "not WebAssembly",
    );
    let told = refusal(&checkout.output(&["run", "--port", &free_port().to_string()]));
    assert!(told.contains("Unable to create Wasm plugin"), "{told}");
}

#[test]
fn what_is_wrong_on_the_command_line_or_in_env_is_refused_in_one_line() {
    let checkout = Checkout::new();
    for (arguments, told) in [
        (
            ["--origins", "http://127.0.0.1:9001"],
            "origins=http://127.0.0.1:9001: give host:port",
        ),
        (["--workers", "0"], "workers=0: must be"),
        (["--port", "0"], "port=0: a port is"),
        (
            ["--bind", "everywhere"],
            "bind=everywhere: must be an IP address",
        ),
        (
            ["--health-path", "health"],
            "health_path=health: a path begins with /",
        ),
    ] {
        let line = refusal(&checkout.output(&[&["run"], arguments.as_slice()].concat()));
        assert!(line.starts_with(&format!("larder: {told}")), "{line}");
    }
    for (env, told) in [
        ("nonsense", "larder: .env, line 1: this is not NAME=value"),
        (
            "LARDER_PURGE_TOKEN=\"abc\nREDIS_URL=\n",
            "larder: .env, line 1: the quote is not closed",
        ),
        (
            "REDIS_URI=redis://127.0.0.1\n",
            "larder: .env, line 1: REDIS_URI is not a setting; is REDIS_URL meant?",
        ),
    ] {
        checkout.write(".env", env);
        let line = refusal(&checkout.output(&["run", "--port", &free_port().to_string()]));
        assert_eq!(line.trim_end(), told);
        let purge = Command::new(checkout.path("target/release/larder"))
            .args(["purge", "--everything"])
            .output();
        assert_eq!(refusal(&purge.unwrap()).trim_end(), told);
    }
}

#[test]
fn make_refuses_a_misspelt_setting() {
    for setting in ["prot=3001", "PORT=3001", "origin=127.0.0.1:9001"] {
        let root = larder_stack::stack::project_root();
        // MAKEFLAGS: the test itself may run under make.
        let make = Command::new("make")
            .args(["-n", "run", setting])
            .current_dir(root)
            .env_remove("MAKEFLAGS")
            .output();
        let told = refusal(&make.unwrap());
        let (name, _) = setting.split_once('=').unwrap();
        assert!(
            told.contains(&format!("{name}= is no setting"))
                && told.contains("port bind host workers"),
            "{told}"
        );
    }
}

#[test]
fn every_setting_of_the_programs_has_its_example() {
    let checkout = Checkout::new();
    let example =
        std::fs::read_to_string(larder_stack::stack::project_root().join(".env.example")).unwrap();
    for arguments in [
        ["larder-sidecar", "--help"].as_slice(),
        &["larder", "--help"],
        &["larder", "purge", "--help"],
    ] {
        let program = checkout.path(&format!("target/release/{}", arguments[0]));
        let help = Command::new(program)
            .args(&arguments[1..])
            .output()
            .unwrap();
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        let names = help
            .split("[env: ")
            .skip(1)
            .filter_map(|rest| rest.split(['=', ']']).next());
        // `make run` chooses the address itself.
        for name in names.filter(|name| *name != "LARDER_SIDECAR_LISTEN") {
            assert!(
                example.contains(&format!("# {name}=")),
                "{name} is not in .env.example"
            );
        }
    }
}

/// An own service that answers every path but one with 404.
async fn own_service(well: &'static str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = vec![0; 4096];
                while let Ok(length @ 1..) = socket.read(&mut bytes).await {
                    let is_well = bytes[..length].starts_with(format!("GET {well} ").as_bytes());
                    let status = if is_well { "200 OK" } else { "404 Not Found" };
                    let _ = socket
                        .write_all(
                            format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes(),
                        )
                        .await;
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_service_without_the_health_check_is_told_with_the_way_out() {
    let checkout = Checkout::new();
    let service = own_service("/well").await;
    let told = checkout
        .run(free_port(), &["--origins", &service])
        .says("not ready")
        .await;
    let line = told
        .lines()
        .find(|line| line.contains("not ready"))
        .unwrap();
    for part in [
        service.as_str(),
        "GET /health-check",
        "404",
        "health_path=/…",
        "health_path=",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!told.contains("Larder is ready"), "{told}");
    for way_out in [["--health-path", "/well"], ["--health-path", ""]] {
        let arguments = [&["--origins", service.as_str()], way_out.as_slice()].concat();
        checkout
            .run(free_port(), &arguments)
            .says("Larder is ready")
            .await;
    }
}

#[tokio::test]
async fn an_origin_that_cannot_be_reached_is_told_and_the_start_waits_for_it() {
    let checkout = Checkout::new();
    let address = format!("127.0.0.1:{}", free_port());
    let mut running = checkout.run(
        free_port(),
        &["--origins", &address, "--health-interval", "1s"],
    );
    let told = running.says("not ready").await;
    assert!(
        told.contains(&format!("{address} cannot be reached")) && !told.contains("Larder is ready"),
        "{told}"
    );
    let mut origin = Command::new(checkout.path("target/release/larder-mock-origin"));
    origin.args(["--listen", &address]);
    let _origin = Process::start("origin", origin, &checkout.path("origin.log")).unwrap();
    running.says("Larder is ready").await;
}

#[tokio::test]
async fn a_copied_checkout_uses_its_own_files_and_its_printed_purge_works_from_anywhere() {
    let checkout = Checkout::new();
    checkout.write(".env", "LARDER_PURGE_TOKEN=operator\n");
    let mut running = checkout.run(free_port(), &[]);
    let told = running.says("Larder is ready").await;
    let logs = told
        .lines()
        .find_map(|line| line.split_once("logs: "))
        .unwrap()
        .1;
    assert!(
        Path::new(logs).starts_with(checkout.folder.path().canonicalize().unwrap()),
        "{logs}"
    );
    let purge = told
        .lines()
        .find_map(|line| line.strip_prefix("· to purge: "))
        .unwrap();
    let done = Command::new("sh")
        .args(["-c", purge])
        .current_dir("/")
        .env_clear()
        .output()
        .unwrap();
    assert!(
        done.status.success() && String::from_utf8_lossy(&done.stdout).contains("everything"),
        "{done:?}"
    );
}

#[tokio::test]
async fn a_run_that_died_is_not_given_another_configuration() {
    let checkout = Checkout::new();
    let port = free_port();
    let mut running = checkout.run(port, &[]);
    running.says("Larder is ready").await;
    let filter = [
        "filter",
        "--port",
        &port.to_string(),
        "--config",
        "envoy/filters/default.json",
    ];
    assert!(checkout.output(&filter).status.success());
    running.0.kill();
    let begun = std::time::Instant::now();
    let told = refusal(&checkout.output(&filter));
    assert!(
        told.contains(&format!(
            "nothing runs on port {port}; start it: make run port={port}"
        )),
        "{told}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "said at once: {:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn two_runs_under_one_host_share_what_they_store() {
    let checkout = Checkout::new();
    let redis = RedisServer::start().await.unwrap();
    checkout.write(".env", &format!("REDIS_URL={}\n", redis.url()));
    checkout.write("patient.json", &patient().filter_config);
    let ports = [free_port(), free_port()];
    let mut runs = ports.map(|port| {
        checkout.run(
            port,
            &["--host", "shop.example", "--config", "patient.json"],
        )
    });
    for running in &mut runs {
        running.says("Larder is ready").await;
    }
    let client = Client::new();
    let get = |port: u16| {
        let request = client
            .get(format!(
                "http://127.0.0.1:{port}/data?id=1&cache-control=max-age=600"
            ))
            .send();
        async { Answer::of(request.await.unwrap()).await }
    };
    // One fetches and stores; the other, which never fetched it, has it.
    assert!(!get(ports[0]).await.is_hit());
    let entries = || async {
        redis
            .cli(&["KEYS", "larder:*:v:*"])
            .contains(":v:")
            .then_some(())
    };
    eventually(Duration::from_secs(5), entries)
        .await
        .expect("it is stored");
    let answer = get(ports[1]).await;
    assert!(answer.is_hit(), "{answer:?}");
}

#[tokio::test]
async fn the_logs_of_a_run_are_bounded_and_go_on() {
    use crate::support::{On, World};
    let world = World::with(On::Memory, patient()).await;
    let log = world.stack.run_dir().join("access.log");
    let length = || std::fs::metadata(&log).map_or(0, |meta| meta.len());
    // Envoy writes its log every ten seconds, or when there are 64 KB.
    let ask = || async {
        world.herd("/anything/logged", 100).await;
    };
    let written = |bytes: u64| {
        eventually(Duration::from_secs(30), move || async move {
            ask().await;
            (length() > bytes).then_some(())
        })
    };
    written(10_000).await.expect("a log");
    // What Envoy had not written yet goes into the new one.
    let kept = || async {
        world.stack.keep_logs_within(10_000).await;
        (length() < 10_000).then_some(())
    };
    let kept = eventually(Duration::from_secs(30), kept).await;
    assert!(kept.is_some(), "{}", length());
    assert!(
        std::fs::metadata(log.with_extension("log.1"))
            .unwrap()
            .len()
            > 10_000
    );
    written(0).await.expect("the log goes on");
}
