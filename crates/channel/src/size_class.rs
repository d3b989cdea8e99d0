//! Size classes: what is sealed is padded first, so that its length tells only a class (RFC 9750, section 8.2.1).
//!
//! Padding is `0x80` and then zeros, so that it can be taken off without a length.

/// Smallest class, in bytes.
const SMALLEST: usize = 256;

/// Above this, classes lie closer than powers of two (see [`blob_class`]).
const LARGE: usize = 64 * 1024;

/// Bytes that cannot have been padded by [`pad`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the padding is wrong")]
pub struct WrongPadding;

/// The class of `len` bytes: the next power of two, at least 256, up to 64 KiB; beyond, [`blob_class`].
#[must_use]
pub fn class(len: usize) -> usize {
    if len > LARGE { blob_class(len) } else { len.max(SMALLEST).next_power_of_two() }
}

/// The class of `len` bytes of something large: at most 1/8 is added, and lengths fall into eight classes an octave.
#[must_use]
pub fn blob_class(len: usize) -> usize {
    if len <= SMALLEST {
        return SMALLEST;
    }
    let octave = usize::BITS - 1 - len.leading_zeros();
    let step = 1_usize << octave.saturating_sub(3);
    len.checked_next_multiple_of(step).unwrap_or(len)
}

/// Pads so that the padded bytes and `overhead` more (of the sealing) fill a class.
#[must_use]
pub fn pad(mut bytes: Vec<u8>, overhead: usize) -> Vec<u8> {
    let target = class(bytes.len().saturating_add(1).saturating_add(overhead));
    bytes.push(0x80);
    bytes.resize(target.saturating_sub(overhead).max(bytes.len()), 0);
    bytes
}

/// The same with [`blob_class`].
#[must_use]
pub fn pad_blob(mut bytes: Vec<u8>, overhead: usize) -> Vec<u8> {
    let target = blob_class(bytes.len().saturating_add(1).saturating_add(overhead));
    bytes.push(0x80);
    bytes.resize(target.saturating_sub(overhead).max(bytes.len()), 0);
    bytes
}

/// Ends with the mark of padding, and no padding: for what is padded with something else.
#[must_use]
pub fn mark(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.push(0x80);
    bytes
}

/// Takes the padding off.
///
/// # Errors
/// [`WrongPadding`] if there is none.
pub fn unpad(mut bytes: Vec<u8>) -> Result<Vec<u8>, WrongPadding> {
    let end = bytes.iter().rposition(|byte| *byte != 0).ok_or(WrongPadding)?;
    if bytes.get(end) != Some(&0x80) {
        return Err(WrongPadding);
    }
    bytes.truncate(end);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn padding_comes_off_and_fills_a_class(bytes in prop::collection::vec(any::<u8>(), 0..5000), overhead in 0..64usize) {
            let padded = pad(bytes.clone(), overhead);
            prop_assert_eq!(class(padded.len() + overhead), padded.len() + overhead);
            prop_assert_eq!(unpad(padded).unwrap(), bytes);
        }

        #[test]
        fn classes_are_few_and_cost_little(len in 0..100_000_000usize) {
            let class = class(len);
            prop_assert!(class >= len);
            prop_assert!(len < LARGE || class <= len + len / 8);
            prop_assert!(len < SMALLEST || class <= 2 * len);
        }
    }

    #[test]
    fn what_was_never_padded_is_refused() {
        for bytes in [vec![], vec![0; 10], vec![1], vec![0x80, 1, 0]] {
            assert_eq!(unpad(bytes), Err(WrongPadding));
        }
    }
}
