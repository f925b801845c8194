//! A link to a server that sends everything back, broken in every way.

use super::*;

/// A link to a server that sends everything back.
async fn echo() -> Link {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    Link::to(&address).await.unwrap()
}

async fn answer(stream: &mut TcpStream, within: Duration) -> Option<u8> {
    stream.write_all(b"x").await.ok()?;
    tokio::time::timeout(within, stream.read_u8())
        .await
        .ok()?
        .ok()
}

#[tokio::test]
async fn what_is_silent_keeps_everything_until_it_is_open_again() {
    let link = echo().await;
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    let long = Duration::from_secs(5);
    assert_eq!(answer(&mut stream, long).await, Some(b'x'));
    link.become_(Mode::Silent);
    assert_eq!(answer(&mut stream, Duration::from_millis(50)).await, None);
    link.become_(Mode::Open);
    assert_eq!(
        tokio::time::timeout(long, stream.read_u8())
            .await
            .unwrap()
            .unwrap(),
        b'x'
    );
}

#[tokio::test]
async fn a_half_open_connection_stays_so_and_a_new_one_works() {
    let link = echo().await;
    let mut old = TcpStream::connect(link.address()).await.unwrap();
    assert!(answer(&mut old, Duration::from_secs(5)).await.is_some());
    link.half_open();
    assert_eq!(answer(&mut old, Duration::from_millis(50)).await, None);
    let mut new = TcpStream::connect(link.address()).await.unwrap();
    assert!(answer(&mut new, Duration::from_secs(5)).await.is_some());
}

#[tokio::test]
async fn a_reset_ends_every_connection() {
    let link = echo().await;
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    assert!(answer(&mut stream, Duration::from_secs(5)).await.is_some());
    link.become_(Mode::Reset);
    assert!(
        tokio::time::timeout(Duration::from_secs(5), stream.read_u8())
            .await
            .unwrap()
            .is_err()
    );
}

#[tokio::test]
async fn what_is_slow_does_not_make_what_comes_after_it_slower() {
    const DELAY: Duration = Duration::from_millis(300);
    let link = echo().await;
    link.become_(Mode::Slow(DELAY));
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let begun = Instant::now();
    for _ in 0..8 {
        stream.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut answers = [0; 8];
    tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut answers))
        .await
        .unwrap()
        .unwrap();
    assert!(
        begun.elapsed() >= DELAY * 2,
        "there and back: {:?}",
        begun.elapsed()
    );
    assert!(
        begun.elapsed() < DELAY * 6,
        "not one after the other: {:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn only_the_last_connection_is_half_open_where_only_that_is_meant() {
    let link = echo().await;
    let mut first = TcpStream::connect(link.address()).await.unwrap();
    assert!(answer(&mut first, Duration::from_secs(5)).await.is_some());
    let mut last = TcpStream::connect(link.address()).await.unwrap();
    assert!(answer(&mut last, Duration::from_secs(5)).await.is_some());
    link.half_open_the_last();
    assert_eq!(answer(&mut last, Duration::from_millis(50)).await, None);
    assert!(answer(&mut first, Duration::from_secs(5)).await.is_some());
}

#[tokio::test]
async fn a_cut_closes_what_is_open_and_a_new_connection_works() {
    let link = echo().await;
    let mut old = TcpStream::connect(link.address()).await.unwrap();
    assert!(answer(&mut old, Duration::from_secs(5)).await.is_some());
    link.cut();
    let end = tokio::time::timeout(Duration::from_secs(5), old.read(&mut [0]))
        .await
        .unwrap();
    assert_eq!(end.unwrap(), 0, "an end, and no reset");
    let mut new = TcpStream::connect(link.address()).await.unwrap();
    assert!(answer(&mut new, Duration::from_secs(5)).await.is_some());
    assert_eq!(link.made(), 2);
}

#[tokio::test]
async fn a_new_connection_is_reset_at_its_first_bytes() {
    let link = echo().await;
    link.become_(Mode::Reset);
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
    assert!(nothing.is_err(), "it stays open: {nothing:?}");
    stream.write_all(b"x").await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_secs(5), stream.read_u8())
            .await
            .unwrap()
            .is_err()
    );
}

#[tokio::test]
async fn it_leads_nowhere_at_first_and_elsewhere_later() {
    let (link, other) = (Link::to_nowhere().await.unwrap(), echo().await);
    let mut turned_away = TcpStream::connect(link.address()).await.unwrap();
    assert_eq!(answer(&mut turned_away, Duration::from_secs(5)).await, None);
    link.lead_to(&other.address());
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    assert_eq!(
        answer(&mut stream, Duration::from_secs(5)).await,
        Some(b'x')
    );
    link.garble(true);
    assert_eq!(
        answer(&mut stream, Duration::from_secs(5)).await,
        Some(b'?')
    );
}
