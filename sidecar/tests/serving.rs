//! How long a connection may say nothing, and how many there may be.

use std::net::SocketAddr;
use std::time::Duration;

use larder_sidecar::Access;
use larder_sidecar::serving::Patience;
use larder_stack::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[path = "common/served.rs"]
mod served;

use served::{on_memory, serve};

const LONG: Duration = Duration::from_secs(10);

async fn sidecar(patience: Patience) -> SocketAddr {
    serve(on_memory(), Access::default(), patience).await
}

/// A connection on which this was said.
async fn said(address: SocketAddr, text: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text).await.unwrap();
    stream
}

/// Reads to the end, which has to come.
async fn end_of(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end, too.
    let _ = timeout(LONG, stream.read_to_end(&mut text))
        .await
        .expect("it is closed");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn who_says_nothing_or_half_a_head_is_hung_up_on_and_who_waits_for_an_answer_is_not() {
    let patience = Patience {
        head: Duration::from_millis(200),
        ..Patience::default()
    };
    let address = sidecar(patience).await;
    end_of(said(address, b"").await).await;
    end_of(said(address, b"GET /livez HTTP/1.1\r\nhost: a\r\nx-slow: ").await).await;
    let cursor = reqwest::get(format!("http://{address}/v1/events"))
        .await
        .unwrap();
    let cursor: serde_json::Value = cursor.json().await.unwrap();
    let cursor = cursor["cursor"].as_str().unwrap();
    let held = format!("http://{address}/v1/events?after={cursor}&wait_ms=800");
    assert!(reqwest::get(held).await.unwrap().status().is_success());
}

#[tokio::test]
async fn there_is_a_bound_on_connections_and_who_leaves_makes_room() {
    let patience = Patience {
        connections: 2,
        ..Patience::default()
    };
    let address = sidecar(patience).await;
    let both = [said(address, b"G").await, said(address, b"G").await];
    end_of(said(address, b"").await).await;
    drop(both);
    let served = || async {
        let request = b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let answer = end_of(said(address, request).await).await;
        answer.contains("200 OK").then_some(())
    };
    assert!(eventually(LONG, served).await.is_some());
}
