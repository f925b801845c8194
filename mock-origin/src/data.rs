//! `/data`, the resource the demo caches, and `/anything`, which answers every method.

use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::behaviour::Behaviour;
use crate::control::bad_request;
use crate::journal::Arrived;
use crate::{Origin, range, rfc3339};

const MAX_REQUEST_BODY: usize = 16 << 20;

pub(crate) async fn data(State(origin): State<Origin>, request: Request) -> Response {
    let (parts, content) = match read(&origin, request).await {
        Ok(read) => read,
        Err(response) => return response,
    };
    let behaviour = match behaviour_for(&origin, parts.uri.path(), parts.uri.query()) {
        Ok(behaviour) => behaviour,
        Err(problem) => return bad_request(&problem),
    };
    let response = match parts.method {
        Method::GET | Method::HEAD => {
            show(&origin, &parts.headers, parts.uri.query(), behaviour).await
        }
        Method::PUT => change(&origin, &content),
        _ => (
            StatusCode::METHOD_NOT_ALLOWED,
            [(header::ALLOW, "GET, HEAD, PUT")],
        )
            .into_response(),
    };
    named(&origin, response)
}

pub(crate) async fn anything(State(origin): State<Origin>, request: Request) -> Response {
    let (parts, content) = match read(&origin, request).await {
        Ok(read) => read,
        Err(response) => return response,
    };
    let behaviour = match behaviour_for(&origin, parts.uri.path(), parts.uri.query()) {
        Ok(behaviour) => behaviour,
        Err(problem) => return bad_request(&problem),
    };
    let target = parts.uri.path_and_query().map(ToString::to_string);
    let plain =
        json!({ "method": parts.method.as_str(), "target": target, "body_bytes": content.len() });
    let response = answer(&behaviour, &parts.headers, plain, HeaderMap::new()).await;
    named(&origin, response)
}

/// Reads the request whole and notes it down.
async fn read(
    origin: &Origin,
    request: Request,
) -> Result<(axum::http::request::Parts, Bytes), Response> {
    let (parts, body) = request.into_parts();
    let Ok(content) = axum::body::to_bytes(body, MAX_REQUEST_BODY).await else {
        return Err(bad_request("the content is over 16 MiB or broke off"));
    };
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    origin.state().journal.note(Arrived {
        n: 0,
        at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        method: parts.method.to_string(),
        target: parts
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body_bytes: content.len(),
    });
    Ok((parts, content))
}

/// What was queued for the path, first in first out; else what the query asks for.
fn behaviour_for(origin: &Origin, path: &str, query: Option<&str>) -> Result<Behaviour, String> {
    let asked = Behaviour::from_query(query.unwrap_or_default())?;
    let mut state = origin.state();
    let Some(queue) = state.queued.get_mut(path) else {
        return Ok(asked);
    };
    let Some(first) = queue.first_mut() else {
        return Ok(asked);
    };
    let behaviour = first.behaviour.clone();
    if let Some(times) = &mut first.times {
        *times = times.saturating_sub(1);
        if *times == 0 {
            queue.remove(0);
        }
    }
    Ok(behaviour)
}

async fn show(
    origin: &Origin,
    headers: &HeaderMap,
    query: Option<&str>,
    behaviour: Behaviour,
) -> Response {
    let updated_at = origin.state().updated_at.clone();
    let etag = etag_of(&updated_at);
    let mut fields = HeaderMap::new();
    fields.insert(
        header::ETAG,
        HeaderValue::try_from(&etag).unwrap_or(HeaderValue::from_static("\"\"")),
    );
    if names_tag(headers, &etag) && behaviour.status.is_none() {
        return not_modified(&behaviour, headers, fields).await;
    }
    let id = query
        .unwrap_or_default()
        .split('&')
        .find_map(|pair| pair.strip_prefix("id="))
        .unwrap_or("1");
    let plain =
        json!({ "id": id, "updated_at": updated_at, "body": format!("This is item {id}.") });
    answer(&behaviour, headers, plain, fields).await
}

fn change(origin: &Origin, content: &[u8]) -> Response {
    let wanted: Option<Value> = if content.is_empty() {
        None
    } else {
        serde_json::from_slice(content).ok()
    };
    let given = wanted.and_then(|json| {
        json.get("updated_at")
            .and_then(Value::as_str)
            .map(str::to_owned)
    });
    let mut state = origin.state();
    let mut time = SystemTime::now();
    let mut updated_at = given.unwrap_or_else(|| rfc3339(time));
    while updated_at == state.updated_at {
        time += Duration::from_millis(1);
        updated_at = rfc3339(time);
    }
    state.updated_at.clone_from(&updated_at);
    let etag = etag_of(&updated_at);
    let json = json!({ "updated_at": updated_at, "etag": etag });
    (
        [
            (header::CACHE_CONTROL, "no-store"),
            (header::ETAG, etag.as_str()),
        ],
        axum::Json(json),
    )
        .into_response()
}

/// Whether `If-None-Match` holds the tag, by weak comparison (RFC 9110 §13.1.2).
fn names_tag(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        let list = String::from_utf8_lossy(value.as_bytes()).into_owned();
        list.split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || opaque(tag) == opaque(etag))
    })
}

async fn not_modified(behaviour: &Behaviour, headers: &HeaderMap, fields: HeaderMap) -> Response {
    tokio::time::sleep(Duration::from_millis(behaviour.delay_ms)).await;
    let mut response = (StatusCode::NOT_MODIFIED, fields).into_response();
    add(&mut response, behaviour, headers);
    response
}

fn etag_of(updated_at: &str) -> String {
    format!("\"{}\"", hex::encode(Sha256::digest(updated_at)))
}

/// The plain content as JSON, or whatever the behaviour makes of it.
async fn answer(
    behaviour: &Behaviour,
    headers: &HeaderMap,
    plain: Value,
    fields: HeaderMap,
) -> Response {
    let own_tag = behaviour
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("etag"));
    if behaviour.conditional && own_tag.is_some_and(|(_, etag)| names_tag(headers, etag)) {
        return not_modified(behaviour, headers, fields).await;
    }
    tokio::time::sleep(Duration::from_millis(behaviour.delay_ms)).await;
    if behaviour.reset {
        // The connection's task ends with this, and its socket with it. No panic hook runs.
        std::panic::resume_unwind(Box::new("closed in place of an answer, as asked"));
    }
    let content = content(behaviour, headers, plain);
    let (content, part) = match behaviour
        .ranges
        .then(|| range::part_of(behaviour, headers, &content))
        .flatten()
    {
        Some((part, content_range)) => (part, Some(content_range)),
        None => (content, None),
    };
    // RFC 9110 §8.6: a 204 has no content and no length.
    let empty = behaviour.status == Some(204);
    let content = if empty { Vec::new() } else { content };
    let length = content.len();
    let declared = !behaviour.chunked && !behaviour.endless && !empty;
    let mut response = Response::new(body(behaviour, content));
    *response.headers_mut() = fields;
    describe(&mut response, behaviour, declared.then_some(length));
    let code = behaviour
        .status
        .and_then(|status| StatusCode::from_u16(status).ok());
    *response.status_mut() = code.unwrap_or(StatusCode::OK);
    if let Some(content_range) = part.and_then(|value| HeaderValue::try_from(value).ok()) {
        let satisfied = length > 0;
        *response.status_mut() = if satisfied {
            StatusCode::PARTIAL_CONTENT
        } else {
            StatusCode::RANGE_NOT_SATISFIABLE
        };
        response
            .headers_mut()
            .insert(header::CONTENT_RANGE, content_range);
    }
    add(&mut response, behaviour, headers);
    response
}

/// The content's type and, if it is declared, its length.
fn describe(response: &mut Response, behaviour: &Behaviour, declared: Option<usize>) {
    let own_type = behaviour
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if !behaviour.untyped && !own_type {
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
    }
    if let Some(length) = declared {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
    }
}

/// All of the content, with those of the request's fields that are to be seen in it.
fn content(behaviour: &Behaviour, headers: &HeaderMap, mut plain: Value) -> Vec<u8> {
    if let Some(size) = behaviour.body_size {
        return (0..size)
            .map(|n| b'a' + u8::try_from(n % 26).unwrap_or(0))
            .collect();
    }
    if let Some(members) = plain.as_object_mut() {
        let names = behaviour
            .vary
            .iter()
            .chain(&behaviour.reflect)
            .flat_map(|names| names.split(','));
        for name in names.map(str::trim).filter(|name| *name != "*") {
            let value = headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            members.insert(format!("request-{name}"), json!(value));
        }
    }
    format!("{plain}\n").into_bytes()
}

fn add(response: &mut Response, behaviour: &Behaviour, request: &HeaderMap) {
    for (to, from) in &behaviour.echo {
        if let (Ok(name), Some(value)) = (
            HeaderName::try_from(to.as_str()),
            request.get(from.as_str()),
        ) {
            response.headers_mut().append(name, value.clone());
        }
    }
    let pairs = behaviour
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in pairs.chain(behaviour.vary.as_deref().map(|vary| ("vary", vary))) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            // There is one type only.
            if name == header::CONTENT_TYPE {
                response.headers_mut().insert(name, value);
            } else {
                response.headers_mut().append(name, value);
            }
        }
    }
}

/// The content in pieces, and broken off half-way where asked: an error in the stream makes hyper
/// reset the connection.
fn body(behaviour: &Behaviour, content: Vec<u8>) -> Body {
    if behaviour.endless {
        return endless(behaviour, content);
    }
    if behaviour.stall {
        let half = Bytes::copy_from_slice(content.get(..content.len() / 2).unwrap_or_default());
        let first = stream::iter([Ok::<_, std::io::Error>(half)]);
        return Body::from_stream(first.chain(stream::pending()));
    }
    let plain = behaviour.pieces.is_none() && !behaviour.broken && !behaviour.chunked;
    if plain {
        return Body::from(content);
    }
    let sent = if behaviour.broken {
        content.len() / 2
    } else {
        content.len()
    };
    let size = sent.div_ceil(behaviour.pieces.unwrap_or(1)).max(1);
    let mut pieces: Vec<Result<Bytes, std::io::Error>> = content[..sent]
        .chunks(size)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    if behaviour.broken {
        pieces.push(Err(std::io::Error::other("broken off as asked")));
    }
    let delay = Duration::from_millis(behaviour.piece_delay_ms);
    let paced = stream::unfold(
        (pieces.into_iter(), true),
        move |(mut pieces, first)| async move {
            let piece = pieces.next()?;
            // A broken body needs its first half on the wire before the reset.
            let pause = if piece.is_err() {
                Duration::from_millis(20).max(delay)
            } else if first {
                Duration::ZERO
            } else {
                delay
            };
            tokio::time::sleep(pause).await;
            Some((piece, (pieces, false)))
        },
    );
    Body::from_stream(paced)
}

/// The content again and again, `piece_delay_ms` apart.
fn endless(behaviour: &Behaviour, content: Vec<u8>) -> Body {
    let delay = Duration::from_millis(behaviour.piece_delay_ms);
    let content = Bytes::from(content);
    Body::from_stream(stream::unfold(content, move |content| async move {
        tokio::time::sleep(delay).await;
        Some((Ok::<_, std::io::Error>(content.clone()), content))
    }))
}

fn named(origin: &Origin, mut response: Response) -> Response {
    if let Ok(name) = HeaderValue::try_from(origin.name()) {
        response.headers_mut().insert("x-origin", name);
    }
    response
}
