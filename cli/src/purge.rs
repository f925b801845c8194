//! `larder purge`: what an operator has the sidecar drop everywhere.

use std::time::Duration;

use larder_contract::purge_order::Order;
use larder_contract::store_api::PURGE_PATH;
use larder_stack::StackError;
use serde_json::Value;

use crate::Result;
use crate::options::Purge;

const NO_TOKEN: &str = "a purge needs the sidecar's LARDER_PURGE_TOKEN: set it in .env or in the shell, or give --token";

pub(crate) async fn purge(options: &Purge) -> Result<()> {
    let token = options
        .token
        .as_deref()
        .ok_or_else(|| StackError(NO_TOKEN.to_owned()))?;
    let told = send(options, token).await.map_err(StackError)?;
    println!("{told:#}");
    Ok(())
}

fn order(purge: &Purge) -> Order {
    let Purge {
        what,
        soft,
        namespace,
        ..
    } = purge;
    Order {
        url: what.url.clone(),
        namespace: what.url.is_some().then(|| namespace.clone()),
        tag: None,
        tags: what.tag.clone(),
        prefix: what.prefix.clone(),
        everything: what.everything,
        soft: *soft,
    }
}

async fn send(purge: &Purge, token: &str) -> std::result::Result<Value, String> {
    let sidecar = &purge.sidecar;
    let url = format!("{}{}", sidecar.trim_end_matches('/'), PURGE_PATH);
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .map_err(|error| error.to_string())?;
    let response = client
        .post(&url)
        .bearer_auth(token)
        .json(&order(purge))
        .send()
        .await;
    let response = response
        .map_err(|_| format!("no sidecar answers at {sidecar}; give its address with --sidecar"))?;
    let status = response.status();
    let told: Value = response
        .json()
        .await
        .map_err(|_| format!("{sidecar} is no sidecar: it answered {status}"))?;
    match told.get("error").and_then(Value::as_str) {
        Some(error) => Err(error.to_owned()),
        None => Ok(told),
    }
}
