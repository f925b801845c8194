//! The mock origin over a real socket.

use larder_mock_origin::{Origin, serve};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;

async fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(
        listener,
        Origin::new("o", None),
        std::future::pending(),
    ));
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
    let matching = Client::new()
        .get(format!("{url}/data"))
        .header("if-none-match", &etag);
    assert_eq!(
        matching.try_clone().unwrap().send().await.unwrap().status(),
        StatusCode::NOT_MODIFIED
    );
    Client::new()
        .put(format!("{url}/data"))
        .send()
        .await
        .unwrap();
    let changed = matching.send().await.unwrap();
    assert_eq!(changed.status(), StatusCode::OK);
    assert_ne!(changed.headers()["etag"], etag);
}

#[tokio::test]
async fn queued_behaviours_come_first_in_first_out_and_end() {
    let url = start().await;
    for json in [
        r#"{"status": 503, "times": 1}"#,
        r#"{"status": 500, "times": 2}"#,
    ] {
        let set = Client::new()
            .put(format!("{url}/_control/behaviour?path=/data"))
            .body(json)
            .send()
            .await
            .unwrap();
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
    Client::new()
        .get(format!("{url}/data?x=1"))
        .header("x-a", "1")
        .send()
        .await
        .unwrap();
    let journal: Value = get(format!("{url}/_control/journal"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(journal.as_array().unwrap().len(), 1);
    assert_eq!(journal[0]["target"], "/data?x=1");
    assert!(
        journal[0]["headers"]
            .as_array()
            .unwrap()
            .contains(&serde_json::json!(["x-a", "1"]))
    );
}

#[tokio::test]
async fn health_can_be_switched_off_and_on() {
    let url = start().await;
    for status in [503, 200] {
        Client::new()
            .put(format!("{url}/health-check?status={status}"))
            .send()
            .await
            .unwrap();
        assert_eq!(
            get(format!("{url}/health-check")).await.status().as_u16(),
            status
        );
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
        Client::new()
            .put(format!("{url}/_control/behaviour?{query}"))
            .body(json)
            .send()
    };
    let response = put("path=/data", r#"{"statuss": 503}"#).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let told = response.text().await.unwrap();
    assert!(
        told.contains("unknown field `statuss`") && told.contains("`status`"),
        "{told}"
    );
    let response = put("pth=/data", r#"{"status": 503}"#).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(response.text().await.unwrap().contains("pth"));
    assert_eq!(
        get(format!("{url}/data")).await.status(),
        StatusCode::OK,
        "nothing was queued"
    );
}

#[tokio::test]
async fn fields_of_a_request_are_reflected_without_a_word_in_vary() {
    let url = start().await;
    let query =
        "mock-reflect=x-host,x-none&mock-echo=Location:x-host&mock-header=Content-Type:text/css";
    let request = Client::new()
        .get(format!("{url}/anything/x?{query}"))
        .header("x-host", "evil.example");
    let response = request.send().await.unwrap();
    assert!(!response.headers().contains_key("vary"));
    assert_eq!(response.headers()["location"], "evil.example");
    assert_eq!(
        response
            .headers()
            .get_all("content-type")
            .iter()
            .collect::<Vec<_>>(),
        ["text/css"]
    );
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(
        (&body["request-x-host"], &body["request-x-none"]),
        (&Value::from("evil.example"), &Value::Null)
    );
}

#[tokio::test]
async fn a_conditional_resource_confirms_its_own_tag_only() {
    let url = start().await;
    for (tag, status) in [("\"1\"", 304), ("W/\"1\"", 304), ("\"2\"", 200)] {
        let path = format!("{url}/anything/x?mock-header=ETag:%221%22&mock-conditional=1");
        let response = Client::new()
            .get(path)
            .header("if-none-match", tag)
            .send()
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["etag"]),
            (status, &"\"1\"".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn an_answer_can_be_untyped_or_no_answer_at_all() {
    let url = start().await;
    let untyped = get(format!("{url}/anything/x?mock-untyped=1")).await;
    assert!(!untyped.headers().contains_key("content-type"));
    let empty = get(format!("{url}/anything/x?mock-status=204")).await;
    assert!(
        !empty.headers().contains_key("content-length"),
        "a 204 has none"
    );
    assert!(
        Client::new()
            .get(format!("{url}/anything/x?mock-reset=1"))
            .send()
            .await
            .is_err()
    );
    assert_eq!(
        get(format!("{url}/anything/x")).await.status(),
        StatusCode::OK,
        "it still serves"
    );
}

#[tokio::test]
async fn content_can_stall_half_way_or_never_end() {
    let url = start().await;
    let mut endless = get(format!("{url}/anything/x?mock-endless=1&mock-body-size=10")).await;
    assert!(!endless.headers().contains_key("content-length"));
    let mut received = 0;
    while received < 1000 {
        received += endless.chunk().await.unwrap().unwrap().len();
    }
    let mut stalled = get(format!("{url}/anything/x?mock-stall=1&mock-body-size=10")).await;
    assert_eq!(stalled.chunk().await.unwrap().unwrap(), "abcde");
    let more = tokio::time::timeout(std::time::Duration::from_millis(100), stalled.chunk());
    assert!(more.await.is_err(), "nothing follows, and it does not end");
}
