//! `envoy/in-your-envoy.yaml`, started as it stands but for ports and paths: what the document says
//! of it, seen.

use larder_stack::process::Process;
use larder_stack::stack::{filter_module, project_root};
use larder_stack::{Settings, eventually, launch, render};
use serde_json::{Value, json};

use super::shown;
use super::tls::{Client, certified};
use crate::mock_origin::MockOrigin;
use crate::support::{Answer, larder_program};
use crate::whose::{jwks, signed};

const WHOLE: &str = include_str!("../../../../envoy/in-your-envoy.yaml");
const SHOP: &str = "shop.example";
const API: &str = "api.example";

/// Everything that the file names, running.
struct Site {
    client: Client,
    origin: String,
    control: reqwest::Client,
    folder: tempfile::TempDir,
    _processes: Vec<Process>,
}

impl Site {
    /// The file, which uses a sidecar at the port that it names.
    async fn of(file: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path();
        let (origin, at) = launch::origin("origin-1", run_dir, launch::ANYWHERE)
            .await
            .unwrap();
        let settings = Settings::default();
        let sidecar = launch::sidecar(&settings, run_dir, launch::ANYWHERE);
        let (sidecar, sidecar_at) = sidecar.await.unwrap();
        let mut client = certified(run_dir, &[SHOP, API]);
        std::fs::write(run_dir.join("jwks.json"), jwks()).unwrap();
        let wasm = filter_module(&project_root()).unwrap();
        let port = |address: &str| {
            let (_, port) = address.rsplit_once(':').unwrap();
            format!("port_value: {port} ")
        };
        let folder_text = format!("{}/", run_dir.display());
        let edits = [
            ("port_value: 9901 ", "port_value: 0 ".to_owned()),
            ("port_value: 8443 ", "port_value: 0 ".to_owned()),
            ("port_value: 8080 ", port(&at)),
            ("port_value: 7480 ", port(&sidecar_at)),
            ("/etc/envoy/larder_filter.wasm", wasm.display().to_string()),
            ("/etc/envoy/", folder_text.clone()),
            ("/var/log/envoy/", folder_text),
        ];
        // The mock origin has its pages under /anything/.
        let moved = ["account", "admin", "checkout", "pictures"].map(|folder| {
            let prefix = |before: &str| format!("prefix: {before}/{folder}/");
            (prefix(""), prefix("/anything"))
        });
        let edits = edits.map(|(from, to)| (from.to_owned(), to));
        let edits = [&edits[..], &moved[..]].concat();
        let config = render::edited(file.to_owned(), &edits).unwrap();
        let (envoy, url) = launch::plain_envoy(run_dir, &config).await.unwrap();
        client.address = url.replace("http://", "");
        let site = Self {
            client,
            origin: at,
            control: reqwest::Client::new(),
            folder,
            _processes: vec![envoy, sidecar, origin],
        };
        // Level 1 is emptied once it follows what is purged; what is kept before would be asked for
        // again.
        let follows = || async {
            let log = std::fs::read_to_string(site.folder.path().join("envoy.log")).unwrap();
            log.contains("level 1 is emptied").then_some(())
        };
        eventually(std::time::Duration::from_secs(5), follows)
            .await
            .expect("it follows");
        site
    }

    fn origin(&self) -> MockOrigin<'_> {
        MockOrigin {
            client: &self.control,
            url: format!("http://{}", self.origin),
        }
    }

    async fn behave(&self, path: &str, json: &Value) {
        self.origin().behave(path, &json.to_string()).await;
    }

    async fn journal(&self, path: &str) -> Vec<Value> {
        self.origin().journal(path).await.unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.client.get(SHOP, path, &[]).await
    }

    /// Polls until a page comes from the cache, and gives that answer.
    async fn hit(&self, host: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let hit = eventually(std::time::Duration::from_secs(10), || async {
            let answer = self.client.get(host, path, fields).await;
            answer.is_hit().then_some(answer)
        });
        match hit.await {
            Some(hit) => hit,
            None => panic!("no hit: {:?}", self.client.get(host, path, fields).await),
        }
    }

    /// The access log's lines about a path.
    async fn logged(&self, path: &str, count: usize) -> Vec<Value> {
        let file = self.folder.path().join("access.json");
        let lines = || async {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let lines = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            let lines: Vec<Value> = lines.filter(|line: &Value| line["path"] == path).collect();
            (lines.len() >= count).then_some(lines)
        };
        // Envoy writes its log every ten seconds.
        eventually(std::time::Duration::from_secs(15), lines)
            .await
            .expect("lines")
    }
}

fn token(subject: &str, role: &str) -> String {
    signed(&json!({ "iss": "https://login.example", "sub": subject, "role": role }))
}

fn public(more: Value) -> Value {
    let mut behaviour = json!({ "headers": [["cache-control", "public, max-age=60"]] });
    behaviour
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    behaviour
}

async fn pages_are_kept_and_told(site: &Site) {
    let path = "/anything/page?mock-cache-control=max-age%3D60&mock-header=ETag:%221%22";
    let miss = site.get(path).await;
    assert_eq!((miss.status, miss.is_hit()), (200, false), "{miss:?}");
    let hit = site.hit(SHOP, path, &[]).await;
    assert_eq!((shown(&hit), &hit.body), (shown(&miss), &miss.body));
    let added = hit
        .headers
        .iter()
        .filter(|(name, _)| name == "strict-transport-security");
    assert_eq!(added.count(), 1, "{hit:?}");
    let unchanged = site
        .client
        .get(SHOP, path, &[("if-none-match", "\"1\"")])
        .await;
    assert_eq!(
        (unchanged.status, unchanged.is_hit()),
        (304, true),
        "{unchanged:?}"
    );
    let lines = site.logged(path, 2).await;
    let last = &lines[lines.len() - 2];
    assert_eq!(
        (
            &last["cache"],
            &last["details"],
            &last["route"],
            &last["upstream"]
        ),
        (
            &json!("HIT"),
            &json!("larder_hit"),
            &json!("shop"),
            &Value::Null
        ),
        "{last}"
    );
    assert!(
        lines[0]["upstream"].is_string() && lines[0]["cache"] == "MISS",
        "{}",
        lines[0]
    );
}

async fn routes_say_how_they_are_cached(site: &Site) {
    site.behave("/anything/checkout/a", &public(json!({})))
        .await;
    site.behave("/anything/pictures/a", &json!({ "status": 200 }))
        .await;
    for _ in 0..2 {
        let answer = site.get("/anything/checkout/a").await;
        assert_eq!(
            (answer.status, answer.header("cache-status")),
            (200, ""),
            "{answer:?}"
        );
    }
    site.hit(SHOP, "/anything/pictures/a", &[]).await;
}

async fn nobody_gets_what_is_not_for_them(site: &Site) {
    let behaviour = public(json!({ "reflect": "x-jwt-sub,authorization" }));
    for path in ["/anything/admin/a", "/anything/account/a"] {
        site.behave(path, &behaviour).await;
    }
    let (admin, user) = (token("ann", "admin"), token("bob", "user"));
    site.hit(SHOP, "/anything/admin/a", &[("authorization", &admin)])
        .await;
    let refused = site
        .client
        .get(SHOP, "/anything/admin/a", &[("authorization", &user)])
        .await;
    assert_eq!(
        (refused.status, refused.is_hit()),
        (403, false),
        "{refused:?}"
    );
    let unknown = site.get("/anything/admin/a").await;
    assert_eq!(
        (unknown.status, unknown.is_hit()),
        (401, false),
        "{unknown:?}"
    );
    let own = json!({ "headers": [["cache-control", "max-age=60"]], "reflect": "x-jwt-sub" });
    site.behave("/anything/account/own", &own).await;
    for (name, token) in [("ann", &admin), ("bob", &user), ("ann", &admin)] {
        let answer = site
            .client
            .get(SHOP, "/anything/account/own", &[("authorization", token)])
            .await;
        assert!(!answer.is_hit() && answer.body.contains(name), "{answer:?}");
    }
}

async fn other_sites_read_what_they_may(site: &Site) {
    let path = "/anything/cors?mock-cache-control=max-age%3D60";
    let ours = [("origin", "https://shop.example")];
    let miss = site.client.get(API, path, &ours).await;
    let hit = site.hit(API, path, &ours).await;
    assert_eq!(
        hit.header("access-control-allow-origin"),
        "https://shop.example"
    );
    assert_eq!(shown(&hit), shown(&miss));
    let other = site
        .client
        .get(API, path, &[("origin", "https://evil.example")])
        .await;
    assert!(other.is_hit(), "one copy for all: {other:?}");
    assert_eq!(other.header("access-control-allow-origin"), "");
    let asked = [
        ("origin", "https://shop.example"),
        ("access-control-request-method", "PUT"),
    ];
    let (preflight, _) = site.client.bytes("OPTIONS", API, path, &asked).await;
    assert_eq!(
        (
            preflight.status,
            preflight.header("access-control-allow-methods")
        ),
        (200, "GET, PUT, POST, DELETE"),
        "{preflight:?}"
    );
}

async fn one_copy_serves_every_coding(site: &Site) {
    let path = "/anything/large?mock-body-size=5000&mock-cache-control=max-age%3D60";
    let plain = site.get(path).await;
    site.hit(SHOP, path, &[]).await;
    for text in ["gzip", "gzip, br", "br;q=0.1, gzip", "deflate, gzip"] {
        let (hit, body) = site
            .client
            .bytes("GET", SHOP, path, &[("accept-encoding", text)])
            .await;
        assert!(
            hit.is_hit() && hit.header("content-encoding") == "gzip",
            "{text}: {hit:?}"
        );
        assert!(body.starts_with(&[0x1f, 0x8b]) && body.len() < plain.body.len());
    }
    assert_eq!(site.journal("/anything/large").await.len(), 1);
}

async fn refreshes_take_the_routes(site: &Site) {
    let path = "/v2/anything/x?mock-cache-control=max-age%3D1,stale-while-revalidate%3D60";
    assert_eq!(site.client.get(API, path, &[]).await.status, 200);
    let refreshed = eventually(std::time::Duration::from_secs(10), || async {
        site.client.get(API, path, &[]).await;
        let journal = site.journal("/anything/x").await;
        (journal.len() >= 2).then_some(journal)
    });
    for request in refreshed.await.expect("a refresh") {
        // What the route rewrote, as it says to the origin.
        let says = json!(["x-envoy-original-host", "api.example"]);
        assert!(
            request["headers"].as_array().unwrap().contains(&says),
            "{request}"
        );
    }
    assert!(site.journal("/v2/anything/x").await.is_empty());
}

#[tokio::test]
async fn the_documents_envoy_serves_as_the_document_says() {
    let site = Site::of(WHOLE).await;
    pages_are_kept_and_told(&site).await;
    routes_say_how_they_are_cached(&site).await;
    nobody_gets_what_is_not_for_them(&site).await;
    other_sites_read_what_they_may(&site).await;
    one_copy_serves_every_coding(&site).await;
    refreshes_take_the_routes(&site).await;
}

/// `larder render --snippet`, in the places of the document's own pieces.
fn pasted() -> String {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("filter.json");
    std::fs::write(
        &config,
        r#"{ "route_policies": { "pictures": { "default_lifetime_s": 9 } } }"#,
    )
    .unwrap();
    let output = std::process::Command::new(larder_program())
        .args([
            "render",
            "--snippet",
            "--name",
            "cache",
            "--cluster",
            "cache-sidecar",
        ])
        .args([
            "--sidecar",
            "127.0.0.1:7480",
            "--wasm",
            "/etc/envoy/larder_filter.wasm",
            "--config",
        ])
        .arg(&config)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut file = WHOLE.replace(
        "                            larder: {",
        "                            cache: {",
    );
    let printed = String::from_utf8(output.stdout).unwrap();
    for piece in printed.split("# == ").skip(1) {
        let (heading, text) = piece.split_once('\n').unwrap();
        let name = heading.split(':').next().unwrap();
        let (begin, end) = (format!("# begin {name}\n"), format!("# end {name}"));
        let (before, rest) = file.split_once(&begin).unwrap();
        let (_, after) = rest.split_once(&end).unwrap();
        file = format!("{before}\n{text}\n#{after}");
    }
    assert!(!file.contains("# begin"), "every piece was printed");
    file
}

#[tokio::test]
async fn the_printed_pieces_serve_under_other_names() {
    let site = Site::of(&pasted()).await;
    pages_are_kept_and_told(&site).await;
    routes_say_how_they_are_cached(&site).await;
    refreshes_take_the_routes(&site).await;
}
