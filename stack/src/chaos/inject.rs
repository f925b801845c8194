//! How each fault is brought about and put right again.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::fleet::Fleet;
use super::history::Micros;
use super::origin::Mood;
use super::recorder::Recorder;
use super::schedule::{Fault, Kind, Planned};
use crate::link::Mode;

/// How long each way through a slow link takes.
const SLOW: Duration = Duration::from_millis(150);
/// Bytes beyond what an empty Redis needs, while it evicts.
const ROOM: u64 = 400_000;

/// Carries out a fault at its time, from begin to end. The error says what could not be done.
pub(crate) async fn carry_out(
    fleet: Arc<Fleet>,
    recorder: Arc<Recorder>,
    planned: Planned,
) -> Result<(), String> {
    fleet.clock.until(planned.at_ms).await;
    let fault = planned.fault;
    if fault.kind == Kind::RollBackRedis {
        redis(&fleet, &["SAVE"]).await;
        tokio::time::sleep(Duration::from_millis(planned.lasts_ms)).await;
    }
    let number = recorder.fault_begins(fault, fleet.clock.now());
    let begun = begin(&fleet, fault).await;
    let lasts_ms = if fault.kind == Kind::RollBackRedis {
        planned.lasts_ms % 1_500
    } else {
        planned.lasts_ms
    };
    let lasts_ms = if is_momentary(fault.kind) {
        0
    } else {
        lasts_ms
    };
    tokio::time::sleep(Duration::from_millis(lasts_ms)).await;
    let ended = end(&fleet, fault).await;
    let now: Micros = fleet.clock.now();
    recorder.fault_ends(number, now);
    begun
        .and(ended)
        .map_err(|problem| format!("{fault}: {problem}"))
}

fn is_momentary(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::HalfOpenRedisLink | Kind::HalfOpenStoreLink | Kind::SwapFilter
    )
}

async fn redis(fleet: &Fleet, arguments: &[&str]) -> String {
    match &fleet.redis {
        Some(redis) => redis.lock().await.cli(arguments),
        None => String::new(),
    }
}

async fn begin(fleet: &Fleet, fault: Fault) -> Result<(), String> {
    let side = fault.side;
    match fault.kind {
        Kind::KillSidecar => fleet.sidecars[side].lock().await.process.kill(),
        Kind::FreezeSidecar => fleet.sidecars[side]
            .lock()
            .await
            .process
            .signal(Signal::SIGSTOP),
        Kind::FreezeRedis => signal_redis(fleet, Signal::SIGSTOP).await,
        Kind::EmptyRedis | Kind::RollBackRedis => {
            if let Some(redis) = &fleet.redis {
                redis.lock().await.kill();
            }
        }
        Kind::FillRedis => limit_redis(fleet, "noeviction", 1).await,
        Kind::EvictFromRedis => {
            limit_redis(fleet, "allkeys-lru", 1).await;
            redis(fleet, &["SET", "chaos", "makes room"]).await;
            limit_redis(
                fleet,
                "allkeys-lru",
                empty_size(&redis(fleet, &["INFO", "memory"]).await) + ROOM,
            )
            .await;
        }
        Kind::ReadOnlyRedis => drop(redis(fleet, &["REPLICAOF", "127.0.0.1", "1"]).await),
        Kind::SlowRedisLink => fleet.redis_links[side].become_(Mode::Slow(SLOW)),
        Kind::SilentRedisLink => fleet.redis_links[side].become_(Mode::Silent),
        Kind::ResetRedisLink => fleet.redis_links[side].become_(Mode::Reset),
        Kind::HalfOpenRedisLink => fleet.redis_links[side].half_open(),
        Kind::SlowStoreLink => fleet.store_links[side].become_(Mode::Slow(SLOW)),
        Kind::SilentStoreLink => fleet.store_links[side].become_(Mode::Silent),
        Kind::ResetStoreLink => fleet.store_links[side].become_(Mode::Reset),
        Kind::HalfOpenStoreLink => fleet.store_links[side].half_open(),
        Kind::FreezeEnvoy => fleet.envoys[side]
            .lock()
            .await
            .signal_envoy(Signal::SIGSTOP),
        Kind::RestartEnvoy => fleet.envoys[side].lock().await.kill_envoy(),
        Kind::SwapFilter => {
            let config = fleet.another_config(fleet.clock.now());
            let swapped = fleet.envoys[side]
                .lock()
                .await
                .swap_filter_config(&config)
                .await;
            return swapped.map_err(|error| error.to_string());
        }
        Kind::OriginDown => fleet.origin.become_(Mood::Down),
        Kind::OriginErrors => fleet.origin.become_(Mood::Errors),
    }
    Ok(())
}

async fn end(fleet: &Fleet, fault: Fault) -> Result<(), String> {
    let side = fault.side;
    match fault.kind {
        Kind::KillSidecar => {
            fleet.sidecars[side]
                .lock()
                .await
                .restart()
                .await
                .map_err(|error| error.to_string())?;
        }
        Kind::FreezeSidecar => fleet.sidecars[side]
            .lock()
            .await
            .process
            .signal(Signal::SIGCONT),
        Kind::FreezeRedis => signal_redis(fleet, Signal::SIGCONT).await,
        Kind::EmptyRedis | Kind::RollBackRedis => {
            if let Some(redis) = &fleet.redis {
                let mut redis = redis.lock().await;
                let back = fault.kind == Kind::RollBackRedis;
                if back {
                    redis.restart_from_snapshot().await
                } else {
                    redis.restart().await
                }?;
            }
        }
        Kind::FillRedis | Kind::EvictFromRedis => limit_redis(fleet, "noeviction", 0).await,
        Kind::ReadOnlyRedis => drop(redis(fleet, &["REPLICAOF", "NO", "ONE"]).await),
        Kind::SlowRedisLink | Kind::SilentRedisLink | Kind::ResetRedisLink => {
            fleet.redis_links[side].become_(Mode::Open)
        }
        Kind::SlowStoreLink | Kind::SilentStoreLink | Kind::ResetStoreLink => {
            fleet.store_links[side].become_(Mode::Open)
        }
        Kind::FreezeEnvoy => fleet.envoys[side]
            .lock()
            .await
            .signal_envoy(Signal::SIGCONT),
        Kind::RestartEnvoy => {
            let mut envoy = fleet.envoys[side].lock().await;
            envoy
                .restart_envoy()
                .await
                .map_err(|error| error.to_string())?;
            fleet.moved(side, envoy.url());
        }
        Kind::OriginDown | Kind::OriginErrors => fleet.origin.become_(Mood::Well),
        Kind::HalfOpenRedisLink | Kind::HalfOpenStoreLink | Kind::SwapFilter => {}
    }
    Ok(())
}

async fn signal_redis(fleet: &Fleet, signal: Signal) {
    if let Some(redis) = &fleet.redis {
        redis.lock().await.signal(signal);
    }
}

async fn limit_redis(fleet: &Fleet, policy: &str, bytes: u64) {
    redis(fleet, &["CONFIG", "SET", "maxmemory-policy", policy]).await;
    redis(fleet, &["CONFIG", "SET", "maxmemory", &bytes.to_string()]).await;
}

/// What Redis needs without any key.
fn empty_size(info: &str) -> u64 {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory_startup:"));
    line.and_then(|number| number.trim().parse().ok())
        .unwrap_or(1_000_000)
}
