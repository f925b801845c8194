//! `larder purge`: what an operator has the sidecar drop everywhere.

use std::path::Path;
use std::time::Duration;

use larder_contract::purge_order::Order;
use larder_contract::store_api::PURGE_PATH;
use larder_filter::config::Config;
use larder_stack::StackError;
use serde_json::{Value, json};

use crate::options::Purge;
use crate::{Result, read};

const NO_TOKEN: &str = "a purge needs the sidecar's LARDER_PURGE_TOKEN: set it in .env or in the shell, or give --token";

pub(crate) async fn purge(options: &Purge) -> Result<()> {
    let token = options
        .token
        .as_deref()
        .ok_or_else(|| StackError(NO_TOKEN.to_owned()))?;
    let mut purged = Vec::new();
    for order in orders(options)? {
        let told = send(&options.sidecar, &order, token).await;
        let mut told = told.map_err(StackError)?;
        match told.get_mut("purged").and_then(Value::as_array_mut) {
            Some(scopes) => purged.append(scopes),
            None => purged.push(told),
        }
    }
    println!("{:#}", json!({ "purged": purged }));
    Ok(())
}

/// What the sidecar is told: one order, or one for each name that the configuration's rules give
/// what is to be purged. The sidecar knows no rules.
fn orders(purge: &Purge) -> Result<Vec<Order>> {
    let Purge {
        what,
        soft,
        namespace,
        ..
    } = purge;
    let config = match &purge.config {
        Some(file) => Some(configuration(file)?),
        None => None,
    };
    let of_config = || {
        let config = config.as_ref()?;
        String::from_utf8(config.namespace.to_vec()).ok()
    };
    let order = Order {
        tags: what.tag.clone(),
        everything: what.everything,
        soft: *soft,
        ..Order::default()
    };
    match (&what.url, &what.prefix, &config) {
        (Some(url), _, _) => {
            let urls = match &config {
                Some(config) => config.urls_of(url).map_err(StackError)?,
                None => vec![url.clone()],
            };
            let namespace = namespace.clone().or_else(of_config);
            let one = |url| Order {
                url: Some(url),
                namespace: namespace.clone(),
                ..order.clone()
            };
            Ok(urls.into_iter().map(one).collect())
        }
        (None, Some(prefix), Some(config)) => {
            let one = |prefix| Order {
                prefix: Some(prefix),
                ..order.clone()
            };
            Ok(config.prefixes_of(prefix).into_iter().map(one).collect())
        }
        (None, prefix, _) => Ok(vec![Order {
            prefix: prefix.clone(),
            ..order
        }]),
    }
}

fn configuration(file: &str) -> Result<Config> {
    let text = read(Path::new(file))?;
    Config::parse(text.as_bytes())
        .map_err(|problem| StackError(format!("{file} is no configuration: {problem}")))
}

async fn send(sidecar: &str, order: &Order, token: &str) -> std::result::Result<Value, String> {
    let url = format!("{}{}", sidecar.trim_end_matches('/'), PURGE_PATH);
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .map_err(|error| error.to_string())?;
    let response = client
        .post(&url)
        .bearer_auth(token)
        .json(order)
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use larder_cache_core::message::Request;
    use larder_contract::purge::Scope;

    use super::*;
    use crate::options::{Cli, Verb};

    fn told(arguments: &[&str], config: &str) -> Vec<Order> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("filter.json");
        std::fs::write(&file, config).unwrap();
        let file = file.to_str().unwrap();
        let all = [&["larder", "purge", "--config", file], arguments].concat();
        match Cli::try_parse_from(all).unwrap().command {
            Verb::Purge(options) => orders(&options).unwrap(),
            _ => panic!("no purge"),
        }
    }

    #[test]
    fn a_url_is_purged_under_every_name_that_the_rules_give_it() {
        let config =
            r#"{"namespace": "shop", "rules": [{"policy": {"key": {"query_ignore": ["utm_*"]}}}]}"#;
        let url = "http://a/p?utm_source=x";
        let orders_told = told(&["--url", url, "--soft"], config);
        let urls: Vec<_> = orders_told.iter().flat_map(|order| &order.url).collect();
        assert_eq!(urls, [url, "https://a/p", "http://a/p"]);
        assert!(orders_told.iter().all(|order| order.soft));
        let namespace = |order: &Order| order.namespace.clone();
        assert_eq!(namespace(&orders_told[0]).as_deref(), Some("shop"));
        let named = told(&["--url", url, "--namespace", "other"], config);
        assert_eq!(namespace(&named[1]).as_deref(), Some("other"));
    }

    #[test]
    fn a_purge_of_a_url_with_what_is_left_out_meets_the_key_that_the_filter_makes() {
        let rule = r#"{"policy": {"key": {"query_ignore": ["utm_*"], "sort_query": true, "host": "shop.example"}}}"#;
        let config = format!(r#"{{"rules": [{rule}]}}"#);
        let orders = told(&["--url", "http://x/p?utm_source=x&b=1&a=2"], &config);
        let now = larder_contract::http_time::Timestamp::from_millis(1);
        let dropped: Vec<Scope> = orders
            .into_iter()
            .flat_map(|order| order.purges(now).unwrap())
            .map(|purge| purge.scope)
            .collect();
        let config = Config::parse(config.as_bytes()).unwrap();
        let request = Request::new("GET", "X:80", "/p?b=1&utm_medium=y&a=2");
        let policy = config.policy_for(&request).unwrap();
        let rules = policy.key.as_ref().unwrap();
        let named = rules.name(request.scheme(), request.authority(), request.path());
        let key = named.key(&config.namespace).digest();
        assert!(dropped.contains(&Scope::Key(key)), "{dropped:?}");
    }

    #[test]
    fn a_prefix_is_purged_under_every_host_and_scheme_that_the_rules_give_it() {
        let config = r#"{"rules": [{"match": {"host": "*.a"}, "policy": {"key": {"host": "a"}}},
            {"policy": {"key": {"ignore_scheme": true}}}]}"#;
        let prefixes = |prefix| {
            let told = told(&["--prefix", prefix], config);
            told.into_iter()
                .filter_map(|order| order.prefix)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            prefixes("http://x.a/i/"),
            ["http://x.a/i/", "http://a/i/", "https://x.a/i/"]
        );
        assert_eq!(prefixes("http://x."), ["http://x."], "no whole host");
        let everything = told(&["--everything"], config);
        assert!(everything.len() == 1 && everything[0].everything);
    }
}
