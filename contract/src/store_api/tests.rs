use super::*;

#[test]
fn every_look_up_answer_survives_its_message() {
    let fence = Fence("0a1".into());
    for answer in [
        LookUpAnswer::Entry(vec![1]),
        LookUpAnswer::Lease {
            fence: fence.clone(),
            stale: None,
        },
        LookUpAnswer::Lease {
            fence,
            stale: Some(vec![2]),
        },
        LookUpAnswer::Held { stale: None },
        LookUpAnswer::Held {
            stale: Some(vec![3]),
        },
        LookUpAnswer::Nothing { uncacheable: true },
        LookUpAnswer::Nothing { uncacheable: false },
    ] {
        assert_eq!(
            LookUpAnswer::from_parts(answer.clone().into_parts()),
            Some(answer)
        );
    }
}

#[test]
fn a_message_that_is_no_answer_is_a_fault() {
    let parts = |status, body: &[u8]| AnswerParts {
        status,
        fence: None,
        uncacheable: false,
        body: body.to_vec(),
    };
    for message in [
        parts(200, b""),
        parts(201, b"entry"),
        parts(500, b""),
        parts(503, b"x"),
        parts(404, b""),
    ] {
        assert_eq!(LookUpAnswer::from_parts(message), None);
    }
}

#[test]
fn terms_out_of_range_are_a_mistake() {
    let terms = |lease_ms, wait_ms| LeaseTerms {
        holder: Holder(1),
        lease_ms,
        wait_ms,
    };
    assert_eq!(terms(600_000, 30_000).mistake(), None);
    for wrong in [terms(0, 0), terms(600_001, 0), terms(1, 30_001)] {
        assert_eq!(
            wrong.mistake().unwrap(),
            "lease_ms is 1 to 600000, wait_ms at most 30000"
        );
    }
}

#[test]
fn a_question_for_events_is_a_query() {
    let first = EventsSince {
        envoy: "0a".into(),
        wait_ms: 5,
        ..EventsSince::default()
    };
    assert_eq!(first.path(), "/v1/events?envoy=0a");
    let next = EventsSince {
        after: Some("1-2".into()),
        ..first
    };
    assert_eq!(next.path(), "/v1/events?envoy=0a&wait_ms=5&after=1-2");
    assert!(
        EventsSince {
            envoy: "a&b".into(),
            ..next
        }
        .mistake()
        .is_some()
    );
}

#[test]
fn a_clock_reading_survives_its_field() {
    let reading = ClockReading {
        envoy: 161,
        now: Timestamp::from_millis(1_700_000_000_000),
    };
    assert_eq!(reading.to_string(), "00000000000000a1:1700000000000");
    assert_eq!(
        ClockReading::parse(reading.to_string().as_bytes()),
        Some(reading)
    );
    for bad in [
        "",
        "a1:1",
        "00000000000000a1",
        "00000000000000a1:",
        "00000000000000a1:-1",
        "00000000000000g1:1",
    ] {
        assert_eq!(ClockReading::parse(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn a_fence_is_hex_and_short() {
    assert!(Fence::parse(b"00ff").is_some());
    for bad in ["", "x", "0\r\n", &"0".repeat(33)] {
        assert!(Fence::parse(bad.as_bytes()).is_none(), "{bad:?}");
    }
}
