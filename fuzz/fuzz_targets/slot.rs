//! What other workers left in shared data and in our inbox.
#![no_main]

use larder_cache_core::collapse::message::Message;
use larder_cache_core::collapse::{self, CollapseKey, Finish, Identity, Terms};
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_cache_core::vary::SelectingFields;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(message) = Message::decode(data) {
        assert_eq!(Message::decode(&message.encode()), Some(message));
    }
    let key = CollapseKey::new(&KeyDigest([7; 32]), &SelectingFields::default());
    let terms = Terms { accept_handed_over: true, ..Terms::until(Timestamp::from_millis(9)) };
    let me = Identity { vm: 1, stream: 1 };
    let _ = collapse::arrive(Some(data), &key, me, 1, Timestamp::from_millis(1), terms);
    let _ = collapse::finish(Some(data), &key, me, Finish::Free, Timestamp::from_millis(2));
});
