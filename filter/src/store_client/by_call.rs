//! A question to the sidecar as an HTTP call: where there is no store stream, and for what is too
//! large for one.

use std::borrow::Cow;

use larder_cache_core::fields::Fields;
use larder_contract::store_api::{
    AHEAD_FIELD, AnswerParts, CLOCK_FIELD, ClockReading, ENTRIES_PATH, EventsSince, FENCE_FIELD,
    Fence, INVALIDATE_PATH, LOOK_UP_PATH, LookUpAnswer, RELEASE_PATH, UNCACHEABLE_FIELD,
    UNHEARD_FIELD, name_of,
};
use larder_contract::store_stream::{Answer, Question};
use serde::Serialize;

use super::reading::{Answered, NoAnswer};
use crate::calls::{Call, CallAnswer, Purpose};
use crate::config::Config;

/// The head and the content of the request that asks this.
pub(super) fn request<'a>(
    question: &Question<'a>,
    reading: ClockReading,
    config: &Config,
) -> (Fields, Cow<'a, [u8]>) {
    match question {
        Question::LookUp(look_up) => (head(("POST", LOOK_UP_PATH), reading, config), json(look_up)),
        Question::Write { key, fence, entry } => {
            let path = format!("{ENTRIES_PATH}{key}");
            let mut head = head(("PUT", &path), reading, config);
            if let Some(fence) = fence {
                head.append(FENCE_FIELD.as_bytes(), fence.0.as_bytes());
            }
            (head, Cow::Borrowed(entry))
        }
        Question::Release(release) => {
            (head(("POST", RELEASE_PATH), reading, config), json(release))
        }
        Question::Invalidate(invalidate) => (
            head(("POST", INVALIDATE_PATH), reading, config),
            json(invalidate),
        ),
        Question::Follow { after, wait_ms } => {
            let asked = EventsSince {
                after: after.clone(),
                wait_ms: *wait_ms,
                envoy: name_of(reading.envoy),
            };
            (
                head(("GET", &asked.path()), reading, config),
                Cow::Borrowed(&[]),
            )
        }
    }
}

/// The head of a call, which says what time it is here.
fn head((method, path): (&str, &str), reading: ClockReading, config: &Config) -> Fields {
    let content_type = if method == "PUT" {
        "application/octet-stream"
    } else {
        "application/json"
    };
    let mut head = Fields::from_pairs([
        (":method", method),
        (":scheme", "http"),
        (":authority", "larder-sidecar"),
        (":path", path),
        ("content-type", content_type),
    ]);
    head.append(CLOCK_FIELD.as_bytes(), reading.to_string().as_bytes());
    if let Some(token) = &config.store_token {
        head.append(b"authorization", token.authorization().as_bytes());
    }
    head
}

fn json<'a>(message: &impl Serialize) -> Cow<'a, [u8]> {
    Cow::Owned(serde_json::to_vec(message).unwrap_or_default())
}

/// What the answer to a call says.
pub(super) fn read(call: &Call, answer: CallAnswer) -> Answered {
    if !answer.from_upstream {
        let slow = answer.status == 504;
        return Err(if slow {
            NoAnswer::Timeout
        } else {
            NoAnswer::Lost
        });
    }
    let status = answer.status;
    let read = match call.purpose {
        Purpose::LookUp(_) | Purpose::RefreshLookUp(_) => look_up_answer(answer),
        Purpose::Follow if status == 200 => Some(purges(&answer)?),
        _ => None,
    };
    Ok(read.unwrap_or(Answer::Done { status }))
}

fn look_up_answer(answer: CallAnswer) -> Option<Answer> {
    let CallAnswer {
        status,
        fields,
        body,
        ..
    } = answer;
    let parts = AnswerParts {
        status,
        fence: fields.get(FENCE_FIELD).and_then(Fence::parse),
        uncacheable: fields.get(UNCACHEABLE_FIELD) == Some(b"1"),
        body: body.unwrap_or_default(),
    };
    let ahead = number(&fields, AHEAD_FIELD).unwrap_or(0);
    LookUpAnswer::from_parts(parts).map(|found| Answer::LookUp { found, ahead })
}

fn purges(answer: &CallAnswer) -> Result<Answer, NoAnswer> {
    let body = answer.body.as_ref().map_err(|_| NoAnswer::Lost)?;
    let events =
        serde_json::from_slice(body).map_err(|error| NoAnswer::NotUnderstood(error.to_string()))?;
    let unheard_ms = match answer.fields.contains(UNHEARD_FIELD) {
        true => number(&answer.fields, UNHEARD_FIELD).ok_or(NoAnswer::Lost)?,
        false => 0,
    };
    Ok(Answer::Purges { events, unheard_ms })
}

fn number<N: std::str::FromStr>(fields: &Fields, name: &str) -> Option<N> {
    std::str::from_utf8(fields.get(name)?).ok()?.parse().ok()
}
