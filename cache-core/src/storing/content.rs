//! Content that comes in piece by piece, brought together with as few copies as its declared length
//! allows.

use std::sync::Arc;

/// Room is made beforehand for up to so many declared bytes: more has to be sent before it takes
/// memory.
const MAX_ROOM: u64 = 256 << 10;

/// All pieces so far.
#[derive(Debug)]
pub(super) enum Content {
    /// The length was declared: each piece goes where it will stay.
    Declared { room: Arc<[u8]>, filled: usize },
    /// It was not, or too large, or wrong: it grows.
    Growing(Vec<u8>),
}

impl Content {
    /// Nothing yet, of so many bytes if that is known.
    pub(super) fn new(declared: Option<u64>) -> Self {
        match declared
            .filter(|length| *length <= MAX_ROOM)
            .and_then(|length| usize::try_from(length).ok())
        {
            Some(length) => Self::Declared {
                room: std::iter::repeat_n(0, length).collect(),
                filled: 0,
            },
            None => Self::Growing(Vec::new()),
        }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Declared { filled, .. } => *filled,
            Self::Growing(bytes) => bytes.len(),
        }
    }

    /// Takes one piece in.
    pub(super) fn push(&mut self, piece: &[u8]) {
        if let Self::Declared { room, filled } = self {
            let end = *filled + piece.len();
            // Nobody else has it yet, so there is one place only.
            if let Some(place) = Arc::get_mut(room).and_then(|room| room.get_mut(*filled..end)) {
                place.copy_from_slice(piece);
                *filled = end;
                return;
            }
            *self = Self::Growing(room.get(..*filled).unwrap_or_default().to_vec());
        }
        if let Self::Growing(bytes) = self {
            bytes.extend_from_slice(piece);
        }
    }

    /// All of it.
    pub(super) fn into_bytes(self) -> Arc<[u8]> {
        match self {
            Self::Declared { room, filled } if filled == room.len() => room,
            Self::Declared { room, filled } => Arc::from(room.get(..filled).unwrap_or_default()),
            Self::Growing(bytes) => Arc::from(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_was_declared_the_pieces_come_out_in_their_order(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..6),
            declared in proptest::option::of(0u64..120),
            true_length: bool,
        ) {
            let all = pieces.concat();
            let declared = if true_length { Some(all.len() as u64) } else { declared };
            let mut content = Content::new(declared);
            for piece in &pieces {
                content.push(piece);
            }
            prop_assert_eq!(content.len(), all.len());
            prop_assert_eq!(&*content.into_bytes(), &*all);
        }
    }

    #[test]
    fn no_room_is_made_for_more_than_is_likely_to_come() {
        assert!(
            matches!(Content::new(Some(u64::MAX)), Content::Growing(bytes) if bytes.capacity() == 0)
        );
        assert!(matches!(
            Content::new(Some(MAX_ROOM)),
            Content::Declared { .. }
        ));
    }
}
