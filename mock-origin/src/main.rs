//! The mock origin as a program.

use clap::Parser;
use larder_mock_origin::{Origin, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// An origin server that does what a test or a reader tells it. `GET /` on it lists what it can do.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "MOCK_ORIGIN_LISTEN", default_value = "127.0.0.1:9000")]
    listen: String,
    /// What it calls itself in `x-origin`
    #[arg(long, env = "MOCK_ORIGIN_NAME", default_value = "origin")]
    name: String,
    /// Where its data starts (RFC 3339); two origins behind one balancer need the same
    #[arg(long, env = "MOCK_ORIGIN_UPDATED_AT")]
    updated_at: Option<String>,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let options = Options::parse();
    let listener = match TcpListener::bind(&options.listen).await {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!(
                "mock origin: cannot listen on {}: {error}; choose another with --listen",
                options.listen
            );
            return std::process::ExitCode::FAILURE;
        }
    };
    if let Ok(address) = listener.local_addr() {
        println!("{} listening on http://{address}", options.name);
    }
    let origin = Origin::new(&options.name, options.updated_at);
    match serve(listener, origin, told_to_stop()).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mock origin: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn told_to_stop() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
}
