//! The mock origin over a real socket.

use larder_mock_origin::{Origin, serve};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;

async fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, Origin::new("o", None), std::future::pending()));
    url
}

async fn get(url: String) -> reqwest::Response {
    Client::new().get(url).send().await.unwrap()
}

#[tokio::test]
async fn the_entity_tag_changes_with_put_and_matches_until_then() {
    let url = start().await;
    let first = get(format!("{url}/data?id=7")).await;
    assert_eq!(first.headers()["x-origin"], "o");
    let etag = first.headers()["etag"].clone();
    assert_eq!(first.json::<Value>().await.unwrap()["id"], "7");
    let matching = Client::new().get(format!("{url}/data")).header("if-none-match", &etag);
    assert_eq!(matching.try_clone().unwrap().send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
    Client::new().put(format!("{url}/data")).send().await.unwrap();
    let changed = matching.send().await.unwrap();
    assert_eq!(changed.status(), StatusCode::OK);
    assert_ne!(changed.headers()["etag"], etag);
}

#[tokio::test]
async fn queued_behaviours_come_first_in_first_out_and_end() {
    let url = start().await;
    for json in [r#"{"status": 503, "times": 1}"#, r#"{"status": 500, "times": 2}"#] {
        let set = Client::new().put(format!("{url}/_control/behaviour?path=/data")).body(json).send().await.unwrap();
        assert_eq!(set.status(), StatusCode::OK);
    }
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(get(format!("{url}/data")).await.status().as_u16());
    }
    assert_eq!(statuses, [503, 500, 500, 200]);
}

#[tokio::test]
async fn a_broken_body_ends_in_an_error_at_the_client() {
    let url = start().await;
    for query in ["mock-broken=1", "mock-broken=1&mock-chunked=1"] {
        let response = get(format!("{url}/data?mock-body-size=100000&{query}")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.bytes().await.is_err(), "{query}");
    }
}

#[tokio::test]
async fn the_journal_shows_what_arrived_and_not_the_health_checks() {
    let url = start().await;
    get(format!("{url}/health-check")).await;
    Client::new().get(format!("{url}/data?x=1")).header("x-a", "1").send().await.unwrap();
    let journal: Value = get(format!("{url}/_control/journal")).await.json().await.unwrap();
    assert_eq!(journal.as_array().unwrap().len(), 1);
    assert_eq!(journal[0]["target"], "/data?x=1");
    assert!(journal[0]["headers"].as_array().unwrap().contains(&serde_json::json!(["x-a", "1"])));
}

#[tokio::test]
async fn health_can_be_switched_off_and_on() {
    let url = start().await;
    for status in [503, 200] {
        Client::new().put(format!("{url}/health-check?status={status}")).send().await.unwrap();
        assert_eq!(get(format!("{url}/health-check")).await.status().as_u16(), status);
    }
}

#[tokio::test]
async fn an_unknown_behaviour_is_refused_and_named() {
    let url = start().await;
    let response = get(format!("{url}/data?mock-bogus=1")).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(response.text().await.unwrap().contains("mock-bogus"));
}

#[tokio::test]
async fn an_unknown_member_of_a_behaviour_or_of_its_query_is_refused_and_named() {
    let url = start().await;
    let put = |query: &str, json: &'static str| {
        Client::new().put(format!("{url}/_control/behaviour?{query}")).body(json).send()
    };
    let response = put("path=/data", r#"{"statuss": 503}"#).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let told = response.text().await.unwrap();
    assert!(told.contains("unknown field `statuss`") && told.contains("`status`"), "{told}");
    let response = put("pth=/data", r#"{"status": 503}"#).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(response.text().await.unwrap().contains("pth"));
    assert_eq!(get(format!("{url}/data")).await.status(), StatusCode::OK, "nothing was queued");
}
