use proptest::prelude::*;

use super::*;
use crate::http_time::Timestamp;
use crate::key::KeyDigest;
use crate::purge::{Purge, Scope};
use crate::selectors::SelectorToken;
use crate::store_api::{
    Events, Fence, Holder, Invalidate, LeaseTerms, LookUp, LookUpAnswer, Release,
};

fn questions() -> Vec<Question<'static>> {
    let key = KeyDigest([7; 32]);
    let fence = Fence("0a1f".to_owned());
    let plain = LookUp {
        key,
        presented: [("accept".to_owned(), SelectorToken([0xab; 16]))]
            .into_iter()
            .collect(),
        now_ms: Timestamp::default(),
        lease: None,
    };
    let lease = LeaseTerms {
        holder: Holder(u64::MAX),
        lease_ms: 30_000,
        wait_ms: 3_000,
    };
    let invalidate = |digests: Vec<KeyDigest>, everything| {
        Question::Invalidate(Invalidate {
            digests,
            everything,
            now_ms: Timestamp::from_millis(9),
        })
    };
    let follow = |after: Option<&str>| Question::Follow {
        after: after.map(str::to_owned),
        wait_ms: 1_250,
    };
    vec![
        Question::LookUp(plain.clone()),
        Question::LookUp(LookUp {
            lease: Some(lease),
            ..plain
        }),
        Question::Write {
            key,
            fence: Some(fence.clone()),
            entry: b"entry",
        },
        Question::Write {
            key,
            fence: None,
            entry: b"",
        },
        Question::Release(Release {
            key,
            fence,
            uncacheable_ms: 10_000,
        }),
        invalidate(vec![key, KeyDigest([8; 32])], false),
        invalidate(Vec::new(), true),
        follow(None),
        follow(Some("")),
        follow(Some("12-1")),
    ]
}

fn said() -> Vec<Said> {
    let fence = Fence("0a1f".to_owned());
    let found = [
        LookUpAnswer::Entry(b"entry".to_vec()),
        LookUpAnswer::Lease {
            fence: fence.clone(),
            stale: None,
        },
        LookUpAnswer::Lease {
            fence,
            stale: Some(b"stale".to_vec()),
        },
        LookUpAnswer::Held { stale: None },
        LookUpAnswer::Held {
            stale: Some(b"stale".to_vec()),
        },
        LookUpAnswer::Nothing { uncacheable: true },
        LookUpAnswer::Nothing { uncacheable: false },
    ];
    let events = Events {
        cursor: "12-1".to_owned(),
        reset: false,
        events: vec![Purge {
            scope: Scope::Tag("t".to_owned()),
            soft: true,
            at_ms: Timestamp::from_millis(5),
        }],
    };
    let answers = found
        .map(|found| Answer::LookUp { found, ahead: -7 })
        .into_iter()
        .chain([
            Answer::Done { status: 409 },
            Answer::Purges {
                events,
                unheard_ms: 300,
            },
        ])
        .map(|answer| Said::Answer { number: 3, answer });
    [
        Said::Welcome { version: VERSION },
        Said::OtherVersion { version: 9 },
        Said::Taken(1 << 40),
    ]
    .into_iter()
    .chain(answers)
    .collect()
}

fn asked() -> Vec<Asked<'static>> {
    let hello = Asked::Hello {
        version: VERSION,
        envoy: 0xa1,
    };
    let question = |question| Asked::Question {
        number: 7,
        sent: Timestamp::from_millis(1_700_000_000_000),
        question,
    };
    std::iter::once(hello)
        .chain(questions().into_iter().map(question))
        .collect()
}

fn frame_of(asked: &Asked<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    asked.write(&mut frame);
    frame
}

#[test]
fn everything_that_is_asked_survives_its_frame() {
    for asked in asked() {
        assert_eq!(Asked::read(&frame_of(&asked)).as_ref(), Ok(&asked));
    }
}

#[test]
fn everything_that_is_said_survives_its_frame() {
    for said in said() {
        let mut frame = Vec::new();
        said.write(&mut frame);
        assert_eq!(Said::read(&frame), Ok(said));
    }
}

#[test]
fn a_frame_that_is_cut_off_is_none_or_another_and_never_the_same() {
    for asked in asked() {
        let frame = frame_of(&asked);
        for length in 0..frame.len() {
            assert_ne!(Asked::read(&frame[..length]), Ok(asked.clone()));
        }
    }
}

#[test]
fn the_bytes_stay_as_the_head_of_this_module_says() {
    let look_up = frame_of(&asked()[2]);
    assert_eq!(
        look_up[..13],
        [2, 0, 0, 0, 7, 0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0]
    );
    assert_eq!(look_up[13..45], [7; 32]);
    assert_eq!(look_up[45], 1, "a lease is asked for");
    assert_eq!(look_up[46..54], [0xff; 8]);
    assert_eq!(look_up[54..62], [0, 0, 0x75, 0x30, 0, 0, 0x0b, 0xb8]);
    assert_eq!(look_up[62..72], *b"\0\x01\0\x06accept");
    assert_eq!(look_up[72..], [0xab; 16]);
    assert_eq!(PATH, format!("/{SERVICE}/{METHOD}"));
}

#[test]
fn a_hello_of_any_version_is_understood_as_far_as_the_version() {
    let mut later = vec![1, 9];
    later.extend_from_slice(b"whatever comes then");
    assert_eq!(
        Asked::read(&later),
        Ok(Asked::Hello {
            version: 9,
            envoy: 0
        })
    );
    assert_eq!(
        Said::read(&[0x82, 9, 1, 2, 3]),
        Ok(Said::OtherVersion { version: 9 })
    );
}

#[test]
fn what_is_no_frame_is_told_apart() {
    for (bytes, fault) in [
        (&b""[..], FrameFault::Short),
        (b"\x01", FrameFault::Short),
        (b"\x77\0\0\0\x01\0\0\0\0\0\0\0\0", FrameFault::Unknown),
        (b"\x01\x01\0\0\0\0\0\0\0\0\0", FrameFault::Long),
    ] {
        assert_eq!(Asked::read(bytes), Err(fault), "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn whatever_is_read_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in 1_u8..8) {
        let frame: Vec<u8> = std::iter::once(kind).chain(bytes.iter().copied()).collect();
        if let Ok(asked) = Asked::read(&frame) {
            let again = frame_of(&asked);
            prop_assert_eq!(Asked::read(&again), Ok(asked));
        }
        let frame: Vec<u8> = std::iter::once(0x80 | kind).chain(bytes).collect();
        if let Ok(said) = Said::read(&frame) {
            let mut again = Vec::new();
            said.write(&mut again);
            prop_assert_eq!(Said::read(&again), Ok(said));
        }
    }
}
